/**
 * `npm test`: lint and types, then the suites in two stages, and a verdict over all of them.
 *
 *     node test/run.ts [--long] [--suite NAME]… [--write-floor] [FILE…]
 *
 * Ends with the line `N passed, N failed`; the exit status is 0 when nothing failed. SLUICE_LAB_SLOWNESS stretches time limits.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, release, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
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

/** Suites whose files run side by side: where one waits, another works. */
interface Stage {
  readonly suites: readonly string[];
  /** That each pass over them may take at most. */
  readonly minutes: number;
  readonly workers: number;
  /** Files that hold the product to a time which it promises a machine of its own: they run after the others, a processor each. */
  readonly alone?: readonly string[];
}

/** An emulated processor has no time that is left over. */
const WORKERS = slowness() > 1 ? 2 : 3;
/** Of a plain run. */
const STAGES: readonly Stage[] = [
  { suites: ['unit', 'conformance', 'sim'], minutes: 6, workers: WORKERS },
  {
    suites: ['kernel', 'e2e'],
    minutes: 16,
    workers: WORKERS,
    alone: [
      'kernel/sluice-off.test.ts',
      'kernel/cluster-lost.test.ts',
      'kernel/bench-scale.test.ts',
      'e2e/restart.test.ts',
    ],
  },
];
const LONG: Stage = { suites: ['long'], minutes: 60, workers: 1 };

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

/** Everything of some suites of a stage, or the files that were named. */
async function runStage(stage: Stage, files: readonly string[]): Promise<TestRecord[]> {
  if (files.length > 0) return await runPass(stage, files);
  const alone = (stage.alone ?? []).filter((file) => stage.suites.includes(dirname(file)));
  const tests = await runPass(
    stage,
    alone.map((file) => `--exclude=test/${file}`),
  );
  if (alone.length === 0) return tests;
  const named = alone.map((file) => `test/${file}`);
  return [
    ...tests,
    ...(await runPass({ ...stage, workers: slowness() > 1 ? 1 : Math.min(2, availableParallelism()) }, named)),
  ];
}

/** One run of vitest; `words` are what to run of the suites. */
async function runPass({ suites, minutes, workers }: Stage, words: readonly string[]): Promise<TestRecord[]> {
  const [suite] = suites;
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-'));
  const report = join(folder, 'report.json');
  try {
    const projects = suites.map((name) => `--project=${name}`);
    const args = ['run', ...projects, '--passWithNoTests', `--maxWorkers=${workers}`, '--reporter=default'];
    const status = await run('vitest', [...args, '--reporter=./test/reporter.ts', ...words], minutes, {
      SLUICE_TEST_REPORT: report,
    });
    const tests = readReport(report);
    const limit =
      status === 124 ? `it was ended after ${minutes * slowness()} minutes` : `vitest ended with status ${status}`;
    if (tests === null)
      return [{ file: `test/${suite}`, name: '(the whole stage)', state: 'failed', why: `no report: ${limit}` }];
    if (status !== 0 && !tests.some((test) => test.state === 'failed')) {
      tests.push({ file: `test/${suite}`, name: '(the whole stage)', state: 'failed', why: limit });
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

/** An error outside of every test counts for the first suite. */
const suiteOf = (file: string, suites: readonly string[]): string | undefined =>
  suites.find((suite) => file.startsWith(`test/${suite}/`)) ?? suites[0];

async function main(): Promise<number> {
  const { values, positionals: files } = parseArgs({
    options: {
      long: { type: 'boolean' },
      suite: { type: 'string', multiple: true },
      'write-floor': { type: 'boolean' },
    },
    allowPositionals: true,
  });
  const asked = values.suite;
  const stages = (values.long ? [LONG] : [...STAGES, ...(asked ? [LONG] : [])])
    .map((stage) => ({ ...stage, suites: stage.suites.filter((suite) => asked?.includes(suite) ?? true) }))
    .filter(({ suites }) => suites.length > 0);
  const known = new Set(stages.flatMap(({ suites }) => suites));
  const unknown = asked?.filter((suite) => !known.has(suite)) ?? [];
  if (unknown.length > 0) throw new Error(`there is no suite ${unknown.join(', ')}`);
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
    const results = Object.entries(checks).map(
      async ([check, [program, ...args]]) => [check, await run(program!, args, 3)] as const,
    );
    for (const [check, status] of await Promise.all(results)) {
      console.log(`${check}: ${status === 0 ? 'ok' : `failed (status ${status})`}`);
      if (status === 0) passed++;
      else {
        failed++;
        complaints.push(`${check}: status ${status}`);
      }
    }
  }

  const rows: { suite: string; verdict: Verdict; floor: number | null; seconds: number }[] = [];
  for (const stage of stages) {
    const tests = await runStage(stage, files);
    for (const suite of stage.suites) {
      const own = tests.filter(({ file }) => suiteOf(file, stage.suites) === suite);
      const floor = whole ? (floors[suite] ?? 0) : null;
      const verdict = judgeSuite(suite, own, floor, kernel, features);
      rows.push({ suite, verdict, floor, seconds: own.reduce((sum, { ms = 0 }) => sum + ms, 0) / 1000 });
      passed += verdict.passed;
      failed += verdict.failed;
      complaints.push(...verdict.complaints);
    }
  }

  if (values['write-floor'] && whole && failed === 0) {
    const counts = rows.map(({ suite, verdict }) => [suite, verdict.passed + verdict.skipped]);
    const text = JSON.stringify({ ...floors, ...Object.fromEntries(counts) }, null, 2);
    writeFileSync(join(root, 'test/floor.json'), `${text}\n`);
    console.log('wrote test/floor.json');
  }
  console.log(`\n${suiteTable(rows)}\nall of it in ${Math.round(performance.now() / 1000)} s`);
  for (const { suite, verdict } of rows) for (const skip of verdict.skips) console.log(`skipped in ${suite}: ${skip}`);
  for (const complaint of complaints) console.log(`FAILED ${complaint}`);
  console.log(lastLine(passed, failed));
  return failed === 0 ? 0 : 1;
}

process.exitCode = await main();
