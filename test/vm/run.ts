/**
 * `npm run test:vm`: the kernel suite and a chosen part of the end-to-end suite on stock Debian kernels, in a virtual machine.
 *
 *     node test/vm/run.ts [--kernel bookworm|trixie]… [--suite NAME]… [FILE…]
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot } from '../../src/lab/daemon.ts';
import { lastLine } from '../report.ts';

/** Debian 12 with Linux 6.1 (no tcx: clsact), Debian 13 with 6.12. */
const KERNELS = ['bookworm', 'trixie'] as const;
/** Seconds that one suite on one kernel may take, and how many times slower than the machine itself an emulated one may be. */
const SUITE_SECONDS_MAX = 3_600;
const SLOWNESS = 20;

const NO_KERNEL = 'asks nothing of the kernel that differs between versions';
/** Files that do not run there, and why. */
const LEFT_OUT: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    [
      'bench-peers',
      'cli-exec',
      'cluster-lost',
      'cluster-replicas',
      'dns-forward',
      'image-layer',
      'image-registry',
      'image-registry-bad',
      'image-store',
      'lab',
      'lease-redis',
      'load',
      'node-netlink',
      'store',
      'store-redis',
      'store-replica',
      'store-fault',
      'container-pull',
      'image',
      'plugin',
      'store-redis',
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
  'chaos.test.ts': 'a hundred creations at every fault point take hours on an emulated CPU',
};

const root = projectRoot();

interface Outcome {
  readonly kernel: string;
  readonly suite: string;
  readonly passed: number;
  readonly failed: number;
}

function runSuite(kernel: string, suite: string, files: readonly string[]): Promise<Outcome> {
  const command = ['node', 'test/run.ts', '--suite', suite, ...files];
  const args = ['-k', kernel, '-t', String(SUITE_SECONDS_MAX), ...command];
  return new Promise((resolve, reject) => {
    const child = spawn(join(root, 'test/vm/vm.sh'), args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, SLUICE_LAB_SLOWNESS: String(SLOWNESS) },
    });
    let tail = '';
    child.stdout.on('data', (chunk: Buffer) => {
      process.stdout.write(chunk);
      tail = `${tail}${chunk}`.slice(-10_000);
    });
    child.on('error', reject);
    child.on('close', (status) => {
      const counts = [...tail.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
      const [passed, failed] = [Number(counts?.[1] ?? 0), Number(counts?.[2] ?? 1)];
      resolve({ kernel, suite, passed, failed: status !== 0 && failed === 0 ? 1 : failed });
    });
  });
}

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
    for (const suite of values.suite ?? ['kernel', 'e2e']) {
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
