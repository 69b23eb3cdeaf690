import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Change, Op, Session, Store, TransactOptions, WatchEvent } from '../../src/contracts/store.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { createManualClock } from '../clock.ts';
import { makeFolder } from '../folder.ts';
import { openSimClient } from '../sim/client.ts';
import { SimServer } from '../sim/server.ts';
import { STORE_CASES, type StoreUnderTest, storeConformance } from './store.ts';

const LOG_MAX = 50;

async function inMemory(wrap: (store: Store) => Store = (store) => store): Promise<StoreUnderTest> {
  const clock = createManualClock();
  const store = wrap(createMemoryStore({ clock, logMax: LOG_MAX }));
  return {
    store,
    other: store,
    logMax: LOG_MAX,
    advance: async (ms) => clock.advance(ms),
    close: () => store.close(),
  };
}

/** Two clients of the server that the simulation fails over and empties. */
async function onSimServer(): Promise<StoreUnderTest> {
  const clock = createManualClock();
  const server = new SimServer({ clock, logMax: LOG_MAX });
  const [store, other] = [await openSimClient(server, { clock }), await openSimClient(server, { clock })];
  return {
    store,
    other,
    logMax: LOG_MAX,
    advance: async (ms) => clock.advance(ms),
    close: async () => {
      await store.close();
      await other.close();
    },
  };
}

async function onFile(): Promise<StoreUnderTest> {
  const folder = makeFolder('store');
  const clock = createManualClock();
  const open = () => openSqliteStore({ path: join(folder, 'sluice.db'), clock, logMax: LOG_MAX });
  let store = await open();
  const first = store;
  return {
    store: first,
    other: first,
    logMax: LOG_MAX,
    advance: async (ms) => clock.advance(ms),
    reopen: async () => {
      await store.close();
      store = await open();
      return store;
    },
    close: async () => {
      await first.close();
      await store.close();
      rmSync(folder, { recursive: true });
    },
  };
}

storeConformance('memory', () => inMemory());
storeConformance('sqlite', onFile);
storeConformance('of the simulation', onSimServer);
// What breaks a store below is what is broken in it, not that it is wrapped.
storeConformance('memory, wrapped', () => inMemory((store) => but(store, {})));

/** A store of which single methods are replaced by wrong ones. */
function but(store: Store, wrong: Partial<Store>): Store {
  return {
    get incarnation() {
      return store.incarnation;
    },
    get: (key) => store.get(key),
    list: (prefix, options) => store.list(prefix, options),
    transact: (ops, options) => store.transact(ops, options),
    watch: (topics, from, signal) => store.watch(topics, from, signal),
    session: (name, ttlMs) => store.session(name, ttlMs),
    close: () => store.close(),
    ...wrong,
  };
}

async function* each(events: AsyncIterable<WatchEvent>, change: (event: WatchEvent) => WatchEvent | null) {
  for await (const event of events) {
    const told = change(event);
    if (told) yield told;
  }
}
const changed = (event: WatchEvent, how: (change: Change) => Change): WatchEvent =>
  event.type === 'change' ? { type: 'change', change: how(event.change) } : event;

/** Each is wrong in one way that a real store has been wrong in. */
const BROKEN: Readonly<Record<string, (store: Store) => Store>> = {
  'forgets expectations': (store) =>
    but(store, {
      transact: (ops, options) =>
        store.transact(
          ops.filter(({ op }) => op !== 'check').map((op) => ({ ...op, expect: undefined }) as Op),
          options,
        ),
    }),
  'ignores checks': (store) =>
    but(store, {
      transact: (ops, options) =>
        store.transact(
          ops.filter(({ op }) => op !== 'check'),
          options,
        ),
    }),
  'writes operation by operation': (store) =>
    but(store, {
      async transact(ops, options) {
        let revision = 0;
        for (const op of ops) revision = await store.transact([op], options);
        return revision || store.transact([]);
      },
    }),
  'announces everything everywhere': (store) =>
    but(store, {
      transact: (ops, options) =>
        store.transact(ops, { ...options, topics: ['cluster', 'node/a', 'network/x', 'node/quiet', 'node/x'] }),
    }),
  'loses the actor': (store) =>
    but(store, { transact: (ops, { actor: _, ...options }: TransactOptions = {}) => store.transact(ops, options) }),
  'lists what lies beyond the prefix': (store) => but(store, { list: () => store.list('') }),
  'lists what was written later': (store) => but(store, { list: (prefix) => store.list(prefix) }),
  'lists in no order': (store) =>
    but(store, {
      async list<T>(prefix: string) {
        const { items, revision } = await store.list<T>(prefix);
        return { items: [...items].reverse(), revision };
      },
    }),
  'takes the prefix for a pattern': (store) =>
    but(store, { list: (prefix) => store.list(prefix.replace(/[%_*]/g, '')) }),
  'hands out what it holds': (store) => {
    const held = new Map<string, unknown>();
    return but(store, {
      async get<T>(key: string) {
        const entry = await store.get<T>(key);
        if (!entry) return null;
        if (!held.has(key)) held.set(key, entry.value);
        return { ...entry, value: held.get(key) as T };
      },
    });
  },
  'tells a change twice': (store) =>
    but(store, {
      async *watch(topics, from, signal) {
        for await (const event of store.watch(topics, from, signal)) {
          yield event;
          yield event;
        }
      },
    }),
  'loses every tenth change': (store) =>
    but(store, {
      watch: (topics, from, signal) =>
        each(store.watch(topics, from, signal), (event) =>
          event.type === 'change' && event.change.revision % 10 === 0 ? null : event,
        ),
    }),
  'begins a watch at the revision it names': (store) =>
    but(store, { watch: (topics, from, signal) => store.watch(topics, Math.max(0, from - 1), signal) }),
  'tells only what comes after the watch began': (store) =>
    but(store, {
      async *watch(topics, _from, signal) {
        yield* store.watch(topics, await store.transact([]), signal);
      },
    }),
  'never asks to list again': (store) =>
    but(store, {
      watch: (topics, from, signal) =>
        each(store.watch(topics, from, signal), (event) => (event.type === 'relist' ? null : event)),
    }),
  'leaves deletions out of the log': (store) =>
    but(store, {
      watch: (topics, from, signal) =>
        each(store.watch(topics, from, signal), (event) =>
          changed(event, (change) => ({ ...change, entries: change.entries.filter(({ value }) => value !== null) })),
        ),
    }),
  'tells a change topic by topic': (store) =>
    but(store, {
      async *watch(topics, from, signal) {
        const list = typeof topics === 'string' ? [topics] : topics;
        for (const topic of list.slice(0, -1)) {
          const events = store.watch(topic, from, signal)[Symbol.asyncIterator]();
          const { value } = (await events.next()) as { value: WatchEvent };
          yield value;
        }
        yield* store.watch(list.at(-1)!, from, signal);
      },
    }),
  'ends an aborted watch with an error': (store) =>
    but(store, {
      async *watch(topics, from, signal) {
        yield* store.watch(topics, from, signal);
        throw new Error('aborted');
      },
    }),
  'gives a session to everybody': (store) => {
    let epoch = 0;
    return but(store, {
      session: async (name) => ({ name, epoch: ++epoch, alive: true, renew: async () => {}, end: async () => {} }),
    });
  },
  'gives the same epoch again': (store) =>
    but(store, {
      async session(name, ttlMs) {
        const session = await store.session(name, ttlMs);
        return {
          name,
          epoch: 1,
          get alive() {
            return session.alive;
          },
          renew: () => session.renew(),
          end: () => session.end(),
        };
      },
    }),
  'writes for those whose session has ended': (store) =>
    but(store, {
      transact: (ops, { session: _, ...options }: TransactOptions = {}) => store.transact(ops, options),
    }),
  'believes a session that says it is alive': (store) =>
    but(store, {
      transact: (ops, { session, ...options }: TransactOptions = {}) =>
        store.transact(ops, session && (session as Session).alive ? options : { ...options, session }),
    }),
  'writes whatever term it was meant for': (store) =>
    but(store, {
      transact: (ops, { term: _, ...options }: TransactOptions = {}) => store.transact(ops, options),
    }),
  'goes on after it was closed': (store) => but(store, { close: async () => undefined }),
  'counts checks as writes': (store) =>
    but(store, {
      transact: (ops, options) =>
        ops.every(({ op }) => op === 'check')
          ? store.transact([...ops, { op: 'put', key: 'touched', value: 1 }], options)
          : store.transact(ops, options),
    }),
};

describe('the store suite complains about a store that', () => {
  test.each(Object.keys(BROKEN))('%s', { timeout: 60_000 }, async (how) => {
    const complaints: string[] = [];
    for (const [which, run] of Object.entries(STORE_CASES)) {
      const on = await inMemory(BROKEN[how]!);
      await run(on).catch(() => complaints.push(which));
      await on.close();
      if (complaints.length > 0) break;
    }
    expect(complaints).not.toEqual([]);
  });
});
