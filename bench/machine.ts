/** What the numbers were measured on. */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { nodeBinary, projectRoot } from '../src/lab/daemon.ts';

export interface Machine {
  readonly kernel: string;
  readonly cpu: string;
  readonly cpus: number;
  /** 10^9 bytes. */
  readonly memoryGB: number;
  /** Of the minute before the run: another's work shows here. */
  readonly load: number;
  /** Programs by name. */
  readonly versions: Readonly<Record<string, string>>;
}

const VERSIONS: Readonly<Record<string, readonly [argv: readonly [string, ...string[]], pattern: RegExp]>> = {
  node: [[nodeBinary(), '--version'], /v(\S+)/],
  wrk: [['wrk', '-v'], /wrk \S*?([\d.]+\S*)/],
  iperf3: [['iperf3', '--version'], /iperf (\S+)/],
  haproxy: [['haproxy', '-v'], /version (\S+)/],
  nginx: [['nginx', '-v'], /nginx\/(\S+)/],
  nft: [['nft', '--version'], /v(\S+)/],
  iproute2: [['ip', '-V'], /iproute2-([\d.]+)/],
};

/** A program's own word for its version; `absent` when it cannot be run. */
export function versionOf([file, ...args]: readonly [string, ...string[]], pattern: RegExp): string {
  const { error, stdout, stderr } = spawnSync(file, args, { encoding: 'utf8', timeout: 5_000 });
  if (error && (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  // Some say it on standard error, and wrk calls that a failure: the status says nothing.
  return (error ? null : pattern.exec(stdout + stderr)?.[1]) ?? 'absent';
}

export function describeMachine(): Machine {
  const [first] = cpus();
  return {
    kernel: release(),
    cpu: first?.model.trim() ?? 'unknown',
    cpus: cpus().length,
    memoryGB: Math.round(totalmem() / 1e9),
    load: Math.round(loadavg()[0]! * 100) / 100,
    versions: Object.fromEntries(Object.entries(VERSIONS).map(([name, args]) => [name, versionOf(...args)])),
  };
}

/** The commit, with a plus sign when files differ from it; `unknown` outside a checkout. */
export function describeCommit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', projectRoot(), ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
  try {
    return git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+');
  } catch (error) {
    if ((error as { status?: number }).status || (error as NodeJS.ErrnoException).code === 'ENOENT') return 'unknown';
    throw error;
  }
}
