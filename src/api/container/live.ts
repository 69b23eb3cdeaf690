/** /v1/containers/…: what is asked of a process rather than of the state */
import { createRoute, z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import { SluiceError } from '../../errors.ts';
import {
  archiveOpen,
  attachOpen,
  execRequest,
  exitAnswer,
  processAnswer,
  statsAnswer,
} from '../../model/container/schema.ts';
import { listOf } from '../../model/schema.ts';
import { type Api, type ApiApp, json, jsonBody, noQuery, refParam, waitMs, waitQuery } from '../context.ts';
import { errorResponses, REF_CODES, RUN_CODES, WRITE_CODES } from '../errors.ts';
import { outgoing } from '../image/transfer.ts';

const tags = ['containers'];
const CODES = [...REF_CODES, ...RUN_CODES, 'container.stopped'] as const;

const number = z.string().regex(/^\d{1,15}$/, 'a number');
const logs = createRoute({
  method: 'get',
  path: '/v1/containers/{name}/logs',
  operationId: 'containerLogs',
  summary: 'What a container has written, a JSON object a line: `{time, stream, text}`',
  tags,
  request: {
    params: refParam,
    query: z.strictObject({
      follow: z
        .enum(['true', 'false'])
        .optional()
        .openapi({ description: 'Goes on with what is written from now on.' }),
      tail: number.optional().openapi({ description: 'The last lines only.' }),
      since: number.optional().openapi({ description: 'Milliseconds since 1970.' }),
      until: number.optional().openapi({ description: 'Milliseconds since 1970.' }),
    }),
  },
  responses: {
    200: { description: 'The lines', content: { 'application/x-ndjson': { schema: z.string() } } },
    ...errorResponses(...CODES),
  },
});
const exit = createRoute({
  method: 'get',
  path: '/v1/containers/{name}/exit',
  operationId: 'containerExit',
  summary: 'How a container ended, or ends within `wait`',
  description: '`wait.timeout` while it runs. One that was never started is answered with 0.',
  tags,
  request: {
    params: refParam,
    query: waitQuery.extend({
      generation: number.optional().openapi({ description: 'Of that life or a later one; absent: the present one.' }),
    }),
  },
  responses: { 200: json(exitAnswer, 'Its end'), ...errorResponses(...CODES, 'wait.timeout') },
});
const top = createRoute({
  method: 'get',
  path: '/v1/containers/{name}/top',
  operationId: 'containerProcesses',
  summary: 'Processes of a container as the host sees them',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(listOf(processAnswer), 'The processes'), ...errorResponses(...CODES) },
});
const stats = createRoute({
  method: 'get',
  path: '/v1/containers/{name}/stats',
  operationId: 'containerStats',
  summary: 'Processor time, memory, processes and disk of a container at this moment',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(statsAnswer, 'The reading'), ...errorResponses(...CODES) },
});
const archive = createRoute({
  method: 'get',
  path: '/v1/containers/{name}/archive',
  operationId: 'readContainerArchive',
  summary: 'A path of a container as a tar stream',
  description: 'The path is resolved inside the container and never outside of it.',
  tags,
  request: {
    params: refParam,
    query: z.strictObject({ path: z.string().max(4095).startsWith('/').openapi({ description: 'Absolute.' }) }),
  },
  responses: {
    200: { description: 'The archive', content: { 'application/x-tar': { schema: z.string() } } },
    ...errorResponses(...CODES),
  },
});

function upgraded<T extends z.ZodType>(verb: 'exec' | 'attach' | 'archive', summary: string, schema: T) {
  return createRoute({
    method: 'post',
    path: `/v1/containers/{name}/${verb}`,
    operationId: `${verb}Container`,
    summary,
    description:
      'With `Connection: Upgrade` and `Upgrade: sluice-stream` answered by 101; then frames: a byte of type, three of zero, four of length, data. ' +
      'Types: 0 this request as JSON, 1 ready, 2 stdin, 3 its end, 4 stdout, 5 stderr, 6 `{columns, rows}`, 7 `{signal}`, 8 `{exitCode}`, 9 an error.',
    tags,
    request: { params: refParam, query: noQuery, body: jsonBody(schema) },
    responses: {
      101: { description: 'Frames follow' },
      ...errorResponses(...CODES, ...WRITE_CODES, 'request.upgrade'),
    },
  });
}
const STREAMS = [
  upgraded('exec', 'Runs a further program in a container', execRequest),
  upgraded('attach', 'The streams of its first process; starts it with `start`', attachOpen),
  upgraded('archive', 'Unpacks a tar stream into a directory of a container', archiveOpen),
];

/** A body that is read as it is made; what fails before its first piece is an answer of its own. */
async function streamed(
  c: Context,
  source: AsyncIterable<Uint8Array>,
  type: string,
  options: Parameters<typeof outgoing>[1] = {},
): Promise<Response> {
  const pieces = source[Symbol.asyncIterator]();
  let first: IteratorResult<Uint8Array> | null = await pieces.next();
  const all: AsyncIterator<Uint8Array> = {
    async next() {
      const piece = first ?? (await pieces.next());
      first = null;
      return piece;
    },
    return: async () => (await pieces.return?.()) ?? { done: true, value: undefined },
  };
  return c.body(outgoing(all, options), 200, { 'content-type': type });
}

const encoder = new TextEncoder();

export function live(app: ApiApp, api: Api): void {
  const { containers } = api.desired;
  const running = async (ref: string): Promise<string> => {
    const { id, name } = await containers.get(ref);
    if ((await api.live.runtime.state(id))?.state !== 'running')
      throw new SluiceError('container.stopped', `container ${name} does not run`, { container: id });
    return id;
  };
  app.openapi(logs, async (c) => {
    const { follow, tail, since, until } = c.req.valid('query');
    const { id } = await containers.get(c.req.valid('param').name);
    const gone = new AbortController();
    const lines = api.live.runtime.logs(id, {
      follow: follow === 'true',
      tail: tail === undefined ? undefined : Number(tail),
      since: since === undefined ? undefined : Number(since),
      until: until === undefined ? undefined : Number(until),
      signal: AbortSignal.any([gone.signal, api.signal]),
    });
    // With `follow` the first line may be long in coming: the head goes out at once.
    const whole = (async function* (): AsyncGenerator<Uint8Array> {
      yield new Uint8Array();
      for await (const line of lines) yield encoder.encode(`${JSON.stringify(line)}\n`);
    })();
    const leave = (): void => gone.abort(new Error('the caller left'));
    return streamed(c, whole, 'application/x-ndjson', { leave }) as never;
  });
  app.openapi(exit, async (c) => {
    const query = c.req.valid('query');
    const ref = c.req.valid('param').name;
    const ms = waitMs(query);
    // Its record may be gone while its end is still remembered.
    const container = await containers.get(ref).catch((error: unknown) => {
      if (query.generation === undefined) throw error;
      return null;
    });
    if (container?.spec.wanted === 'created') return c.json({ exitCode: 0, oomKilled: false }, 200);
    const generation = query.generation === undefined ? container!.spec.generation : Number(query.generation);
    const late = new SluiceError('wait.timeout', `container ${container?.name ?? ref} has not ended`, { generation });
    const limit = new AbortController();
    const timer = api.clock.after(ms, () => limit.abort(late));
    try {
      const signal = AbortSignal.any([limit.signal, api.signal, c.req.raw.signal]);
      const state = await api.live.exit(container?.id ?? ref, generation, signal);
      const { exitCode = 0, oomKilled = false, exitedAt } = state;
      return c.json({ exitCode, oomKilled, ...(exitedAt && { exitedAt }) }, 200);
    } finally {
      timer.cancel();
    }
  });
  app.openapi(top, async (c) => {
    const items = await api.live.runtime.processes(await running(c.req.valid('param').name));
    return c.json({ items: [...items] }, 200);
  });
  app.openapi(stats, async (c) => {
    const reading = await api.live.runtime.stats(await running(c.req.valid('param').name));
    return c.json({ time: new Date(api.clock.now()).toISOString(), ...reading }, 200);
  });
  app.openapi(archive, async (c) => {
    const container = await containers.get(c.req.valid('param').name);
    const tar = api.live.copyOut(container, c.req.valid('query').path);
    return streamed(c, tar, 'application/x-tar', { clock: api.clock }) as never;
  });
  for (const route of STREAMS) {
    app.openapi(route, () => {
      throw new SluiceError('request.upgrade', 'ask with Connection: Upgrade and Upgrade: sluice-stream');
    });
  }
}
