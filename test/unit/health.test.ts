import { describe, expect, test } from 'vitest';
import { overall } from '../../src/api/system.ts';
import type { SystemReport } from '../../src/model/answer.ts';
import type { Condition } from '../../src/model/object.ts';

const condition = (type: string, active: boolean): Condition => ({
  type,
  active,
  message: 'because',
  since: '2026-01-01T00:00:00.000Z',
  count: 1,
});
const report = (
  state: SystemReport['components'][number]['state'],
  ...conditions: readonly Condition[]
): SystemReport => ({
  instance: 'test',
  kernel: '6.1',
  startedAt: '2026-01-01T00:00:00.000Z',
  components: [
    { name: 'network', state: 'ok', queued: 0 },
    { name: 'endpoint', state, queued: 0 },
  ],
  conditions,
});

describe('the one word of `sluice status`', () => {
  test.each([
    ['ok', report('ok'), true],
    ['starting', report('starting'), true],
    ['degraded', report('failing'), true],
    ['degraded', report('ok'), false],
    ['degraded', report('ok', condition('ForwardBlocked', true)), true],
    ['ok', report('ok', condition('ForwardBlocked', false)), true],
    ['ok', report('ok', condition('Repaired', true)), true],
    ['degraded', report('failing', condition('Repaired', true)), true],
  ] as const)('%s', (state, given, available) => {
    expect(overall(given, available)).toBe(state);
  });
});
