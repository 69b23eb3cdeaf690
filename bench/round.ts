/** Rounds: every arm once, interleaved, the order turned round each time, until each row is clear or 64 rounds have run. */
import { SluiceError } from '../src/errors.ts';
import {
  type Control,
  controlOf,
  enoughEvents,
  type Judgement,
  judge,
  type Measured,
  measure,
  type Random,
  type Rule,
  type Samples,
} from './stats.ts';
import { type Amount, type Arm, armsOf, type Row, type Sample } from './suite.ts';

export interface Plan {
  /** At first. */
  readonly rounds: number;
  /** At most. */
  readonly roundsMax: number;
  readonly quick: boolean;
}
export const CLAIM: Plan = { rounds: 16, roundsMax: 64, quick: false };
/** For smoke, never for a claim. */
export const QUICK: Plan = { rounds: 4, roundsMax: 4, quick: true };

export type Verdict = 'pass' | 'fail' | 'undecided' | 'void' | 'skipped' | 'shown';

export interface RowResult {
  readonly row: Row;
  readonly bar: number | null;
  readonly measured: Measured;
  readonly control: Control | null;
  readonly rounds: number;
  readonly verdict: Verdict;
  readonly samples: Samples;
  /** Over all rounds; every one is a failed request, none was tried again. */
  readonly failed: { readonly ours: number; readonly peer: number };
}

/** Blocks of one round by the name of the arm. */
export type Round = ReadonlyMap<string, Sample>;

/** Name of the arm that is a peer once more. */
export const twinOf = (peer: string): string => `${peer} again`;

/**
 * The arms that the rows need, each peer twice: the peers, ours, the peers again in reverse. So ours stands in the middle, and
 * a drift within the round falls on both sides of it alike.
 */
export function lineUp(arms: readonly Arm[], rows: readonly Row[]): readonly Arm[] {
  const find = (name: string): Arm => {
    const arm = arms.find((each) => each.name === name);
    if (!arm) throw new SluiceError('internal', `the suite made no arm ${name}`);
    return arm;
  };
  const peers = [...new Set(rows.flatMap(({ peer }) => peer ?? []))];
  const ours = [...new Set(rows.map(({ ours = 'ours' }) => ours))].filter((name) => !peers.includes(name));
  const twins = peers.toReversed().map((name): Arm => ({ ...find(name), name: twinOf(name) }));
  return [...peers.map(find), ...ours.map(find), ...twins];
}

/** A B C, then C B A, and so on. */
export const orderOf = <T>(arms: readonly T[], round: number): readonly T[] =>
  round % 2 === 0 ? arms : arms.toReversed();

/** One block an arm, each after a warm-up that is dropped. `tell` hears of every block. */
export async function runRound(
  arms: readonly Arm[],
  round: number,
  amount: Amount,
  quick: boolean,
  tell: (arm: string, sample: Sample) => void = () => {},
): Promise<Round> {
  const samples = new Map<string, Sample>();
  for (const arm of orderOf(arms, round)) {
    const warm = quick || amount.warmup === 0 ? null : await arm.block(amount.warmup);
    const block = await arm.block(quick ? amount.quick : amount.block);
    // What a warm-up measured is dropped; what failed in it is not.
    const sample: Sample = { ...block, failed: block.failed + (warm?.failed ?? 0) };
    samples.set(arm.name, sample);
    tell(arm.name, sample);
  }
  return samples;
}

/** The row's samples out of the rounds that have its arms. */
export function samplesOf(row: Row, rounds: readonly Round[]): Samples {
  const names = armsOf(row);
  const whole = rounds.filter((round) => names.every((name) => round.has(name)));
  const numbers = (name: string | undefined): number[] =>
    name === undefined ? [] : whole.flatMap((round) => numberOf(row, name, round.get(name)!));
  return {
    ours: numbers(row.ours ?? 'ours'),
    peer: numbers(row.peer),
    control: numbers(row.peer && twinOf(row.peer)),
  };
}

function numberOf(row: Row, arm: string, sample: Sample): readonly number[] {
  const found = sample[row.metric];
  const values = typeof found === 'number' ? [found] : (found ?? []);
  // A rate of 0 has no logarithm: whoever measured nothing has not been measured.
  const sound = (value: number): boolean => Number.isFinite(value) && (row.kind !== 'ratio' || value > 0);
  if (values.length > 0 && values.every(sound) && (typeof found === 'number' || row.kind === 'absolute')) return values;
  throw new SluiceError('internal', `${row.id}: arm ${arm} measured ${row.metric} = ${JSON.stringify(found)}`);
}

const failuresOf = (arm: string | undefined, rounds: readonly Round[]): number =>
  rounds.reduce((sum, round) => sum + ((arm && round.get(arm)?.failed) || 0), 0);

/** One row over the rounds so far; `last` when no more will follow. */
export function resultOf(
  row: Row,
  bar: number | null,
  rounds: readonly Round[],
  random: Random,
  last: boolean,
): RowResult | null {
  const rule: Rule = { ...row, bar };
  const samples = samplesOf(row, rounds);
  const measured = measure(rule, samples, random);
  const control = row.peer ? controlOf(samples.peer, samples.control, random) : null;
  const judgement: Judgement = enoughEvents(rule, samples, row.unit) ? judge(rule, measured) : 'unclear';
  const clear = judgement !== 'unclear' && (control?.holds ?? true);
  if (!clear && !last) return null;
  const withArms = rounds.filter((round) => armsOf(row).every((name) => round.has(name)));
  return {
    row,
    bar,
    measured,
    control,
    rounds: withArms.length,
    verdict: control?.holds === false ? 'void' : judgement === 'unclear' ? 'undecided' : judgement,
    samples,
    failed: { ours: failuresOf(row.ours ?? 'ours', withArms), peer: failuresOf(row.peer, withArms) },
  };
}

/**
 * Runs a family until every row is clear. Rounds double while a row is unclear or its control does not hold; from then on only
 * the arms of such rows run.
 */
export async function runFamily(
  arms: readonly Arm[],
  rows: readonly Row[],
  amount: Amount,
  bars: Readonly<Record<string, number>>,
  plan: Plan,
  random: Random,
  tell: (round: number, arm: string, sample: Sample) => void = () => {},
): Promise<readonly RowResult[]> {
  const results = new Map<string, RowResult>();
  const rounds: Round[] = [];
  for (let target = plan.rounds; results.size < rows.length; target = Math.min(2 * target, plan.roundsMax)) {
    const open = rows.filter(({ id }) => !results.has(id));
    const line = lineUp(arms, open);
    while (rounds.length < target) {
      const round = rounds.length;
      rounds.push(await runRound(line, round, amount, plan.quick, (arm, sample) => tell(round + 1, arm, sample)));
    }
    for (const row of open) {
      const result = resultOf(row, bars[row.id] ?? null, rounds, random, target >= plan.roundsMax);
      if (result) results.set(row.id, result);
    }
  }
  return rows.map(({ id }) => results.get(id)!);
}
