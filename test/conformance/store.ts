/** What every store does, whatever keeps it. Nothing here knows how a store is made or how its time passes. */
import { describe, expect, test } from 'vitest';
import type { Change, Session, Store, WatchEvent } from '../../src/contracts/store.ts';

export interface StoreUnderTest {
  /** Fresh and empty, with a log that keeps `logMax` changes or a few thousand more. */
  readonly store: Store;
  readonly logMax: number;
  /** Another daemon's view of the same store; where there can be only one, the store itself. */
  readonly other: Store;
  /** Lets `ms` pass for sessions. */
  advance(ms: number): Promise<void>;
  /** Ends the store's life and begins another over the same data; absent where the data ends with it. */
  readonly reopen?: () => Promise<Store>;
  close(): Promise<void>;
}

/** Writes after which a log that keeps `logMax` has surely been trimmed past its beginning. */
const PAST_TRIM = 4_000;

const put = (key: string, value: unknown, expect?: number) => ({ op: 'put', key, value, expect }) as const;
const del = (key: string, expect?: number) => ({ op: 'delete', key, expect }) as const;
const check = (key: string, expect: number) => ({ op: 'check', key, expect }) as const;

/** Fails loudly rather than hang where a store says too little. */
async function within<T>(work: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing within 3 s: ${what}`)), 3_000);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

/** A watch that is read one event at a time. */
class Reader {
  readonly #abort = new AbortController();
  readonly #events: AsyncIterator<WatchEvent>;

  constructor(store: Store, topics: string | string[], from: number) {
    this.#events = store.watch(topics, from, this.#abort.signal)[Symbol.asyncIterator]();
  }

  /** Begins to wait for the next event, for as long as it takes. */
  wait(): Promise<IteratorResult<WatchEvent>> {
    const waiting = this.#events.next();
    // Whoever waits hears of a failure when it asks; nobody asks where the case has failed before.
    waiting.catch((error: unknown) => expect(error).toBeDefined());
    return waiting;
  }

  async next(): Promise<WatchEvent> {
    const { value, done } = await within(this.wait(), 'the next event');
    expect(done).toBeFalsy();
    return value as WatchEvent;
  }

  async change(): Promise<Change> {
    const event = await this.next();
    expect(event.type).toBe('change');
    return (event as Extract<WatchEvent, { type: 'change' }>).change;
  }

  /** Ends the watch; what comes after is its end and no error. */
  async end(): Promise<void> {
    const last = this.#events.next();
    this.#abort.abort();
    expect((await within(last, 'the end of the watch')).done).toBe(true);
  }
}

async function refusal(work: Promise<unknown>): Promise<{ code?: string; details?: Record<string, unknown> }> {
  try {
    await work;
  } catch (error) {
    return error as { code?: string };
  }
  throw new Error('was not refused');
}

/** The cases by name, so that a test can run them against a broken store and see which complain. */
export const STORE_CASES: Readonly<Record<string, (on: StoreUnderTest) => Promise<void>>> = {
  async 'an empty store has no entries and is at revision 0'({ store }) {
    expect(await store.get('a')).toBeNull();
    expect(await store.list('')).toEqual({ items: [], revision: 0 });
    expect(store.incarnation).toMatch(/^\S{8,}$/);
  },

  async 'what was put is read back with the revision of its write'({ store }) {
    const value = { text: 'ü "quoted" \u2028 🙂', list: [1, null, { deep: true }], number: 1.5, empty: {} };
    const revision = await store.transact([put('a', value)]);
    expect(await store.get('a')).toEqual({ key: 'a', value, revision });
    await store.transact([put('null', null)]);
    expect(await store.get('null')).toMatchObject({ value: null });
  },

  async 'values are copies: neither the writer nor a reader changes what is stored'({ store }) {
    const value = { list: [1] };
    await store.transact([put('a', value)]);
    value.list.push(2);
    const read = (await store.get<{ list: number[] }>('a'))!;
    expect(read.value.list).toEqual([1]);
    read.value.list.push(3);
    expect((await store.get<{ list: number[] }>('a'))!.value.list).toEqual([1]);
    (await store.list<{ list: number[] }>('a')).items[0]!.value.list.push(4);
    expect((await store.get<{ list: number[] }>('a'))!.value.list).toEqual([1]);
  },

  async 'revisions rise by each write, and only by writes'({ store }) {
    const first = await store.transact([put('a', 1)]);
    const second = await store.transact([put('b', 1), put('c', 1)]);
    expect(second).toBeGreaterThan(first);
    expect(await store.transact([])).toBe(second);
    expect(await store.transact([check('a', first), check('none', 0)])).toBe(second);
    expect(await store.transact([del('never was')])).toBe(second);
    expect((await store.list('')).revision).toBe(second);
    const third = await store.transact([del('a')]);
    expect(third).toBeGreaterThan(second);
    expect((await store.list('')).revision).toBe(third);
    // The same value again is a write nevertheless.
    expect(await store.transact([put('b', 1)])).toBeGreaterThan(third);
  },

  async 'a transaction gives all its entries one revision'({ store }) {
    const revision = await store.transact([put('a', 1), put('b', 2)]);
    expect((await store.list('')).items.map((item) => item.revision)).toEqual([revision, revision]);
  },

  async 'list leaves out what was written after a revision, when it is told one'({ store }) {
    await store.transact([{ op: 'put', key: 'l/old', value: 1 }]);
    const revision = await store.transact([{ op: 'put', key: 'l/now', value: 2 }]);
    await store.transact([{ op: 'put', key: 'l/old', value: 3 }]);
    const keys = async (upTo: number) => (await store.list('l/', { upTo })).items.map(({ key }) => key);
    expect(await keys(revision)).toEqual(['l/now']);
    expect(await keys(revision - 1)).toEqual([]);
    expect(await keys(revision + 1)).toEqual(['l/now', 'l/old']);
    expect((await store.list('l/', { upTo: revision })).revision).toBe(revision + 1);
  },

  async 'list gives what starts with the prefix, by key'({ store }) {
    for (const key of ['a/2', 'a/10', 'a', 'a/', 'a0', 'a/2/x', 'b/1', 'A/1', 'a.1', 'a/~'])
      await store.transact([put(key, key)]);
    const keys = async (prefix: string) => (await store.list(prefix)).items.map(({ key }) => key);
    expect(await keys('a/')).toEqual(['a/', 'a/10', 'a/2', 'a/2/x', 'a/~']);
    expect(await keys('a/2')).toEqual(['a/2', 'a/2/x']);
    expect(await keys('')).toHaveLength(10);
    expect(await keys('a%')).toEqual([]);
    expect(await keys('a_')).toEqual([]);
    expect(await keys('a*')).toEqual([]);
    expect((await store.list('a/2')).items[0]).toEqual({ key: 'a/2', value: 'a/2', revision: expect.any(Number) });
  },

  async 'expect 0 creates once'({ store }) {
    const revision = await store.transact([put('a', 1, 0)]);
    const error = await refusal(store.transact([put('a', 2, 0)]));
    expect(error).toMatchObject({ code: 'store.conflict', details: { key: 'a', expected: 0, actual: revision } });
    expect((await store.get('a'))?.value).toBe(1);
    await store.transact([del('a')]);
    await store.transact([put('a', 3, 0)]);
    expect((await store.get('a'))?.value).toBe(3);
  },

  async 'expect n writes and deletes only what is at n'({ store }) {
    const first = await store.transact([put('a', 1)]);
    const second = await store.transact([put('a', 2, first)]);
    for (const op of [put('a', 3, first), del('a', first), check('a', first), put('b', 1, first), del('b', second)])
      expect(await refusal(store.transact([op]))).toMatchObject({ code: 'store.conflict' });
    expect(await store.get('a')).toEqual({ key: 'a', value: 2, revision: second });
    await store.transact([del('a', second)]);
    expect(await store.get('a')).toBeNull();
  },

  async 'all or nothing, wherever the failing operation stands'({ store }) {
    const revision = await store.transact([put('kept', 1)]);
    for (const ops of [
      [put('x', 1), put('y', 1), check('kept', 999)],
      [check('kept', 0), put('x', 1)],
      [put('x', 1), del('kept', 999), put('y', 1)],
      [del('kept'), put('x', 1), put('y', 1, 999)],
    ])
      expect(await refusal(store.transact(ops))).toMatchObject({ code: 'store.conflict' });
    expect(await store.list('')).toEqual({ items: [{ key: 'kept', value: 1, revision }], revision });
    // And nothing of it was announced.
    const next = await store.transact([put('after', 1)]);
    const reader = new Reader(store, 'cluster', revision);
    expect((await reader.change()).revision).toBe(next);
    await reader.end();
  },

  async 'expectations look at what was before the transaction'({ store }) {
    const first = await store.transact([put('a', 1)]);
    await store.transact([put('b', 1, 0), put('a', 2, first), check('c', 0), put('c', 1, 0)]);
    expect((await store.list('')).items.map(({ key }) => key)).toEqual(['a', 'b', 'c']);
  },

  async 'a key is written once in a transaction, and every value is JSON'({ store }) {
    await refusal(store.transact([put('a', 1), put('a', 2)]));
    await refusal(store.transact([put('a', 1), del('a')]));
    await refusal(store.transact([put('b', 1), put('c', undefined)]));
    expect(await store.list('')).toEqual({ items: [], revision: 0 });
  },

  async 'one of many concurrent creators wins'({ store, other }) {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 40 }, (_, n) => (n % 2 ? store : other).transact([put('name', n, 0), put(`by/${n}`, n)])),
    );
    const won = outcomes.flatMap(({ status }, n) => (status === 'fulfilled' ? [n] : []));
    expect(won).toHaveLength(1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'store.conflict' });
    expect((await store.get('name'))?.value).toBe(won[0]);
    expect((await other.list('by/')).items).toHaveLength(1);
  },

  async 'a counter under concurrent compare-and-swap loses no step'({ store, other }) {
    await store.transact([put('n', 0)]);
    const step = async (on: Store): Promise<void> => {
      for (let tries = 0; tries < 200; tries++) {
        const { value, revision } = (await on.get<number>('n'))!;
        try {
          await on.transact([put('n', value + 1, revision)]);
          return;
        } catch (error) {
          expect(error).toMatchObject({ code: 'store.conflict' });
        }
      }
      throw new Error('never got through');
    };
    await Promise.all(Array.from({ length: 30 }, (_, n) => step(n % 2 ? store : other)));
    expect((await store.get('n'))?.value).toBe(30);
  },

  async 'a watch tells what was before it and what comes, in order, none lost'({ store }) {
    const revisions = [await store.transact([put('a', 1)]), await store.transact([put('b', 1)])];
    const reader = new Reader(store, 'cluster', 0);
    expect((await reader.change()).revision).toBe(revisions[0]);
    expect((await reader.change()).revision).toBe(revisions[1]);
    const waiting = reader.wait();
    revisions.push(await store.transact([put('a', 2)]));
    const { value } = await within(waiting, 'the change that was waited for');
    expect((value as Extract<WatchEvent, { type: 'change' }>).change).toEqual({
      revision: revisions[2],
      entries: [{ key: 'a', value: 2, revision: revisions[2] }],
    });
    const burst = await Promise.all(Array.from({ length: 700 }, (_, n) => store.transact([put(`k${n}`, n)])));
    const told: number[] = [];
    for (let n = 0; n < burst.length; n++) told.push((await reader.change()).revision);
    expect(told).toEqual(burst);
    await reader.end();
  },

  async 'a change has one entry a touched key in the order of the operations, and the actor'({ store }) {
    await store.transact([put('gone', 1)]);
    const from = await store.transact([put('checked', 1)]);
    const revision = await store.transact(
      [put('z', { n: 1 }), check('checked', from), del('gone'), del('never was'), put('a', null)],
      { actor: 'uid:0 pid:4242' },
    );
    const reader = new Reader(store, 'cluster', from);
    expect(await reader.change()).toEqual({
      revision,
      actor: 'uid:0 pid:4242',
      entries: [
        { key: 'z', value: { n: 1 }, revision },
        { key: 'gone', value: null, revision },
        { key: 'a', value: null, revision },
      ],
    });
    await reader.end();
  },

  async 'a watch begins after the revision it names'({ store }) {
    await store.transact([put('a', 1)]);
    const from = await store.transact([put('a', 2)]);
    const reader = new Reader(store, 'cluster', from);
    const next = await store.transact([put('a', 3)]);
    expect((await reader.change()).revision).toBe(next);
    await reader.end();
  },

  async 'a topic hears its own changes alone; without topics it is the cluster'({ store }) {
    const one = await store.transact([put('1', 1)], { topics: ['node/a'] });
    const both = await store.transact([put('2', 1)], { topics: ['node/a', 'network/x', 'node/a'] });
    await store.transact([put('3', 1)], { topics: [] });
    const plain = await store.transact([put('4', 1)]);
    const heard = async (topics: string | string[], count: number): Promise<number[]> => {
      const reader = new Reader(store, topics, 0);
      const revisions: number[] = [];
      for (let n = 0; n < count; n++) revisions.push((await reader.change()).revision);
      const last = await store.transact([put('end', 1)], { topics: typeof topics === 'string' ? [topics] : topics });
      expect((await reader.change()).revision).toBe(last);
      await reader.end();
      return revisions;
    };
    expect(await heard('node/a', 2)).toEqual([one, both]);
    expect(await heard('network/x', 1)).toEqual([both]);
    expect(await heard('cluster', 1)).toEqual([plain]);
    expect(await heard('node/', 0)).toEqual([]);
    // A change that several topics announce is told once, and revisions are in order.
    expect((await heard(['network/x', 'node/a'], 4)).slice(0, 2)).toEqual([one, both]);
  },

  async 'watchers are apart: each at its own pace and place'({ store }) {
    const slow = new Reader(store, 'cluster', 0);
    const quick = new Reader(store, 'cluster', 0);
    for (let n = 0; n < 20; n++) await store.transact([put('a', n)]);
    for (let n = 0; n < 20; n++) expect((await quick.change()).entries[0]!.value).toBe(n);
    await quick.end();
    for (let n = 0; n < 20; n++) expect((await slow.change()).entries[0]!.value).toBe(n);
    await slow.end();
  },

  async 'what is written elsewhere costs a busy watcher nothing of its own'({ store }) {
    const write = (topic: string) => store.transact([put('a', topic)], { topics: [topic] });
    const own = [await write('node/a')];
    const reader = new Reader(store, 'node/a', 0);
    expect((await reader.change()).revision).toBe(own[0]);
    own.push(await write('node/a'));
    await write('node/b');
    own.push(await write('node/a'));
    await write('node/b');
    expect([(await reader.change()).revision, (await reader.change()).revision]).toEqual(own.slice(1));
    const waiting = reader.wait();
    await write('node/b');
    const last = await write('node/a');
    expect((await within(waiting, 'its own change')).value).toMatchObject({ change: { revision: last } });
    await reader.end();
  },

  async 'what is written elsewhere in the same moment hides nothing from a watcher that waits'({ store }) {
    const reader = new Reader(store, 'node/a', 0);
    for (let n = 0; n < 10; n++) {
      const waiting = reader.wait();
      await new Promise((resolve) => setTimeout(resolve, 5));
      const [own] = await Promise.all(
        ['node/a', 'node/b'].map((topic) => store.transact([put(topic, n)], { topics: [topic] })),
      );
      expect((await within(waiting, 'its own change')).value).toMatchObject({ change: { revision: own } });
    }
    await reader.end();
  },

  async 'a watch that is aborted ends without an error, also before it began'({ store }) {
    const reader = new Reader(store, 'cluster', 0);
    await reader.end();
    await store.transact([put('a', 1)]);
    const told: WatchEvent[] = [];
    for await (const event of store.watch('cluster', 0, AbortSignal.abort())) told.push(event);
    expect(told).toEqual([]);
  },

  async 'one that fell behind the trimmed log lists again and goes on from there'({ store, logMax }) {
    const idle = new Reader(store, 'node/quiet', 0);
    const quiet = idle.wait();
    await store.transact([put('a', 1)]);
    const slow = new Reader(store, 'cluster', 0);
    await slow.change();
    for (let n = 0; n < logMax + PAST_TRIM; n++) await store.transact([put('filler', n)]);
    const late = new Reader(store, 'cluster', 0);
    const event = await late.next();
    expect(event).toEqual({ type: 'relist', revision: (await store.list('')).revision });
    const next = await store.transact([put('a', 2)]);
    expect((await late.change()).revision).toBe(next);
    await late.end();
    // The slow one may have a page of changes in hand, in order, before it hears that it lost some.
    for (let at = 1; ; ) {
      const told = await slow.next();
      if (told.type === 'relist') break;
      expect(told.change.revision).toBeGreaterThan(at);
      at = told.change.revision;
      expect(at).toBeLessThan(next);
    }
    await slow.end();
    // Nothing of what concerns the quiet one was lost: it only waited.
    const own = await store.transact([put('q', 1)], { topics: ['node/quiet'] });
    expect((await within(quiet, 'what the quiet one waits for')).value).toMatchObject({ change: { revision: own } });
    await idle.end();
    // The newest changes are kept.
    const recent = new Reader(store, ['cluster', 'node/quiet'], own - Math.min(logMax, 5));
    for (let n = own - Math.min(logMax, 5) + 1; n <= own; n++) expect((await recent.change()).revision).toBe(n);
    await recent.end();
  },

  async 'a place ahead of the log is another store: list again'({ store }) {
    const revision = await store.transact([put('a', 1)]);
    const reader = new Reader(store, 'cluster', revision + 1_000);
    expect(await reader.next()).toEqual({ type: 'relist', revision });
    const next = await store.transact([put('a', 2)]);
    expect((await reader.change()).revision).toBe(next);
    await reader.end();
  },

  async 'a session is held by one, ends when it is not renewed, and its epochs rise'({ store, other, advance }) {
    const first = await store.session('n1', 300);
    expect(first).toMatchObject({ name: 'n1', alive: true });
    expect(await refusal(other.session('n1', 300))).toMatchObject({ code: 'store.conflict' });
    const unlike = await other.session('n2', 300);
    expect(unlike.alive).toBe(true);
    await advance(200);
    await first.renew();
    await advance(200);
    expect(first.alive).toBe(true);
    expect(await refusal(store.session('n1', 300))).toMatchObject({ code: 'store.conflict' });
    await advance(200);
    expect(first.alive).toBe(false);
    expect(await refusal(first.renew())).toMatchObject({ code: 'store.fenced' });
    const second = await other.session('n1', 300);
    expect(second.epoch).toBeGreaterThan(first.epoch);
    expect(first.alive).toBe(false);
    expect(await refusal(first.renew())).toMatchObject({ code: 'store.fenced' });
  },

  async 'a session that was ended is free at once, and ending it late harms no successor'({ store }) {
    const first = await store.session('n1', 60_000);
    await first.end();
    expect(first.alive).toBe(false);
    const second = await store.session('n1', 60_000);
    expect(second.epoch).toBeGreaterThan(first.epoch);
    await first.end();
    expect(second.alive).toBe(true);
    await second.renew();
  },

  async 'a fenced write is refused as a whole'({ store, other, advance }) {
    const session = await store.session('n1', 300);
    await store.transact([put('a', 1)], { session });
    await advance(400);
    expect(await refusal(store.transact([put('a', 2), put('b', 2)], { session }))).toMatchObject({
      code: 'store.fenced',
    });
    const successor = await other.session('n1', 60_000);
    expect(await refusal(store.transact([put('a', 3)], { session }))).toMatchObject({ code: 'store.fenced' });
    // Whatever the object says of itself: the store decides.
    const liar: Session = { ...session, alive: true };
    expect(await refusal(store.transact([put('a', 4)], { session: liar }))).toMatchObject({ code: 'store.fenced' });
    await other.transact([put('c', 1)], { session: successor });
    expect((await store.list('')).items.map(({ key, value }) => [key, value])).toEqual([
      ['a', 1],
      ['c', 1],
    ]);
  },

  async 'a write for another term is a conflict and leaves nothing'({ store }) {
    await store.transact([put('a', 1)]);
    const term = store.term ?? store.incarnation;
    expect(await refusal(store.transact([put('a', 2)], { term: `${term}0` }))).toMatchObject({
      code: 'store.conflict',
      details: { key: 'term' },
    });
    expect((await store.get('a'))?.value).toBe(1);
    await store.transact([put('a', 3)], { term });
    expect((await store.get('a'))?.value).toBe(3);
  },

  async 'a closed store is unavailable, and its watches say so'({ store }) {
    const reader = new Reader(store, 'cluster', 0);
    const waiting = refusal(reader.wait());
    await store.transact([put('a', 1)], { topics: ['elsewhere'] });
    await store.close();
    await store.close();
    expect(await within(waiting, 'the end of the watch')).toMatchObject({ code: 'store.unavailable' });
    for (const work of [store.get('a'), store.list(''), store.transact([put('a', 1)]), store.session('n', 1_000)])
      expect(await refusal(work)).toMatchObject({ code: 'store.unavailable' });
  },

  async 'another life over the same data goes on where the last one was'({ store, reopen }) {
    if (!reopen) return;
    const { incarnation } = store;
    await store.transact([put('a', 1), put('b', 1)]);
    await store.transact([del('b')], { actor: 'me' });
    const { epoch } = await store.session('n1', 60_000);
    const last = await store.transact([put('c', 1)], { topics: ['node/x'] });
    const again = await reopen();
    expect(again.incarnation).toBe(incarnation);
    expect(await again.list('')).toMatchObject({ items: [{ key: 'a' }, { key: 'c' }], revision: last });
    expect(await again.transact([])).toBe(last);
    const reader = new Reader(again, 'cluster', 1);
    expect(await reader.change()).toMatchObject({ revision: 2, actor: 'me', entries: [{ key: 'b', value: null }] });
    await reader.end();
    expect(await again.transact([del('a'), del('c')])).toBe(last + 1);
    const empty = await (await reopen()).list('');
    expect(empty).toEqual({ items: [], revision: last + 1 });
    const next = await reopen();
    await expect
      .poll(async () => (await next.session('n1', 60_000).catch(() => ({ epoch: 0 }))).epoch, { timeout: 3_000 })
      .toBeGreaterThan(epoch);
  },
};

/** Declares the suite for one store; `make` gives a fresh one for each case. */
export function storeConformance(name: string, make: () => Promise<StoreUnderTest>): void {
  describe(`store contract: ${name}`, () => {
    test.each(Object.keys(STORE_CASES))('%s', async (which) => {
      const on = await make();
      try {
        await STORE_CASES[which]!(on);
      } finally {
        await on.close();
      }
    });
  });
}
