/** The statistics against distributions whose answer is known; broken statistics against the same cases. */
import { describe, expect, it } from 'vitest';
import {
  bootstrap,
  type Control,
  controlOf,
  type Estimate,
  enoughEvents,
  type Judgement,
  judge,
  type Measured,
  measure,
  median,
  quantile,
  type Random,
  type Rule,
  type Samples,
  seededRandom,
} from '../../bench/stats.ts';

interface Statistics {
  measure(rule: Rule, samples: Samples, random: Random): Pick<Measured, 'value' | 'low' | 'high'>;
  judge(rule: Rule, estimate: Estimate): Judgement;
  controlOf(peer: readonly number[], again: readonly number[], random: Random): Pick<Control, 'holds'>;
}
const real: Statistics = { measure, judge, controlOf };

const ratio: Rule = { kind: 'ratio', better: 'higher', bar: 0.98 };

/** Standard normal (Box and Muller). */
const normal = (random: Random): number => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** Rounds whose true ratio is `truth`: each arm with its own noise, both with the drift of the machine. */
function rounds(count: number, truth: number, noise: number, drift: number, random: Random): Samples {
  const arm = (level: number, machine: number): number => level * machine * Math.exp(noise * normal(random));
  const machine = Array.from({ length: count }, () => Math.exp(drift * normal(random)));
  return {
    ours: machine.map((speed) => arm(1_000 * truth, speed)),
    peer: machine.map((speed) => arm(1_000, speed)),
    control: machine.map((speed) => arm(1_000, speed)),
  };
}

const CASES: Readonly<Record<string, (statistics: Statistics) => void>> = {
  'finds the ratio of a known distribution': ({ measure }) => {
    const { value, low, high } = measure(ratio, rounds(64, 0.9, 0.02, 0, seededRandom(7)), seededRandom(1));
    expect(value).toBeGreaterThan(0.89);
    expect(value).toBeLessThan(0.91);
    expect(low).toBeLessThan(value);
    expect(high).toBeGreaterThan(value);
    expect(high - low).toBeLessThan(0.03);
  },
  'its interval holds the truth about 95 times in 100, whatever the machine drifts': ({ measure }) => {
    const random = seededRandom(11);
    let held = 0;
    const runs = 150;
    for (let run = 0; run < runs; run++) {
      const { low, high } = measure(ratio, rounds(16, 0.97, 0.05, 0.3, random), random);
      if (low <= 0.97 && 0.97 <= high) held++;
    }
    expect(held / runs).toBeGreaterThan(0.88);
    expect(held / runs).toBeLessThan(0.995);
  },
  'compares within a round: a machine that runs at a third of its speed now and then changes nothing': ({
    measure,
  }) => {
    const samples = rounds(16, 0.97, 0.002, 0.5, seededRandom(3));
    const { value, low, high } = measure(ratio, samples, seededRandom(1));
    expect(Math.abs(value - 0.97)).toBeLessThan(0.005);
    expect(high - low).toBeLessThan(0.01);
  },
  'one ruined round does not move it': ({ measure }) => {
    const { ours, peer, control } = rounds(16, 1, 0.01, 0, seededRandom(5));
    const ruined = ours.map((value, round) => (round === 4 ? value / 100 : value));
    const { value } = measure(ratio, { ours: ruined, peer, control }, seededRandom(1));
    expect(Math.abs(value - 1)).toBeLessThan(0.02);
  },
  'ours against the peer is the inverse of the peer against ours': ({ measure }) => {
    const { ours, peer } = rounds(16, 0.8, 0.2, 0, seededRandom(9));
    const one = measure(ratio, { ours, peer, control: [] }, seededRandom(1)).value;
    const other = measure(ratio, { ours: peer, peer: ours, control: [] }, seededRandom(1)).value;
    expect(one * other).toBeCloseTo(1, 9);
  },
  'a difference is taken round by round too': ({ measure }) => {
    const rule: Rule = { kind: 'difference', better: 'lower', bar: 50 };
    const peer = Array.from({ length: 16 }, (_, round) => 100 * (1 + round));
    const ours = peer.map((value, round) => value + 40 + (round % 3));
    const { value, low, high } = measure(rule, { ours, peer, control: peer }, seededRandom(1));
    expect(value).toBe(41);
    expect(low).toBeGreaterThanOrEqual(40);
    expect(high).toBeLessThanOrEqual(42);
  },
  'counts are summed, and one too many is one too many': ({ measure, judge }) => {
    const rule: Rule = { kind: 'absolute', better: 'lower', bar: 0, count: true };
    const sum = measure(rule, { ours: [0, 0, 1, 0], peer: [], control: [] }, seededRandom(1));
    expect(sum).toMatchObject({ value: 1, low: 1, high: 1 });
    expect(judge(rule, sum)).toBe('fail');
    expect(judge(rule, measure(rule, { ours: [0, 0], peer: [], control: [] }, seededRandom(1)))).toBe('pass');
  },
  'where exactly 1 is right, more is as wrong as less': ({ measure }) => {
    const rule: Rule = { kind: 'ratio', better: 'lower', bar: 0.1, deviation: true };
    const of = (...quotients: number[]) =>
      measure(rule, { ours: quotients, peer: quotients.map(() => 1), control: [] }, seededRandom(1));
    expect(of(1.2, 1.2, 1.2)).toMatchObject({ low: expect.closeTo(0.2), high: expect.closeTo(0.2) });
    expect(of(0.8, 0.8, 0.8).value).toBeCloseTo(0.2);
    expect(of(0.9, 1, 1.05)).toMatchObject({ value: 0, low: 0, high: expect.closeTo(0.1) });
  },
  'a quantile is one of all events': ({ measure }) => {
    const rule: Rule = { kind: 'absolute', better: 'lower', bar: 100, quantile: 0.99 };
    const events = Array.from({ length: 2_001 }, (_, at) => at);
    const { value, low, high } = measure(rule, { ours: events, peer: [], control: [] }, seededRandom(1));
    expect(value).toBe(1_980);
    expect(low).toBeGreaterThan(1_960);
    expect(high).toBeLessThan(2_000);
  },
  'the verdict follows the table': ({ judge }) => {
    const higher = ratio;
    const lower: Rule = { kind: 'absolute', better: 'lower', bar: 100 };
    const difference: Rule = { kind: 'difference', better: 'lower', bar: 50 };
    const table: readonly [Rule, value: number, low: number, high: number, Judgement][] = [
      [higher, 1.0, 0.99, 1.01, 'pass'],
      [higher, 0.98, 0.95, 1.2, 'pass'],
      [higher, 0.98, 0.949, 1.2, 'unclear'],
      [higher, 0.979, 0.97, 0.99, 'unclear'],
      [higher, 0.979, 0.97, 0.98, 'unclear'],
      [higher, 0.97, 0.96, 0.979, 'fail'],
      [higher, 5, 0.9, 9, 'unclear'],
      [lower, 90, 80, 95, 'pass'],
      [lower, 100, 80, 103, 'pass'],
      [lower, 100, 80, 103.1, 'unclear'],
      [lower, 101, 99, 102, 'unclear'],
      [lower, 110, 100.1, 120, 'fail'],
      [difference, 49, 48, 51.5, 'pass'],
      [difference, 49, 48, 51.6, 'unclear'],
      [{ ...difference, bar: -10 }, -11, -12, -9.7, 'pass'],
      [{ ...difference, bar: -10 }, -11, -12, -9.6, 'unclear'],
      [{ ...higher, bar: null }, 0.1, 0.1, 0.1, 'shown'],
    ];
    for (const [rule, value, low, high, verdict] of table)
      expect([value, low, high, judge(rule, { value, low, high })]).toEqual([value, low, high, verdict]);
  },
  'the control holds for a peer that is itself, and for no other': ({ controlOf }) => {
    const alike = rounds(16, 1, 0.02, 0.3, seededRandom(2));
    expect(controlOf(alike.peer, alike.control, seededRandom(1)).holds).toBe(true);
    // Off by little, but surely.
    const faster = alike.peer.map((value, round) => value * (1.01 + 0.001 * (round % 3)));
    expect(controlOf(faster, alike.peer, seededRandom(1)).holds).toBe(false);
    const slower = alike.peer.map((value, round) => value * (0.98 + 0.001 * (round % 3)));
    expect(controlOf(slower, alike.peer, seededRandom(1)).holds).toBe(false);
    // Not surely, but far: eight rounds on either side of 1, and a median beyond 1.05.
    const wide = Array.from({ length: 17 }, (_, round) => (round < 8 ? 0.5 : 1.06));
    expect(
      controlOf(
        wide,
        wide.map(() => 1),
        seededRandom(1),
      ).holds,
    ).toBe(false);
  },
};

describe('the statistics', () => {
  it.each(Object.entries(CASES))('%s', (_, check) => check(real));
});

/** Replaces the estimate of ratio rows alone. */
const withRatio = (estimate: (samples: Samples, random: Random) => Estimate): Statistics => ({
  ...real,
  measure: (rule, samples, random) =>
    rule.kind === 'ratio' && !rule.deviation ? estimate(samples, random) : measure(rule, samples, random),
});
const quotientsOf = ({ ours, peer }: Samples): number[] => ours.map((value, round) => value / peer[round]!);
const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;

const BROKEN: Readonly<Record<string, { readonly statistics: Statistics; readonly fails: string }>> = {
  'a mean instead of a median': {
    statistics: withRatio((samples, random) => bootstrap(quotientsOf(samples), random, mean)),
    fails: 'one ruined round',
  },
  'no logarithms': {
    statistics: withRatio((samples, random) => bootstrap(quotientsOf(samples), random)),
    fails: 'the inverse',
  },
  'arms compared as wholes, not within a round': {
    statistics: withRatio(({ ours, peer }, random) => {
      const [mine, theirs] = [bootstrap(ours, random), bootstrap(peer, random)];
      return { value: mine.value / theirs.value, low: mine.low / theirs.high, high: mine.high / theirs.low };
    }),
    fails: 'within a round',
  },
  'an interval of the middle half': {
    statistics: withRatio((samples, random) => {
      const logs = quotientsOf(samples).map(Math.log);
      const medians = Array.from({ length: 500 }, () =>
        median(logs.map(() => logs[Math.floor(random() * logs.length)]!)),
      );
      const [value, low, high] = [median(logs), quantile(medians, 0.25), quantile(medians, 0.75)].map(Math.exp);
      return { value: value!, low: low!, high: high! };
    }),
    fails: '95 times in 100',
  },
  'an interval of all samples': {
    statistics: withRatio((samples) => {
      const quotients = quotientsOf(samples);
      const value = Math.exp(median(quotients.map(Math.log)));
      return { value, low: Math.min(...quotients), high: Math.max(...quotients) };
    }),
    fails: '95 times in 100',
  },
  'a difference of medians': {
    statistics: {
      ...real,
      measure: (rule, samples, random) =>
        rule.kind === 'difference'
          ? { ...bootstrap(samples.ours, random), value: median(samples.ours) - median(samples.peer) }
          : measure(rule, samples, random),
    },
    fails: 'difference',
  },
  'a count as a median': {
    statistics: { ...real, measure: (rule, ...rest) => measure({ ...rule, count: false }, ...rest) },
    fails: 'counts',
  },
  'a deviation with a sign': {
    statistics: { ...real, measure: (rule, ...rest) => measure({ ...rule, deviation: false }, ...rest) },
    fails: 'where exactly 1',
  },
  'a median instead of the quantile': {
    statistics: { ...real, measure: (rule, ...rest) => measure({ ...rule, quantile: undefined }, ...rest) },
    fails: 'quantile',
  },
  'a verdict by the median alone': {
    statistics: { ...real, judge: (rule, { value }) => judge(rule, { value, low: value, high: value }) },
    fails: 'table',
  },
  'a verdict with the sides exchanged': {
    statistics: { ...real, judge: (rule, { value, low, high }) => judge(rule, { value, low: high, high: low }) },
    fails: 'table',
  },
  'a control that always holds': {
    statistics: { ...real, controlOf: () => ({ holds: true }) },
    fails: 'control',
  },
  'a control by the interval alone': {
    statistics: {
      ...real,
      controlOf: (...args) => {
        const { low, high } = controlOf(...args);
        return { holds: low <= 1 && high >= 1 };
      },
    },
    fails: 'control',
  },
};

describe('a broken statistic fails its case', () => {
  it.each(Object.entries(BROKEN))('%s', (_, { statistics, fails }) => {
    const [found, ...others] = Object.entries(CASES).filter(([name]) => name.includes(fails));
    expect(others).toEqual([]);
    expect(() => found![1](statistics)).toThrow();
  });
});

describe('chance', () => {
  it('is the same for the same seed, and even', () => {
    const [one, two, three] = [seededRandom(1), seededRandom(1), seededRandom(2)];
    const drawn = Array.from({ length: 20_000 }, one);
    expect(drawn.slice(0, 100)).toEqual(Array.from({ length: 100 }, two));
    expect(drawn[0]).not.toBe(three());
    const tenths = Array.from({ length: 10 }, (_, tenth) => drawn.filter((x) => Math.floor(x * 10) === tenth).length);
    for (const count of tenths) expect(Math.abs(count - 2_000)).toBeLessThan(200);
  });
});

describe('quantiles', () => {
  it('lie between neighbours', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(quantile([0, 10], 0.25)).toBe(2.5);
    expect(quantile([5], 0.99)).toBe(5);
    expect(median([])).toBeNaN();
    expect(median([Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY])).toBe(Number.NEGATIVE_INFINITY);
  });
});

describe('events', () => {
  const rule: Rule = { kind: 'absolute', better: 'lower', bar: 1, quantile: 0.99 };
  const of = (count: number, each: number): Samples => ({ ours: Array(count).fill(each), peer: [], control: [] });
  it('a thousand, or thirty where one takes over a second', () => {
    expect(enoughEvents(rule, of(999, 5), 'ms')).toBe(false);
    expect(enoughEvents(rule, of(1_000, 5), 'ms')).toBe(true);
    expect(enoughEvents(rule, of(30, 1_001), 'ms')).toBe(true);
    expect(enoughEvents(rule, of(29, 1_001), 'ms')).toBe(false);
    expect(enoughEvents(rule, of(30, 2), 's')).toBe(true);
    expect(enoughEvents({ ...rule, quantile: undefined }, of(4, 5), 'ms')).toBe(true);
  });
});
