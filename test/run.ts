/**
 * `npm test`: lint, types, then the suites one after another, and a verdict over all of them.
 *
 *     node test/run.ts [--long] [--suite NAME]… [--write-floor] [FILE…]
 *
 * Ends with the line `N passed, N failed`; the exit status is 0 when nothing failed. SLUICE_LAB_SLOWNESS stretches time limits.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectRoot } from '../src/lab/daemon.ts';
import { sweepLab } from '../src/lab/owner.ts';
import { slowness } from '../src/lab/slowness.ts';
import {
  type Floors,
  judgeSuite,
  type KernelFeatures,
  kernelOf,
  lastLine,
  suiteTable,
  type TestRecord,
  type Verdict,
} from './report.ts';

interface Suite {
  /** That each pass over it may take at most. */
  readonly minutes: number;
  /** Files that run side by side. */
  readonly workers: number;
  /** Files that hold the product to a time which it promises a machine of its own: they run after the others, one by one. */
  readonly alone?: readonly string[];
}

/** Suites of a plain run. */
const SUITES: Readonly<Record<string, Suite>> = {
  unit: { minutes: 2, workers: 2 },
  conformance: { minutes: 4, workers: 2 },
  sim: { minutes: 3, workers: 1 },
  kernel: { minutes: 8, workers: 2, alone: ['sluice-off.test.ts', 'cluster-lost.test.ts', 'bench-scale.test.ts'] },
  e2e: { minutes: 10, workers: 2, alone: ['restart.test.ts'] },
};
const LONG: Suite = { minutes: 60, workers: 1 };

const root = projectRoot();
const readJson = <T>(file: string): T => JSON.parse(readFileSync(join(root, file), 'utf8')) as T;

/** Runs a program of node_modules/.bin with its output passed through; its exit status, 124 when it ran out of time. */
function run(program: string, args: readonly string[], minutes: number, env: NodeJS.ProcessEnv = {}): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(join(root, 'node_modules/.bin', program), args, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, ...env },
      detached: true,
    });
    let late = false;
    const limit = setTimeout(
      () => {
        late = true;
        process.kill(-child.pid!, 'SIGKILL');
      },
      minutes * 60_000 * slowness(),
    );
    child.on('error', reject);
    child.on('exit', (code) => {
      clearTimeout(limit);
      resolve(late ? 124 : (code ?? 1));
    });
  });
}

/** Everything of a suite, or the files that were named. */
async function runSuite(suite: string, files: readonly string[]): Promise<TestRecord[]> {
  const { minutes, workers, alone = [] } = SUITES[suite] ?? LONG;
  if (files.length > 0) return await runPass(suite, minutes, workers, files);
  const together = alone.map((file) => `--exclude=**/${file}`);
  const tests = await runPass(suite, minutes, workers, together);
  if (alone.length === 0) return tests;
  const named = alone.map((file) => `test/${suite}/${file}`);
  return [...tests, ...(await runPass(suite, minutes, 1, named))];
}

/** One run of vitest over a suite; `words` are what to run of it. */
async function runPass(
  suite: string,
  minutes: number,
  workers: number,
  words: readonly string[],
): Promise<TestRecord[]> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-'));
  const report = join(folder, 'report.json');
  try {
    const args = ['run', '--project', suite, '--passWithNoTests', `--maxWorkers=${workers}`, '--reporter=default'];
    const status = await run('vitest', [...args, '--reporter=./test/reporter.ts', ...words], minutes, {
      SLUICE_TEST_REPORT: report,
    });
    const tests = readReport(report);
    const limit =
      status === 124 ? `it was ended after ${minutes * slowness()} minutes` : `vitest ended with status ${status}`;
    if (tests === null)
      return [{ file: suite, name: '(the whole suite)', state: 'failed', why: `no report: ${limit}` }];
    if (status !== 0 && !tests.some((test) => test.state === 'failed')) {
      tests.push({ file: suite, name: '(the whole suite)', state: 'failed', why: limit });
    }
    return tests;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function readReport(file: string): TestRecord[] | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as TestRecord[];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

async function main(): Promise<number> {
  const { values, positionals: files } = parseArgs({
    options: {
      long: { type: 'boolean' },
      suite: { type: 'string', multiple: true },
      'write-floor': { type: 'boolean' },
    },
    allowPositionals: true,
  });
  const suites = values.suite ?? (values.long ? ['long'] : Object.keys(SUITES));
  const whole = files.length === 0;
  const floors = readJson<Floors>('test/floor.json');
  const features = readJson<KernelFeatures>('test/kernel-features.json');
  const kernel = kernelOf(release());
  const complaints: string[] = [];
  let [passed, failed] = [0, 0];

  const swept = await sweepLab();
  if (swept.length > 0) console.log(`removed what an earlier run left: ${swept.join(', ')}`);

  if (!values.suite && !values.long) {
    const checks = { lint: ['biome', 'check', '--error-on-warnings', '.'], types: ['tsc', '--noEmit'] };
    for (const [check, [program, ...args]] of Object.entries(checks)) {
      const status = await run(program!, args, 3);
      console.log(`${check}: ${status === 0 ? 'ok' : `failed (status ${status})`}`);
      if (status === 0) passed++;
      else {
        failed++;
        complaints.push(`${check}: status ${status}`);
      }
    }
  }

  const rows: { suite: string; verdict: Verdict; floor: number | null; seconds: number }[] = [];
  for (const suite of suites) {
    const startedAt = performance.now();
    const floor = whole ? (floors[suite] ?? 0) : null;
    const verdict = judgeSuite(suite, await runSuite(suite, files), floor, kernel, features);
    rows.push({ suite, verdict, floor, seconds: (performance.now() - startedAt) / 1000 });
    passed += verdict.passed;
    failed += verdict.failed;
    complaints.push(...verdict.complaints);
  }

  if (values['write-floor'] && whole && failed === 0) {
    const counts = rows.map(({ suite, verdict }) => [suite, verdict.passed + verdict.skipped]);
    const text = JSON.stringify({ ...floors, ...Object.fromEntries(counts) }, null, 2);
    writeFileSync(join(root, 'test/floor.json'), `${text}\n`);
    console.log('wrote test/floor.json');
  }
  console.log(`\n${suiteTable(rows)}`);
  for (const { suite, verdict } of rows) for (const skip of verdict.skips) console.log(`skipped in ${suite}: ${skip}`);
  for (const complaint of complaints) console.log(`FAILED ${complaint}`);
  console.log(lastLine(passed, failed));
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
