/** `sluice service logs`: what replicas write, also of those that come later and of those that are started again. */
import type { Client } from '../../client/client.ts';
import { systemClock as clock } from '../../clock.ts';
import { isSluiceError } from '../../errors.ts';
import type { Container } from '../../model/container.ts';
import type { View } from '../../model/request.ts';
import { type Context, command } from '../command/command.ts';
import { integer, many, one, toggle, word } from '../command/flag.ts';
import { detailOf } from '../container/look.ts';
import { readMoment, readTail } from '../container/words.ts';
import { replicasNow } from './replica.ts';

interface LogsOptions {
  readonly tail?: number;
  readonly since?: number;
}

/** Between the end of a stream and the next look at whether its container runs again. */
const LOOK_MS = 100;

class Printer {
  readonly #context: Context;
  readonly #client: Client;
  readonly #timestamps: boolean;
  #width = 0;
  /** Time of each one's last line, so that a stream that is taken up again repeats none. */
  readonly #last = new Map<string, string>();
  readonly #elsewhere = new Set<string>();

  constructor(context: Context, client: Client, timestamps: boolean) {
    this.#context = context;
    this.#client = client;
    this.#timestamps = timestamps;
  }

  /** Names are printed as wide as the longest of those that are known. */
  know(replicas: readonly View<Container>[]): void {
    this.#width = Math.max(this.#width, ...replicas.map(({ name }) => name.length));
  }

  /** Says once where the logs of one are that runs on another node. */
  elsewhere({ id, name, owner }: View<Container>): void {
    if (this.#elsewhere.has(id)) return;
    this.#elsewhere.add(id);
    this.#context.terminal.err(`sluice: ${name} runs on node ${owner}: its logs are to be had there\n`);
  }

  /** Its lines; after the first time only those that came since. */
  async print({ id, name }: View<Container>, options: LogsOptions, signal?: AbortSignal): Promise<void> {
    const last = this.#last.get(id);
    const from = last === undefined ? options : { since: Date.parse(last) };
    for await (const line of this.#client.containers.logs(id, { ...from, follow: signal !== undefined, signal })) {
      const { time, stream, text } = line;
      if (last !== undefined && !isLater(time, last)) continue;
      this.#last.set(id, time);
      const whole = `${name.padEnd(this.#width)} | ${this.#timestamps ? `${time} ` : ''}${text}`;
      await this.#context.terminal.write(stream, Buffer.from(whole.endsWith('\n') ? whole : `${whole}\n`));
    }
  }
}

/** Times of one writer: to the millisecond as numbers, then as they are written. */
const isLater = (time: string, last: string): boolean => {
  const [a, b] = [Date.parse(time), Date.parse(last)];
  return a === b ? time > last : a > b;
};

class Following {
  readonly #client: Client;
  readonly #printer: Printer;
  readonly #options: LogsOptions;
  readonly #shown: (replicas: readonly View<Container>[]) => readonly View<Container>[];
  readonly #end = new AbortController();
  readonly #streams = new Map<string, Promise<void>>();
  /** Those that were there at the beginning; null before. What is asked for (`--tail`, `--since`) is of them: of later ones all is new. */
  #early: ReadonlySet<string> | null = null;
  #failure: unknown;
  node = '';

  constructor(
    client: Client,
    printer: Printer,
    options: LogsOptions,
    shown: (replicas: readonly View<Container>[]) => readonly View<Container>[],
  ) {
    this.#client = client;
    this.#printer = printer;
    this.#options = options;
    this.#shown = shown;
  }

  /** Until the service is gone, and all that its replicas wrote is told. */
  async run(service: string): Promise<void> {
    for await (const _ of this.#client.watch({ kinds: ['container', 'service'], signal: this.#end.signal })) {
      if (!(await this.#isThere(service))) break;
      await this.#look(service);
    }
    await Promise.all(this.#streams.values());
    if (this.#failure) throw this.#failure;
  }

  async #isThere(service: string): Promise<boolean> {
    try {
      return !(await this.#client.services.get(service)).removing;
    } catch (error) {
      if (isSluiceError(error, 'object.notfound')) return false;
      throw error;
    }
  }

  async #look(service: string): Promise<void> {
    const replicas = this.#shown(await replicasNow(this.#client, { id: service }));
    this.#printer.know(replicas);
    const isFirst = this.#early === null;
    this.#early ??= new Set(replicas.map(({ id }) => id));
    for (const view of replicas) {
      if (view.owner !== this.node) this.#printer.elsewhere(view);
      else if (!this.#streams.has(view.id) && (isFirst || detailOf(view).phase === 'running'))
        this.#follow(service, view);
    }
  }

  #follow(service: string, view: View<Container>): void {
    const options = this.#early!.has(view.id) ? this.#options : {};
    const stream = this.#printer
      .print(view, options, this.#end.signal)
      .catch((error: unknown) => {
        // Removed, with its log.
        if (!isSluiceError(error, 'object.notfound')) throw error;
      })
      .then(async () => {
        this.#streams.delete(view.id);
        // It may run again already, and nothing more come of it that would be told.
        await clock.sleep(LOOK_MS);
        if (!this.#end.signal.aborted && (await this.#isThere(service))) await this.#look(service);
      })
      .catch((error: unknown) => {
        this.#failure ??= error;
        this.#end.abort();
      });
    this.#streams.set(view.id, stream);
  }
}

export const logs = command({
  summary: 'What the replicas of a service have written, each line with whose it is',
  about:
    'With --follow it goes on until the service is removed, also with replicas that come later and with those that are started again.',
  examples: ['sluice service logs --follow shop'],
  flags: {
    follow: toggle('Go on with what is written from now on', { short: 'f' }),
    tail: one('LINES', readTail, 'The last lines of each only', { short: 'n', absent: 'all' }),
    since: one('TIME', readMoment(Date.now), 'Not before: a time, or so long ago as 10m'),
    timestamps: toggle('Show when each line was written', { short: 't' }),
    replica: many('SLOT', integer, 'Only of these'),
  },
  args: { service: word('name or id', { of: 'service' }) },
  async run(context, { timestamps = false, follow, replica, ...options }, { service }) {
    const client = await context.client();
    const shown = (all: readonly View<Container>[]): readonly View<Container>[] =>
      all.filter(({ spec }) => replica.length === 0 || replica.includes(spec.replica!.slot));
    const printer = new Printer(context, client, timestamps);
    const { id } = await client.services.get(service);
    const { node } = await client.version();
    if (follow) {
      const following = new Following(client, printer, options, shown);
      following.node = node;
      await following.run(id);
      return;
    }
    const replicas = shown(await replicasNow(client, { id }));
    printer.know(replicas);
    for (const view of replicas) await (view.owner === node ? printer.print(view, options) : printer.elsewhere(view));
  },
});
