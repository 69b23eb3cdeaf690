/**
 * Streams to processes: exec, attach, and the way in of cp. `POST … Connection: Upgrade, Upgrade: sluice-stream` is answered with 101, and
 * both sides speak frames (model/container/frame.ts) from then on; the caller's first one says what it wants.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { z } from 'zod';
import { type Clock, withTimeLimit } from '../../clock.ts';
import type { LiveContainers } from '../../contracts/live.ts';
import type { Streams } from '../../contracts/runtime.ts';
import { SluiceError, toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import { Channel } from '../../model/container/channel.ts';
import { FRAME, type Frame } from '../../model/container/frame.ts';
import { archiveOpen, attachOpen, execRequest } from '../../model/container/schema.ts';
import { SIGNAL_PATTERN, signalName } from '../../model/container/signal.ts';
import type { DesiredState } from '../context.ts';

export const UPGRADE = 'sluice-stream';
const PATH = /^\/v1\/containers\/([^/?]+)\/(exec|attach|archive)(?:\?.*)?$/;
/** The caller's first frame comes at once. */
const OPEN_MS_MAX = 10_000;
const STREAMS_MAX = 1_024;

export interface StreamParts {
  readonly desired: Pick<DesiredState, 'containers'>;
  readonly live: LiveContainers;
  readonly clock: Clock;
  readonly logger: Logger;
  /** The daemon's life. */
  readonly signal: AbortSignal;
}

/** What the listener of the API hands connections to that want to be more than HTTP. */
export interface StreamServer {
  wants(request: IncomingMessage): boolean;
  accept(request: IncomingMessage, socket: Duplex, head: Uint8Array): void;
}

const resizing = z.object({ columns: z.int().min(0).max(65_535), rows: z.int().min(0).max(65_535) });
const signalling = z.object({ signal: z.string().regex(SIGNAL_PATTERN) });

export function createStreams(parts: StreamParts): StreamServer {
  const open = new Set<Channel>();
  const refuse = async (channel: Channel, reason: unknown): Promise<void> => {
    await channel.send(FRAME.error, JSON.stringify(toSluiceError(reason)));
    channel.end();
  };
  // A listener cannot end while connections are open that are no longer its own.
  const stopping = new SluiceError('daemon.stopping', 'the daemon goes down; what runs goes on');
  parts.signal.addEventListener('abort', () => {
    for (const channel of open) void refuse(channel, stopping).finally(() => channel.destroy());
  });
  return {
    wants: (request) =>
      request.method === 'POST' && request.headers.upgrade === UPGRADE && PATH.test(request.url ?? ''),
    accept(request, socket, head) {
      const [, ref, verb] = PATH.exec(request.url ?? '')!;
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${UPGRADE}\r\n\r\n`);
      const channel = new Channel(socket, head);
      if (parts.signal.aborted) return void refuse(channel, stopping);
      if (open.size >= STREAMS_MAX)
        return void refuse(channel, new SluiceError('request.busy', `${STREAMS_MAX} streams are open already`));
      open.add(channel);
      channel.onClose(() => open.delete(channel));
      const name = decodeURIComponent(ref!);
      new Session(parts, channel, name).run(verb as 'exec' | 'attach' | 'archive').then(
        () => channel.end(),
        (reason: unknown) => {
          const { code, message, cause } = toSluiceError(reason);
          if (code === 'internal') parts.logger.error({ container: name, verb, err: cause ?? reason }, message);
          return refuse(channel, reason);
        },
      );
    },
  };
}

class Session {
  readonly #parts: StreamParts;
  readonly #channel: Channel;
  readonly #ref: string;
  readonly #frames: AsyncGenerator<Frame>;
  /** Ends with the connection, or the daemon. */
  readonly #life: AbortSignal;

  constructor(parts: StreamParts, channel: Channel, ref: string) {
    this.#parts = parts;
    this.#channel = channel;
    this.#ref = ref;
    this.#frames = channel.frames();
    const gone = new AbortController();
    channel.onClose(() => gone.abort(new SluiceError('request.timeout', 'the caller left')));
    this.#life = AbortSignal.any([gone.signal, parts.signal]);
  }

  async run(verb: 'exec' | 'attach' | 'archive'): Promise<void> {
    if (verb === 'exec') await this.#exec();
    else if (verb === 'attach') await this.#attach();
    else await this.#archive();
  }

  async #exec(): Promise<void> {
    const { desired, live } = this.#parts;
    const { columns, rows, ...asked } = await this.#open(execRequest);
    const { id, name } = await desired.containers.get(this.#ref);
    if ((await live.runtime.state(id))?.state !== 'running')
      throw new SluiceError('container.stopped', `container ${name} does not run`, { container: id });
    const { env = [], tty = false, privileged = false, stdin = false } = asked;
    const process = await live.runtime.exec(id, { ...asked, env, tty, privileged, stdin });
    this.#channel.onClose(() => process.detach());
    if (columns && rows) process.resize(columns, rows);
    await this.#channel.send(FRAME.ready);
    this.#listen(process, stdin, (signal) => process.kill(signalName(signal)));
    await this.#pump(process);
    await this.#exit(await this.#living(process.exit));
  }

  async #attach(): Promise<void> {
    const { desired, live } = this.#parts;
    const { start, stdin, columns, rows } = await this.#open(attachOpen);
    let { id, spec } = await desired.containers.get(this.#ref);
    let streams: Streams;
    if (start) {
      const attaching = live.attach(id, spec.generation, this.#life);
      // It is awaited once the start is stored, or of no interest when that fails.
      attaching.catch((error: unknown) => error);
      ({ spec } = await desired.containers.start(id));
      streams = await attaching;
    } else streams = await live.attach(id);
    this.#channel.onClose(() => streams.detach());
    if (columns && rows) streams.resize(columns, rows);
    await this.#channel.send(FRAME.ready);
    this.#listen(streams, stdin ?? false, (signal) => {
      live.runtime.kill(id, signalName(signal)).catch((error: unknown) => this.#note(error));
    });
    await this.#pump(streams);
    const { exitCode = 0 } = await live.exit(id, spec.generation, this.#life);
    await this.#exit(exitCode);
  }

  async #archive(): Promise<void> {
    const { desired, live } = this.#parts;
    const { path } = await this.#open(archiveOpen);
    const container = await desired.containers.get(this.#ref);
    await this.#channel.send(FRAME.ready);
    const frames = this.#frames;
    let whole = false;
    // By hand: leaving a loop over the frames would end the connection before the answer.
    async function* tar(): AsyncGenerator<Uint8Array> {
      for (;;) {
        const { value, done } = await frames.next();
        if (done) return;
        if (value.type === FRAME.end) {
          whole = true;
          return;
        }
        if (value.type === FRAME.stdin) yield value.data;
      }
    }
    await live.copyIn(container, path, tar());
    if (!whole && this.#life.aborted) return;
    await this.#exit(0);
  }

  /** The first frame, by its schema. */
  async #open<T>(schema: z.ZodType<T>): Promise<T> {
    const late = (): Error => new SluiceError('request.slow', 'no frame came that says what is wanted');
    const { value, done } = await withTimeLimit(this.#parts.clock, OPEN_MS_MAX, this.#frames.next(), late);
    if (done || value.type !== FRAME.open)
      throw new SluiceError('request.invalid', 'the first frame is not one that says what is wanted');
    return parse(schema, value.data);
  }

  /** What the caller sends, until it goes; it runs beside the output. */
  #listen(streams: Streams, stdin: boolean, signal: (name: string) => void): void {
    const take = async ({ type, data }: Frame): Promise<void> => {
      if (type === FRAME.stdin && stdin) await streams.write(data);
      else if (type === FRAME.end && stdin) streams.closeInput();
      else if (type === FRAME.resize) {
        const { columns, rows } = parse(resizing, data);
        streams.resize(columns, rows);
      } else if (type === FRAME.signal) signal(parse(signalling, data).signal);
    };
    const listening = async (): Promise<void> => {
      for await (const frame of this.#frames) await take(frame);
    };
    // A process that no longer reads is no reason to end its output.
    listening().catch((error: unknown) => this.#note(error));
  }

  async #pump(streams: Streams): Promise<void> {
    for await (const { stream, data } of streams.output) await this.#channel.send(FRAME[stream], data);
  }

  async #exit(exitCode: number): Promise<void> {
    await this.#channel.send(FRAME.exit, JSON.stringify({ exitCode }));
  }

  /** Rejects when the connection ends first. */
  #living<T>(work: Promise<T>): Promise<T> {
    const { promise, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(this.#life.reason);
    if (this.#life.aborted) leave();
    else this.#life.addEventListener('abort', leave, { once: true });
    promise.catch((error: unknown) => error);
    return Promise.race([work, promise]);
  }

  #note(error: unknown): void {
    this.#parts.logger.debug({ container: this.#ref, err: toSluiceError(error).message }, 'input of a stream failed');
  }
}

function parse<T>(schema: z.ZodType<T>, data: Uint8Array): T {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(data).toString('utf8'));
  } catch (error) {
    throw new SluiceError('request.invalid', `a frame is no JSON: ${(error as Error).message}`);
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => ({ path: ['body', ...path].join('.'), message }));
  const [first] = problems;
  throw new SluiceError('request.invalid', `invalid request: ${first?.path}: ${first?.message}`, { problems });
}
