/**
 * `npm run test:vm`: a chosen part of the kernel and the end-to-end suite, a host that is switched off (`reboot`) and the daemon as a
 * service of systemd (`systemd`) on stock Debian kernels, in a virtual machine.
 *
 *     node test/vm/run.ts [--kernel bookworm|trixie]… [--suite kernel|e2e|reboot|systemd]… [FILE…]
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot } from '../../src/lab/daemon.ts';
import { lastLine } from '../report.ts';

/** Debian 12 with Linux 6.1 (no tcx: clsact), Debian 13 with 6.12. */
const KERNELS = ['bookworm', 'trixie'] as const;
/** Seconds that one suite on one kernel may take, and how many times slower than the machine itself an emulated one may be. */
const SUITE_SECONDS_MAX = 7_200;
const SLOWNESS = 20;
/** Seconds that each life of a machine that runs a script may take, and what the one that is switched off says when it may be. */
const SCRIPT_SECONDS_MAX = 1_800;
const SWITCH_OFF = 'SWITCH OFF';

const NO_KERNEL = 'asks nothing of the kernel that differs between versions';
/** Files that do not run there, and why. */
const LEFT_OUT: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'bench-converge',
      'bench-peers',
      'bench-scale',
      'cli-exec',
      'cluster-lost',
      'cluster-newer',
      'cluster-replicas',
      'dns-forward',
      'engine-log',
      'image-layer',
      'image-registry',
      'image-registry-bad',
      'image-store',
      'lab',
      'lease-redis',
      'lease-replica',
      'load',
      'node-netlink',
      'redis-guard',
      'store',
      'store-contest',
      'store-redis',
      'store-replica',
      'store-fault',
      'container-pull',
      'image',
      'plugin',
    ].map((file) => [`${file}.test.ts`, NO_KERNEL]),
  ),
  ...Object.fromEntries(
    ['service-replicas', 'service-cluster', 'overlay-cluster', 'cluster-join'].map((file) => [
      `${file}.test.ts`,
      'several daemons or dozens of containers, held to times of the clock; what they ask of the kernel the other files ask too',
    ]),
  ),
  'kills.test.ts': 'holds a rate of connections that an emulated CPU does not reach',
  'restart.test.ts': 'kills the daemon by the clock; emulated, each life takes ten times as long as the kill is late',
  ...Object.fromEntries(
    ['engine-kill', 'container-survival'].map((file) => [
      `${file}.test.ts`,
      'a kill at each step of our own; what a host keeps over a kill and a restart, `reboot` and `systemd` ask here',
    ]),
  ),
  'chaos.test.ts': 'a hundred creations at every fault point take hours on an emulated CPU',
};

const root = projectRoot();

interface Outcome {
  readonly kernel: string;
  readonly suite: string;
  readonly passed: number;
  readonly failed: number;
}

interface Run {
  readonly status: number | null;
  /** The end of what it wrote. */
  readonly tail: string;
}

/** One life of the machine, its output shown; killed hard once that holds the line `until`. */
function inMachine(args: readonly string[], until?: string): Promise<Run> {
  return new Promise((resolve, reject) => {
    const child = spawn(join(root, 'test/vm/vm.sh'), args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, SLUICE_LAB_SLOWNESS: String(SLOWNESS) },
    });
    // Whoever is told to end takes its machine along.
    const end = (): never => {
      child.kill('SIGTERM');
      process.exit(143);
    };
    process.once('SIGTERM', end);
    let tail = '';
    child.stdout.on('data', (chunk: Buffer) => {
      process.stdout.write(chunk);
      tail = `${tail}${chunk}`.slice(-10_000);
      // vm.sh kills the machine with the signal that takes no excuse.
      if (until !== undefined && tail.split('\n').includes(until)) child.kill('SIGTERM');
    });
    child.on('error', reject);
    child.on('close', (status) => {
      process.off('SIGTERM', end);
      resolve({ status, tail });
    });
  });
}

function outcome(kernel: string, suite: string, { status, tail }: Run): Outcome {
  const counts = [...tail.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
  const [passed, failed] = [Number(counts?.[1] ?? 0), Number(counts?.[2] ?? 1)];
  return { kernel, suite, passed, failed: status !== 0 && failed === 0 ? 1 : failed };
}

async function runSuite(kernel: string, suite: string, files: readonly string[]): Promise<Outcome> {
  const command = ['node', 'test/run.ts', '--suite', suite, ...files];
  return outcome(kernel, suite, await inMachine(['-k', kernel, '-t', String(SUITE_SECONDS_MAX), ...command]));
}

/** A machine that is switched off hard, and one that comes up over its disk. */
async function reboot(kernel: string): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-reboot-'));
  const life = (stage: string): string[] => [
    ...['-k', kernel, '-t', String(SCRIPT_SECONDS_MAX), '-d', join(folder, 'disk')],
    ...['test/vm/reboot.sh', stage],
  ];
  try {
    const { tail, status } = await inMachine(life('before'), SWITCH_OFF);
    if (!tail.split('\n').includes(SWITCH_OFF)) return outcome(kernel, 'reboot', { tail: '', status });
    return outcome(kernel, 'reboot', await inMachine(life('after')));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A machine whose first process is systemd. */
async function systemd(kernel: string): Promise<Outcome> {
  const args = ['-k', kernel, '-t', String(SCRIPT_SECONDS_MAX), '-s', 'test/vm/systemd.sh'];
  return outcome(kernel, 'systemd', await inMachine(args));
}

const SCRIPTS: Readonly<Record<string, { what: string; run: (kernel: string) => Promise<Outcome> }>> = {
  reboot: { what: 'switched off and on again', run: reboot },
  systemd: { what: 'the daemon as a service of systemd', run: systemd },
};

/** Files of a suite that run in the machine, with what is left out said. */
function chosen(suite: string): string[] {
  return readdirSync(join(root, 'test', suite))
    .filter((file) => file.endsWith('.test.ts') && !(file in LEFT_OUT))
    .map((file) => `test/${suite}/${file}`);
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { kernel: { type: 'string', multiple: true }, suite: { type: 'string', multiple: true } },
    allowPositionals: true,
  });
  const outcomes: Outcome[] = [];
  for (const kernel of values.kernel ?? KERNELS) {
    for (const suite of values.suite ?? ['kernel', 'e2e', ...Object.keys(SCRIPTS)]) {
      const script = SCRIPTS[suite];
      if (script) {
        console.log(`\n== ${script.what}, on the kernel of Debian ${kernel}`);
        outcomes.push(await script.run(kernel));
        continue;
      }
      const files = positionals.length > 0 ? positionals : chosen(suite);
      if (files.length === 0) continue;
      console.log(`\n== ${suite} on the kernel of Debian ${kernel}: ${files.length} files`);
      for (const [file, why] of Object.entries(LEFT_OUT))
        if (existsSync(join(root, 'test', suite, file))) console.log(`left out: ${file}: ${why}`);
      outcomes.push(await runSuite(kernel, suite, files));
    }
  }
  console.log('');
  for (const { kernel, suite, passed, failed } of outcomes)
    console.log(`${kernel} ${suite}: ${lastLine(passed, failed)}`);
  const sum = (pick: (outcome: Outcome) => number): number => outcomes.reduce((total, each) => total + pick(each), 0);
  const failed = sum((each) => each.failed);
  console.log(
    lastLine(
      sum((each) => each.passed),
      failed,
    ),
  );
  return failed === 0 && outcomes.length > 0 ? 0 : 1;
}

process.exitCode = await main();
