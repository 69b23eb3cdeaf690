import { expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Tracker } from '../../src/controller/tracker.ts';
import { Statuses } from '../../src/desired/status.ts';
import { SluiceError } from '../../src/errors.ts';
import { objectKey } from '../../src/model/keys.ts';
import type { Obj, Status } from '../../src/model/object.ts';
import { createMemoryStore } from '../../src/store/memory.ts';

const service = { kind: 'service', id: 'a'.repeat(64), revision: 7 } as Obj;

function tracked(loaded: readonly Status[] = []) {
  const [written, kept]: [Status[], Status[]] = [[], []];
  /** Of the store to what it is told next: true when nothing is said. */
  const answers: (boolean | SluiceError | Promise<boolean>)[] = [];
  const sink = {
    set: async (status: Status) => {
      const answer = answers.shift() ?? true;
      if (answer instanceof SluiceError) throw answer;
      const isTaken = await answer;
      if (isTaken) written.push(status);
      return isTaken;
    },
    keep: (status: Status) => void kept.push(status),
    forget: () => undefined,
  };
  const tracker = new Tracker({ sink, clock: systemClock, node: 'here' });
  tracker.load(loaded);
  return { tracker, written, kept, answers };
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

test.each([
  ['is away', new SluiceError('store.unavailable', 'away')],
  ['has lost the object for now', false],
])('what a store that %s did not take is said again, changed or not', async (_, answer) => {
  const { tracker, written, answers } = tracked();
  answers.push(answer, answer);
  await tracker.ready(service, { backends: 1 });
  await tracker.ready(service, { backends: 1 });
  expect(written).toEqual([]);
  await tracker.ready(service, { backends: 1 });
  await tracker.ready(service, { backends: 1 });
  expect(written).toMatchObject([{ state: 'ready', detail: { backends: 1 } }]);
});

test('a status is not taken while its object is not there', async () => {
  const store = createMemoryStore({ clock: systemClock });
  const statuses = new Statuses(store, 'here');
  const status: Status = {
    kind: 'service',
    id: service.id,
    node: 'here',
    state: 'ready',
    observed: 7,
    conditions: [],
    detail: {},
  };
  expect(await statuses.set(status)).toBe(false);
  expect(await statuses.get('service', service.id)).toBeNull();
  await store.transact([{ op: 'put', key: objectKey('service', service.id), value: service }], { topics: [] });
  expect(await statuses.set(status)).toBe(true);
  expect(await statuses.get('service', service.id)).toEqual(status);
  await store.close();
});

test('of two at once the later one is what stays', async () => {
  const { tracker, written, answers } = tracked();
  const slow = Promise.withResolvers<boolean>();
  answers.push(slow.promise);
  const first = tracker.failed(service, new SluiceError('kernel.failed', 'busy'), 1_000);
  await tracker.ready(service, {});
  slow.resolve(true);
  await first;
  expect(written.map(({ state }) => state)).toEqual(['ready', 'error']);
  await tracker.ready(service, {});
  expect(written.at(-1)).toMatchObject({ state: 'ready', error: undefined });
  expect(written).toHaveLength(3);
});

test('one that the store refuses fails, and is said again', async () => {
  const { tracker, written, answers } = tracked();
  answers.push(new SluiceError('store.conflict', 'others were faster'));
  await expect(tracker.ready(service, {})).rejects.toThrow('others were faster');
  await tracker.ready(service, {});
  expect(written).toHaveLength(1);
});
