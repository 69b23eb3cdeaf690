/**
 * A transfer as server-sent events: `progress` while it goes on, then `done` with its result or `error` with code, message and details. For each
 * layer only the latest word waits for a slow reader. Who leaves ends the transfer.
 */
import type { Clock, Timer } from '../../clock.ts';
import type { ImageProgress, TransferOptions } from '../../contracts/image.ts';
import { SluiceError, toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';

const HEARTBEAT_MS = 15_000;
/** A body of which nothing comes, or is taken, for so long is given up. */
const STALL_MS_MAX = 60_000;

export interface TransferSetting {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly heartbeatMs?: number;
  /** End it: the daemon's life, the caller's. */
  readonly signals: readonly AbortSignal[];
}

const encoder = new TextEncoder();
const frame = (event: string, data: unknown): string => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;

export function transferStream(
  { clock, logger, heartbeatMs = HEARTBEAT_MS, signals }: TransferSetting,
  work: (options: Pick<TransferOptions, 'signal' | 'onProgress'>) => Promise<unknown>,
): ReadableStream<Uint8Array> {
  const pending = new Map<string, ImageProgress>();
  const stop = new AbortController();
  let end: string | null = null;
  let wake = (): void => {};
  const onProgress = (progress: ImageProgress): void => {
    pending.delete(progress.what);
    pending.set(progress.what, progress);
    wake();
  };
  const finish = (text: string): void => {
    end = text;
    wake();
  };
  const begin = async (): Promise<unknown> => work({ signal: AbortSignal.any([...signals, stop.signal]), onProgress });
  begin().then(
    (result) => finish(frame('done', result)),
    (reason) => {
      const error = toSluiceError(reason);
      if (error.code === 'internal' && !stop.signal.aborted) logger.error({ err: error.cause ?? error }, error.message);
      finish(frame('error', error));
    },
  );
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => controller.enqueue(encoder.encode(': begun\n\n')),
      async pull(controller) {
        if (pending.size === 0 && end === null) {
          const { promise, resolve } = Promise.withResolvers<void>();
          wake = resolve;
          const timer = clock.after(heartbeatMs, resolve);
          await promise;
          timer.cancel();
        }
        const said = [...pending.values()].map((progress) => frame('progress', progress)).join('');
        pending.clear();
        if (end !== null) {
          controller.enqueue(encoder.encode(said + end));
          controller.close();
        } else controller.enqueue(encoder.encode(said || ': alive\n\n'));
      },
      cancel: () => stop.abort(new SluiceError('request.invalid', 'the caller left before the transfer was done')),
    },
    { highWaterMark: 1 },
  );
}

/**
 * An answer that is read as it is made. `leave` is told when its reader goes. With a clock a reader that takes nothing for a minute is let go, and so is
 * what is held for it; without one it may take its time.
 */
export function outgoing(
  pieces: AsyncIterator<Uint8Array>,
  { clock, leave = () => undefined }: { readonly clock?: Clock; readonly leave?: () => void } = {},
): ReadableStream<Uint8Array> {
  let stall: Timer | undefined;
  const end = async (): Promise<void> => {
    leave();
    await pieces.return?.();
  };
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      stall?.cancel();
      const { value, done } = await pieces.next();
      if (done) {
        controller.close();
        return;
      }
      controller.enqueue(value);
      stall = clock?.after(STALL_MS_MAX, () => {
        controller.error(new SluiceError('request.slow', `of the archive nothing was taken for ${STALL_MS_MAX} ms`));
        // Its reader has been told; nobody hears of more.
        end().catch(() => undefined);
      });
    },
    cancel() {
      stall?.cancel();
      return end();
    },
  });
}

/** A request's body, which may be of any length as long as something comes. */
export async function* bodyOf(source: AsyncIterable<Uint8Array>, clock: Clock): AsyncGenerator<Uint8Array> {
  const chunks = source[Symbol.asyncIterator]();
  let done = false;
  try {
    for (;;) {
      const { promise, reject } = Promise.withResolvers<never>();
      const slow = () => reject(new SluiceError('request.slow', `of the archive nothing came for ${STALL_MS_MAX} ms`));
      const timer = clock.after(STALL_MS_MAX, slow);
      let next: IteratorResult<Uint8Array>;
      try {
        next = await Promise.race([chunks.next(), promise]);
      } catch (error) {
        if (error instanceof SluiceError) throw error;
        throw new SluiceError('request.invalid', 'the caller left before the archive was whole', {}, error);
      } finally {
        timer.cancel();
      }
      done = next.done ?? false;
      if (next.done) return;
      yield next.value;
    }
  } finally {
    if (!done) void chunks.return?.();
  }
}
