/** Connect-time balancing with real sockets: every protocol and kind of socket over IPv4, IPv6 and v4-mapped. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { COOKIE, PEER } from '../../src/balancer/maps/layout.ts';
import type { Dataplane, DataplaneBackend } from '../../src/contracts/dataplane.ts';
import { closeFd, mapEntries, mapInfo, mapUpdate, objectGet } from '../../src/kernel/bpf/bpf.ts';
import { Bed, type BedSandbox, PYTHON } from './dataplane-bed.ts';

const VIEW = 1;
const OTHER_VIEW = 2;
const PORT = 8080;

interface Family {
  readonly name: string;
  readonly vip: string;
  /** As an application writes it. */
  readonly dial: string;
  readonly set: number;
  readonly addressOf: (sandbox: BedSandbox) => string;
}
const FAMILIES: readonly Family[] = [
  { name: 'ipv4', vip: '10.96.0.10', dial: '10.96.0.10', set: 1, addressOf: ({ ipv4 }) => ipv4 },
  { name: 'ipv6', vip: 'fd96::10', dial: 'fd96::10', set: 2, addressOf: ({ ipv6 }) => ipv6 },
  { name: 'v4-mapped', vip: '10.96.0.10', dial: '::ffff:10.96.0.10', set: 1, addressOf: ({ ipv4 }) => ipv4 },
];

let bed: Bed;
let plane: Dataplane;
let client: BedSandbox;
let stranger: BedSandbox;
let servers: BedSandbox[];

const backendsOf = (family: Family, sandboxes: readonly BedSandbox[] = servers): DataplaneBackend[] =>
  sandboxes.map((sandbox) => ({
    number: family.set * 100 + sandbox.number,
    address: family.addressOf(sandbox),
    port: PORT,
  }));

function programme(): void {
  for (const family of FAMILIES.slice(0, 2)) {
    plane.ensureBackends(family.set, backendsOf(family));
    for (const protocol of ['tcp', 'udp'] as const)
      plane.ensureFrontend({ view: VIEW, address: family.vip, port: 80, protocol, set: family.set });
  }
}

beforeAll(async () => {
  bed = new Bed();
  plane = await bed.start();
  client = bed.sandbox(10);
  stranger = bed.sandbox(11, OTHER_VIEW);
  servers = [bed.sandbox(21), bed.sandbox(22), bed.sandbox(23)];
  for (const sandbox of bed.sandboxes) {
    plane.ensureSandbox(sandbox);
    plane.ensureEndpoint(sandbox.endpoint);
  }
  for (const server of servers) await bed.serve(server, PORT);
  programme();
});
afterAll(() => bed.close());

describe.each(FAMILIES)('$name', (family) => {
  const names = (): string[] => servers.map(({ ipv4 }) => ipv4);

  test.each(['TCP', 'UDP'])('%s connects to every backend and sees the VIP as its peer', async (kind) => {
    const before = plane.setCounters(family.set).connects;
    const answers = await bed.python<[string, string, number][]>(
      client.namespace,
      `say([ask(${kind}, '${family.dial}', 80) for _ in range(60)])`,
    );
    const counts = names().map((name) => answers.filter(([answer]) => answer === name).length);
    expect(counts.reduce((a, b) => a + b)).toBe(60);
    for (const count of counts) expect(count).toBeGreaterThan(3);
    for (const [, address, port] of answers) expect([address, port]).toEqual([family.dial, 80]);
    expect(plane.setCounters(family.set).connects - before).toBe(60);
  });

  test('an unconnected UDP socket stays with its backend, and its answers come from the VIP', async () => {
    const perSocket = await bed.python<[string, string, number][][]>(
      client.namespace,
      `
def talk():
    s = sock(UDP, '${family.dial}'); out = []
    for _ in range(8):
        s.sendto(b'?', ('${family.dial}', 80)); data, peer = s.recvfrom(64); out.append([data.decode(), peer[0], peer[1]])
    return out
say([talk() for _ in range(20)])`,
    );
    const chosen = perSocket.map((answers) => {
      expect(new Set(answers.map(([name]) => name)).size).toBe(1);
      for (const [, address, port] of answers) expect([address, port]).toEqual([family.dial, 80]);
      return answers[0]![0];
    });
    expect(new Set(chosen).size).toBeGreaterThan(1);
  });

  test('another view, the host and a socket outside the cgroup are not served', async () => {
    const knock = `
s = sock(TCP, '${family.dial}'); s.settimeout(0.3)
say(outcome(lambda: s.connect(('${family.dial}', 80)) or 'reached'))`;
    const outcomes = await Promise.all([
      bed.python(client.namespace, knock),
      bed.python(stranger.namespace, knock),
      bed.python(bed.kernel.host, knock),
      bed.python(client.namespace, knock, { outside: true }),
    ]);
    expect(outcomes.map((outcome) => outcome === 'reached')).toEqual([true, false, false, false]);
  });

  test('without a backend connects and sends are refused at once, and counted', async () => {
    plane.ensureBackends(family.set, []);
    try {
      const before = plane.setCounters(family.set).refused;
      const [tcp, udp, sent, ms] = await bed.python<[string, string, string, number]>(
        client.namespace,
        `
t = time.monotonic()
r = [ask(TCP, '${family.dial}', 80), ask(UDP, '${family.dial}', 80), outcome(lambda: sock(UDP, '${family.dial}').sendto(b'?', ('${family.dial}', 80)))]
say(r + [(time.monotonic() - t) * 1000])`,
      );
      expect([tcp, udp, sent]).toEqual(['ECONNREFUSED', 'ECONNREFUSED', 'ECONNREFUSED']);
      expect(ms).toBeLessThan(500);
      expect(plane.setCounters(family.set).refused - before).toBe(3);
    } finally {
      programme();
    }
  });

  test('two VIPs of one socket lead to different backends, so that answers can be told apart', async () => {
    const second = family.vip.replace(/10$/, '11');
    const dial = family.dial.replace(/10$/, '11');
    plane.ensureFrontend({ view: VIEW, address: second, port: 80, protocol: 'udp', set: family.set });
    const wrong = await bed.python<number>(
      client.namespace,
      `
wrong = 0
for _ in range(40):
    s = sock(UDP, '${family.dial}')
    for vip in ('${family.dial}', '${dial}', '${family.dial}'):
        s.sendto(b'?', (vip, 80)); wrong += s.recvfrom(64)[1][0] != vip
say(wrong)`,
    );
    plane.removeFrontend({ view: VIEW, address: second, port: 80, protocol: 'udp' });
    expect(wrong).toBe(0);
  });

  test('a direct send to a backend shows the backend again', async () => {
    const address = family.dial.startsWith('::ffff:') ? `::ffff:${servers[0]!.ipv4}` : family.addressOf(servers[0]!);
    plane.ensureBackends(family.set, backendsOf(family, [servers[0]!]));
    try {
      const peers = await bed.python<string[]>(
        client.namespace,
        `
s = sock(UDP, '${family.dial}'); out = []
for to in (('${family.dial}', 80), ('${address}', ${PORT}), ('${family.dial}', 80)):
    s.sendto(b'?', to); out.append(s.recvfrom(64)[1][0])
say(out)`,
      );
      expect(peers).toEqual([family.dial, address, family.dial]);
    } finally {
      programme();
    }
  });

  test('a backend that goes is left by unconnected UDP sockets at once', async () => {
    const talker = bed.python<string[]>(
      client.namespace,
      `
s = sock(UDP, '${family.dial}'); out = []
def once():
    s.sendto(b'?', ('${family.dial}', 80)); out.append(s.recvfrom(64)[0].decode())
once(); print('ready', flush=True)
for _ in range(40): time.sleep(0.02); once()
say(out)`,
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    plane.ensureBackends(family.set, backendsOf(family, [servers[2]!]));
    const answers = await talker;
    programme();
    expect(answers.at(-1)).toBe(servers[2]!.ipv4);
  });

  test('the entry for all ports keeps the port that was asked for, and an exact one wins', async () => {
    const vip = family.vip.replace(/10$/, '12');
    const dial = family.dial.replace(/10$/, '12');
    const set = family.set + 10;
    plane.ensureBackends(set, [{ number: set * 100, address: family.addressOf(servers[1]!), port: 0 }]);
    plane.ensureFrontend({ view: VIEW, address: vip, port: 0, set });
    plane.ensureFrontend({ view: VIEW, address: vip, port: 99, protocol: 'tcp', set: family.set });
    const [all, udp, closed, exact] = await bed.python<unknown[]>(
      client.namespace,
      `say([ask(TCP, '${dial}', ${PORT}), ask(UDP, '${dial}', ${PORT}), ask(TCP, '${dial}', 9), ask(TCP, '${dial}', 99)])`,
    );
    expect(all).toEqual([servers[1]!.ipv4, dial, PORT]);
    expect(udp).toEqual([servers[1]!.ipv4, dial, PORT]);
    expect(closed).toBe('ECONNREFUSED');
    expect(exact).toEqual([expect.stringContaining('10.77.0.2'), dial, 99]);
    plane.removeFrontend({ view: VIEW, address: vip, port: 0 });
    plane.removeFrontend({ view: VIEW, address: vip, port: 99, protocol: 'tcp' });
    plane.removeBackends(set);
  });

  test('connections are counted and reset, those that came by the VIP alone, connected UDP included', async () => {
    const direct = family.dial.startsWith('::ffff:') ? `::ffff:${servers[0]!.ipv4}` : family.addressOf(servers[0]!);
    plane.ensureBackends(family.set, backendsOf(family, [servers[0]!]));
    const [backend] = backendsOf(family, [servers[0]!]);
    const child = bed.spawn(client.namespace, [PYTHON, '-u', '-c', holder(family.dial, direct)]);
    const lines = linesOf(child);
    expect(await lines()).toBe('open');
    const { namespace } = client;
    expect(plane.connections(backend!, [namespace, servers[0]!.namespace])).toBe(3);
    plane.ensureBackends(family.set, backendsOf(family, [servers[1]!]));
    // Taken off the list: open connections stay.
    child.stdin!.write('talk\n');
    expect(JSON.parse(await lines())).toEqual(['ok', 'ok', 'ok', 'ok', 'ok']);
    expect(plane.reset(backend!, [namespace])).toBe(3);
    expect(plane.connections(backend!, [namespace])).toBe(0);
    child.stdin!.write('talk\n');
    expect(JSON.parse(await lines())).toEqual(['ECONNABORTED', 'ECONNABORTED', 'ECONNABORTED', 'ok', 'ok']);
    await bed.stop(child);
    programme();
  });
});

test('when the map of peers is full, storage takes over; what dead namespaces left is swept', async () => {
  const [{ address, port, number }] = backendsOf(FAMILIES[0]!, [servers[0]!]) as [DataplaneBackend];
  plane.ensureBackends(1, [{ address, port, number }]);
  const peers = objectGet(bed.pin('maps', 'peers'))!;
  const { maxEntries } = mapInfo(peers);
  const left = PEER.encode({
    version: 1,
    number: 1,
    vip: '10.96.0.10',
    backend: '10.77.0.99',
    vip_port: 80,
    backend_port: 80,
    set: 1,
    netns: 1n,
  });
  let filled = 0;
  try {
    for (; filled <= maxEntries; filled++)
      mapUpdate(peers, COOKIE.encode({ cookie: (1n << 60n) + BigInt(filled) }), left);
  } catch (error) {
    expect(error).toMatchObject({ details: { name: 'E2BIG' } });
  }
  expect(filled).toBeGreaterThanOrEqual(maxEntries);
  const child = bed.spawn(client.namespace, [PYTHON, '-u', '-c', holder('10.96.0.10', address)]);
  const lines = linesOf(child);
  expect(await lines()).toBe('open');
  // Socket diagnostics show no storage of UDP.
  expect(plane.connections({ address, port, number }, [client.namespace])).toBe(2);
  const shown = await bed.python<unknown[]>(
    client.namespace,
    `say([ask(TCP, '10.96.0.10', 80)[1], ask(UDP, '10.96.0.10', 80)[1]])`,
  );
  expect(shown).toEqual(['10.96.0.10', '10.96.0.10']);
  const keep = {
    sandboxes: new Set(bed.sandboxes.map(({ id }) => id)),
    endpoints: new Set(bed.sandboxes.map(({ endpoint }) => endpoint.id)),
    segments: new Set<string>(),
    frontends: plane.frontends(),
    sets: new Set(plane.backends().keys()),
  };
  expect(plane.prune(keep)).toBe(0);
  expect(mapEntries(peers).length).toBeLessThan(10);
  expect(plane.reset({ address, port, number }, [client.namespace])).toBe(2);
  await bed.stop(child);
  closeFd(peers);
  programme();
});

/** Holds two TCP and one UDP socket by the VIP, and one of each directly; `talk` uses them all. */
const holder = (vip: string, direct: string): string => `
import socket, sys, json, errno
def make(kind, address, port):
    s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind); s.settimeout(3); s.connect((address, port)); return s
all = [make(socket.SOCK_STREAM, '${vip}', 80), make(socket.SOCK_STREAM, '${vip}', 80), make(socket.SOCK_DGRAM, '${vip}', 80),
       make(socket.SOCK_STREAM, '${direct}', ${PORT}), make(socket.SOCK_DGRAM, '${direct}', ${PORT})]
for s in all:
    if s.type == socket.SOCK_STREAM: s.recv(64)
def talk(s):
    try:
        failed = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failed: return errno.errorcode[failed]
        s.send(b'?'); return 'ok' if s.recv(64) else 'closed'
    except OSError as e: return errno.errorcode.get(e.errno, 'timeout')
print('open')
for line in sys.stdin: print(json.dumps([talk(s) for s in all]))
`;

function linesOf(child: ReturnType<Bed['spawn']>): () => Promise<string> {
  const queue: string[] = [];
  const waiting: ((line: string) => void)[] = [];
  let rest = '';
  child.stdout!.on('data', (chunk) => {
    const parts = (rest + chunk).split('\n');
    rest = parts.pop()!;
    for (const line of parts) {
      const next = waiting.shift();
      if (next) next(line);
      else queue.push(line);
    }
  });
  return () =>
    new Promise((resolve) => {
      const line = queue.shift();
      if (line === undefined) waiting.push(resolve);
      else resolve(line);
    });
}
