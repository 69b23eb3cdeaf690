import { systemClock } from '../../src/clock.ts';
import { openReplica } from '../../src/cluster/replica/replica.ts';
import type { Store } from '../../src/contracts/store.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createManualClock } from '../clock.ts';
import { type StoreUnderTest, storeConformance } from './store.ts';

const LOG_MAX = 50;

/** Two nodes on one store, each with copies of its own. */
async function replicated(): Promise<StoreUnderTest> {
  const clock = createManualClock();
  const shared = createMemoryStore({ clock, logMax: LOG_MAX });
  const open = (node: string): Promise<Store> =>
    openReplica({ connect: async () => shared, local: createMemoryStore({ clock }), node, clock: systemClock });
  const store = await open('a');
  const other = await open('b');
  return {
    store,
    other,
    logMax: LOG_MAX,
    advance: async (ms) => clock.advance(ms),
    async close() {
      await store.close();
      await other.close();
    },
  };
}

storeConformance('replica', replicated);
