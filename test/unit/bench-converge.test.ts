/** The suite `converge`: what counts as the end of a backend that died. */
import { describe, expect, it } from 'vitest';
import { deathOf } from '../../bench/suites/converge/death.ts';

const answers = {
  '1': { count: 90, firstMs: 1_000, lastMs: 1_240 },
  '2': { count: 400, firstMs: 1_001, lastMs: 1_699 },
};
const none = { answers, failures: null, failed: 0 };

describe('a death', () => {
  it('lasts until the last connection that the dead one got', () => {
    expect(deathOf(none, '1', 1_200)).toEqual({ ms: 40, failed: 0 });
    expect(deathOf(none, '2', 1_200).ms).toBe(499);
    // Out of the balancing before it was asked again.
    expect(deathOf(none, '1', 1_300).ms).toBe(0);
  });

  it('counts what failed before anybody died, and not what failed because of it', () => {
    const failing = (firstMs: number) => ({ answers, failures: { firstMs, lastMs: 1_300 }, failed: 7 });
    expect(deathOf(failing(1_100), '1', 1_200).failed).toBe(7);
    expect(deathOf(failing(1_201), '1', 1_200).failed).toBe(0);
  });

  it('is none of one who had not been asked', () => {
    expect(() => deathOf(none, '3', 1_200)).toThrow('not asked');
    expect(() => deathOf(none, '1', 900)).toThrow('not asked');
  });
});
