/** Two daemons whose hosts take full packets, and a switch between them that does not: both say so, and say what helps. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { RedisServer } from '../redis/server.ts';
import { eventually, testHost } from './harness.ts';

const LIMIT_MS = 60_000 * slowness();
let redis: RedisServer;
let lab: Lab;
let [a, b]: ReturnType<typeof testHost>[] = [];

interface StatusView {
  readonly conditions: { readonly type: string; readonly active: boolean; readonly message: string }[];
}
const found = async (host: typeof a): Promise<StatusView['conditions'][number] | undefined> =>
  (await host!.json<StatusView>('status')).conditions.find(({ type }) => type === 'UnderlayMtu');
const start = (host: typeof a) =>
  host!.daemon.start({ settings: { store: redis.url, advertise: (host as LabHost).address } });

beforeAll(async () => {
  redis = await RedisServer.start();
  lab = await createLab({ name: 'mtu', hosts: ['a', 'b'] });
  [a, b] = lab.hosts.map((host) => testHost(lab, host));
}, LIMIT_MS);
afterAll(async () => {
  const left = await lab?.close();
  await redis?.remove();
  expect(left).toEqual([]);
}, LIMIT_MS);

test('a narrow place between two hosts is found, named, and forgotten when it is gone', {
  timeout: LIMIT_MS,
}, async () => {
  // The switch's own port towards b; its address ends in the number of the port.
  const port = `h${b!.address.split('.').at(-1)}`;
  await lab.outside.must(`ip link set ${port} mtu 1400`);
  await start(a);
  await start(b);
  // The first to start knew nobody yet: its next test is half a minute away.
  await eventually(async () => (await found(b))?.active, 10_000);
  // A port lets four bytes more pass than its MTU: room for a VLAN's tag.
  expect(await found(b)).toMatchObject({
    active: true,
    message: expect.stringMatching(
      /packets of 1500 bytes do not reach node a \(198\.18\.0\.11\), those of 1404 do.*--mtu 1354$/,
    ),
  });
  await a!.daemon.stop();
  await start(a);
  const seen = await eventually(async () => {
    const condition = await found(a);
    return condition?.active ? condition : null;
  }, 10_000);
  expect(seen.message).toContain(`do not reach node b (${b!.address})`);
  expect(await a!.cli('status')).toContain('UnderlayMtu');

  await lab.outside.must(`ip link set ${port} mtu 1500`);
  await a!.daemon.stop();
  await start(a);
  await eventually(async () => (await found(a))?.active === false, 10_000);
});
