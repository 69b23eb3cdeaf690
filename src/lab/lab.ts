/**
 * Hosts as network namespaces on one underlay. Each host has a namespace, a cgroup subtree, folders, a bpffs and an
 * instance mark of its own, so that daemons in them share nothing but the kernel; the machine's own network is not touched.
 *
 *     outside ── bridge `underlay` 198.18.0.1/24, 2001:db8:18::1/64   (a namespace too: the world beyond the hosts)
 *        ├── eth0 of host 1   198.18.0.11, 2001:db8:18::11
 *        └── eth0 of host 2   198.18.0.12, 2001:db8:18::12 …
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Client, createClient } from '../client/client.ts';
import { SluiceError } from '../errors.ts';
import { type Daemon, type DaemonOptions, projectRoot, startDaemon } from './daemon.ts';
import { claimLab, labCgroup, labFolder, labTraces, namespaceName, namespacePath, removeLab } from './owner.ts';
import { type Background, type Command, type Place, type RunOptions, type RunResult, runAt, startAt } from './place.ts';

export interface LabOptions {
  /** Short name for people: `[a-z0-9]+`. */
  readonly name: string;
  /** Names of the hosts, `[a-z0-9]+`, at most 200. */
  readonly hosts: readonly string[];
  /** Of the underlay, in bytes. Default 1500. */
  readonly mtu?: number;
}

/** The hosts of a lab, without what makes or removes it. */
type Hosts = Pick<Lab, 'id' | 'hosts' | 'outside' | 'host'>;

/** A namespace of the lab in which programs run. */
export interface Station {
  readonly name: string;
  readonly netnsPath: string;
  readonly cgroup: string;
  readonly address: string;
  readonly address6: string;
  /** Runs a program here to its end; the exit status is in the result. */
  exec(command: Command, options?: RunOptions): Promise<RunResult>;
  /** Like `exec`, and fails unless the exit status is 0; returns standard output. */
  must(command: Command, options?: RunOptions): Promise<string>;
  /** Starts a program that ends with the lab at the latest. */
  spawn(command: Command, options?: RunOptions): Background;
}

export interface LabHost extends Station {
  readonly instance: string;
  readonly stateDir: string;
  readonly runDir: string;
  readonly bpffs: string;
  readonly cgroupRoot: string;
  readonly socket: string;
  /** The API of whatever daemon runs here. */
  readonly client: Client;
  readonly daemon: {
    /** The daemon that runs, or null. */
    readonly current: Daemon | null;
    start(options?: Partial<DaemonOptions>): Promise<Daemon>;
    kill(signal?: NodeJS.Signals): Promise<void>;
    stop(): Promise<void>;
    /** Log of the last life. */
    log(): string;
  };
  /** Runs the compiled CLI against this host: `sluice(['network', 'ls'])`. */
  sluice(args: readonly string[], options?: RunOptions): Promise<RunResult>;
}

export interface Lab {
  readonly id: string;
  readonly hosts: readonly LabHost[];
  /** The world beyond the hosts: their default gateway, with 203.0.113.1 and 2001:db8:ffff::1 as far addresses. */
  readonly outside: Station;
  host(name: string): LabHost;
  /** Removes everything; returns what could still be found afterwards (nothing, unless something is broken). */
  close(): Promise<string[]>;
}

/** Addresses that only a route through {@link Lab.outside} reaches. */
export const FAR = { ipv4: '203.0.113.1', ipv6: '2001:db8:ffff::1' } as const;

let labs = 0;
let instances = 0;

/** Eight characters that no other host of any lab on this machine has: owner and count in base 36. */
function nextInstance(): string {
  const instance = `l${process.pid.toString(36).padStart(5, '0')}${(instances++).toString(36).padStart(2, '0')}`;
  if (instance.length > 8) throw new SluiceError('internal', 'one process made more than 1,296 lab hosts');
  return instance;
}

/** `ip ARGS` or, with `lines`, one batch of them; fails with ip's own words. */
function ip(args: readonly string[], lines?: readonly string[]): void {
  execFileSync('ip', args, {
    input: lines
      ?.map(
        (line) => `${line}
`,
      )
      .join(''),
    stdio: 'pipe',
  });
}

const ipBatch = (namespace: string, lines: readonly string[]): void => ip(['-n', namespace, '-batch', '-'], lines);

function station(place: Required<Place>, name: string, address: string, address6: string): Station {
  const exec = (command: Command, options?: RunOptions) => runAt(place, command, options);
  return {
    name,
    netnsPath: place.netnsPath,
    cgroup: place.cgroup,
    address,
    address6,
    exec,
    async must(command, options) {
      const result = await exec(command, options);
      if (result.code === 0) return result.stdout;
      const line = typeof command === 'string' ? command : command.join(' ');
      throw new SluiceError(
        'internal',
        `on ${name}: ${line}: status ${result.code}: ${result.stderr || result.stdout}`,
      );
    },
    spawn: (command, options) => startAt(place, command, options),
  };
}

/** Makes the namespaces and wires them; no daemon runs yet. Close it in any case; {@link sweepLab} removes it when its owner died. */
export async function createLab(options: LabOptions): Promise<Lab> {
  const { name, hosts, mtu = 1500 } = options;
  for (const word of [name, ...hosts]) {
    if (!/^[a-z0-9]{1,20}$/.test(word))
      throw new SluiceError('request.invalid', `"${word}" does not fit [a-z0-9]{1,20}`);
  }
  if (hosts.length > 200) throw new SluiceError('request.invalid', `${hosts.length} hosts: a lab has 200 at most`);
  const id = `${process.pid}-${name}${labs++ || ''}`;
  claimLab(id);
  try {
    mkdirSync(labCgroup(id));
    wireHosts(id, hosts, mtu);
    const lab = hostsOf(id, hosts, nextInstance);
    return {
      ...lab,
      async close() {
        for (const each of lab.hosts) await each.daemon.kill();
        await removeLab(id);
        return labTraces(id);
      },
    };
  } catch (error) {
    await removeLab(id);
    throw error;
  }
}

/** Makes the namespaces and the /run of the hosts of a lab that is claimed, and the links between them. */
export function wireHosts(id: string, names: readonly string[], mtu: number): void {
  const outsideName = namespaceName(id, 'outside');
  ip(['netns', 'add', outsideName]);
  ipBatch(outsideName, [
    'link set lo up',
    `addr add ${FAR.ipv4}/32 dev lo`,
    `addr add ${FAR.ipv6}/128 dev lo`,
    `link add underlay mtu ${mtu} type bridge`,
    'addr add 198.18.0.1/24 dev underlay',
    'addr add 2001:db8:18::1/64 dev underlay nodad',
    'link set underlay up',
  ]);
  for (const [index, name] of names.entries()) {
    const { number, address, address6 } = addressesOf(index);
    const netns = namespaceName(id, name);
    ip(['netns', 'add', netns]);
    mkdirSync(runFolder(id, name), { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'mode=755', 'lab-run', runFolder(id, name)], { stdio: 'pipe' });
    ipBatch(outsideName, [
      `link add h${number} mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${netns}`,
      `link set h${number} master underlay up`,
    ]);
    ipBatch(netns, [
      'link set lo up',
      `addr add ${address}/24 dev eth0`,
      `addr add ${address6}/64 dev eth0 nodad`,
      'link set eth0 up',
      'route add default via 198.18.0.1',
      'route add ::/0 via 2001:db8:18::1',
    ]);
  }
}

/** A host's /run: in memory, as on any host, whatever this machine's is. */
const runFolder = (id: string, name: string): string => join(labFolder(id), name, 'run');

function addressesOf(index: number) {
  const number = 11 + index;
  return { number, address: `198.18.0.${number}`, address6: `2001:db8:18::${number}` };
}

/** The hosts of a lab that is wired, by this process or by an earlier one; `instance` gives each daemon's mark. */
export function hostsOf(id: string, names: readonly string[], instance: (index: number) => string): Hosts {
  const place = (host: string, cgroup: string): Required<Place> => {
    mkdirSync(cgroup, { recursive: true });
    return { netnsPath: namespacePath(namespaceName(id, host)), cgroup };
  };
  const hosts = names.map((name, index) => {
    const { address, address6 } = addressesOf(index);
    const cgroupRoot = join(labCgroup(id), name);
    const at = station(place(name, join(cgroupRoot, 'programs')), name, address, address6);
    return host(at, id, cgroupRoot, instance(index));
  });
  const outside = station(place('outside', join(labCgroup(id), 'outside')), 'outside', '198.18.0.1', '2001:db8:18::1');
  return {
    id,
    hosts,
    outside,
    host(name) {
      const found = hosts.find((each) => each.name === name);
      if (!found) throw new SluiceError('object.notfound', `the lab has no host ${name}`);
      return found;
    },
  };
}

function host(at: Station, id: string, cgroupRoot: string, instance: string): LabHost {
  const folder = join(labFolder(id), at.name);
  const runDir = join(runFolder(id, at.name), 'sluice');
  const base = {
    instance,
    stateDir: join(folder, 'state'),
    runDir,
    cgroupRoot,
    netnsPath: at.netnsPath,
  };
  const bpffs = join(folder, 'bpf');
  const socket = join(runDir, 'sluice.sock');
  const cli = join(projectRoot(), 'bin/sluice');
  let current: Daemon | null = null;
  let last: Daemon | null = null;
  return {
    ...at,
    ...base,
    bpffs,
    socket,
    client: createClient({ socket }),
    daemon: {
      get current() {
        return current;
      },
      async start(options = {}) {
        if (current) throw new SluiceError('object.exists', `the daemon of ${at.name} runs already`);
        // Foreign names go to the world outside, where a test may put a resolver; nothing leaves the machine.
        const settings = { bpffs, node: at.name, dns: ['198.18.0.1'], ...options.settings };
        const started = await startDaemon({ ...base, ...options, settings });
        current = started;
        last = started;
        started.exited.then(() => {
          if (current === started) current = null;
        });
        return started;
      },
      async kill(signal) {
        await current?.kill(signal);
        current = null;
      },
      async stop() {
        await current?.stop();
        current = null;
      },
      log: () => last?.log() ?? '',
    },
    sluice: (args, options) =>
      at.exec([cli, ...args], { ...options, env: { SLUICE_HOST: `unix://${socket}`, ...options?.env } }),
  };
}
