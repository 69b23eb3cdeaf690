import { describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Loop, RETRY_MS_MAX, RETRY_MS_MIN, retryDelay } from '../../src/controller/loop.ts';
import { SluiceError } from '../../src/errors.ts';

const quiet = { name: 'test', clock: systemClock, onError: () => undefined };

describe('loop', () => {
  test('a key triggered while in work runs once more, never twice at a time', async () => {
    let running = 0;
    let most = 0;
    let runs = 0;
    const loop = new Loop({
      ...quiet,
      reconcile: async () => {
        runs++;
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 5));
        running--;
      },
    });
    loop.trigger('a');
    await new Promise((resolve) => setTimeout(resolve, 1));
    for (let i = 0; i < 10; i++) loop.trigger('a');
    await loop.idle();
    expect({ runs, most }).toEqual({ runs: 2, most: 1 });
  });

  test('a failing key is retried and does not hold up another', async () => {
    const errors: string[] = [];
    const done: string[] = [];
    let attempts = 0;
    const loop = new Loop({
      ...quiet,
      onError: (key, error, delay) => errors.push(`${key} ${error.code} ${delay}`),
      reconcile: async (key) => {
        if (key === 'bad' && ++attempts < 2) throw new SluiceError('kernel.failed', 'no');
        done.push(key);
      },
    });
    loop.trigger('bad');
    loop.trigger('good');
    await loop.idle();
    expect(done).toEqual(['good']);
    expect(loop.failing('bad')).toBe(true);
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS_MIN + 50));
    await loop.idle();
    expect(done).toEqual(['good', 'bad']);
    expect(errors).toEqual([`bad kernel.failed ${RETRY_MS_MIN}`]);
    expect(loop.failing('bad')).toBe(false);
  });

  test('settle resolves after a run that began later, also when it fails or the key is forgotten', async () => {
    let runs = 0;
    const loop = new Loop({
      ...quiet,
      reconcile: async () => {
        runs++;
        throw new Error('always');
      },
    });
    await loop.settle('a');
    expect(runs).toBe(1);
    const waiting = loop.settle('b');
    loop.forget('b');
    await waiting;
    await loop.stop();
    await loop.settle('c');
    expect(runs).toBe(2);
  });

  test('no more than the given number are in work at once', async () => {
    let running = 0;
    let most = 0;
    const loop = new Loop({
      ...quiet,
      concurrency: 3,
      reconcile: async () => {
        most = Math.max(most, ++running);
        await new Promise((resolve) => setTimeout(resolve, 1));
        running--;
      },
    });
    for (let i = 0; i < 20; i++) loop.trigger(String(i));
    await loop.idle();
    expect(most).toBe(3);
  });

  test('delays double up to a cap', () => {
    expect([1, 2, 3, 20].map(retryDelay)).toEqual([RETRY_MS_MIN, RETRY_MS_MIN * 2, RETRY_MS_MIN * 4, RETRY_MS_MAX]);
  });
});
