/** Rounds: who runs when, how often, and what a row makes of it. */
import { describe, expect, it } from 'vitest';
import { CLAIM, lineUp, orderOf, type Plan, QUICK, resultOf, runFamily, runRound, twinOf } from '../../bench/round.ts';
import { type Random, seededRandom } from '../../bench/stats.ts';
import type { Amount, Arm, Row, Sample } from '../../bench/suite.ts';

const row = (what: string, peer: string | undefined, more: Partial<Row> = {}): Row => ({
  id: `test/${what}/${peer ?? 'none'}`,
  kind: peer ? 'ratio' : 'absolute',
  better: 'higher',
  unit: '/s',
  family: what,
  peer,
  metric: 'rate',
  what,
  ...more,
});
const AMOUNT: Amount = { block: 3, warmup: 1, quick: 2 };

/** An arm that says in `log` that it ran, and measures what `rate` makes of the number of the block. */
function arm(name: string, rate: (block: number) => number, log: string[] = [], failed = 0): Arm {
  let blocks = 0;
  return {
    name,
    async block(amount) {
      log.push(`${name} ${amount}`);
      // Only whole blocks are numbered: warm-ups come between them.
      return { rate: rate(amount === AMOUNT.warmup ? blocks : blocks++), failed };
    },
  };
}
const steady = (name: string, level: number, spread: number, random: Random, log?: string[]): Arm =>
  arm(name, () => level * Math.exp(spread * (random() - 0.5)), log);

describe('the order', () => {
  it('is turned round each round', () => {
    expect([0, 1, 2, 3].map((round) => orderOf(['A', 'B', 'C'], round).join(' '))).toEqual([
      'A B C',
      'C B A',
      'A B C',
      'C B A',
    ]);
  });

  it('has ours in the middle, and each peer a second time', () => {
    const arms = ['ours', 'direct', 'nft', 'idle'].map((name) => arm(name, () => 1));
    const line = lineUp(arms, [row('a', 'direct'), row('a', 'nft')]).map(({ name }) => name);
    expect(line).toEqual(['direct', 'nft', 'ours', 'nft again', 'direct again']);
    expect(lineUp(arms, [row('a', undefined)]).map(({ name }) => name)).toEqual(['ours']);
    expect(() => lineUp(arms, [row('a', 'absent')])).toThrow(/no arm absent/);
  });

  it('two arms of ours share their peer', () => {
    const arms = ['ours', 'three', 'direct'].map((name) => arm(name, () => 1));
    const rows = [row('a', 'direct'), row('b', 'direct', { ours: 'three' })];
    expect(lineUp(arms, rows).map(({ name }) => name)).toEqual(['direct', 'ours', 'three', 'direct again']);
  });
});

describe('a round', () => {
  it('drops the warm-up of each block, but not what failed in it', async () => {
    const log: string[] = [];
    const arms = [arm('A', () => 5, log, 1), arm('B', () => 7, log)];
    const round = await runRound(arms, 1, AMOUNT, false);
    expect(log).toEqual(['B 1', 'B 3', 'A 1', 'A 3']);
    expect(round.get('A')).toEqual({ rate: 5, failed: 2 });
    expect(round.get('B')).toEqual({ rate: 7, failed: 0 });
  });

  it('is short when it is quick', async () => {
    const log: string[] = [];
    await runRound([arm('A', () => 1, log)], 0, AMOUNT, true);
    expect(log).toEqual(['A 2']);
  });
});

describe('a family', () => {
  const bars = { 'test/a/direct': 0.98 };

  it('ends after 16 rounds when every row is clear', async () => {
    const log: string[] = [];
    const random = seededRandom(1);
    const arms = [steady('ours', 1_000, 0.01, random, log), steady('direct', 1_000, 0.01, random, log)];
    const [result] = await runFamily(arms, [row('a', 'direct')], AMOUNT, bars, CLAIM, random);
    expect(result).toMatchObject({ rounds: 16, verdict: 'pass', bar: 0.98 });
    expect(result!.samples.ours).toHaveLength(16);
    expect(result!.samples.control).toHaveLength(16);
    expect(log.filter((line) => line === 'ours 3')).toHaveLength(16);
    expect(log.filter((line) => line === 'direct 3')).toHaveLength(32);
  });

  it('fails at once what even its better end cannot save', async () => {
    const random = seededRandom(1);
    const arms = [steady('ours', 800, 0.01, random), steady('direct', 1_000, 0.01, random)];
    const [result] = await runFamily(arms, [row('a', 'direct')], AMOUNT, bars, CLAIM, random);
    expect(result).toMatchObject({ rounds: 16, verdict: 'fail' });
  });

  it('doubles up to 64 for what stays unclear, with the arms of that row alone', async () => {
    const log: string[] = [];
    const random = seededRandom(1);
    const ours = arm('ours', (block) => (block % 2 === 0 ? 1_020 : 930), log);
    const arms = [ours, arm('direct', () => 1_000, log), arm('nft', () => 500, log)];
    const results = await runFamily(arms, [row('a', 'direct'), row('a', 'nft')], AMOUNT, bars, CLAIM, random);
    expect(results[0]).toMatchObject({ rounds: 64, verdict: 'undecided' });
    expect(results[1]).toMatchObject({ rounds: 16, verdict: 'shown' });
    expect(log.filter((line) => line === 'direct 3')).toHaveLength(2 * 64);
    expect(log.filter((line) => line === 'nft 3')).toHaveLength(2 * 16);
  });

  it('turning the order cancels what depends on the place in it', async () => {
    let calls = 0;
    // Whoever runs last in a round runs quicker.
    const direct: Arm = { name: 'direct', block: async () => ({ rate: calls++ % 2 === 0 ? 1_000 : 1_200, failed: 0 }) };
    const plan: Plan = { rounds: 8, roundsMax: 8, quick: true };
    const arms = [arm('ours', () => 2_000), direct];
    const [result] = await runFamily(arms, [row('a', 'direct')], AMOUNT, bars, plan, seededRandom(1));
    expect(result).toMatchObject({ verdict: 'pass', control: { value: 1, holds: true } });
  });

  it('goes on for a control that does not hold, and then is void whatever was measured', async () => {
    let calls = 0;
    // Calls come as direct, again | again, direct: the second arm of the peer is quicker in every round.
    const rates = [1_000, 1_200, 1_200, 1_000];
    const direct: Arm = { name: 'direct', block: async () => ({ rate: rates[calls++ % 4]!, failed: 0 }) };
    const plan: Plan = { rounds: 4, roundsMax: 8, quick: true };
    const arms = [arm('ours', () => 2_000), direct];
    const [result] = await runFamily(arms, [row('a', 'direct')], AMOUNT, bars, plan, seededRandom(1));
    expect(result).toMatchObject({ verdict: 'void', rounds: 8 });
    expect(result!.control!.value).toBeCloseTo(1 / 1.2);
  });

  it('without a bar is shown, and void without a control that holds', async () => {
    const rounds = Array.from(
      { length: 4 },
      () =>
        new Map<string, Sample>([
          ['ours', { rate: 2, failed: 3 }],
          ['direct', { rate: 1, failed: 1 }],
          [twinOf('direct'), { rate: 1, failed: 1 }],
        ]),
    );
    const result = resultOf(row('b', 'direct'), null, rounds, seededRandom(1), true)!;
    expect(result).toMatchObject({ verdict: 'shown', failed: { ours: 12, peer: 4 } });
    expect(result.measured).toMatchObject({ ours: 2, peer: 1, ratio: 2, value: 2 });
    const torn = rounds.map((round) => new Map(round).set(twinOf('direct'), { rate: 2, failed: 0 }));
    expect(resultOf(row('b', 'direct'), null, torn, seededRandom(1), true)!.verdict).toBe('void');
    expect(resultOf(row('b', 'direct'), null, torn, seededRandom(1), false)).toBeNull();
  });

  it('quick: four rounds, and no more', async () => {
    const random = seededRandom(1);
    const arms = [arm('ours', (block) => (block % 2 === 0 ? 1_020 : 930)), arm('direct', () => 1_000)];
    const [result] = await runFamily(arms, [row('a', 'direct')], AMOUNT, bars, QUICK, random);
    expect(result).toMatchObject({ rounds: 4, verdict: 'undecided' });
  });

  it('an arm that measured nothing is an error, not a ratio', async () => {
    for (const rate of [0, Number.NaN, Number.POSITIVE_INFINITY]) {
      const arms = [arm('ours', () => rate), arm('direct', () => 1_000)];
      await expect(runFamily(arms, [row('a', 'direct')], AMOUNT, bars, QUICK, seededRandom(1))).rejects.toThrow(
        /test\/a\/direct: arm ours measured rate/,
      );
    }
    const arms = [arm('ours', () => 1), arm('direct', () => 1)];
    const other = row('a', 'direct', { metric: 'p99Us' });
    await expect(runFamily(arms, [other], AMOUNT, bars, QUICK, seededRandom(1))).rejects.toThrow(/measured p99Us/);
  });

  it('events of all blocks are one row; too few of them are undecided', async () => {
    const events = row('c', undefined, { quantile: 0.5, better: 'lower', unit: 'ms' });
    const ours: Arm = { name: 'ours', block: async () => ({ rate: Array(300).fill(4), failed: 0 }) };
    const many = await runFamily([ours], [events], AMOUNT, { 'test/c/none': 5 }, QUICK, seededRandom(1));
    expect(many[0]).toMatchObject({ verdict: 'pass', rounds: 4 });
    expect(many[0]!.samples.ours).toHaveLength(1_200);
    const few: Arm = { name: 'ours', block: async () => ({ rate: [4], failed: 0 }) };
    const result = await runFamily([few], [events], AMOUNT, { 'test/c/none': 5 }, QUICK, seededRandom(1));
    expect(result[0]!.verdict).toBe('undecided');
  });
});
