/** The watch as an async iterable: server-sent events, resumed where they broke off. */
import type { IncomingMessage } from 'node:http';
import type { Clock } from '../clock.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import type { WatchMessage } from '../model/answer.ts';
import type { WatchOptions } from './client.ts';
import type { Caller } from './http.ts';

const RETRY_MS = 100;
const RETRY_MS_MAX = 5000;
/** Three signs of life missed. */
const SILENCE_MS_MAX = 45_000;
/** One event is at most what one transaction wrote. */
const EVENT_CHARS_MAX = 64 * 1024 * 1024;

interface Event {
  readonly id?: string;
  readonly type?: string;
  readonly data?: string;
}

/** The lines of one event, by the rules of the HTML standard as far as the daemon uses them. */
export function parseEvent(block: string): Event {
  const fields = new Map<string, string>();
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const key = line.slice(0, colon);
    const value = line.slice(colon + 1).replace(/^ /, '');
    fields.set(key, key === 'data' && fields.has(key) ? `${fields.get(key)}\n${value}` : value);
  }
  return { id: fields.get('id'), type: fields.get('event'), data: fields.get('data') };
}

/** The events of an answer as they come; fails after a while without a sign of life. */
export async function* eventsOf(answer: IncomingMessage, clock: Clock): AsyncGenerator<Event> {
  answer.setEncoding('utf8');
  const giveUp = (): void => void answer.destroy(new Error('no sign of life'));
  let silence = clock.after(SILENCE_MS_MAX, giveUp);
  try {
    let rest = '';
    for await (const chunk of answer as AsyncIterable<string>) {
      silence.cancel();
      silence = clock.after(SILENCE_MS_MAX, giveUp);
      rest += chunk;
      if (rest.length > EVENT_CHARS_MAX) throw new Error(`an event is longer than ${EVENT_CHARS_MAX} characters`);
      for (let end = rest.indexOf('\n\n'); end >= 0; end = rest.indexOf('\n\n')) {
        yield parseEvent(rest.slice(0, end));
        rest = rest.slice(end + 2);
      }
    }
  } finally {
    silence.cancel();
    answer.destroy();
  }
}

/** Whether to try again: the daemon went away or is busy, as opposed to a request that it will never like. */
const passing = (error: unknown): boolean =>
  !(error instanceof SluiceError) ||
  isSluiceError(error, 'daemon.unreachable', 'daemon.stopping', 'store.unavailable', 'request.busy', 'request.timeout');

export async function* follow(call: Caller, clock: Clock, options: WatchOptions): AsyncGenerator<WatchMessage> {
  const { kinds, signal } = options;
  let place = options.from === undefined ? undefined : String(options.from);
  let incarnation: string | undefined;
  let connected = false;
  let retryMs = RETRY_MS;
  while (!signal?.aborted) {
    try {
      const answer = await call.open('GET', '/v1/watch', {
        query: { kind: kinds?.join(','), incarnation },
        headers: place === undefined ? undefined : { 'last-event-id': place },
        signal,
      });
      connected = true;
      incarnation = answer.headers['sluice-incarnation'] as string | undefined;
      for await (const { id, type, data } of eventsOf(answer, clock)) {
        retryMs = RETRY_MS;
        if (id !== undefined) place = id;
        if (data !== undefined) yield { type, ...JSON.parse(data) } as WatchMessage;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (!connected || !passing(error)) throw error;
    }
    await clock.sleep(retryMs, signal).catch((reason) => {
      if (!signal?.aborted) throw reason;
    });
    retryMs = Math.min(retryMs * 2, RETRY_MS_MAX);
  }
}
