/**
 *     npm run bench -- SUITE [--row ID]… [--json] [--quick]
 *
 * A full run writes bench/results/SUITE.{json,md,svg}. One of some rows, or a quick one, writes SUITE.partial.* or SUITE.quick.*
 * beside them, which are not committed. Exit status: 0 when no bar was missed, 1 when one was (or is undecided, or its control
 * does not hold), 2 for a wrong command line; a quick run is judged by whether it ran at all.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SluiceError } from '../src/errors.ts';
import { sweepLab } from '../src/lab/owner.ts';
import { barsOf, readBars } from './bars.ts';
import { describeCommit, describeMachine } from './machine.ts';
import { type RowReport, reportRow, reportSkip, type SuiteReport, toText, writeReport } from './report.ts';
import { CLAIM, QUICK, runFamily } from './round.ts';
import { seededRandom } from './stats.ts';
import type { Row, Suite } from './suite.ts';
import { SUITES } from './suites/suites.ts';

/** Of the bootstrap; it changes nothing but the last digit of an interval. */
const SEED = 1;

interface Command {
  readonly suite: Suite;
  readonly rows: readonly Row[];
  readonly json: boolean;
  readonly quick: boolean;
}

const say = (line: string): void => void process.stderr.write(`${line}\n`);

export function parseCommand(words: readonly string[]): Command {
  const { values, positionals } = parseArgs({
    args: [...words],
    allowPositionals: true,
    options: { row: { type: 'string', multiple: true }, json: { type: 'boolean' }, quick: { type: 'boolean' } },
  });
  const names = SUITES.map(({ name }) => name).join(', ');
  const suite = SUITES.find(({ name }) => name === positionals[0]);
  if (!suite || positionals.length > 1)
    throw new SluiceError('request.invalid', `npm run bench -- SUITE [--row ID]… [--json] [--quick]; suites: ${names}`);
  const wanted = values.row ?? suite.rows.map(({ id }) => id);
  const unknown = wanted.filter((id) => !suite.rows.some((row) => row.id === id));
  if (unknown.length > 0) {
    const known = suite.rows.map(({ id }) => id).join(' ');
    throw new SluiceError('request.invalid', `${suite.name} has no row ${unknown.join(' ')}; it has: ${known}`);
  }
  const rows = suite.rows.filter(({ id }) => wanted.includes(id));
  return { suite, rows, json: values.json ?? false, quick: values.quick ?? false };
}

/** Opens the suite, runs its families one after another, and closes it, whatever happens between. */
export async function runSuite({ suite, rows, quick }: Omit<Command, 'json'>): Promise<SuiteReport> {
  const bars = barsOf(suite.rows, readBars());
  const [machine, commit, date] = [describeMachine(), describeCommit(), new Date().toISOString()];
  const random = seededRandom(SEED);
  const reports = new Map<string, RowReport>();
  const open = await suite.open(rows, say, quick);
  let closing: Promise<void> | null = null;
  const close = (): Promise<void> => {
    closing ??= open.close();
    return closing;
  };
  // Arms fail while everything goes; the process ends before anybody asks why.
  const closeOnSignal = (signal: NodeJS.Signals): void => {
    say(`${signal}: cleaning up`);
    close().finally(() => process.exit(130));
  };
  process.once('SIGINT', closeOnSignal).once('SIGTERM', closeOnSignal);
  try {
    const due = rows.filter(({ id }) => !(id in open.skipped));
    for (const row of rows) {
      const why = open.skipped[row.id];
      if (why !== undefined) reports.set(row.id, reportSkip(row, bars[row.id] ?? null, why));
    }
    for (const [family, amount] of Object.entries(suite.families)) {
      const here = due.filter((row) => row.family === family);
      if (here.length === 0) continue;
      const started = performance.now();
      const results = await runFamily(
        open.arms[family] ?? [],
        here,
        amount,
        bars,
        quick ? QUICK : CLAIM,
        random,
        (round, arm, sample) => {
          const numbers = Object.entries(sample).map(
            ([name, value]) => `${name} ${typeof value === 'number' ? Number(value.toPrecision(5)) : value.length}`,
          );
          say(`${family} round ${round} ${arm}: ${numbers.join(', ')}`);
        },
      );
      const apart = (await open.apart?.()) ?? {};
      for (const result of results) reports.set(result.row.id, reportRow(result, apart[result.row.id]));
      say(`${family}: ${Math.round((performance.now() - started) / 1_000)} s`);
    }
    return {
      suite: suite.name,
      date,
      quick,
      machine,
      commit,
      seed: SEED,
      given: open.given,
      ...(open.curves && { curves: open.curves() }),
      rows: rows.map(({ id }) => reports.get(id)!),
    };
  } finally {
    await close();
    process.off('SIGINT', closeOnSignal).off('SIGTERM', closeOnSignal);
  }
}

async function main(): Promise<number> {
  const command = parseCommand(process.argv.slice(2));
  const { suite, rows, quick } = command;
  await sweepLab();
  const report = await runSuite(command);
  const kind = quick ? '.quick' : rows.length < suite.rows.length ? '.partial' : '';
  const files = writeReport(join(import.meta.dirname, 'results'), `${suite.name}${kind}`, report);
  process.stdout.write(`${command.json ? JSON.stringify(report) : toText(report)}\n`);
  say(`written: ${files.join(' ')}`);
  const missed = report.rows.some(({ verdict }) => ['fail', 'undecided', 'void'].includes(verdict));
  return missed && !quick ? 1 : 0;
}

if (import.meta.main) {
  main().then(
    (status) => {
      process.exitCode = status;
    },
    (error: unknown) => {
      const usage = error instanceof SluiceError && error.code === 'request.invalid';
      const wrongFlag = (error as { code?: string }).code?.startsWith('ERR_PARSE_ARGS') === true;
      say(usage || wrongFlag ? (error as Error).message : String((error as Error).stack ?? error));
      process.exitCode = usage || wrongFlag ? 2 : 1;
    },
  );
}
