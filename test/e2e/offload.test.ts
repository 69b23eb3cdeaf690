/** Two daemons, and a network card of one host that gets the inner checksums of VXLAN packets wrong: it is found, and the offload switched off. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { probeAddress } from '../../src/controller/offload/plan.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { RedisServer } from '../redis/server.ts';
import { Card } from './card.ts';
import { eventually, testHost } from './harness.ts';
import { type Inside, PYTHON, sandbox } from './traffic.ts';

const LIMIT_MS = 90_000 * slowness();

interface Conditions {
  readonly conditions: { readonly type: string; readonly active: boolean; readonly message: string }[];
}

describe.each([4, 6])('over IPv%i', (family) => {
  let redis: RedisServer;
  let lab: Lab;
  let card: Card;
  let [a, b]: ReturnType<typeof testHost>[] = [];
  let [one, two]: Inside[] = [];
  /** Of the network, on host a. */
  let device: string;

  const start = (host: typeof a) =>
    host!.daemon.start({
      settings: { store: redis.url, advertise: family === 4 ? host!.address : host!.address6, auditSeconds: 1 },
    });
  const said = async (host: typeof a, type: string): Promise<string | null> => {
    const { conditions } = await host!.json<Conditions>('status');
    return conditions.find((each) => each.type === type && each.active)?.message ?? null;
  };
  const ofNetwork = async (name: string): Promise<string | null> => {
    const [{ status }] = await a!.json<[{ status: Conditions }]>('network', 'inspect', name);
    return status.conditions.find(({ type, active }) => type === 'ChecksumOffload' && active)?.message ?? null;
  };
  const probe = (): string => `sxprobe${a!.instance}`;
  const asks = (): Promise<string> => one!.ask(two!.ipv4!, 80);
  /** SYNs that were refused on the host, by the device for the test. */
  const refused = async (host: typeof a): Promise<number> =>
    Number(
      /counter packets (\d+) bytes \d+ reject with tcp reset/.exec(
        await host!.must(`nft list chain inet sluice-${host!.instance}-vxlan probe`),
      )![1],
    );

  beforeAll(async () => {
    redis = await RedisServer.start();
    lab = await createLab({ name: `card${family}`, hosts: ['a', 'b'] });
    [a, b] = lab.hosts.map((host) => testHost(lab, host));
    // As ufw and firewalld have it: who is not let in is not refused, either.
    await b!.must([
      'nft',
      `table inet strict {
        chain input {
          type filter hook input priority filter; policy drop
          ct state established,related accept
          meta l4proto { icmp, ipv6-icmp } accept
          udp dport 4789 accept
        }
      }`,
    ]);
    await start(a);
    await start(b);
    card = await Card.of(a!);
    await a!.cli('network', 'create', '--driver', 'overlay', '--ipv6', 'mesh');
    [one, two] = [await sandbox(a!, 'one', '--network', 'mesh'), await sandbox(b!, 'two', '--network', 'mesh')];
    const [{ id }] = await a!.json<[{ id: string }]>('network', 'inspect', 'mesh');
    device = `sx${id.slice(0, 12)}`;
    await two.serve(80);
  }, LIMIT_MS);
  afterAll(async () => {
    card?.close();
    const left = await lab?.close();
    await redis?.remove();
    expect(left).toEqual([]);
  }, LIMIT_MS);

  test('where all is well the hosts refuse each other, and nothing is switched off', {
    timeout: LIMIT_MS,
  }, async () => {
    await eventually(async () => (await asks()).startsWith('two'));
    // Once with the offload off and once on, each way, though host b's own rules would have dropped it without a word.
    await eventually(async () => (await refused(a)) >= 2 && (await refused(b)) >= 2, 10_000);
    expect(card.offload()).toEqual({ [device]: true, [probe()]: false });
    for (const host of [a, b])
      for (const type of ['ChecksumOffload', 'ChecksumUntested']) expect(await said(host, type), type).toBeNull();
    expect(await ofNetwork('mesh')).toBeNull();
  });

  test('nothing else comes by the device, and nobody but the hosts reaches it', { timeout: LIMIT_MS }, async () => {
    const [near, far] = [a, b].map((host) => probeAddress(family === 4 ? host!.address : host!.address6, 4789));
    const listen = `import socket
s=socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1); s.bind(('::',7777)); s.listen(9); print('ready',flush=True)
while True: s.accept()`;
    const servers = [a, b].map((host) => host!.spawn([PYTHON, '-c', listen]));
    for (const server of servers) await eventually(() => server.output().includes('ready'));
    const connect = (to: string, port: number, from = '::') => [
      ...[PYTHON, '-c'],
      `import socket
s=socket.socket(socket.AF_INET6); s.settimeout(1); s.bind(('${from}',0))
try: s.connect(('${to}',${port})); print('connected')
except Exception as e: print(type(e).__name__)`,
    ];
    // Host b would let in nothing of its own accord; host a would.
    const fromHost = async (to: string, port: number) => (await b!.must(connect(to, port, far))).trim();
    const fromBox = async (to: string, port: number) => (await one!.exec(connect(to, port))).stdout.trim();
    expect(await fromHost(near!, 9)).toBe('ConnectionRefusedError');
    expect(await fromHost(near!, 7777)).toMatch(/timeout/i);
    expect((await b!.exec(`ping -c 1 -W 1 -n -I ${far} ${near}`)).code).not.toBe(0);
    expect(await fromBox(two!.ipv6!, 7777)).toBe('ConnectionRefusedError');
    for (const [to, port] of [
      [near!, 7777],
      [far!, 7777],
      [far!, 9],
    ] as const)
      expect(await fromBox(to, port), `${to} ${port}`).toMatch(/timeout/i);
    for (const server of servers) await server.stop();
  });

  test('a card that spoils them is found, and TCP gets through without its help', { timeout: LIMIT_MS }, async () => {
    await a!.daemon.stop();
    card.spoil();
    expect(await one!.ping(two!.ipv4!)).toBe(true);
    expect(await asks()).toBe('error: timeout');
    await start(a);
    const message = await eventually(() => said(a, 'ChecksumOffload'), 20_000);
    expect(message).toContain(`TCP to node b (${family === 4 ? b!.address : b!.address6}) gets through`);
    expect(message).toContain('Tx checksum offload');
    expect(await a!.cli('status')).toContain('ChecksumOffload');
    expect(await eventually(() => ofNetwork('mesh'))).toContain(`(here: ${device})`);
    expect(a!.daemon.log()).toContain('gets through the overlay only with checksums made in software');
    expect(card.offload()).toEqual({ [device]: false, [probe()]: false });
    expect(await asks()).toMatch(/^two/);
    // More than one packet: what hardware would have segmented.
    const sent = two!.python(`import socket
s=socket.socket(); s.bind(('',81)); s.listen(1); print('ready',flush=True)
c,_=s.accept(); n=0
while True:
    d=c.recv(65536)
    if not d: break
    n+=len(d)
print('got',n,flush=True)`);
    await eventually(() => sent.output().includes('ready'));
    await one!.exec([
      PYTHON,
      '-c',
      `import socket;s=socket.create_connection(('${two!.ipv4}',81),5);s.sendall(b'x'*3000000);s.close()`,
    ]);
    await eventually(() => sent.output().includes('got 3000000'));
    // The other host's card is well.
    expect(await said(b, 'ChecksumOffload')).toBeNull();
    // There and back: whose tunnel it is says so, whoever asks.
    for (const [host, from, to] of [
      [a, 'one', 'two'],
      [b, 'two', 'one'],
    ] as const)
      expect(await host!.cli('trace', from, to)).toMatch(/tunnel +a .*is up.*Tx checksum offload.*switched off/);
  });

  test('it stays off: for a restarted daemon, on networks made later, and where somebody switches it on', {
    timeout: LIMIT_MS,
  }, async () => {
    await a!.daemon.kill();
    await start(a);
    expect(await eventually(() => said(a, 'ChecksumOffload'))).toContain('node b');
    await eventually(async () => a!.daemon.log().includes('"synced"'));
    expect(card.offload()).toEqual({ [device]: false, [probe()]: false });
    expect(await said(a, 'ChecksumOffload')).toContain('node b');
    expect(await asks()).toMatch(/^two/);
    const [{ id }] = JSON.parse(
      await a!
        .cli('network', 'create', '--driver', 'overlay', 'later')
        .then(() => a!.cli('network', 'inspect', 'later', '--format', 'json')),
    ) as [{ id: string }];
    await sandbox(a!, 'third', '--network', 'later');
    const later = `sx${id.slice(0, 12)}`;
    await eventually(async () => card.offload()[later] === false);
    // An audit may be there before the question; not every time.
    await eventually(async () => {
      card.switchOn(device);
      return (await a!.cli('diff', 'network', 'mesh').catch(String)).includes(`ethtool -K ${device} tx off`);
    });
    await eventually(async () => card.offload()[device] === false, 10_000);
    await a!.cli('sandbox', 'rm', 'third');
    await eventually(async () => !(later in card.offload()), 10_000);
  });

  test('a new device tests anew, and the offload is back where all is well', { timeout: LIMIT_MS }, async () => {
    card.mend();
    await a!.must(`ip link del ${probe()}`);
    await eventually(async () => card.offload()[device] === true && card.offload()[probe()] === false, 10_000);
    await eventually(async () => (await said(a, 'ChecksumOffload')) === null && (await ofNetwork('mesh')) === null);
    expect(await asks()).toMatch(/^two/);
  });

  test('the VNI in somebody else`s hands: no test, said, and the networks work', { timeout: LIMIT_MS }, async () => {
    await a!.daemon.stop();
    await a!.must(`ip link del ${probe()}`);
    const local = family === 4 ? a!.address : a!.address6;
    await a!.must(`ip link add foreign0 type vxlan id 16777215 dstport 4789 local ${local}`);
    await start(a);
    expect(await eventually(() => said(a, 'ChecksumUntested'))).toContain('device foreign0 of this host has it');
    expect(await asks()).toMatch(/^two/);
    await a!.must('ip link del foreign0');
    await eventually(async () => probe() in card.offload() && (await said(a, 'ChecksumUntested')) === null, 10_000);
  });

  test('the device goes with the last network of the host', { timeout: LIMIT_MS }, async () => {
    await a!.cli('sandbox', 'rm', 'one');
    await eventually(async () => Object.keys(card.offload()).length === 0, 10_000);
    expect(await a!.must('nft list tables')).not.toContain('-vxlan');
  });

  test('and with sluice-off', { timeout: LIMIT_MS }, async () => {
    expect(await b!.must('ip -o link')).toContain(`sxprobe${b!.instance}`);
    await b!.must([join(projectRoot(), 'bin/sluice-off'), '--force', '--run-dir', b!.runDir]);
    expect(await b!.must('ip -o link')).not.toContain('sx');
  });
});
