/** One host, end to end: what a user of one machine does with it, and what is done to it. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Lab } from '../../src/lab/lab.ts';
import { labFolder } from '../../src/lab/owner.ts';
import { type ConnectResult, type Running, startConnect, startServer } from '../../src/load/load.ts';
import { createActor } from './actor.ts';
import { hello } from './hello.ts';
import { leftBehind } from './remains.ts';
import type { Stage, Story } from './stage.ts';
import { monotonicMs, told, until } from './watch.ts';

/** New connections a second while things are taken away. */
const RATE = 500;
const SHOPS = ['shop-1', 'shop-2', 'shop-3'] as const;
/** Beside its pages each shop answers here with its digit; a program that forks for every request could not keep up. */
const TAG_PORT = 81;

async function tell(stage: Stage, lab: Lab): Promise<void> {
  const { host, sluice, inside, placeOf } = createActor(stage, lab.host('demo'));
  const pages = join(labFolder(lab.id), 'pages');

  const ready: number[] = [];
  await stage.step('A host of its own, and the daemon on it', async () => {
    const daemon = await host.daemon.start();
    ready.push(daemon.readyMs);
    stage.note(`the daemon was ready after ${daemon.readyMs.toFixed(0)} ms`);
    await sluice('version');
  });

  const image = await stage.step('Hello: not here, pulled, created, ran', () => hello(stage, host, sluice));

  await stage.step('Two networks', async () => {
    await sluice('network', 'create', '--subnet', '10.20.0.0/24', 'web');
    await sluice('network', 'create', 'other');
    await sluice('network', 'ls');
  });

  await stage.step('Three containers that serve, a client, and a stranger on the other network', async () => {
    for (const name of SHOPS) {
      const home = join(pages, name);
      mkdirSync(join(home, 'cgi-bin'), { recursive: true });
      writeFileSync(join(home, 'index.html'), `${name}\n`);
      writeFileSync(
        join(home, 'cgi-bin/slow'),
        `#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nsleep 2\necho ${name}\n`,
      );
      chmodSync(join(home, 'cgi-bin/slow'), 0o755);
      const httpd = ['httpd', '-f', '-p', '80', '-h', '/www'];
      await sluice('run', '-d', '--name', name, '--network', 'web', '--init', '-v', `${home}:/www:ro`, image, ...httpd);
      await startServer(await placeOf(name), { ports: [TAG_PORT], tag: name.at(-1)! });
    }
    await sluice('run', '-d', '--name', 'client', '--network', 'web', '--init', image, 'sleep', '600');
    await sluice('run', '-d', '--name', 'stranger', '--network', 'other', '--init', image, 'sleep', '600');
    await sluice('ps');
    for (const name of SHOPS)
      await until(`${name} answers`, async () => (await inside('client', `wget -qO- http://${name}/`)) === name);
    stage.promise(true, 'the client reaches each of them by its name');
  });

  const vip = await stage.step('One service in front of the three', async () => {
    const backends = SHOPS.flatMap((name) => ['--backend', name]);
    const ports = ['--port', 'http=80', '--port', `tag=${TAG_PORT}`];
    await sluice('service', 'create', '--name', 'shop', '--network', 'web', ...ports, ...backends);
    await sluice('service', 'ls');
    const answer = await sluice('exec', 'client', 'nslookup', '-type=a', 'shop');
    const address = [...answer.matchAll(/^Address(?: \d+)?:\s*(10\.20\.0\.\d+)\s*$/gm)].at(-1)?.[1];
    stage.promise(address !== undefined, `"shop" is ${address}, says 127.0.0.11`);
    return address!;
  });

  await stage.step('60 requests to one name', async () => {
    const spread = 'for i in $(seq 60); do wget -qO- http://shop/; done | sort | uniq -c';
    const answer = await sluice('exec', 'client', 'sh', '-c', spread);
    const counts = [...answer.matchAll(/(\d+) (shop-\d)/g)].map((match) => Number(match[1]));
    const total = counts.reduce((sum, count) => sum + count, 0);
    stage.promise(
      total === 60 && counts.length === 3,
      `${counts.join(' + ')} = ${total}: every one answered, every shop asked`,
    );
  });

  await stage.step('The other network knows nothing of it', async () => {
    const named = await host.sluice(['exec', 'stranger', 'nslookup', '-type=a', 'shop']);
    stage.promise(!named.stdout.includes(vip), 'the stranger cannot resolve "shop"');
    const [first] = (await inside('shop-1', "ip -4 -o addr show eth0 | awk '{print $4}'")).split('/');
    for (const [what, address] of [
      ['the VIP', vip],
      ['a backend', first],
    ] as const) {
      const ask = `timeout 1 wget -qO- http://${address}/ 2>/dev/null || echo none`;
      const [got, own] = [await inside('stranger', ask), await inside('client', ask)];
      stage.promise(got === 'none' && own !== 'none', `${what}, ${address}, answers the client, not the stranger`);
    }
  });

  const shopper = await placeOf('client');
  const startLoad = (): Promise<Running<ConnectResult>> =>
    startConnect(shopper, { address: vip, port: TAG_PORT, rate: RATE, seconds: 0, concurrency: 64 });
  stage.note(`\n   From here on, the client opens ${RATE} new connections a second to the VIP.`);

  await stage.step('A backend leaves politely', async () => {
    // Answers that take two seconds, asked for by the service's name before the backend leaves.
    const slow = inside('client', 'for i in $(seq 20); do wget -qO- http://shop/cgi-bin/slow & done; wait');
    const load = await startLoad();
    await sleep(700);
    await sluice('service', 'update', 'shop', '--backend-rm', 'shop-3');
    const gone = monotonicMs();
    const answers = (await slow).split('\n');
    const itsOwn = answers.filter((name) => name === 'shop-3').length;
    stage.promise(
      answers.length === 20 && itsOwn > 0,
      `${itsOwn} requests under way at it (of 20) went on to their end`,
    );
    await sluice('stop', 'shop-3');
    await sluice('rm', 'shop-3');
    await sleep(300);
    const result = await load.stop();
    const last = result.answers['3']?.lastMs ?? 0;
    stage.promise(last > 0 && last <= gone, 'no new connection reached it once the command had returned');
    stage.promise(result.failed === 0, `${result.completed} new connections meanwhile, ${told(result)} failed`);
  });

  await stage.step('A backend is torn away', async () => {
    const load = await startLoad();
    await sleep(500);
    stage.typed('sluice rm --force shop-2', '');
    const asked = monotonicMs();
    await host.client.containers.remove('shop-2', { force: true });
    const accepted = monotonicMs();
    await sleep(700);
    const result = await load.stop();
    // Those that were on their way to it while it was being removed.
    const most = Math.ceil(((accepted - asked + 50) * RATE) / 1_000) + 64;
    const last = Math.max(result.failures?.lastMs ?? 0, result.answers['2']?.lastMs ?? 0) - accepted;
    stage.promise(result.failed <= most, `${told(result)} failed of ${result.opened}, those on their way to it`);
    stage.promise(last <= 50, `out of the VIP ${Math.max(0, last).toFixed(0)} ms after the daemon had said yes`);
    await until('it is gone', async () => (await host.sluice(['container', 'inspect', 'shop-2'])).code !== 0);
  });

  await stage.step('The daemon is killed, three times, under load', async () => {
    const load = await startLoad();
    for (const pause of [300, 130, 470]) {
      await host.daemon.kill('SIGKILL');
      stage.typed('kill -9 $(cat sluiced.pid)', '');
      await sleep(pause);
      const daemon = await host.daemon.start();
      ready.push(daemon.readyMs);
      stage.note(`  back after ${daemon.readyMs.toFixed(0)} ms`);
      await sleep(pause);
    }
    const result = await load.stop();
    // Another process of the machine may be in the way of one start.
    const usual = ready.toSorted((a, b) => a - b)[1]!;
    stage.promise(usual < 1_000, `half of the ${ready.length} starts took no more than ${usual.toFixed(0)} ms`);
    stage.promise(
      result.rate > RATE * 0.9,
      `${result.completed} new connections meanwhile, ${result.rate.toFixed(0)} a second`,
    );
    stage.promise(result.failed === 0, `${told(result)} of them failed`);
    stage.promise((await inside('client', 'wget -qO- http://shop/')) === 'shop-1', 'names are answered as before');
  });

  await stage.step('Somebody breaks the network by hand', async () => {
    type EndpointView = { spec: { sandbox: string }; status: { detail: { hostIfname: string } } };
    const [sandbox] = JSON.parse((await host.sluice(['sandbox', 'inspect', 'shop-1', '--format', 'json'])).stdout) as [
      { id: string },
    ];
    const endpoints = JSON.parse((await host.sluice(['endpoint', 'ls', '--format', 'json'])).stdout) as EndpointView[];
    const link = endpoints.find(({ spec }) => spec.sandbox === sandbox.id)!.status.detail.hostIfname;
    const command = `ip link delete ${link}`;
    stage.typed(command, await host.must(command));
    const from = performance.now();
    await until(
      'it serves again',
      async () => (await inside('client', 'timeout 1 wget -qO- http://shop/ || true')) === 'shop-1',
      10_000,
    );
    stage.promise(true, `repaired and serving after ${((performance.now() - from) / 1_000).toFixed(1)} s`);
    const events = (await host.sluice(['endpoint', 'ls', '--format', 'json'])).stdout;
    stage.promise(/Repaired/.test(events), 'the cause stands in the endpoint`s conditions');
  });

  await stage.step('Everything is taken down', async () => {
    await sluice('service', 'rm', 'shop');
    await sluice('rm', '--force', 'shop-1', 'client', 'stranger');
    await sluice('network', 'rm', 'web', 'other');
    await sluice('system', 'off');
    await host.daemon.stop();
    for (const [what, left] of Object.entries(await leftBehind(host))) {
      stage.promise(left.length === 0, `no ${what} left${left.length > 0 ? `, but: ${left.join(', ')}` : ''}`);
    }
  });
}

export const oneHost: Story = { hosts: ['demo'], tell };
