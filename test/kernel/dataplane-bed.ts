/**
 * A bed for tests of the data plane: a namespace that plays host with one bridge, sandboxes on it, a cgroup subtree and a bpffs.
 * Everything bears the process id; what a killed run left is swept by the next.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createEbpfDataplane, type EbpfDataplaneOptions } from '../../src/balancer/ebpf.ts';
import type { Dataplane, DataplaneEndpoint, DataplaneSandbox } from '../../src/contracts/dataplane.ts';
import type { Kernel, Link, Namespace } from '../../src/contracts/kernel.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { libc } from '../../src/kernel/libc.ts';
import { deriveMac } from '../../src/model/id.ts';

const root = join(import.meta.dirname, '../..');
export const objectDir = join(root, 'dist/bpf');
/** Debian's own: a version manager's `python3` may be a slow script. */
export const PYTHON = '/usr/bin/python3';
const PREFIX = 'sluice-dp-';
const RUN_MS_MAX = 20_000;
const MNT_DETACH = 2;
let beds = 0;

/** An id of 64 hex digits out of a number. */
export const idOf = (number: number): string => number.toString(16).padStart(64, '0');

export interface BedSandbox extends DataplaneSandbox {
  readonly ipv4: string;
  readonly ipv6: string;
  readonly mac: string;
  /** Host side. */
  readonly link: Link;
  readonly endpoint: DataplaneEndpoint;
}

export class Bed {
  readonly dir: string;
  readonly cgroup: string;
  readonly instance: string;
  readonly kernel: Kernel;
  readonly #bridge: number;
  readonly #children = new Set<ChildProcess>();
  readonly #planes = new Set<Dataplane>();
  readonly sandboxes: BedSandbox[] = [];

  constructor() {
    sweep();
    execFileSync('sh', [join(root, 'src/bpf/build.sh')]);
    const own = createKernel();
    const name = `${PREFIX}${process.pid}-${++beds}`;
    this.dir = join(tmpdir(), name);
    this.cgroup = join(own.cgroups.mount, name);
    this.instance = `dp${beds}`;
    mkdirSync(this.dir, { recursive: true });
    own.cgroups.ensure(this.cgroup);
    const host = join(this.dir, 'netns/host');
    own.namespaces.ensure(host)[Symbol.dispose]();
    own[Symbol.dispose]();
    this.kernel = createKernel({ host });
    this.#bridge = this.kernel.host.netlink.ensureBridge('br0', {
      mac: '02:42:00:00:00:01',
      mtu: 1500,
      alias: name,
    }).ifindex;
    this.kernel.host.netlink.ensureAddress(this.#bridge, '10.77.0.1/24');
    this.kernel.host.netlink.ensureAddress(this.#bridge, 'fd77::1/64', { nodad: true });
  }

  get bpffs(): string {
    return join(this.dir, 'bpf');
  }

  get options(): EbpfDataplaneOptions {
    const { kernel, instance, bpffs, cgroup: cgroupRoot } = this;
    return { kernel, instance, bpffs, cgroupRoot, objectDir };
  }

  /** Pins of the instance, below its folder. */
  pinned(kind: string, generation = 1): string[] {
    const dir = join(this.bpffs, this.instance, `v${generation}`, kind);
    return existsSync(dir) ? readdirSync(dir).sort() : [];
  }

  pin(kind: string, name: string, generation = 1): string {
    return join(this.bpffs, this.instance, `v${generation}`, kind, name);
  }

  async start(options: Partial<EbpfDataplaneOptions> = {}): Promise<Dataplane> {
    const plane = createEbpfDataplane({ ...this.options, ...options });
    this.#planes.add(plane);
    await plane.start();
    return plane;
  }

  /** A namespace with a veth on the bridge: 10.77.0.<number> and fd77::<number>. */
  sandbox(number: number, view = 1, dnsPort = 0): BedSandbox {
    const namespace = this.kernel.namespaces.ensure(join(this.dir, `netns/s${number}`));
    const ipv4 = `10.77.0.${number}`;
    const ipv6 = `fd77::${number}`;
    const mac = deriveMac(idOf(number), ipv4);
    for (const scope of ['all', 'default']) namespace.setSysctl(`net.ipv6.conf.${scope}.accept_dad`, '0');
    const { netlink } = this.kernel.host;
    const link = netlink.ensureVeth(`v${number}`, {
      mtu: 1500,
      alias: 'bed',
      peer: { name: 'eth0', mac, mtu: 1500, netnsFd: namespace.fd },
    });
    netlink.setLink(link.ifindex, { up: true, master: this.#bridge });
    const inside = namespace.netlink.link('eth0')!;
    namespace.netlink.setLink(inside.ifindex, { up: true });
    namespace.netlink.ensureAddress(inside.ifindex, `${ipv4}/24`);
    namespace.netlink.ensureAddress(inside.ifindex, `${ipv6}/64`, { nodad: true });
    namespace.netlink.ensureRoute({ dst: '0.0.0.0/0', via: '10.77.0.1' });
    namespace.netlink.ensureRoute({ dst: '::/0', via: 'fd77::1' });
    const sandbox: BedSandbox = {
      id: idOf(number),
      number,
      view,
      namespace,
      dnsPort,
      ipv4,
      ipv6,
      mac,
      link,
      endpoint: {
        id: idOf(1000 + number),
        number: 1000 + number,
        hostIfindex: link.ifindex,
        mac,
        addresses: [ipv4, ipv6],
        allow: [],
        spoof: false,
      },
    };
    this.sandboxes.push(sandbox);
    return sandbox;
  }

  /** Starts a program in the namespace and, by default, in the bed's cgroup, so that its sockets are in scope. */
  spawn(namespace: Namespace, argv: readonly string[], options: { readonly outside?: boolean } = {}): ChildProcess {
    const enter = options.outside ? '' : `echo $$ > ${join(this.cgroup, 'cgroup.procs')};`;
    const child = spawn('sh', ['-c', `${enter} exec nsenter --net=${namespace.path} "$@"`, 'sh', ...argv], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#children.add(child);
    child.on('exit', () => this.#children.delete(child));
    return child;
  }

  /** Runs a Python program; its last line of output is JSON. */
  python<T>(namespace: Namespace, code: string, options: { readonly outside?: boolean } = {}): Promise<T> {
    const child = this.spawn(namespace, [PYTHON, '-IS', '-c', `${PRELUDE}\n${code}`], options);
    return new Promise<T>((resolve, reject) => {
      let text = '';
      const timer = setTimeout(() => child.kill('SIGKILL'), RUN_MS_MAX);
      child.stdout!.on('data', (chunk) => {
        text += chunk;
      });
      child.on('close', (status) => {
        clearTimeout(timer);
        const last = text.trimEnd().split('\n').at(-1) ?? '';
        if (status === 0) resolve((last === '' ? null : JSON.parse(last)) as T);
        else reject(new Error(`status ${status}: ${text}`));
      });
    });
  }

  /** A server that answers every connection and datagram on the port with its name, on all its addresses; resolves when it listens. */
  async serve(sandbox: BedSandbox, port: number): Promise<ChildProcess> {
    const child = this.spawn(sandbox.namespace, [
      PYTHON,
      '-u',
      '-c',
      `${PRELUDE}\n${SERVER}`,
      String(port),
      sandbox.ipv4,
      sandbox.ipv6,
    ]);
    await new Promise<void>((resolve, reject) => {
      child.stdout!.once('data', () => resolve());
      child.once('exit', (status) => reject(new Error(`server ended with ${status}`)));
    });
    return child;
  }

  async stop(child: ChildProcess): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
    });
  }

  async close(): Promise<void> {
    for (const child of [...this.#children]) await this.stop(child);
    for (const plane of this.#planes) plane.close();
    for (const { namespace } of this.sandboxes) namespace[Symbol.dispose]();
    this.kernel[Symbol.dispose]();
    await remove(this.dir, this.cgroup);
  }
}

/** Answers `NAME` to whoever comes: its IPv4 address, as a name that both families share. */
const SERVER = `
import threading
port, v4, v6 = int(sys.argv[1]), sys.argv[2], sys.argv[3]
name = v4.encode()
def udp(family, address):
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind((address, port))
    while True:
        data, peer = s.recvfrom(2048); s.sendto(name, peer)
def talk(c):
    try:
        c.sendall(name)
        while c.recv(4096): c.sendall(name)
    except OSError: pass
    c.close()
def tcp(family, address):
    s = socket.socket(family, socket.SOCK_STREAM); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port)); s.listen(1024)
    ready.release()
    while True:
        c, _ = s.accept(); threading.Thread(target=talk, args=(c,), daemon=True).start()
ready = threading.Semaphore(0)
for family, address in ((socket.AF_INET, v4), (socket.AF_INET6, v6)):
    for serve in (udp, tcp): threading.Thread(target=serve, args=(family, address), daemon=True).start()
ready.acquire(); ready.acquire(); print('ready')
threading.Event().wait()
`;

const PRELUDE = `
import errno, json, os, socket, struct, sys, time
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
def family_of(address): return socket.AF_INET6 if ':' in address else socket.AF_INET
def sock(kind, address): 
    s = socket.socket(family_of(address), kind); s.settimeout(3); return s
def outcome(f):
    try: return f()
    except OSError as e: return errno.errorcode.get(e.errno, 'timeout')
def ask(kind, address, port):
    def go():
        s = sock(kind, address); s.connect((address, port))
        if kind == UDP: s.send(b'?')
        answer = s.recv(64).decode(); peer = s.getpeername()
        s.close(); return [answer, peer[0], peer[1]]
    return outcome(go)
def say(x): print(json.dumps(x), flush=True)
`;

async function remove(dir: string, cgroup: string): Promise<void> {
  const kernel = createKernel();
  const netns = join(dir, 'netns');
  for (const name of existsSync(netns) ? readdirSync(netns) : []) kernel.namespaces.remove(join(netns, name));
  // Made twice where a run was killed between the two mounts.
  while (libc.umount2(netns, MNT_DETACH) === 0);
  while (libc.umount2(join(dir, 'bpf'), MNT_DETACH) === 0);
  rmSync(dir, { recursive: true, force: true });
  await kernel.cgroups.remove(cgroup, { kill: true });
  kernel[Symbol.dispose]();
}

/** What runs left whose process is dead. */
function sweep(): void {
  const { mount } = createKernel().cgroups;
  const names = new Set([...readdirSync(tmpdir()), ...readdirSync(mount)].filter((name) => name.startsWith(PREFIX)));
  for (const name of names) {
    const pid = Number(name.slice(PREFIX.length).split('-')[0]);
    if (existsSync(`/proc/${pid}`)) continue;
    void remove(join(tmpdir(), name), join(mount, name));
  }
}
