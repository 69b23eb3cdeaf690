/** What befalls the store: one host does not reach it; it is away altogether. Neither withdraws anything. */
import { setTimeout as sleep } from 'node:timers/promises';
import { heal, partition } from '../../../src/lab/fault.ts';
import { type Stage, seconds } from '../stage.ts';
import { monotonicMs, told, until } from '../watch.ts';
import { backendsOf, type Cluster, isFrom, type Member, page, resolves, startLoads, stateOf } from './cluster.ts';

const STATE_MS_MAX = 15_000;
/** A write that cannot be done says so within this time, the command's own start included. */
const REFUSED_MS_MAX = 2_000;
/** From the start of Redis until what is written then is known and served everywhere. */
const CONVERGED_MS_MAX = 3_000;
const AWAY_MS = 2_500;

export async function cutFromRedis(stage: Stage, { members, vip }: Cluster): Promise<void> {
  const [first, cut, third] = members;
  const { name } = cut.host;
  await stage.step('A host does not reach Redis', async () => {
    const loads = await startLoads(members, vip);
    await partition(cut.host, 'redis');
    const cutAt = monotonicMs();
    stage.note(`${name} reaches the other hosts, but not Redis`);
    await until('it is unreachable', async () => (await stateOf(first, name)) === 'unreachable', STATE_MS_MAX);
    const judgedAt = monotonicMs();
    await first.sluice('node', 'ls');
    stage.promise(
      true,
      `after ${seconds(judgedAt - cutAt)} the others call it unreachable, not lost: its kernel answers them`,
    );
    await refused(stage, cut);
    await stillReached(stage, members);
    for (const { host } of members)
      stage.promise((await backendsOf({ host }, 'shop')) === members.length, `${host.name} withdrew no backend`);
    const before = monotonicMs();
    await sleep(300);
    await heal(cut.host);
    const healedAt = monotonicMs();
    for (const other of [first, third])
      await until('it is ready', async () => (await stateOf(other, name)) === 'ready', STATE_MS_MAX);
    stage.promise(true, `it reaches Redis again, and is ready ${seconds(monotonicMs() - healedAt)} later`);
    for (const [index, result] of (await loads.stop()).entries()) {
      const last = result.answers[cut.tag]?.lastMs ?? 0;
      stage.promise(
        result.failed === 0 && last > before,
        `${members[index]!.host.name}: ${result.completed} connections meanwhile, ${told(result)} failed`,
      );
    }
  });
}

export async function loseRedis(stage: Stage, { redis, members, vip }: Cluster): Promise<void> {
  const [first, second] = members;
  await stage.step('Redis stops, and starts again', async () => {
    const loads = await startLoads(members, vip);
    await redis.stop();
    const stoppedAt = monotonicMs();
    stage.typed('kill $(pidof redis-server)', '');
    await refused(stage, second);
    await stillReached(stage, members);
    await sleep(Math.max(0, AWAY_MS - (monotonicMs() - stoppedAt)));
    const startedAt = monotonicMs();
    stage.typed('redis-server … &', '');
    await redis.start();
    const away = startedAt - stoppedAt;
    const create = ['service', 'create', '--name', 'late', '--network', 'mesh', '--port', '80', '--backend', 'web1'];
    let written = await first.host.sluice(create);
    await until('a write is accepted', async () => {
      if (written.code !== 0) written = await first.host.sluice(create);
      return written.code === 0;
    });
    const acceptedAt = monotonicMs();
    first.show(create, written);
    const served = members.map(async (from) => {
      await until(
        `${from.host.name} serves it`,
        async () => (await page(from, 'late')) === `web1 on ${first.host.name}`,
      );
      return monotonicMs() - startedAt;
    });
    const converged = Math.max(...(await Promise.all(served)));
    stage.promise(
      converged <= CONVERGED_MS_MAX,
      `Redis was away for ${seconds(away)}; ${seconds(acceptedAt - startedAt)} after its start a write was accepted, ${seconds(converged)} after it all hosts served what was written`,
    );
    for (const { host } of members) {
      const states = await Promise.all(members.map((other) => stateOf({ host }, other.host.name)));
      stage.promise(
        states.every((state) => state === 'ready'),
        `${host.name} takes nobody for lost`,
      );
    }
    for (const [index, result] of (await loads.stop()).entries()) {
      const kinds = Object.keys(result.answers).length;
      stage.promise(
        result.failed === 0 && kinds === members.length,
        `${members[index]!.host.name}: ${result.completed} connections meanwhile, ${told(result)} failed`,
      );
    }
  });
}

/** Each container is asked for by each, once. */
async function stillReached(stage: Stage, members: readonly Member[]): Promise<void> {
  const pairs = members.flatMap((from) => members.map((to) => ({ from, to })));
  const bad: string[] = [];
  for (const { from, to } of pairs)
    if (!(await resolves(from, to.container, to.address)) || !isFrom(to, await page(from, to.container)))
      bad.push(`${to.container} from ${from.container}`);
  stage.promise(
    bad.length === 0,
    `each container resolves and reaches each, once asked${bad.length > 0 ? `, but not ${bad.join(', ')}` : ''}`,
  );
}

/** A write on a host whose daemon does not reach the store. */
async function refused(stage: Stage, member: Member): Promise<void> {
  const args = ['network', 'create', 'other'];
  const begun = performance.now();
  const result = await member.host.sluice(args);
  const time = performance.now() - begun;
  member.show(args, result);
  stage.promise(
    result.code === 1 && result.stderr.includes('(store.unavailable)') && time <= REFUSED_MS_MAX,
    `a write is refused at once, after ${seconds(time)}, and the error has a code`,
  );
}
