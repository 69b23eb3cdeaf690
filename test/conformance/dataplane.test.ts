import { unlinkSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createFakeDataplane, type FakeDataplane } from '../../src/balancer/fake.ts';
import type { Dataplane, DataplaneSandbox } from '../../src/contracts/dataplane.ts';
import type { Namespace } from '../../src/contracts/kernel.ts';
import { Bed, type BedSandbox, idOf, PYTHON } from '../kernel/dataplane-bed.ts';
import { type DataplaneHarness, dataplaneCases, dataplaneConformance, type Outcome } from './dataplane.ts';

// ---- in memory ----

function fakeHarness(wrap: (fake: FakeDataplane) => Dataplane = (fake) => fake): DataplaneHarness {
  const namespace = (n: number): Namespace => ({ identity: `fake:${n}`, cookie: BigInt(n) }) as Namespace;
  const sandbox = (n: number): DataplaneSandbox => ({
    id: idOf(n),
    number: n,
    view: n,
    namespace: namespace(n),
    dnsPort: 0,
  });
  const endpoint = (n: number) => ({
    id: idOf(1000 + n),
    number: 1000 + n,
    hostIfindex: n,
    mac: '02:42:0a:4d:00:0a',
    addresses: [`10.77.0.${n}`],
    allow: [],
    spoof: false,
  });
  const host = sandbox(90);
  let fake = createFakeDataplane();
  void fake.start();
  const reach = ({ id, namespace: from }: DataplaneSandbox, address: string, port: number, protocol: 'tcp' | 'udp') =>
    id === host.id ? fake.connectOnHost(from, address, port, protocol) : fake.connect(id, address, port, protocol);
  const harness: DataplaneHarness = {
    dataplane: wrap(fake),
    sandboxes: [sandbox(1), sandbox(2)],
    endpoints: [endpoint(1), endpoint(2)],
    tunnel: 77,
    host,
    async connect(from, address, port, protocol, n = 1) {
      return Array.from({ length: n }, (): Outcome => {
        const outcome = reach(from, address, port, protocol);
        if (typeof outcome === 'string') return outcome;
        fake.state.connections.delete(outcome);
        return { address: outcome.backend.address, port: outcome.backend.port };
      });
    },
    async hold(from, address, port, protocol) {
      const held = reach(from, address, port, protocol);
      return {
        open: async () => typeof held === 'string' || held.open,
        close: async () => {
          if (typeof held !== 'string') fake.state.connections.delete(held);
        },
      };
    },
    async restart() {
      fake.close();
      fake = createFakeDataplane(fake.state);
      harness.dataplane = wrap(fake);
      await fake.start();
    },
    damage: () => fake.damage({ object: 'hook', id: 'connect4', what: 'it was detached' }),
    close: async () => undefined,
  };
  return harness;
}

describe('the fake', () => {
  dataplaneConformance('fake', async () => fakeHarness());
});

// ---- in the kernel ----

describe('eBPF', () => {
  let bed: Bed;
  let sandboxes: readonly [BedSandbox, BedSandbox];
  let instances = 0;
  let tunnel: number;

  beforeAll(() => {
    bed = new Bed();
    tunnel = bed.kernel.host.netlink.ensureBridge('tunnel', { mac: '02:42:00:00:00:02', mtu: 1450, alias: '' }).ifindex;
    sandboxes = [bed.sandbox(11, 1), bed.sandbox(12, 2)];
    // Backends that nobody is: what is sent to them is lost, and no resolution fails in the middle of a test.
    for (const { namespace } of sandboxes) {
      const { ifindex } = namespace.netlink.link('eth0')!;
      const dead = [1, 2, 3, 4, 9].flatMap((n) => [`10.77.0.${200 + n}`, `fd77::${200 + n}`]);
      namespace.netlink.ensureNeighbours(dead.map((ip) => ({ link: ifindex, ip, mac: '02:42:00:00:00:99' })));
    }
  });
  afterAll(() => bed.close());

  const SOCKETS = `
def parse(text):
    raw, port = text.split(':'); data = b''.join(struct.pack('=I', int(raw[i:i+8], 16)) for i in range(0, len(raw), 8))
    return [socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data), int(port, 16)]
def peer(s, kind, address):
    table = ('tcp' if kind == TCP else 'udp') + ('6' if ':' in address else '')
    inode = str(os.fstat(s.fileno()).st_ino)
    for line in open('/proc/self/net/' + table):
        fields = line.split()
        if fields[9] == inode: return parse(fields[2])
def reach(kind, address, port):
    s = socket.socket(family_of(address), kind); s.setblocking(False)
    try: s.connect((address, port))
    except BlockingIOError: pass
    return s
`;
  const kindOf = (protocol: string): string => protocol.toUpperCase();

  async function harness(): Promise<DataplaneHarness> {
    const instance = `c${++instances}`;
    const self: DataplaneHarness = {
      dataplane: await bed.start({ instance }),
      sandboxes,
      endpoints: [sandboxes[0].endpoint, sandboxes[1].endpoint],
      tunnel,
      host: { id: idOf(90), number: 90, view: 90, namespace: bed.kernel.host, dnsPort: 0 },
      async connect({ namespace }, address, port, protocol, n = 1) {
        const found = await bed.python<(readonly [string, number] | 'ECONNREFUSED')[]>(
          namespace,
          `${SOCKETS}
def once():
    s = reach(${kindOf(protocol)}, '${address}', ${port}); return peer(s, ${kindOf(protocol)}, '${address}')
say([outcome(once) for _ in range(${n})])`,
        );
        return found.map((outcome): Outcome => {
          if (outcome === 'ECONNREFUSED') return 'refused';
          const toPort = outcome[1];
          const to = outcome[0].replace('::ffff:', '');
          return to === address && toPort === port ? 'untouched' : { address: to, port: toPort };
        });
      },
      async hold({ namespace }, address, port, protocol) {
        const child = bed.spawn(namespace, [
          PYTHON,
          '-u',
          '-c',
          `import os, socket, struct, sys
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
def family_of(address): return socket.AF_INET6 if ':' in address else socket.AF_INET
${SOCKETS}
s = reach(${kindOf(protocol)}, '${address}', ${port})
print('held')
for line in sys.stdin: print('open' if s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0 else 'closed')`,
        ]);
        // By lines: an unbuffered print may arrive in two pieces.
        const lines = createInterface(child.stdout!)[Symbol.asyncIterator]();
        const answer = async (): Promise<string> => String((await lines.next()).value);
        await answer();
        return {
          async open() {
            child.stdin!.write('?\n');
            return (await answer()) === 'open';
          },
          close: () => bed.stop(child),
        };
      },
      async restart() {
        self.dataplane.close();
        self.dataplane = await bed.start({ instance });
      },
      damage: () => unlinkSync(`${bed.bpffs}/${instance}/v1/links/connect4`),
      async close() {
        // A case may leave it closed.
        self.dataplane.off();
      },
    };
    return self;
  }

  dataplaneConformance('eBPF', harness);
});

// ---- broken ones ----

describe('the suite tells a broken implementation', () => {
  type Broken = readonly [what: string, overrides: (fake: FakeDataplane) => Partial<Dataplane>, failing: RegExp];
  const broken: readonly Broken[] = [
    [
      'frontends ignore the view',
      (fake) => ({ ensureFrontend: (one) => [1, 2].forEach((view) => void fake.ensureFrontend({ ...one, view })) }),
      /belong to a view/,
    ],
    ['removed frontends stay', () => ({ removeFrontend: () => undefined }), /all ports|read back/],
    [
      'backends are only ever added',
      (fake) => ({
        ensureBackends: (set, list) => fake.ensureBackends(set, [...(fake.state.sets.get(set) ?? []), ...list]),
      }),
      /replaced/,
    ],
    [
      'a set is one backend',
      (fake) => ({ ensureBackends: (set, list) => fake.ensureBackends(set, list.slice(0, 1)) }),
      /all of them/,
    ],
    [
      'an empty set is no set',
      (fake) => ({
        ensureBackends: (set, list) => (list.length > 0 ? fake.ensureBackends(set, list) : fake.removeBackends(set)),
      }),
      /refuses/,
    ],
    [
      'a backend leaves all its sets at once',
      (fake) => ({
        removeBackends: (set) => {
          const gone = new Set((fake.state.sets.get(set) ?? []).map(({ number }) => number));
          fake.removeBackends(set);
          for (const [other, list] of fake.state.sets)
            fake.ensureBackends(
              other,
              list.filter(({ number }) => !gone.has(number)),
            );
        },
      }),
      /several sets/,
    ],
    [
      'the port asked for is lost',
      (fake) => ({
        ensureBackends: (set, list) =>
          fake.ensureBackends(
            set,
            list.map((one) => ({ ...one, port: one.port || 80 })),
          ),
      }),
      /keeps the port/,
    ],
    [
      'what left the tunnel stays behind it',
      (fake) => ({ changeStations: (tunnel, { come }) => fake.changeStations(tunnel, { come, gone: [] }) }),
      /behind a tunnel/,
    ],
    [
      'a MAC of this host`s is taken from it',
      (fake) => ({ ensureEndpoint: (endpoint) => fake.ensureEndpoint({ ...endpoint, tunnel: undefined }) }),
      /not taken/,
    ],
    ['the host is always served', (fake) => ({ serveHost: () => fake.serveHost(true) }), /host is served/],
    ['a removed sandbox is still served', () => ({ removeSandbox: () => undefined }), /belong to a view/],
    [
      'a reset takes no notice of the namespace',
      (fake) => ({
        reset: (backend) =>
          fake.reset(
            backend,
            [1, 2].map((n) => ({ identity: `fake:${n}` }) as Namespace),
          ),
      }),
      /a reset ends/,
    ],
    [
      'a reset takes everything',
      (fake) => ({
        reset: (backend, namespaces) =>
          [1, 2, 3].reduce((sum, number) => sum + fake.reset({ ...backend, number }, namespaces), 0),
      }),
      /a reset ends/,
    ],
    ['nothing is ever reset', () => ({ reset: () => 0 }), /a reset ends/],
    [
      'a backend that goes takes its connections along',
      (fake) => ({
        ensureBackends: (set, list) => {
          for (const old of fake.state.sets.get(set) ?? [])
            if (!list.some(({ number }) => number === old.number))
              fake.reset(old, [{ identity: 'fake:1' } as Namespace]);
          fake.ensureBackends(set, list);
        },
      }),
      /outlive/,
    ],
    [
      'refusals are not counted',
      (fake) => ({ setCounters: (set) => ({ ...fake.setCounters(set), refused: 0 }) }),
      /refuses/,
    ],
    [
      'connects are not counted',
      (fake) => ({ setCounters: (set) => ({ ...fake.setCounters(set), connects: 0 }) }),
      /counted by set/,
    ],
    [
      'addresses are not canonical',
      (fake) => ({ frontends: () => fake.frontends().map((one) => ({ ...one, address: one.address.toUpperCase() })) }),
      /ipv6/,
    ],
    ['prune removes all', (fake) => ({ prune: (keep) => fake.prune({ ...keep, frontends: [] }) }), /prune/],
    ['prune removes nothing', () => ({ prune: () => 0 }), /prune/],
    [
      'the highest numbers are forgotten',
      () => ({ highest: () => ({ attachment: 0, view: 0, set: 0, backend: 0 }) }),
      /highest/,
    ],
    ['an audit sees nothing', () => ({ audit: () => [] }), /audit/],
    [
      'an audit mends nothing',
      (fake) => ({ audit: () => [...fake.audit(), { object: 'hook', id: 'connect4', what: 'it is still detached' }] }),
      /audit/,
    ],
    [
      'drops lack a reason',
      (fake) => ({
        endpointCounters: (id) => {
          const { vlan: _, ...drops } = fake.endpointCounters(id).drops;
          return { drops };
        },
      }),
      /drops/,
    ],
    ['nonsense is accepted', () => ({ ensureFrontend: () => undefined }), /nonsense/],
    ['off forgets the frontends', (fake) => ({ off: () => fake.close() }), /off takes/],
  ];

  test.each(broken)('%s', async (_, overrides, failing) => {
    const failed: string[] = [];
    for (const { name, run } of dataplaneCases) {
      const harness = fakeHarness((fake) => {
        const changed = overrides(fake);
        return new Proxy(fake, {
          get(target, key) {
            const value = Reflect.get(changed, key) ?? Reflect.get(target, key);
            return typeof value === 'function' ? value.bind(target) : value;
          },
        });
      });
      try {
        await run(harness);
      } catch {
        // That is what it is for.
        failed.push(name);
      }
    }
    expect(failed.join('\n')).toMatch(failing);
  });

  test('a start that forgets everything is told', async () => {
    const restarts = dataplaneCases.filter(({ name }) => name.includes('restart'));
    for (const { run } of restarts) {
      const harness = fakeHarness();
      const forgetful: DataplaneHarness = {
        ...harness,
        get dataplane() {
          return harness.dataplane;
        },
        async restart() {
          harness.dataplane.off();
          await harness.restart();
        },
      };
      await expect(run(forgetful)).rejects.toThrow();
    }
  });
});
