import { expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import type { Obj, Status } from '../../src/model/object.ts';

const service = { kind: 'service', id: 'a'.repeat(64), revision: 7 } as Obj;

function tracked(loaded: readonly Status[] = []) {
  const [written, kept]: [Status[], Status[]] = [[], []];
  const sink = {
    set: async (status: Status) => void written.push(status),
    keep: (status: Status) => void kept.push(status),
    forget: () => undefined,
  };
  const tracker = new Tracker({ sink, clock: systemClock, node: 'here' });
  tracker.load(loaded);
  return { tracker, written, kept };
}

test('what a node takes no part in is not written while there is nothing to tell', async () => {
  const { tracker, written, kept } = tracked();
  await tracker.readyAside(service, { backends: 0 });
  expect(kept).toMatchObject([{ state: 'ready', observed: 7, detail: { backends: 0 } }]);
  expect(written).toEqual([]);
  expect(tracker.isReady('service', service.id)).toBe(true);
  // A condition is told, and from then on all of it is.
  await tracker.condition('service', service.id, 'Repaired', true, 'found amiss');
  await tracker.readyAside({ ...service, revision: 8 }, { backends: 1 });
  expect(written.map(({ observed }) => observed)).toEqual([7, 8]);
  expect(kept).toHaveLength(1);
});

test('what was written before, by an earlier life too, is written over', async () => {
  const first = tracked();
  await first.tracker.ready(service, { backends: 2 });
  await first.tracker.readyAside(service, { backends: 0 });
  expect(first.written).toHaveLength(2);
  const next = tracked(first.written.slice(-1));
  await next.tracker.readyAside(service, { backends: 3 });
  expect([next.written.length, next.kept.length]).toEqual([1, 0]);
});

test('what this node takes part in again is written', async () => {
  const { tracker, written, kept } = tracked();
  await tracker.readyAside(service, {});
  await tracker.ready(service, { backends: 1 });
  expect([written.length, kept.length]).toEqual([1, 1]);
  tracker.forget('service', service.id);
  await tracker.readyAside(service, {});
  expect(kept).toHaveLength(2);
});
