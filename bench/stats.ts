/**
 * From rounds to a verdict, as pure functions: the median over rounds, its 95 % bootstrap interval, the rule that holds it
 * against a bar, and the control that says whether this machine could tell at all. Chance comes in as an argument.
 */

/** Uniform in [0, 1). */
export type Random = () => number;

/** The same numbers for the same seed, on every machine (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The value below which `share` of the values lie, between neighbours by proportion. NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const [low, high] = [sorted[below] ?? Number.NaN, sorted[Math.ceil(place)] ?? Number.NaN];
  return low === high ? low : low + (high - low) * (place - below);
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** A statistic and the interval that holds it with 95 % confidence. */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

const RESAMPLES = 4_000;

/** The statistic of the values, and the 2.5th to the 97.5th percentile of what it is on values drawn from them with repetition. */
export function bootstrap(
  values: readonly number[],
  random: Random,
  statistic: (values: readonly number[]) => number = median,
): Estimate {
  const drawn = new Array<number>(values.length);
  const found = Array.from({ length: RESAMPLES }, () => {
    for (let at = 0; at < drawn.length; at++) drawn[at] = values[Math.floor(random() * values.length)]!;
    return statistic(drawn);
  });
  return { value: statistic(values), low: quantile(found, 0.025), high: quantile(found, 0.975) };
}

export type Kind = 'ratio' | 'difference' | 'absolute';

/** How a row's samples become one value, and what it must reach. */
export interface Rule {
  /** `ratio`: ours ÷ peer. `difference`: ours − peer. `absolute`: ours. */
  readonly kind: Kind;
  readonly better: 'higher' | 'lower';
  /** What the value must reach; null: it is only shown. */
  readonly bar: number | null;
  /** Of a ratio, |x − 1| is what counts: both more and less are worse. */
  readonly deviation?: boolean;
  /** The sum over all rounds counts, and the bar is exact: broken connections, failed requests. */
  readonly count?: boolean;
  /** Samples are events, and this quantile of all of them counts: 0.99. */
  readonly quantile?: number;
}

/** Events that a quantile needs: a thousand, or thirty where one takes over a second. */
const EVENTS_MIN = { quick: 1_000, slow: 30 } as const;

/** Samples of one row: of a round each (paired by place), or of an event each. */
export interface Samples {
  readonly ours: readonly number[];
  readonly peer: readonly number[];
  /** The peer again, as an arm of its own in the same rounds. */
  readonly control: readonly number[];
}

export interface Measured extends Estimate {
  /** Medians of the samples, in the row's unit; null where there is no peer. */
  readonly ours: number;
  readonly peer: number | null;
  /** Ours ÷ peer of a ratio row, null of others. */
  readonly ratio: number | null;
}

/** e to the median of the logarithms of the quotients, round by round. */
function ratioOf(above: readonly number[], below: readonly number[], random: Random): Estimate {
  const logs = above.map((value, round) => Math.log(value / below[round]!));
  const { value, low, high } = bootstrap(logs, random);
  return { value: Math.exp(value), low: Math.exp(low), high: Math.exp(high) };
}

/** |x − 1| over an interval: 0 is the best that an interval around 1 can promise. */
function deviationOf({ value, low, high }: Estimate): Estimate {
  const ends = [Math.abs(low - 1), Math.abs(high - 1)];
  return { value: Math.abs(value - 1), low: low <= 1 && high >= 1 ? 0 : Math.min(...ends), high: Math.max(...ends) };
}

function estimate(rule: Rule, { ours, peer }: Samples, random: Random): Estimate {
  if (rule.count) {
    const sum = ours.reduce((total, value) => total + value, 0);
    return { value: sum, low: sum, high: sum };
  }
  if (rule.kind === 'ratio') {
    const ratio = ratioOf(ours, peer, random);
    return rule.deviation ? deviationOf(ratio) : ratio;
  }
  const share = rule.quantile ?? 0.5;
  const values = rule.kind === 'difference' ? ours.map((value, round) => value - peer[round]!) : ours;
  return bootstrap(values, random, (drawn) => quantile(drawn, share));
}

export function measure(rule: Rule, samples: Samples, random: Random): Measured {
  const { ours, peer } = samples;
  return {
    ...estimate(rule, samples, random),
    ours: rule.count ? ours.reduce((total, value) => total + value, 0) : quantile(ours, rule.quantile ?? 0.5),
    peer: peer.length > 0 ? median(peer) : null,
    ratio: rule.kind === 'ratio' ? Math.exp(median(ours.map((value, round) => Math.log(value / peer[round]!)))) : null,
  };
}

export type Judgement = 'pass' | 'fail' | 'unclear' | 'shown';

/** How far the interval's worse end may miss the bar: 0.03 of a ratio, 3 % of the bar otherwise. */
const SLACK = 0.03;
/** 0.98 − 0.03 is not 0.95 in binary. */
const ROUNDING = 1e-9;

/** Whether the value stands, falls, or needs more rounds to do either. */
export function judge(rule: Rule, { value, low, high }: Estimate): Judgement {
  const { bar, better, kind } = rule;
  if (bar === null) return 'shown';
  const meets = (reached: number, needed: number): boolean =>
    better === 'higher' ? reached >= needed - ROUNDING : reached <= needed + ROUNDING;
  if (rule.count) return meets(value, bar) ? 'pass' : 'fail';
  const slack = kind === 'ratio' ? SLACK : SLACK * Math.abs(bar);
  const [worse, best, forgiven] = better === 'higher' ? [low, high, bar - slack] : [high, low, bar + slack];
  if (meets(value, bar) && meets(worse, forgiven)) return 'pass';
  return meets(best, bar) ? 'unclear' : 'fail';
}

export interface Control extends Estimate {
  /** False: two arms of one and the same peer differed, so nothing that was measured beside them counts. */
  readonly holds: boolean;
}

/** The peer against itself; its interval must hold 1 and its median lie within 0.95–1.05. */
export function controlOf(peer: readonly number[], again: readonly number[], random: Random): Control {
  const { value, low, high } = ratioOf(peer, again, random);
  return { value, low, high, holds: low <= 1 && high >= 1 && value >= 0.95 && value <= 1.05 };
}

/** Whether there are as many events as a quantile needs; always, for a row of rounds. */
export function enoughEvents(rule: Rule, { ours }: Samples, unit: string): boolean {
  if (rule.quantile === undefined) return true;
  const second = { s: 1, ms: 1e3, us: 1e6, ns: 1e9 }[unit] ?? Number.POSITIVE_INFINITY;
  return ours.length >= (median(ours) > second ? EVENTS_MIN.slow : EVENTS_MIN.quick);
}
