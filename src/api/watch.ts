/**
 * /v1/watch: changes of objects and statuses as server-sent events. Each watcher follows the store's log at its own pace:
 * the next change is fetched when the last one was taken, so a slow reader costs nothing but its place in the log, and one
 * that fell behind what the log keeps gets `relist`.
 */
import { createRoute, z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Timer } from '../clock.ts';
import type { Change, WatchEvent } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import type { ObjectChange, WatchMessage } from '../model/answer.ts';
import { clusterTopic, nodeTopic } from '../model/keys.ts';
import { KINDS, type Kind, type Obj, type Status } from '../model/object.ts';
import type { Api, ApiApp } from './context.ts';
import { errorResponses } from './errors.ts';

const WATCHERS_MAX = 256;
const HEARTBEAT_MS = 15_000;
/** A watcher that takes nothing for so long is let go: it resumes where it was. */
const STALL_MS_MAX = 60_000;

const kinds = z
  .string()
  .refine((text) => text.split(',').every((word) => (KINDS as readonly string[]).includes(word)), {
    error: `kinds are ${KINDS.join(', ')}, several with commas`,
  })
  .optional()
  .openapi({ description: 'Only these kinds, several with commas; default all.', example: 'network,endpoint' });
const revision = z
  .string()
  .regex(/^\d{1,15}$/, 'a revision is a number')
  .optional();

const watchRoute = createRoute({
  method: 'get',
  path: '/v1/watch',
  operationId: 'watch',
  summary: 'Changes as server-sent events',
  description:
    'Events: `change` (`{revision, actor?, changes}`) and `relist` (`{revision}`: list again, changes follow from there). ' +
    'The id of an event is its revision, so a reader that comes back with `Last-Event-ID` misses nothing. Without `from` ' +
    'the first event is `relist`. A comment every 15 s is the sign of life. The header `Sluice-Incarnation` names the ' +
    'store that the revisions belong to; sent back as `incarnation`, another store answers `relist`.',
  tags: ['system'],
  request: {
    query: z.strictObject({
      kind: kinds,
      from: revision.openapi({ description: 'Revision after which to begin.' }),
      incarnation: z.string().max(128).optional().openapi({ description: 'Store that `from` belongs to.' }),
    }),
    headers: z.object({
      'last-event-id': revision.openapi({ description: 'As `from`; wins over it. Sent by readers that come back.' }),
    }),
  },
  responses: {
    200: { description: 'The stream', content: { 'text/event-stream': { schema: z.string() } } },
    ...errorResponses(),
  },
});

/** What of a change is for callers: objects and statuses of the kinds asked for; names, leases and numbers are inner matters. */
export function visibleChanges(change: Change, wanted: ReadonlySet<Kind>): ObjectChange[] {
  const changes: ObjectChange[] = [];
  for (const { key, value, revision } of change.entries) {
    const [first, second, third, ...rest] = key.split('/');
    const isStatus = first === 'status';
    const kind = (isStatus ? second : first) as Kind;
    const id = isStatus ? third : second;
    if (!id || !wanted.has(kind)) continue;
    if (isStatus) changes.push({ kind, id, node: rest.join('/'), status: value as Status | null });
    else if (third === undefined) {
      // A record cannot hold the revision of its own write; the entry does.
      changes.push({ kind, id, object: value === null ? null : { ...(value as Obj), revision } });
    }
  }
  return changes;
}

function messageOf(event: WatchEvent, wanted: ReadonlySet<Kind>): WatchMessage | null {
  if (event.type === 'relist') return event;
  const { revision, actor } = event.change;
  const changes = visibleChanges(event.change, wanted);
  return changes.length > 0 ? { type: 'change', revision, actor, changes } : null;
}

const encoder = new TextEncoder();
const frame = (message: WatchMessage): Uint8Array => {
  const { type, ...data } = message;
  return encoder.encode(`event: ${type}\nid: ${message.revision}\ndata: ${JSON.stringify(data)}\n\n`);
};
/** An id without data moves the reader's place without waking it. */
const heartbeat = (revision: number): Uint8Array => encoder.encode(`: alive\nid: ${revision}\n\n`);

interface StreamOptions {
  readonly api: Api;
  readonly events: AsyncIterator<WatchEvent>;
  readonly wanted: ReadonlySet<Kind>;
  /** Where the watch begins; with `relist`, that is said first. */
  readonly from: number;
  readonly relist: boolean;
  /** Ends the watch of the store. */
  readonly stop: AbortController;
}

function eventStream({ api, events, wanted, from, relist, stop }: StreamOptions): ReadableStream<Uint8Array> {
  const { clock, logger, heartbeatMs = HEARTBEAT_MS } = api;
  let place = from;
  let stall: Timer | null = null;
  let asked = false;
  let arrived: { readonly result: IteratorResult<WatchEvent> } | { readonly error: unknown } | null = null;
  let wake = (): void => {};
  /** The reader left: the controller takes nothing any more. */
  let left = false;

  /** Asks for the next event unless that has been done, and waits for it or for the time of a heartbeat. */
  const eventOrBeat = async (): Promise<void> => {
    if (!asked) {
      asked = true;
      events.next().then(
        (result) => {
          arrived = { result };
          wake();
        },
        (error) => {
          arrived = { error };
          wake();
        },
      );
    }
    if (arrived) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    wake = resolve;
    const timer = clock.after(heartbeatMs, resolve);
    await promise;
    timer.cancel();
  };
  /** The next frame to send, or null at the end. */
  const nextFrame = async (): Promise<Uint8Array | null> => {
    for (;;) {
      await eventOrBeat();
      const taken = arrived;
      if (taken === null) return heartbeat(place);
      asked = false;
      arrived = null;
      if ('error' in taken) throw taken.error;
      if (taken.result.done) return null;
      const event = taken.result.value;
      place = event.type === 'relist' ? event.revision : event.change.revision;
      const message = messageOf(event, wanted);
      if (message) return frame(message);
    }
  };

  const send = (controller: ReadableStreamDefaultController<Uint8Array>, bytes: Uint8Array): void => {
    controller.enqueue(bytes);
    stall = clock.after(STALL_MS_MAX, () => {
      stop.abort();
      controller.error(new SluiceError('request.slow', `a watcher took nothing for ${STALL_MS_MAX} ms`));
    });
  };

  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        send(controller, relist ? frame({ type: 'relist', revision: from }) : heartbeat(from));
      },
      async pull(controller) {
        stall?.cancel();
        try {
          const bytes = await nextFrame();
          if (left) return;
          if (bytes === null) {
            stop.abort();
            controller.close();
            return;
          }
          send(controller, bytes);
        } catch (error) {
          if (left) return;
          // The reader sees the stream end and comes back; then it is told the cause as an answer.
          logger.warn({ err: error }, 'a watch of the store failed');
          stop.abort();
          controller.close();
        }
      },
      cancel() {
        left = true;
        stall?.cancel();
        stop.abort();
      },
    },
    { highWaterMark: 1 },
  );
}

export function watch(app: ApiApp, api: Api): void {
  const { store, node, watchersMax = WATCHERS_MAX } = api;
  const topics = [clusterTopic, nodeTopic(node)];
  let watchers = 0;

  const open = async (c: Context, asked: { kind?: string; from?: string; incarnation?: string }) => {
    if (api.signal.aborted) throw new SluiceError('daemon.stopping', 'the daemon goes down');
    if (watchers >= watchersMax) {
      throw new SluiceError('request.busy', `${watchersMax} watches are open already`, { watchersMax });
    }
    watchers++;
    const stop = new AbortController();
    stop.signal.addEventListener('abort', () => watchers--, { once: true });
    try {
      const present = await store.transact([]);
      const wish = c.req.header('last-event-id') ?? asked.from;
      const other = asked.incarnation !== undefined && asked.incarnation !== store.incarnation;
      const relist = wish === undefined || other || Number(wish) > present;
      const from = relist ? present : Number(wish);
      const signal = AbortSignal.any([stop.signal, api.signal]);
      const events = store.watch(topics, from, signal)[Symbol.asyncIterator]();
      const wanted = new Set((asked.kind?.split(',') ?? KINDS) as readonly Kind[]);
      return eventStream({ api, events, wanted, from, relist, stop });
    } catch (error) {
      stop.abort();
      throw error;
    }
  };

  app.openapi(watchRoute, async (c) => {
    const headers = {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'sluice-incarnation': store.incarnation,
    };
    // Nobody would read, or end, the stream of a HEAD.
    if (c.req.method === 'HEAD') return c.body('', 200, headers);
    return c.body(await open(c, c.req.valid('query')), 200, headers);
  });
}
