/** A busybox root file system, a namespace and a cgroup for containers, and an engine; nothing of it is left afterwards. */
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createEngine } from '../../runtime/engine/engine.ts';
import { findTools, type Tools } from '../../runtime/engine/tool.ts';
import { systemClock } from '../../src/clock.ts';
import type { ContainerPlan, ContainerState, Runtime } from '../../src/contracts/runtime.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { createLogger } from '../../src/log.ts';
import type { ContainerSpec } from '../../src/model/container.ts';
import { hexId, ID_BYTES } from '../../src/model/id.ts';
import { makeFolder } from '../folder.ts';

const APPLETS = [
  'sh',
  'cat',
  'echo',
  'sleep',
  'id',
  'ls',
  'stty',
  'kill',
  'true',
  'false',
  'mount',
  'mknod',
  'wc',
  'dd',
  'head',
  'env',
  'hostname',
  'ip',
  'ps',
  'touch',
  'rm',
  'ln',
  'mkdir',
  'test',
  'chmod',
  'tty',
  'trap',
  'unshare',
  'chroot',
  'grep',
  'readlink',
];

export const SPEC: ContainerSpec = {
  image: 'busybox',
  imageId: `sha256:${'0'.repeat(64)}`,
  sandbox: '0'.repeat(64),
  env: [],
  tty: false,
  stdin: false,
  mounts: [],
  devices: [],
  readOnly: false,
  privileged: false,
  capAdd: [],
  capDrop: [],
  securityOpt: [],
  userns: 'host',
  init: false,
  addHosts: [],
  ulimits: {},
  stopTimeoutMs: 10_000,
  restart: { name: 'no', retriesMax: 0 },
  autoRemove: false,
  publish: [],
  wanted: 'running',
  generation: 1,
};

/** A plan of nothing but its spec. */
export const planOf = (id: string, spec: ContainerSpec, plan: Partial<ContainerPlan> = {}): ContainerPlan => ({
  id,
  name: `c-${id.slice(0, 6)}`,
  spec,
  image: { entrypoint: [], command: [], env: [], user: '', workdir: '', volumes: [], ports: [], labels: {} },
  rootfs: '/nowhere',
  netnsPath: '/nowhere',
  cgroupPath: '/nowhere',
  files: {},
  volumes: {},
  ...plan,
});

export class EngineBed {
  readonly folder = makeFolder('engine');
  readonly kernel = createKernel();
  readonly #netns: string;
  readonly #cgroup: string;
  readonly #ids = new Set<string>();
  #roots = 0;
  runtime!: Runtime;

  constructor() {
    // What a user namespace maps elsewhere must reach its root.
    chmodSync(this.folder, 0o711);
    const name = `sluice-engine-${process.pid}`;
    execFileSync('ip', ['netns', 'add', name]);
    execFileSync('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
    this.#netns = `/run/netns/${name}`;
    this.#cgroup = join(this.kernel.cgroups.mount, `sluice-engine-${process.pid}`);
    this.kernel.cgroups.ensure(this.#cgroup);
  }

  /** A new life over what is there; ends the one before as a killed daemon would, watching no more. */
  async start(tools: Partial<Tools> = {}): Promise<Runtime> {
    await this.runtime?.close();
    this.runtime = await createEngine({
      dir: join(this.folder, 'containers'),
      runDir: join(this.folder, 'run'),
      tools: { ...this.tools, ...tools },
      cgroupMount: this.kernel.cgroups.mount,
      own: [],
      clock: systemClock,
      logger: createLogger('silent'),
    });
    return this.runtime;
  }

  /** What the host has. */
  get tools(): Tools {
    return findTools({ root: join(import.meta.dirname, '../..'), mount: this.kernel.cgroups.mount });
  }

  async ended(id: string, limitMs = 10_000): Promise<ContainerState> {
    const until = performance.now() + limitMs;
    for (;;) {
      const state = await this.runtime.state(id);
      if (state?.state === 'exited') return state;
      if (performance.now() > until) throw new Error(`it does not end: ${JSON.stringify(state)}`);
      await sleep(10);
    }
  }

  /** What it wrote so far; errors marked by `!`. */
  async logs(id: string): Promise<string> {
    let all = '';
    for await (const line of this.runtime.logs(id, { follow: false, signal: new AbortController().signal }))
      all += (line.stream === 'stderr' ? '!' : '') + line.text;
    return all;
  }

  /** A root file system of its own. */
  rootfs(): string {
    const root = join(this.folder, `root${this.#roots++}`);
    for (const name of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'root', 'data'])
      mkdirSync(join(root, name), { recursive: true });
    copyFileSync('/bin/busybox', join(root, 'bin/busybox'));
    for (const name of APPLETS) symlinkSync('busybox', join(root, 'bin', name));
    writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/data:/bin/sh\n');
    writeFileSync(join(root, 'etc/group'), 'root:x:0:\nweb:x:1000:\nadm:x:44:web\n');
    writeFileSync(join(root, 'bin/plain'), 'no program\n', { mode: 0o644 });
    return root;
  }

  plan(
    command: readonly string[],
    spec: Partial<ContainerSpec> = {},
    plan: Partial<ContainerPlan> = {},
  ): ContainerPlan {
    const id = plan.id ?? hexId(systemClock.random(ID_BYTES));
    this.#ids.add(id);
    const cgroupPath = join(this.#cgroup, id.slice(0, 12));
    this.kernel.cgroups.ensure(cgroupPath);
    const whole = { ...SPEC, hostname: 'box', command, ...spec };
    return planOf(id, whole, { rootfs: this.rootfs(), netnsPath: this.#netns, cgroupPath, ...plan });
  }

  /** What containers may leave: processes, and cgroups of v1. */
  traces(): string[] {
    const v1 = this.kernel.cgroups.mount === '/sys/fs/cgroup' ? [] : readdirSync('/sys/fs/cgroup');
    const own = (name: string): boolean => this.#ids.has(name.replace('sluice-', ''));
    return [
      ...this.kernel.cgroups.processes(this.#cgroup).map((pid) => `process ${pid}`),
      ...v1.flatMap((name) => readdirSync(join('/sys/fs/cgroup', name)).filter(own)),
    ];
  }

  async close(): Promise<void> {
    for (const { id } of await this.runtime.list()) await this.runtime.delete(id);
    await this.runtime.close();
    execFileSync('ip', ['netns', 'del', `sluice-engine-${process.pid}`]);
    await this.kernel.cgroups.remove(this.#cgroup, { kill: true });
    this.kernel[Symbol.dispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
