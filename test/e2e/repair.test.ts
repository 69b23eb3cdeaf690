import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { eventually, openHost, type TestHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

/** Removed by hand, repaired within this many milliseconds. */
const LIMIT_MS = 10_000;

let host: TestHost;
let a: Inside;
let b: Inside;
let vip: string;
beforeAll(async () => {
  host = await openHost({ name: 'fix' });
  await host.cli('network', 'create', 'web', '--ipv6', '--subnet', '10.20.0.0/24', '--subnet', 'fd00:20::/64');
  a = await sandbox(host, 'a', '--network', 'web');
  b = await sandbox(host, 'b', '--network', 'web');
  await b.serve(80);
  await host.cli('service', 'create', '--name', 'shop', '--network', 'web', '--backend', 'b');
  vip = (await host.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop'))[0].spec.vips[0]!;
});
afterAll(() => host.close());

interface Viewed {
  id: string;
  status: { conditions: { type: string; count: number; message: string }[]; detail: Record<string, string | number> };
}
const look = async (noun: string, name: string): Promise<Viewed> =>
  (await host.json<[Viewed]>(noun, 'inspect', name))[0];
const repaired = async (noun: string, name: string) =>
  (await look(noun, name)).status.conditions.find(({ type }) => type === 'Repaired');

const metric = async (): Promise<number> => {
  const text = await host.must(['curl', '-s', '--unix-socket', host.socket, 'http://x/metrics']);
  return [...text.matchAll(/^sluice_repairs_total\{[^}]*\} (\d+)/gm)].reduce((sum, match) => sum + Number(match[1]), 0);
};

describe('what is removed by hand is repaired, counted, and its cause told', () => {
  const cases: [
    what: string,
    noun: string,
    name: string,
    breakIt: () => Promise<unknown>,
    works: () => Promise<boolean>,
  ][] = [
    [
      'a veth',
      'endpoint',
      'b.web',
      async () => host.must(`ip link del ${(await look('endpoint', 'b.web')).status.detail.hostIfname}`),
      async () => (await a.ping(b.ipv4!)) && (await a.ask(vip, 80)).startsWith('b '),
    ],
    [
      'a bridge that went down',
      'network',
      'web',
      async () => host.must(`ip link set ${(await look('network', 'web')).status.detail.ifname} down`),
      () => a.ping(b.ipv4!),
    ],
    [
      'the gateway address',
      'network',
      'web',
      async () => host.must(`ip addr del 10.20.0.1/24 dev ${(await look('network', 'web')).status.detail.ifname}`),
      () => a.ping('198.18.0.1'),
    ],
    [
      'an address in a sandbox',
      'endpoint',
      'a.web',
      () => a.exec(`ip addr del ${a.ipv4}/24 dev eth0`),
      async () => (await a.exec('ip -o addr show eth0')).stdout.includes(a.ipv4!),
    ],
    [
      'an FDB entry',
      'endpoint',
      'b.web',
      async () =>
        host.must(`bridge fdb del ${mac} dev ${(await look('endpoint', 'b.web')).status.detail.hostIfname} master`),
      async () => (await host.must('bridge fdb show')).includes(`${mac} dev`),
    ],
    [
      'the policy table',
      'network',
      'web',
      () => host.must(`nft delete table inet sluice-${host.instance}-policy`),
      async () => (await host.must('nft list tables')).includes(`sluice-${host.instance}-policy`),
    ],
    [
      'a rule of the policy table',
      'network',
      'web',
      () => host.must(`nft flush chain inet sluice-${host.instance}-policy forward`),
      async () => (await host.must(`nft list table inet sluice-${host.instance}-policy`)).includes('isolation'),
    ],
  ];
  let mac = '';
  beforeAll(async () => {
    mac = (await host.json<[{ spec: { mac: string } }]>('endpoint', 'inspect', 'b.web'))[0].spec.mac;
  });

  test.each(cases)('%s', async (_what, noun, name, breakIt, works) => {
    const before = { count: (await repaired(noun, name))?.count ?? 0, metric: await metric() };
    await breakIt();
    await eventually(async () => ((await repaired(noun, name))?.count ?? 0) > before.count, LIMIT_MS);
    expect(await works()).toBe(true);
    expect(await metric()).toBeGreaterThan(before.metric);
    expect((await repaired(noun, name))?.message).toMatch(/\w{3}/);
  });

  test('pinned links: every one of them', async () => {
    const links = join(host.bpffs, host.instance, 'v1', 'links');
    const names = readdirSync(links);
    expect(names.length).toBeGreaterThan(5);
    const before = await metric();
    for (const name of names) rmSync(join(links, name));
    await eventually(() => readdirSync(links).length === names.length, LIMIT_MS);
    expect((await a.ask(vip, 80)).startsWith('b ')).toBe(true);
    expect(await metric()).toBeGreaterThan(before);
  });

  test('a cgroup re-made under its pinned link', async () => {
    // The lab's cgroup holds programs; a host's root cannot be re-made. What can is a sandbox's.
    const [box] = await host.json<[Viewed]>('sandbox', 'inspect', 'a');
    const path = String(box.status.detail.cgroupPath);
    await host.must(['rmdir', path]);
    await eventually(() => readdirSync(path).length > 0, LIMIT_MS);
  });

  test('a tc attachment of the lo of a sandbox', async () => {
    await a.exec('tc qdisc del dev lo clsact');
    await eventually(
      async () => (await a.exec('dig +short +tries=1 +time=1 @127.0.0.11 b')).stdout.trim() === b.ipv4,
      LIMIT_MS,
    );
  });
});
