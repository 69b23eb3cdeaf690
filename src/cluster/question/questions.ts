/**
 * Questions to other nodes, about what only their kernels know. A question is a record of the store that the node it is for hears of, and nobody
 * else; the answer takes its place, for the asker alone. Both live for a moment: the asker takes them away, or, when one of the two daemons has
 * died in between, whoever sweeps. Time is each node's own.
 */
import { type Clock, type Timer, withTimeLimit } from '../../clock.ts';
import type { Op, Session, Store } from '../../contracts/store.ts';
import { ERROR_CODES, type ErrorCode, isSluiceError, SluiceError, toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { hexId } from '../../model/id.ts';
import { answerKey, answerPrefix, nodeTopic, questionKey, questionPrefix } from '../../model/keys.ts';

/** The owner's time to find an answer, and the asker's to have it, milliseconds. */
const WORK_MS = 1_500;
export const ANSWER_MS = 2_000;
/** Between two sweeps, milliseconds: what was there at the last one and still is has been forgotten by both. */
export const SWEEP_MS = 10_000;
/** Of one asker under way, and of one owner in work, at once. */
export const ASKED_MAX = 16;
export const WORKED_MAX = 8;
/** Bytes of JSON. */
export const QUESTION_BYTES_MAX = 4_096;
export const ANSWER_BYTES_MAX = 65_536;
/** Records that one transaction deletes at most. */
const BATCH_MAX = 256;
const ID_BYTES = 8;

export interface Question {
  readonly from: string;
  /** Of the asker's session: without it nobody waits for the answer. */
  readonly epoch: number;
  /** What it is about: whoever does not know it says so. */
  readonly about: string;
  readonly body: unknown;
}

export interface Answer {
  readonly from: string;
  readonly body?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

export interface QuestionsOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly node: string;
  /** This node's session in the cluster; undefined: it has none now. */
  readonly session: () => Pick<Session, 'name' | 'epoch'> | undefined;
  /** The session that a node has, by the name of the node. */
  readonly sessionName: (node: string) => string;
  /** What this node answers. What it rejects with is the answer, too. */
  readonly answer: (about: string, body: unknown) => Promise<unknown>;
}

const bytesOf = (value: unknown): number => Buffer.byteLength(JSON.stringify(value) ?? '');

export class Questions {
  readonly #options: QuestionsOptions;
  readonly #waiting = new Map<string, (answer: Answer) => void>();
  #working = 0;
  #timer: Timer | undefined;
  #sweeping: Promise<void> | undefined;
  /** Key → revision, as the last sweep saw them. */
  #seen = new Map<string, number>();
  #stopped = false;

  constructor(options: QuestionsOptions) {
    this.#options = options;
  }

  start(): void {
    this.#next();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    await this.#sweeping;
  }

  /** `node.silent` after {@link ANSWER_MS}; `request.busy`, `request.toolarge`, `store.unavailable`; whatever the other node fails with. */
  async ask(to: string, about: string, body: unknown): Promise<unknown> {
    const { store, clock, node } = this.#options;
    const session = this.#options.session();
    if (!session)
      throw new SluiceError(
        'store.unavailable',
        'this node has no session in the cluster now, so that nobody would answer it',
      );
    if (this.#waiting.size >= ASKED_MAX)
      throw new SluiceError('request.busy', `${ASKED_MAX} questions of this node to others are under way already`);
    const question: Question = { from: node, epoch: session.epoch, about, body };
    if (bytesOf(question) > QUESTION_BYTES_MAX)
      throw new SluiceError('request.toolarge', `a question is larger than ${QUESTION_BYTES_MAX} bytes`);
    const id = hexId(clock.random(ID_BYTES));
    const { promise, resolve } = Promise.withResolvers<Answer>();
    this.#waiting.set(id, resolve);
    const silent = (): SluiceError =>
      new SluiceError('node.silent', `node ${to} did not answer within ${ANSWER_MS / 1_000} s`, { node: to });
    try {
      const put: Op = { op: 'put', key: questionKey(to, id), value: question, expect: 0 };
      const asked = store.transact([put], { topics: [nodeTopic(to)], session });
      const answer = await withTimeLimit(clock, ANSWER_MS, Promise.all([promise, asked]), silent);
      return read(answer[0]);
    } finally {
      this.#waiting.delete(id);
      const ops = [questionKey(to, id), answerKey(node, id)].map((key): Op => ({ op: 'delete', key }));
      // What could not be taken away is swept.
      await this.#quietly(store.transact(ops, { topics: [] }), 'take a question away');
    }
  }

  /** A record of this node's own stream. */
  heard(key: string, value: unknown | null, revision: number): void {
    const { node } = this.#options;
    if (value === null || this.#stopped) return;
    const [kind, , id = ''] = key.split('/');
    if (key === answerKey(node, id)) this.#waiting.get(id)?.(value as Answer);
    else if (kind === questionPrefix.slice(0, -1) && key === questionKey(node, id))
      void this.#quietly(this.#answer(id, value as Question, revision), 'answer a question');
  }

  /** Removes what its asker has left behind; one record is given up after it was seen in two sweeps. */
  async sweep(): Promise<void> {
    const { store } = this.#options;
    const lists = await Promise.all([questionPrefix, answerPrefix].map((prefix) => store.list(prefix)));
    const items = lists.flatMap((list) => list.items);
    const left = items.filter(({ key, revision }) => this.#seen.get(key) === revision);
    this.#seen = new Map(items.map(({ key, revision }) => [key, revision]));
    for (let at = 0; at < left.length; at += BATCH_MAX) {
      // Another node sweeps, too.
      const ops = left.slice(at, at + BATCH_MAX).map(({ key }): Op => ({ op: 'delete', key }));
      await store.transact(ops, { topics: [] });
    }
  }

  /** The question goes with its answer. Both need the asker's session: who has lost it waits for nothing. */
  async #answer(id: string, { from, epoch, about, body }: Question, revision: number): Promise<void> {
    const { store, clock, node, sessionName } = this.#options;
    const key = questionKey(node, id);
    const session = { name: sessionName(from), epoch };
    // Asked before anything is done for it.
    await store.transact([{ op: 'check', key, expect: revision }], { session });
    const answer = await this.#find(about, body);
    const ops: Op[] = [
      { op: 'delete', key, expect: revision },
      { op: 'put', key: answerKey(from, id), value: { from: node, ...answer } satisfies Answer, expect: 0 },
    ];
    await withTimeLimit(clock, ANSWER_MS, store.transact(ops, { topics: [nodeTopic(from)], session }), () => {
      return new SluiceError('store.unavailable', 'the answer could not be written in time');
    });
  }

  async #find(about: string, body: unknown): Promise<Omit<Answer, 'from'>> {
    const { clock, node, answer } = this.#options;
    if (this.#working >= WORKED_MAX)
      return { error: { code: 'request.busy', message: `node ${node} answers ${WORKED_MAX} questions already` } };
    this.#working++;
    try {
      const late = (): SluiceError => new SluiceError('node.silent', `node ${node} did not find out in time`, { node });
      const found = await withTimeLimit(clock, WORK_MS, answer(about, body), late);
      if (bytesOf(found) <= ANSWER_BYTES_MAX) return { body: found };
      throw new SluiceError('request.toolarge', `the answer of node ${node} is larger than ${ANSWER_BYTES_MAX} bytes`);
    } catch (error) {
      const { code, message } = toSluiceError(error);
      return { error: { code, message } };
    } finally {
      this.#working--;
    }
  }

  #next(): void {
    if (this.#stopped) return;
    this.#timer = this.#options.clock.after(SWEEP_MS, () => {
      this.#sweeping = this.#quietly(this.sweep(), 'sweep').finally(() => this.#next());
    });
  }

  /** A store that is away, a question that is gone and an asker without a session are no news. */
  async #quietly(work: Promise<unknown>, what: string): Promise<void> {
    try {
      await work;
    } catch (error) {
      const { logger } = this.#options;
      const isUsual = isSluiceError(error, 'store.unavailable', 'store.conflict', 'store.fenced');
      logger[isUsual ? 'debug' : 'warn']({ err: toSluiceError(error).message, what }, 'questions between nodes');
    }
  }
}

/** The answer's body; a failure of the other node's is one here. */
function read({ from, body, error }: Answer): unknown {
  if (!error) return body;
  const code = error.code in ERROR_CODES ? (error.code as ErrorCode) : 'internal';
  throw new SluiceError(code, error.message, { node: from });
}
