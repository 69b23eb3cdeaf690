import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FAR } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { sandbox } from './traffic.ts';

interface NetworkView {
  id: string;
  spec: { vni: number; subnets: { cidr: string }[] };
  status: {
    state: string;
    conditions: { type: string; active: boolean; message: string }[];
    error?: { code: string; message: string };
    detail: { ifname?: string; mtu?: number; slot?: number; shortcut?: string };
  };
}

/** Audits as by default, where a command takes no longer than that. */
const settings = { auditSeconds: 10 * slowness() };
let host: TestHost;
beforeAll(async () => {
  host = await openHost({ name: 'ovl', settings });
});
afterAll(() => host.close());

const inspect = async (name: string): Promise<NetworkView> =>
  (await host.json<[NetworkView]>('network', 'inspect', name))[0];
const devices = async (): Promise<string> => host.must('ip -o link show type vxlan');
const guard = async (): Promise<string> =>
  (await host.exec(['nft', 'list', 'table', 'inet', `sluice-${host.instance}-vxlan`])).stdout;

describe('an overlay on one host', () => {
  test('its devices come with the first endpoint and go with the last', async () => {
    await host.cli('network', 'create', '--driver', 'overlay', '--ipv6', '--attachable', 'mesh');
    const made = await inspect('mesh');
    expect(made.status.state).toBe('ready');
    expect(made.spec.vni).toBeGreaterThanOrEqual(4096);
    expect(made.spec.subnets[0]!.cidr).toMatch(/\/20$/);
    expect(await devices()).toBe('');
    expect(await guard()).toBe('');

    const a = await sandbox(host, 'a', '--network', 'mesh');
    const b = await sandbox(host, 'b', '--network', 'mesh');
    expect(await devices()).toContain(`sx${made.id.slice(0, 12)}`);
    expect(await guard()).toContain('VXLAN from a sandbox');
    expect((await inspect('mesh')).status.detail.mtu).toBe(1450);
    expect((await a.exec('ip -o link show eth0')).stdout).toContain('mtu 1450');
    for (const address of [b.ipv4!, b.ipv6!, FAR.ipv4, FAR.ipv6]) expect(await a.ping(address), address).toBe(true);
    expect((await a.exec('ip neigh show')).stdout).toMatch(/PERMANENT/);
    expect(JSON.stringify(await host.json('status'))).toContain('Unencrypted');

    await host.cli('sandbox', 'rm', 'a', 'b');
    await eventually(async () => (await devices()) === '');
    await eventually(async () => (await guard()) === '');
    expect(await host.must('ip rule')).not.toContain('fwmark');
    expect((await inspect('mesh')).status.state).toBe('ready');
    await host.cli('network', 'rm', 'mesh');
  });

  test('what stays within it goes past the bridge, unless somebody wants to see it there', async () => {
    await host.cli('network', 'create', '--driver', 'overlay', '--ipv6', 'short');
    const a = await sandbox(host, 'a', '--network', 'short');
    const b = await sandbox(host, 'b', '--network', 'short');
    const shortcut = async (): Promise<string | undefined> => (await inspect('short')).status.detail.shortcut;
    const reaches = async (): Promise<boolean[]> => [await a.ping(b.ipv4!), await a.ping(b.ipv6!)];
    expect(await shortcut()).toBe('on');
    expect(await reaches()).toEqual([true, true]);

    const wall = 'chain forward { type filter hook forward priority 0; meta l4proto icmp drop; };';
    await host.must(`nft 'table bridge wall { ${wall} };'`);
    await eventually(async () => (await shortcut()) === 'off: chain bridge wall forward sees bridged frames');
    expect(await reaches()).toEqual([false, true]);
    // Not for a moment, while a new life looks around, either.
    const restarted = Promise.all(Array.from({ length: 4 }, () => a.ping(b.ipv4!)));
    await host.daemon.kill();
    await host.daemon.start({ settings });
    expect(await shortcut()).toBe('off: chain bridge wall forward sees bridged frames');
    expect([...(await restarted), ...(await reaches())]).toEqual([false, false, false, false, false, true]);
    await host.must('nft delete table bridge wall');
    await eventually(async () => (await shortcut()) === 'on');
    expect(await reaches()).toEqual([true, true]);

    // Repaired by an audit, and counted.
    const map = `${host.bpffs}/${host.instance}/v1/maps/segments`;
    const key = (await host.must(`bpftool -j map dump pinned ${map}`))
      .match(/"key":\["(.*?)"\]/)![1]!
      .split('","')
      .join(' ');
    await host.must(`bpftool map delete pinned ${map} key ${key}`);
    expect(await host.sluice(['diff', 'network', 'short'])).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('its shortcut past the bridge'),
    });
    await eventually(async () => (await host.sluice(['diff', 'network', 'short'])).code === 0, 15_000);
    expect((await inspect('short')).status.conditions.find(({ type }) => type === 'Repaired')?.message).toContain(
      'shortcut',
    );

    await host.cli('sandbox', 'rm', 'a', 'b');
    await host.cli('network', 'rm', 'short');
    expect((await host.must(`bpftool -j map dump pinned ${map}`)).trim()).toBe('[]');
    for (const [option, why] of [
      ['shortcut=false', 'off: -o shortcut=false'],
      ['icc=false', 'off: -o icc=false: the bridge keeps its ports apart'],
    ] as const) {
      await host.cli('network', 'create', '--driver', 'overlay', '-o', option, 'short');
      const [c, d] = [await sandbox(host, 'c', '--network', 'short'), await sandbox(host, 'd', '--network', 'short')];
      expect(await shortcut()).toBe(why);
      expect(await c.ping(d.ipv4!)).toBe(option !== 'icc=false');
      await host.cli('sandbox', 'rm', 'c', 'd');
      await host.cli('network', 'rm', 'short');
    }
  });

  test('two with one subnet are apart, and both reach the world', async () => {
    const flags = ['--driver', 'overlay', '--subnet', '10.50.0.0/20'];
    for (const name of ['one', 'two']) await host.cli('network', 'create', ...flags, name);
    const [a, b, c] = [
      await sandbox(host, 'a', '--network', 'one', '--ip', '10.50.0.9'),
      await sandbox(host, 'b', '--network', 'two', '--ip', '10.50.0.9'),
      await sandbox(host, 'c', '--network', 'one', '--ip', '10.50.0.10'),
    ];
    for (const box of [a, b])
      for (const address of [FAR.ipv4, '10.50.0.1']) expect(await box.ping(address), address).toBe(true);
    expect(await a.ping(c.ipv4!)).toBe(true);
    expect(await b.ping(c.ipv4!)).toBe(false);
    // Only who comes second needs a way of its own.
    const slots = async () => [(await inspect('one')).status.detail.slot, (await inspect('two')).status.detail.slot];
    expect(await slots()).toEqual([undefined, 1]);
    expect((await host.client.diff()).items).toEqual([]);
    const both = await host.sluice(['network', 'connect', 'two', 'a']);
    expect(both.stderr).toContain('network.overlap');
    await host.cli('sandbox', 'rm', 'a', 'b', 'c');
    await host.cli('network', 'rm', 'one', 'two');
  });

  test('where a subnet comes to be shared later, one of the two gets a way of its own', async () => {
    await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.52.0.0/24', 'one');
    await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.53.0.0/30', 'two');
    const [a, b] = [
      await sandbox(host, 'a', '--network', 'one', '--ip', '10.52.0.9'),
      await sandbox(host, 'b', '--network', 'two'),
    ];
    const slots = async () =>
      [(await inspect('one')).status.detail.slot, (await inspect('two')).status.detail.slot].filter(
        (slot) => slot !== undefined,
      );
    expect(await slots()).toEqual([]);
    await host.cli('network', 'update', '--subnet-add', '10.52.0.0/24', 'two');
    await eventually(async () => (await slots()).length === 1);
    const c = await sandbox(host, 'c', '--network', 'two', '--ip', '10.52.0.9');
    for (const box of [a, b, c]) expect(await box.ping(FAR.ipv4)).toBe(true);
    expect(await slots()).toHaveLength(1);
    await host.cli('sandbox', 'rm', 'a', 'b', 'c');
    await host.cli('network', 'rm', 'one', 'two');
  });

  test('one that fills up gets another subnet, which all on it reach', async () => {
    await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.60.0.0/30', 'full');
    const a = await sandbox(host, 'a', '--network', 'full');
    expect((await host.sluice(['sandbox', 'create', '--network', 'full', 'b'])).stderr).toContain('address.exhausted');
    await host.cli('network', 'update', '--subnet-add', '10.61.0.0/24', 'full');
    const b = await sandbox(host, 'b', '--network', 'full');
    expect(b.ipv4).toMatch(/^10\.61\.0\./);
    await eventually(async () => (await a.ping(b.ipv4!)) && (await b.ping(a.ipv4!)));
    expect(await b.ping(FAR.ipv4)).toBe(true);
    await host.cli('sandbox', 'rm', 'a', 'b');
    await host.cli('network', 'rm', 'full');
  });

  test('a VNI that another device has is told by name, and taken when it is free', async () => {
    await host.must(`ip link add flannel.1 type vxlan id 77 dstport 4789 local ${host.address}`);
    await host.cli('network', 'create', '--driver', 'overlay', '--vni', '77', 'late');
    const refused = await host.sluice([
      'sandbox',
      'create',
      '--network',
      'late',
      '--wait-timeout',
      `${2 * slowness()}s`,
      'a',
    ]);
    expect(refused.code).toBe(1);
    const { status } = await inspect('late');
    expect(status).toMatchObject({ state: 'error', error: { code: 'network.vni' } });
    expect(status.error!.message).toContain('flannel.1');
    await host.must('ip link del flannel.1');
    await eventually(async () => (await inspect('late')).status.detail.ifname !== undefined, 10_000);
    await host.cli('sandbox', 'rm', 'a');
    await host.cli('network', 'rm', 'late');
  });

  test('a killed daemon finds everything as it was, and mends what was changed meanwhile', async () => {
    // Part of its subnet is routed elsewhere: it has a way of its own.
    await host.must('ip route add blackhole 10.70.0.0/25');
    await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.70.0.0/24', 'kept');
    const a = await sandbox(host, 'a', '--network', 'kept');
    const before = await devices();
    const { slot } = (await inspect('kept')).status.detail;
    expect(slot).toBe(1);
    await host.daemon.kill();
    expect(await a.ping(FAR.ipv4)).toBe(true);
    await host.must(['nft', 'delete', 'table', 'inet', `sluice-${host.instance}-vxlan`]);
    await host.daemon.start({ settings });
    await eventually(async () => (await guard()).includes('VXLAN from a stranger'));
    expect(await devices()).toBe(before);
    expect((await inspect('kept')).status.detail.slot).toBe(slot);
    expect(await a.ping(FAR.ipv4)).toBe(true);
    // The device itself: made anew, the sandbox goes on.
    await host.must(`ip link del ${/sx\w+/.exec(before)![0]}`);
    await eventually(async () => (await devices()) !== '', 15_000);
    await host.cli('sandbox', 'rm', 'a');
    await host.cli('network', 'rm', 'kept');
    await host.must('ip route del blackhole 10.70.0.0/25');
  });

  test.each([
    ['is heard where that is allowed', true, ['-o', 'spoof=allow']],
    ['is not heard, and the neighbour is', false, []],
  ])("who takes a neighbour's MAC and address %s", async (_, isHeard, flags) => {
    await host.cli('network', 'create', '--driver', 'overlay', '--subnet', '10.71.0.0/24', ...flags, 'shy');
    const [a, b, c] = [
      await sandbox(host, 'a', '--network', 'shy'),
      await sandbox(host, 'b', '--network', 'shy'),
      await sandbox(host, 'c', '--network', 'shy'),
    ];
    const macOf = async (box: typeof a) =>
      /link\/ether (\S+)/.exec((await box.exec('ip -o link show eth0')).stdout)![1]!;
    const listening = c.python(`import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(("0.0.0.0",9999)); print("ready",flush=True)
while True: print(s.recvfrom(100),flush=True)`);
    await eventually(() => listening.output().includes('ready'));
    const say = (text: string) => `import socket
s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.bind(("${b.ipv4}",0)); s.sendto(b"${text}",("${c.ipv4}",9999))`;
    // In one go: what is not its own is taken from the sandbox again when the daemon sees it.
    const thief = await a.exec(
      [
        'set -e',
        `ip link set eth0 down; ip link set eth0 address ${await macOf(b)}; ip link set eth0 up`,
        `ip addr add ${b.ipv4}/24 dev eth0`,
        `ip neigh replace ${c.ipv4} lladdr ${await macOf(c)} dev eth0 nud permanent`,
        `for n in 1 2 3; do /usr/bin/python3 -S -c '${say('the thief')}'; done`,
      ].join('; '),
    );
    expect(thief).toMatchObject({ code: 0 });
    await b.exec(['/usr/bin/python3', '-c', say('the neighbour')]);
    await eventually(() => listening.output().includes('the neighbour'));
    expect(listening.output().includes('the thief')).toBe(isHeard);
    expect(await c.ping(b.ipv4!)).toBe(true);
    await host.cli('sandbox', 'rm', '--force', 'a', 'b', 'c');
    await host.cli('network', 'rm', 'shy');
  });

  test('an input chain that drops the VXLAN port is told with the way out', async () => {
    await host.must(
      `nft 'table inet fw { chain input { type filter hook input priority 0; policy drop; ct state established accept; iifname "lo" accept; }; }'`,
    );
    const created = await host.sluice(['network', 'create', '--driver', 'overlay', 'shut']);
    expect(created).toMatchObject({ code: 0, stderr: expect.stringContaining('UnderlayBlocked') });
    const made = await host.sluice(['sandbox', 'create', '--network', 'shut', 'a']);
    expect(made).toMatchObject({ code: 0, stderr: expect.stringContaining('UnderlayBlocked') });
    const { conditions } = (await inspect('shut')).status;
    const blocked = conditions.find(({ type }) => type === 'UnderlayBlocked');
    expect(blocked).toMatchObject({ active: true, message: expect.stringContaining('udp dport 4789 accept') });
    await host.must(`nft insert rule inet fw input iifname eth0 udp dport 4789 accept`);
    await eventually(async () => {
      const now = (await inspect('shut')).status.conditions.find(({ type }) => type === 'UnderlayBlocked');
      return now?.active === false;
    }, 10_000);
    await host.must('nft delete table inet fw');
    await host.cli('sandbox', 'rm', 'a');
    await host.cli('network', 'rm', 'shut');
  });
});
