/** Questions between nodes over one store, each behind its own copies, under a clock that is told to go on. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sessionName } from '../../src/cluster/membership.ts';
import {
  ANSWER_BYTES_MAX,
  ANSWER_MS,
  ASKED_MAX,
  QUESTION_BYTES_MAX,
  Questions,
  SWEEP_MS,
  WORKED_MAX,
} from '../../src/cluster/question/questions.ts';
import { openReplica } from '../../src/cluster/replica/replica.ts';
import type { Session, Store } from '../../src/contracts/store.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { nodeTopic } from '../../src/model/keys.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createManualClock, type ManualClock } from '../clock.ts';

class Asker {
  readonly heardOf: string[] = [];
  readonly questions: Questions;
  readonly store: Store;
  readonly local: Store;
  readonly session: Session;
  answer: (about: string, body: unknown) => Promise<unknown> = async (about, body) => ({ about, body });
  readonly #life = new AbortController();

  constructor(name: string, store: Store, local: Store, session: Session, clock: ManualClock) {
    [this.store, this.local, this.session] = [store, local, session];
    this.questions = new Questions({
      store,
      clock,
      logger: createLogger('silent'),
      node: name,
      session: () => (session.alive ? session : undefined),
      sessionName,
      answer: (about, body) => this.answer(about, body),
    });
    void this.#follow(name);
  }

  /** What a kill leaves: nothing is heard or swept any more; the session ends by itself. */
  async die(): Promise<void> {
    this.#life.abort();
    await this.questions.stop();
  }

  async #follow(name: string): Promise<void> {
    for await (const event of this.store.watch(nodeTopic(name), 0, this.#life.signal)) {
      if (event.type !== 'change') continue;
      for (const { key, value, revision } of event.change.entries) {
        this.heardOf.push(key);
        this.questions.heard(key, value, revision);
      }
    }
  }
}

describe('a question to another node', () => {
  let clock: ManualClock;
  let shared: Store;
  let nodes: Asker[];
  const open = async (name: string): Promise<Asker> => {
    const local = createMemoryStore({ clock });
    const undying = new Proxy(shared, {
      get: (target, key) => {
        if (key === 'close') return async () => undefined;
        const value = Reflect.get(target, key);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const store = await openReplica({ connect: async () => undying, local, node: name, clock });
    const asker = new Asker(name, store, local, await store.session(sessionName(name), 3_000), clock);
    nodes.push(asker);
    return asker;
  };
  const turn = async (): Promise<void> => {
    for (let n = 0; n < 40; n++) await new Promise(setImmediate);
  };
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 100) {
      clock.advance(100);
      await turn();
    }
  };
  const left = async (): Promise<string[]> => (await shared.list('')).items.map(({ key }) => key);
  /** The answer, or the code it fails with. */
  const outcome = (asked: Promise<unknown>): Promise<unknown> =>
    asked.catch((error: unknown) => (error instanceof SluiceError ? error.code : Promise.reject(error)));
  beforeEach(() => {
    clock = createManualClock();
    shared = createMemoryStore({ clock });
    nodes = [];
  });
  afterEach(async () => {
    for (const node of nodes) await node.die();
    for (const { store } of nodes) await store.close();
    await shared.close();
  });

  test('is answered by its owner, told to nobody else, and leaves nothing', async () => {
    const [a, b, c] = [await open('a'), await open('b'), await open('c')];
    const asked = a.questions.ask('b', 'endpoint', { id: 7 });
    await turn();
    expect(await asked).toEqual({ about: 'endpoint', body: { id: 7 } });
    // Together with the end of its own question.
    expect(a.heardOf).toEqual([expect.stringMatching(/^question\/b\//), expect.stringMatching(/^answer\/a\//)]);
    expect(b.heardOf).toEqual([expect.stringMatching(/^question\/b\//)]);
    expect(c.heardOf).toEqual([]);
    expect(await left()).toEqual([]);
    // Nor is there a copy of it.
    for (const { local } of [a, b, c])
      expect((await local.list('')).items.filter(({ key }) => /question|answer/.test(key))).toEqual([]);
  });

  test("fails with the other node's own error", async () => {
    const [a, b] = [await open('a'), await open('b')];
    b.answer = async () => {
      throw new SluiceError('object.notfound', 'no such endpoint');
    };
    const asked = outcome(a.questions.ask('b', 'endpoint', {}));
    await turn();
    expect(await asked).toBe('object.notfound');
    expect(await left()).toEqual([]);
  });

  test('is given up in time, and taken away, when nobody answers', async () => {
    const a = await open('a');
    const asked = outcome(a.questions.ask('b', 'endpoint', {}));
    await turn();
    expect(await left()).toHaveLength(1);
    await pass(ANSWER_MS);
    expect(await asked).toBe('node.silent');
    expect(await left()).toEqual([]);
  });

  test('one that takes its owner too long is answered with that', async () => {
    const [a, b] = [await open('a'), await open('b')];
    b.answer = () => new Promise(() => undefined);
    const asked = outcome(a.questions.ask('b', 'endpoint', {}));
    await pass(1_600);
    expect(await asked).toBe('node.silent');
    expect(await left()).toEqual([]);
  });

  test('of a node whose session is gone is not answered, and nothing is done for it', async () => {
    const [a, b] = [await open('a'), await open('b')];
    let worked = 0;
    b.answer = async () => ++worked;
    const { session } = a;
    // Written while it lived, heard when it is no more.
    const key = 'question/b/00';
    const value = { from: 'a', epoch: session.epoch, about: 'endpoint', body: {} };
    await session.end();
    await shared.transact([{ op: 'put', key, value }], { topics: [nodeTopic('b')] });
    await turn();
    expect(b.heardOf).toEqual([key]);
    // Nor when a later life of the node has a session of its own.
    await shared.session(sessionName('a'), 3_000);
    await shared.transact([{ op: 'put', key: `${key}1`, value }], { topics: [nodeTopic('b')] });
    await turn();
    expect(worked).toBe(0);
    expect(await left()).toEqual([key, `${key}1`]);
    expect(await outcome(a.questions.ask('b', 'endpoint', {}))).toBe('store.unavailable');
  });

  test('a session that ends while the answer is found keeps it from being written', async () => {
    const [a, b] = [await open('a'), await open('b')];
    const found = Promise.withResolvers<string>();
    b.answer = () => found.promise;
    const asked = outcome(a.questions.ask('b', 'endpoint', {}));
    await turn();
    await a.session.end();
    found.resolve('late');
    await turn();
    expect(await left()).toEqual([expect.stringMatching(/^question\/b\//)]);
    await pass(ANSWER_MS);
    expect(await asked).toBe('node.silent');
  });

  test.each(['the asker', 'the owner'])('nothing stays when %s dies in between: whoever lives sweeps', async (who) => {
    const [a, b, c] = [await open('a'), await open('b'), await open('c')];
    c.questions.start();
    b.answer = () => new Promise(() => undefined);
    if (who === 'the owner') await b.die();
    const asked = outcome(a.questions.ask('b', 'endpoint', {}));
    await turn();
    if (who === 'the asker') {
      await a.die();
      // A dead daemon takes nothing away.
      const question = (await left())[0]!;
      const { value } = (await shared.get(question))!;
      await pass(ANSWER_MS);
      await asked;
      await shared.transact([{ op: 'put', key: question, value }], { topics: [] });
    } else await pass(ANSWER_MS);
    await pass(2 * SWEEP_MS + 1_000);
    await asked;
    expect(await left()).toEqual([]);
  });

  test('is bounded in size, and so is its answer', async () => {
    const [a, b] = [await open('a'), await open('b')];
    expect(await outcome(a.questions.ask('b', 'endpoint', 'x'.repeat(QUESTION_BYTES_MAX)))).toBe('request.toolarge');
    expect(await left()).toEqual([]);
    b.answer = async () => 'x'.repeat(ANSWER_BYTES_MAX + 1);
    const asked = outcome(a.questions.ask('b', 'endpoint', {}));
    await turn();
    expect(await asked).toBe('request.toolarge');
  });

  test('is bounded in number, at both ends', async () => {
    const [a, b] = [await open('a'), await open('b')];
    b.answer = () => new Promise(() => undefined);
    const asked = Array.from({ length: ASKED_MAX }, () => outcome(a.questions.ask('b', 'endpoint', {})));
    await turn();
    expect(await outcome(a.questions.ask('b', 'endpoint', {}))).toBe('request.busy');
    // Those that found the owner busy are told so at once.
    expect((await left()).filter((key) => key.startsWith('question/'))).toHaveLength(WORKED_MAX);
    await pass(ANSWER_MS);
    const outcomes = await Promise.all(asked);
    expect(outcomes.filter((one) => one === 'request.busy')).toHaveLength(ASKED_MAX - WORKED_MAX);
    expect(outcomes.filter((one) => one === 'node.silent')).toHaveLength(WORKED_MAX);
    expect(await left()).toEqual([]);
  });
});
