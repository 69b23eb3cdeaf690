/** Programs inside sandboxes that talk to each other: plain sockets, no retries. */
import { type Background, type Place, type RunResult, runAt, startAt } from '../../src/lab/place.ts';
import { eventually, type TestHost } from './harness.ts';

export interface Inside {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly ipv4: string | undefined;
  readonly ipv6: string | undefined;
  readonly netnsPath: string;
  /** Where its programs run. */
  readonly place: Required<Place>;
  exec(command: string | readonly string[], timeoutMs?: number): Promise<RunResult>;
  /** A TCP and UDP server on all addresses that answers every datagram, and every line of a connection, with the sandbox's name. */
  serve(...ports: number[]): Promise<Background>;
  /** The answer of a server, or `error: NAME` (`ECONNREFUSED`, `timeout` …). */
  ask(address: string, port: number, protocol?: 'tcp' | 'udp'): Promise<string>;
  /** The same of as many connections over TCP, one after another. */
  asks(times: number, address: string, port: number): Promise<string[]>;
  ping(address: string): Promise<boolean>;
  /** Starts a Python program that lives until it ends or its sandbox does. */
  python(code: string): Background;
}

export const FAMILIES = [
  { family: 'IPv4', flags: ['--subnet', '10.20.0.0/24'], v4: true, v6: false },
  { family: 'IPv6', flags: ['--ipv4=false', '--ipv6', '--subnet', 'fd00:20::/64'], v4: false, v6: true },
  {
    family: 'dual stack',
    flags: ['--ipv6', '--subnet', '10.20.0.0/24', '--subnet', 'fd00:20::/64'],
    v4: true,
    v6: true,
  },
] as const;

/** Debian's own: another first in the PATH may be a slow wrapper. */
export const PYTHON = '/usr/bin/python3';

const SERVER = `
import selectors, socket, sys
name = sys.argv[1].encode()
sel = selectors.DefaultSelector()
for port in map(int, sys.argv[2:]):
    t = socket.socket(socket.AF_INET6, socket.SOCK_STREAM); t.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); t.bind(('::', port)); t.listen(512); t.setblocking(False)
    for family, address in ((socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::')):
        u = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6: u.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        u.bind((address, port)); u.setblocking(False); sel.register(u, 1, 'udp')
    sel.register(t, 1, 'listen')
print('ready', flush=True)
while True:
    for key, _ in sel.select():
        s = key.fileobj
        try:
            if key.data == 'listen':
                c, _ = s.accept(); c.setblocking(False); sel.register(c, 1, 'tcp')
            elif key.data == 'udp':
                d, a = s.recvfrom(65536); s.sendto(name + b' ' + d, a)
            else:
                d = s.recv(65536)
                if d: s.sendall(name + b' ' + d)
                else: sel.unregister(s); s.close()
        except OSError:
            if key.data == 'tcp': sel.unregister(s); s.close()
`;

const CLIENT = `
import errno, socket, sys
address, port, protocol, times = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for _ in range(times):
    s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM if protocol == 'tcp' else socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        s.connect((address, port)); s.sendall(b'hello'); print(s.recv(100).decode(), s.getpeername()[0])
    except socket.timeout: print('error: timeout')
    except OSError as e: print('error:', errno.errorcode.get(e.errno, e))
    s.close()
`;

export async function inside(host: TestHost, name: string): Promise<Inside> {
  const sandbox = await host.client.sandboxes.get(name);
  const detail = sandbox.status?.detail as { netnsPath: string; cgroupPath: string };
  const addresses = (await host.client.endpoints.list())
    .filter(({ spec }) => spec.sandbox === sandbox.id)
    .flatMap(({ spec }) => spec.addresses.map((cidr) => cidr.split('/')[0]!));
  const place = { netnsPath: detail.netnsPath, cgroup: detail.cgroupPath };
  const exec = (command: string | readonly string[], timeoutMs = 10_000): Promise<RunResult> =>
    runAt(place, command, { timeoutMs });
  return {
    name,
    addresses,
    ipv4: addresses.find((address) => !address.includes(':')),
    ipv6: addresses.find((address) => address.includes(':')),
    netnsPath: place.netnsPath,
    place,
    exec,
    async serve(...ports) {
      const server = startAt(place, [PYTHON, '-IS', '-c', SERVER, name, ...ports.map(String)]);
      await eventually(() => server.output().includes('ready'));
      return server;
    },
    async ask(address, port, protocol = 'tcp') {
      const { stdout, stderr } = await exec([PYTHON, '-IS', '-c', CLIENT, address, String(port), protocol, '1']);
      return stdout.trim() || stderr.trim();
    },
    async asks(times, address, port) {
      const { stdout } = await exec([PYTHON, '-IS', '-c', CLIENT, address, String(port), 'tcp', String(times)], 60_000);
      return stdout.trim().split('\n');
    },
    python: (code) => startAt(place, [PYTHON, '-IS', '-c', code]),
    ping: async (address) => (await exec(['ping', '-c1', '-W1', address])).code === 0,
  };
}

/** Creates a sandbox and looks inside. */
export async function sandbox(host: TestHost, name: string, ...flags: string[]): Promise<Inside> {
  await host.cli('sandbox', 'create', name, ...flags);
  return inside(host, name);
}
