/** Traffic while the daemon dies, twenty times: nobody who talks to a VIP notices. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { slowness } from '../../src/lab/slowness.ts';
import { startConnect, startHold, startServer } from '../../src/load/load.ts';
import { openHost, type TestHost } from './harness.ts';
import { sandbox } from './traffic.ts';

const KILLS = 20;

let host: TestHost;
beforeAll(async () => {
  host = await openHost({ name: 'kills' });
});
afterAll(() => host.close());

test('twenty kills under 500 new connections a second of both families: none fails, none that is open breaks', async () => {
  await host.cli('network', 'create', 'web', '--ipv6', '--subnet', '10.20.0.0/24', '--subnet', 'fd00:20::/64');
  const client = await sandbox(host, 'client', '--network', 'web');
  const backends = ['--backend', 'a', '--backend', 'b'];
  for (const tag of ['a', 'b']) {
    await startServer((await sandbox(host, tag, '--network', 'web')).place, { ports: [80], tag });
  }
  await host.cli('service', 'create', '--name', 'shop', '--network', 'web', '--port', '80', ...backends);
  const [{ spec }] = await host.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop');
  expect(spec.vips).toHaveLength(2);
  // A machine that is emulated opens as many fewer.
  const rate = Math.round(300 / slowness());
  const openers = await Promise.all(
    spec.vips.map((address) => startConnect(client.place, { address, port: 80, rate, seconds: 0 })),
  );
  const holders = await Promise.all(
    spec.vips.map((address) => startHold(client.place, { address, port: 80, connections: 50 })),
  );
  const startedAt = performance.now();
  for (let kill = 0; kill < KILLS; kill++) {
    // Offsets from the very beginning of a life to well after it is ready.
    await sleep((kill * 37) % 200);
    await host.daemon.kill();
    await host.daemon.start();
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  let opened = 0;
  for (const opener of openers) {
    const result = await opener.stop();
    expect(result).toMatchObject({ failed: 0, errors: {} });
    opened += result.opened;
    // One of the two backends would be a VIP that lost one.
    expect(Object.keys(result.answers).sort()).toEqual(['a', 'b']);
  }
  expect(opened / seconds).toBeGreaterThanOrEqual(500 / slowness());
  for (const holder of holders) expect(await holder.stop()).toMatchObject({ failed: 0, broken: 0, open: 50 });
}, 120_000);
