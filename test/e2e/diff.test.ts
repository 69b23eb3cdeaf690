/** What `diff` says of a host on which somebody meddles: each thing by its name, and nothing repaired by looking. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { slowness } from '../../src/lab/slowness.ts';
import type { DiffAnswer, DiffQuery } from '../../src/model/diagnosis/diff.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

const LIMIT_MS = 60_000 * slowness();
let host: TestHost;
let box: Inside;
let [bridge, veth] = ['', ''];

/** The daemon repairs by its audits: here there are none while the tests look. */
const NEVER = { auditSeconds: 3_600 };

async function diff(...words: string[]): Promise<DiffAnswer> {
  const result = await host.sluice(['diff', ...words, '--format', 'json']);
  const answer = JSON.parse(result.stdout) as DiffAnswer;
  expect(result.code).toBe(answer.items.length > 0 ? 1 : 0);
  return answer;
}
/** By the API: the daemon hears of what happens to links and tables, and a command line takes as long to start as the daemon does to repair. */
const whats = async (kind: DiffQuery['kind'], name?: string): Promise<string[]> =>
  (await host.client.diff({ kind, name })).items.flatMap(({ kind, differences }) =>
    differences.map(({ what }) => `${kind}: ${what}`),
  );

beforeAll(async () => {
  host = await openHost({ name: 'diff', settings: NEVER });
  await host.cli('network', 'create', '--subnet', '10.20.0.0/24', 'web');
  const [network] = await host.json<[{ id: string }]>('network', 'inspect', 'web');
  bridge = `sl${network.id.slice(0, 12)}`;
  box = await sandbox(host, 'box', '--network', 'web');
  await host.cli(
    'service',
    'create',
    '--name',
    'shop',
    '--network',
    'web',
    '--port',
    '80',
    '-p',
    '8080:80',
    '--backend',
    'box',
  );
  const [endpoint] = await host.json<[{ id: string }]>('endpoint', 'inspect', 'box.web');
  veth = `sv${endpoint.id.slice(0, 12)}`;
  await eventually(async () => (await diff()).items.length === 0);
}, LIMIT_MS);
afterAll(async () => {
  await host?.close();
}, LIMIT_MS);

describe('a host where all is as it should be', () => {
  test('differs in nothing, and says what was compared', async () => {
    const { compared, items, skipped } = await diff();
    expect(items).toEqual([]);
    expect(skipped).toEqual([]);
    expect(compared).toMatchObject({ network: 4, sandbox: 1, endpoint: 1, service: 1, firewall: 2, host: 1 });
    expect((await host.sluice(['diff'])).stdout).toContain('is as it should be (4 networks');
  });

  test('an object that is not there cannot be compared', async () => {
    expect((await host.sluice(['diff', 'network', 'nowhere'])).code).toBe(2);
  });
});

describe('somebody meddles', { timeout: LIMIT_MS }, () => {
  const inside = (command: string): Promise<unknown> => box.exec(command);
  const HARMS: readonly (readonly [
    name: string,
    harm: () => Promise<unknown>,
    kind: DiffQuery['kind'],
    what: () => string,
    mend: () => Promise<unknown>,
  ])[] = [
    [
      // The daemon hears of it too and may be sooner with its repair: hence the test puts back with replace.
      "the bridge's address",
      () => host.must(`ip addr del 10.20.0.1/24 dev ${bridge}`),
      'network',
      () => `network: address 10.20.0.1/24 of ${bridge}`,
      () => host.must(`ip addr replace 10.20.0.1/24 dev ${bridge}`),
    ],
    [
      'a port that is down',
      () => host.must(`ip link set ${veth} down`),
      'endpoint',
      () => `endpoint: link ${veth}`,
      () => host.must(`ip link set ${veth} up`),
    ],
    [
      "an endpoint's address",
      () => inside(`ip addr del ${box.ipv4}/24 dev eth0`),
      'endpoint',
      () => `endpoint: address ${box.ipv4}/24 of eth0`,
      () => inside(`ip addr add ${box.ipv4}/24 dev eth0`).then(() => inside('ip route add default via 10.20.0.1')),
    ],
    [
      'its default route',
      () => inside('ip route del default'),
      'endpoint',
      () => 'endpoint: route 0.0.0.0/0 via 10.20.0.1 dev eth0',
      () => inside('ip route add default via 10.20.0.1 dev eth0'),
    ],
    [
      'the tc program of its port',
      () => host.must(`tc filter del dev ${veth} ingress`),
      'endpoint',
      () => 'endpoint: the tc program at ingress of its veth',
      () => host.cli('sandbox', 'inspect', 'box'),
    ],
  ];
  test.each(HARMS)('%s', async (_name, harm, kind, what, mend) => {
    await harm();
    expect(await whats(kind)).toContain(what());
    // To look again says the same: nothing was repaired. What is the host's own the daemon may have put right itself: it hears of changes of links.
    if (kind === 'endpoint') expect(await whats(kind)).toContain(what());
    await mend();
  });

  test('the nft table of published ports, element by element', async () => {
    const table = `sluice-${host.instance}-publish`;
    expect(await whats('firewall', `inet ${table}`)).toEqual([]);
    await host.must(`nft flush map inet ${table} any4`);
    const found = await whats('firewall', `inet ${table}`);
    expect(found.length).toBeGreaterThan(0);
    for (const what of found) expect(what).toMatch(/^firewall: (tcp \. 8080 .*|\d+ more) in map any4$/);
    // What is published is wanted as it was: the map alone differs.
    expect(await whats('service')).toEqual([]);
  });

  test('an entry of a service deleted from the maps by hand', async () => {
    const pins = `${host.bpffs}/${host.instance}`;
    const [generation] = (await host.must(`ls ${pins}`)).trim().split('\n');
    const dump = JSON.parse(await host.must(`bpftool -j map dump pinned ${pins}/${generation}/maps/backends`)) as {
      key: string[];
    }[];
    // One for the service, one for the host's own view of the published port ([::1]).
    expect(dump).toHaveLength(2);
    for (const { key } of dump) {
      const bytes = key.map((byte) => byte.replace('0x', '')).join(' ');
      await host.must(`bpftool map delete pinned ${pins}/${generation}/maps/backends key hex ${bytes}`);
    }
    expect(await whats('host')).toEqual([`host: backend ${box.ipv4}:80 in the map of backends`]);
    expect(await whats('service', 'shop')).toEqual([`service: backend ${box.ipv4}:80 in the map of backends`]);
  });
});
