/** Who of a cluster asks for all objects of all nodes, and how often. */
import { expect, test } from 'vitest';
import { liveOwners } from '../../src/controller/audit.ts';
import type { Context } from '../../src/controller/context.ts';
import { createManualClock } from '../clock.ts';

const LIVE_MS = 31_000;

function node(isShared: boolean, collects?: () => boolean) {
  const clock = createManualClock();
  let lists = 0;
  const kind = (id: string) => ({
    list: async () => {
      lists++;
      return [{ id }];
    },
  });
  const own = (id: string) => new Map([[id, {}]]);
  const world = { isShared, networks: own('n1'), endpoints: own('e1'), services: own('s1') };
  const desired = { networks: kind('n2'), endpoints: kind('e2'), services: kind('s2') };
  const context = { world, desired, clock, collects } as unknown as Context;
  return { clock, lists: () => lists, owners: async () => (await liveOwners(context))?.values().toArray() ?? null };
}

test('a node that is alone knows them, and lists nothing', async () => {
  const { lists, owners } = node(false, () => false);
  expect(await owners()).toEqual(['n1', 'e1', 's1']);
  expect(lists()).toBe(0);
});

test('of a cluster the one that collects lists them, about twice a minute', async () => {
  const { clock, lists, owners } = node(true, () => true);
  expect(await owners()).toEqual(['n2', 'e2', 's2']);
  clock.advance(LIVE_MS - 1);
  expect(await owners()).toBeNull();
  clock.advance(1);
  expect(await owners()).toEqual(['n2', 'e2', 's2']);
  expect(lists()).toBe(6);
});

test('the others never do, until it is theirs to do', async () => {
  let mine = false;
  const { clock, lists, owners } = node(true, () => mine);
  for (let look = 0; look < 5; look++) {
    expect(await owners()).toBeNull();
    clock.advance(LIVE_MS);
  }
  expect(lists()).toBe(0);
  mine = true;
  expect(await owners()).toEqual(['n2', 'e2', 's2']);
});
