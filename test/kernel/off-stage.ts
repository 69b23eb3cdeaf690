/** A network and mount namespace with folders and cgroups of its own, where sluice-off is let loose on things made by hand. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { cgroupMount } from '../../src/lab/owner.ts';

const OFF = join(import.meta.dirname, '../../bin/sluice-off');
const PREFIX = 'sluice-offtest-';
export const ID = 'a'.repeat(64);

export class Stage {
  /** Eight characters at most that no other process of the machine uses: `o` and the process id. */
  readonly instance = `o${process.pid.toString(36)}`;
  readonly folder = mkdtempSync(join(tmpdir(), `${PREFIX}${process.pid}-`));
  readonly cgroups = join(cgroupMount(), `${PREFIX}${process.pid}`);
  readonly #place: ChildProcess;
  readonly #started: ChildProcess[] = [];

  private constructor(place: ChildProcess) {
    this.#place = place;
    for (const dir of ['run/netns', 'run/sandbox', 'state', 'bpf']) mkdirSync(this.at(dir), { recursive: true });
    mkdirSync(this.cgroups);
    writeFileSync(this.at('state/lock'), '');
    writeFileSync(this.at('state/sluice.db'), 'not a database at all');
    const { instance, cgroups: cgroupRoot } = this;
    const settings = {
      instance,
      runDir: this.at('run'),
      stateDir: this.at('state'),
      bpffs: this.at('bpf'),
      cgroupRoot,
    };
    writeFileSync(this.at('run/settings.json'), JSON.stringify(settings, null, 2));
  }

  static async open(): Promise<Stage> {
    const program = ['sh', '-c', 'echo ready; exec sleep 600'];
    const place = spawn('unshare', ['-n', '-m', '--propagation', 'private', ...program], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    await new Promise((resolve) => place.stdout.once('data', resolve));
    return new Stage(place);
  }

  close(): void {
    this.#place.kill('SIGKILL');
    for (const child of this.#started) child.kill('SIGKILL');
    removeCgroups(this.cgroups);
    rmSync(this.folder, { recursive: true, force: true });
  }

  at(...parts: string[]): string {
    return join(this.folder, ...parts);
  }

  /** Runs a shell command in the namespaces of the stage; returns what it printed. */
  inside(command: string): string {
    const argv = ['-t', String(this.#place.pid), '-n', '-m', 'sh', '-c', command];
    return execFileSync('nsenter', argv, { encoding: 'utf8', stdio: 'pipe' });
  }

  off(...args: string[]): { status: number | null; said: string; ms: number } {
    const start = performance.now();
    const where = ['-t', String(this.#place.pid), '-n', '-m', 'env', '-i', `PATH=${process.env.PATH}`];
    const argv = [...where, 'sh', OFF, '--run-dir', this.at('run'), ...args];
    const { status, stdout, stderr } = spawnSync('nsenter', argv, { encoding: 'utf8' });
    return { status, said: `${stdout}${stderr}`, ms: performance.now() - start };
  }

  /** Starts a program that ends with the stage; `inMounts`: it sees the mounts of the stage. */
  start(argv: readonly string[], inMounts = false): ChildProcess {
    const [file, ...args] = inMounts ? ['nsenter', '-t', String(this.#place.pid), '-m', ...argv] : argv;
    const child = spawn(file!, args, { stdio: 'ignore', detached: true });
    this.#started.push(child);
    return child;
  }

  /** `count` sandboxes as the daemon makes them: a namespace below a shared mount, a veth on a bridge, a cgroup. */
  makeSandboxes(count: number): void {
    const { instance } = this;
    const run = this.at('run/netns');
    const numbers = Array.from({ length: count }, (_, i) => i);
    const lines = numbers.flatMap((i) => [
      `link add sv${i} type veth peer name sp${i}`,
      `link set sv${i} alias sluice:${instance}:endpoint:${ID}:${ID} master sl0 up`,
      `link set sp${i} netns ${run}/n${i}`,
    ]);
    writeFileSync(this.at('batch'), `${lines.join('\n')}\n`);
    for (const i of numbers) mkdirSync(join(this.cgroups, `sluice-${instance}`, `n${i}`), { recursive: true });
    this.inside(`
      mount --bind ${run} ${run} && mount --make-shared ${run}
      ip link add sl0 type bridge && ip link set sl0 alias sluice:${instance}:network:${ID}
      for i in ${numbers.join(' ')}; do : >${run}/n$i; unshare --net=${run}/n$i true; done
      ip -batch ${this.at('batch')}`);
  }
}

/** Removes what test processes that are no more left. */
export function sweep(): void {
  const ownerIsGone = (name: string): boolean => {
    const pid = /^sluice-offtest-(\d+)/.exec(name)?.[1];
    return pid !== undefined && (pid === String(process.pid) || !existsSync(`/proc/${pid}`));
  };
  for (const name of readdirSync(cgroupMount()).filter(ownerIsGone)) removeCgroups(join(cgroupMount(), name));
  for (const name of readdirSync(tmpdir()).filter(ownerIsGone)) rmSync(join(tmpdir(), name), { recursive: true });
}

const REMOVAL_MS_MAX = 5_000;

function removeCgroups(path: string): void {
  writeFileSync(join(path, 'cgroup.kill'), '1');
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroups(join(path, entry.name));
  }
  const until = performance.now() + REMOVAL_MS_MAX;
  while (existsSync(path)) {
    try {
      rmdirSync(path);
    } catch (error) {
      // What was killed is not gone at once.
      if (performance.now() > until) throw error;
    }
  }
}
