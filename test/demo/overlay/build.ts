/** What is built: daemons that share a Redis, a network over their hosts, a container on each, a service in front of all. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { busyboxArchive } from '../../../src/lab/busybox.ts';
import { REDIS } from '../../../src/lab/fault.ts';
import { type LabRedis, sharedStore } from '../../../src/lab/redis.ts';
import { startServer } from '../../../src/load/load.ts';
import { type Actor, together } from '../actor.ts';
import { type Stage, seconds } from '../stage.ts';
import { until } from '../watch.ts';
import {
  backendsOf,
  type Cluster,
  createMember,
  isFrom,
  type Member,
  page,
  resolves,
  stateOf,
  TAG_PORT,
} from './cluster.ts';

const REQUESTS = 60;
const START_MS_MAX = 30_000;
const ARCHIVE = 'busybox.tar';

export async function build(stage: Stage, redis: LabRedis, actors: readonly Actor[]): Promise<Cluster> {
  await stage.step('Three hosts, a Redis, three daemons that share it', () => startDaemons(stage, redis, actors));
  await stage.step('One overlay network, made on one host', () => makeNetwork(stage, actors));
  const members = await stage.step('A container on each host', () => runContainers(stage, actors));
  const vip = await stage.step('One service, balanced over the hosts', async () => {
    const address = await makeService(stage, members);
    await ask(stage, members);
    return address;
  });
  for (const member of members)
    await startServer(await member.placeOf(member.container), { ports: [TAG_PORT], tag: member.tag });
  return { redis, members, vip };
}

async function startDaemons(stage: Stage, redis: LabRedis, actors: readonly Actor[]): Promise<void> {
  await redis.start();
  stage.typed(`redis-server --bind ${REDIS.address} --appendonly yes &`, '');
  const start = async ({ host }: Actor): Promise<number> =>
    (await host.daemon.start({ settings: sharedStore(host), readyTimeoutMs: START_MS_MAX })).readyMs;
  const [founder, ...others] = actors;
  // The first founds the cluster.
  const times = [await start(founder!), ...(await Promise.all(others.map(start)))];
  for (const { host } of actors)
    stage.typed(`sluiced --store redis://${REDIS.address} --advertise ${host.address} &`, '', `${host.name} `);
  stage.note(`the daemons were ready after ${times.map(seconds).join(', ')}`);
  await until('every daemon knows the others', async () => {
    const states = actors.flatMap((actor) => actors.map(({ host }) => stateOf(actor, host.name)));
    return (await Promise.all(states)).every((state) => state === 'ready');
  });
  await founder!.sluice('node', 'ls');
  stage.promise(true, `each of the ${actors.length} daemons knows all of them, and that they are ready`);
}

async function makeNetwork(stage: Stage, [first, ...others]: readonly Actor[]): Promise<void> {
  await first!.sluice('network', 'create', '--driver', 'overlay', 'mesh');
  const made = performance.now();
  for (const { host } of others)
    await until(`${host.name} has it`, async () =>
      (await host.client.networks.list()).some(({ name, status }) => name === 'mesh' && status?.state === 'ready'),
    );
  const after = performance.now() - made;
  await others.at(-1)!.sluice('network', 'ls');
  stage.promise(true, `it was on the other two ${seconds(after)} after the command had returned`);
}

async function runContainers(stage: Stage, actors: readonly Actor[]): Promise<Cluster['members']> {
  const archive = await busyboxArchive();
  for (const { host } of actors) writeFileSync(join(host.runDir, ARCHIVE), archive);
  await together(
    actors,
    () => ['load', '-i', ARCHIVE],
    (index) => ({ cwd: actors[index]!.host.runDir }),
  );
  await together(actors, (index) => {
    const [name, host] = [`web${index + 1}`, actors[index]!.host.name];
    const serve = `echo ${name} on ${host} >/home/index.html; exec httpd -f -h /home`;
    return ['run', '-d', '--name', name, '--network', 'mesh', '--init', 'busybox', 'sh', '-c', serve];
  });
  const members = await Promise.all(
    actors.map(async (actor, index) => {
      const line = await actor.inside(`web${index + 1}`, "ip -4 -o addr show eth0 | awk '{print $4}'");
      return createMember(actor, index + 1, line.split('/')[0]!);
    }),
  );
  for (const from of members)
    for (const to of members) {
      await until(`${from.container} resolves ${to.container}`, () => resolves(from, to.container, to.address));
      await until(`${from.container} reaches ${to.container}`, async () => isFrom(to, await page(from, to.container)));
    }
  for (const from of members) {
    const all = members.map((to) => `wget -qO- http://${to.container}/`).join('; ');
    const answer = await from.sluice('exec', from.container, 'sh', '-c', all);
    const lines = answer.trim().split('\n');
    stage.promise(
      lines.length === members.length && members.every((to, index) => isFrom(to, lines[index]!)),
      `${from.container} reaches all three by their names`,
    );
  }
  return members as unknown as Cluster['members'];
}

/** Its address. Each host adds the container that it has. */
async function makeService(stage: Stage, actors: readonly Actor[]): Promise<string> {
  const [first, ...others] = actors;
  const ports = ['--port', 'http=80', '--port', `tag=${TAG_PORT}`];
  await first!.sluice('service', 'create', '--name', 'shop', '--network', 'mesh', ...ports, '--backend', 'web1');
  for (const [index, actor] of others.entries())
    await actor.sluice('service', 'update', 'shop', '--backend-add', `web${index + 2}`);
  for (const actor of actors)
    await until(
      `${actor.host.name} balances over all`,
      async () => (await backendsOf(actor, 'shop')) === actors.length,
    );
  await first!.sluice('service', 'ls');
  const { spec } = await first!.host.client.services.get('shop');
  stage.promise(spec.vips.length === 1, `${spec.vips[0]} is in front of the three, on each host`);
  return spec.vips[0]!;
}

/** Requests from every host at once. */
async function ask(stage: Stage, members: readonly Member[]): Promise<void> {
  const requests = `for i in $(seq ${REQUESTS}); do wget -qO- http://shop/ || echo failed; done | sort | uniq -c`;
  const answers = await together(members, (index) => ['exec', members[index]!.container, 'sh', '-c', requests]);
  for (const [index, { host }] of members.entries()) {
    const counts = [...answers[index]!.matchAll(/(\d+) (web\d|failed)/g)].map(
      ([, count, who]) => [who!, Number(count)] as const,
    );
    const answered = counts.filter(([who]) => who !== 'failed').map(([, count]) => count);
    const failed = counts.find(([who]) => who === 'failed')?.[1] ?? 0;
    const sum = answered.reduce((total, count) => total + count, 0);
    stage.promise(
      sum === REQUESTS && failed === 0 && answered.length === members.length,
      `from ${host.name}: ${answered.join(' + ')} = ${sum} answered, ${failed} failed`,
    );
  }
}
