import { describe, expect, test } from 'vitest';
import { judgeSkip, judgeSuite, kernelOf, lastLine, suiteTable, type TestRecord } from '../report.ts';

const features = { '6.18': { has: ['tcx'], lacks: ['netem'] } };
const record = (state: TestRecord['state'], why?: string): TestRecord => ({ file: 'f.test.ts', name: 'n', state, why });
const judge = (tests: TestRecord[], floor: number | null = 0, kernel = '6.18') =>
  judgeSuite('kernel', tests, floor, kernel, features);

test('a kernel is known by its first two numbers', () => {
  expect(kernelOf('6.18.44-cloud-amd64')).toBe('6.18');
  expect(kernelOf('6.1.0-40-amd64')).toBe('6.1');
});

describe('a skip', () => {
  test('for want of what the kernel is known to lack is fine', () => {
    expect(judgeSkip('kernel lacks: netem', '6.18', features)).toBeNull();
  });

  test('for want of what the kernel has fails', () => {
    expect(judgeSkip('kernel lacks: tcx', '6.18', features)).toBe('skipped for want of tcx, which kernel 6.18 has');
  });

  test('for want of something that the list does not know fails', () => {
    expect(judgeSkip('kernel lacks: moonlight', '6.18', features)).toMatch(/knows nothing for kernel 6\.18/);
  });

  test('on a kernel that the list does not know is fine, but must name something', () => {
    expect(judgeSkip('kernel lacks: tcx', '7.3', features)).toBeNull();
    expect(judgeSkip('too slow here', '7.3', features)).toMatch(/must say .*not "too slow here"/);
  });

  test.each([undefined, '', 'flaky', 'kernel lacks: '])('without a feature fails: %s', (why) => {
    expect(judgeSkip(why, '6.18', features)).toMatch(/must say/);
  });
});

describe('a suite', () => {
  test('counts', () => {
    const verdict = judge([
      record('passed'),
      record('passed'),
      record('failed', 'boom\nstack'),
      record('skipped', 'kernel lacks: netem'),
    ]);
    expect(verdict).toMatchObject({ passed: 2, failed: 1, skipped: 1, skips: ['1 × kernel lacks: netem'] });
    expect(verdict.complaints).toEqual(['f.test.ts > n: boom']);
  });

  test('fails for a skip without a good reason', () => {
    expect(judge([record('skipped')])).toMatchObject({ passed: 0, failed: 1, skipped: 1 });
  });

  test('tells tests that did not run for want of their set-up from skips', () => {
    const verdict = judge([
      { ...record('failed', 'no daemon'), name: '(the file itself)', setup: true },
      record('skipped'),
      record('skipped'),
    ]);
    expect(verdict).toMatchObject({ passed: 0, failed: 3, skipped: 0 });
    expect(verdict.complaints).toEqual(['f.test.ts > (the file itself): no daemon', 'f.test.ts: 2 tests did not run']);
  });

  test('fails under its floor, and an empty one does as soon as there is a floor', () => {
    expect(judge([record('passed')], 2)).toMatchObject({ failed: 1 });
    expect(judge([], 1).complaints[0]).toMatch(/suite kernel has 0 tests that pass, fewer than its floor of 1/);
    expect(judge([], 0)).toMatchObject({ failed: 0 });
  });

  test('is not held to its floor when only a part of it ran', () => {
    expect(judge([record('passed')], null)).toMatchObject({ passed: 1, failed: 0 });
  });

  test('a good skip counts for the floor, a failure does not', () => {
    expect(judge([record('passed'), record('skipped', 'kernel lacks: netem')], 2)).toMatchObject({ failed: 0 });
    expect(judge([record('passed'), record('failed')], 2)).toMatchObject({ failed: 2 });
  });
});

test('the last line', () => {
  expect(lastLine(812, 0)).toBe('812 passed, 0 failed');
});

test('the table lines up', () => {
  const verdict = judge([record('passed')]);
  const table = suiteTable([
    { suite: 'conformance', verdict, floor: 120, seconds: 3.21 },
    { suite: 'e2e', verdict, floor: null, seconds: 100 },
  ]);
  expect(table.split('\n')).toEqual([
    'suite        passed  failed  skipped  floor  seconds',
    'conformance       1       0        0    120      3.2',
    'e2e               1       0        0      -    100.0',
  ]);
});
