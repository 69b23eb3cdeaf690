/** /v1/containers: what is wanted of them */
import { createRoute, z } from '@hono/zod-openapi';
import { isSluiceError, SluiceError } from '../../errors.ts';
import { containerRequest, containerView, renameRequest } from '../../model/container/schema.ts';
import { SIGNAL_PATTERN, signalName } from '../../model/container/signal.ts';
import type { Container } from '../../model/container.ts';
import { listOf } from '../../model/schema.ts';
import {
  type Api,
  type ApiApp,
  createOnlyHeader,
  json,
  jsonBody,
  nameParam,
  noQuery,
  parseDuration,
  refParam,
  removed,
  removeQuery,
  views,
  waitMs,
  waitQuery,
  written,
} from '../context.ts';
import { errorResponses, REF_CODES, RUN_CODES, WAIT_CODES, WRITE_CODES } from '../errors.ts';
import type { Target } from '../wait.ts';

const tags = ['containers'];
const JOIN_CODES = ['object.exists', 'address.outside', 'network.overlap'] as const;
const CHANGE = [...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, ...RUN_CODES, 'object.removing'] as const;

const list = createRoute({
  method: 'get',
  path: '/v1/containers',
  operationId: 'listContainers',
  summary: 'All containers of this node',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(containerView), 'The containers'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/containers/{name}',
  operationId: 'getContainer',
  summary: 'One container',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(containerView, 'The container'), ...errorResponses(...REF_CODES) },
});
const put = createRoute({
  method: 'put',
  path: '/v1/containers/{name}',
  operationId: 'putContainer',
  summary: 'Creates a container with its sandbox, and starts it with `start`',
  description:
    'Idempotent; one that exists otherwise is `object.exists`. The image must be here. With `wait`, until it is created, or has begun; a ' +
    'start that fails for good is answered with its own code.',
  tags,
  request: { params: nameParam, query: waitQuery, headers: createOnlyHeader, body: jsonBody(containerRequest) },
  responses: {
    200: json(containerView, 'It was there'),
    201: json(containerView, 'It was created'),
    ...errorResponses(...CHANGE, ...JOIN_CODES),
  },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/containers/{name}',
  operationId: 'removeContainer',
  summary: 'Removes a container, its sandbox and its writable layer',
  description: 'One that runs is `container.running`, unless `force` kills it.',
  tags,
  request: {
    params: refParam,
    query: removeQuery.extend({
      volumes: z.enum(['true', 'false']).optional().openapi({ description: 'Also its anonymous volumes.' }),
    }),
  },
  responses: {
    200: json(containerView, 'It is gone; as it was'),
    202: json(containerView, 'Its removal has begun'),
    ...errorResponses(...CHANGE, 'object.inuse', 'container.running'),
  },
});

const timeout = z
  .string()
  .refine((text) => parseDuration(text) !== null, 'a duration such as 10s, 500ms or 2m')
  .optional()
  .openapi({ description: 'Between the stop signal and SIGKILL; absent: as the container says, 10s.', example: '10s' });
const stopQuery = waitQuery.extend({ timeout });

function verb(
  name: 'start' | 'stop' | 'restart',
  summary: string,
  description: string,
  query: typeof stopQuery | typeof waitQuery,
) {
  return createRoute({
    method: 'post',
    path: `/v1/containers/{name}/${name}`,
    operationId: `${name}Container`,
    summary,
    description,
    tags,
    request: { params: refParam, query },
    responses: { 200: json(containerView, 'The container'), ...errorResponses(...CHANGE) },
  });
}
const start = verb('start', 'Starts a container', 'One that runs stays as it is.', waitQuery);
const stop = verb(
  'stop',
  'Stops a container',
  'Its stop signal, then SIGKILL. One that does not run stays as it is.',
  stopQuery,
);
const restart = verb(
  'restart',
  'Stops a container and starts it again',
  'With `wait`, until it runs again.',
  stopQuery,
);
const rename = createRoute({
  method: 'post',
  path: '/v1/containers/{name}/rename',
  operationId: 'renameContainer',
  summary: 'Gives a container and its sandbox another name',
  tags,
  request: { params: refParam, query: noQuery, body: jsonBody(renameRequest) },
  responses: { 200: json(containerView, 'The container'), ...errorResponses(...CHANGE, 'object.exists') },
});
const kill = createRoute({
  method: 'post',
  path: '/v1/containers/{name}/kill',
  operationId: 'killContainer',
  summary: 'Sends a signal to the first process of a container',
  description: 'After SIGKILL, or its stop signal, the restart policy does not start it again.',
  tags,
  request: {
    params: refParam,
    query: z.strictObject({
      signal: z
        .string()
        .regex(SIGNAL_PATTERN, 'not a signal such as SIGTERM')
        .optional()
        .openapi({ description: 'Default SIGKILL.' }),
    }),
  },
  responses: { 200: json(containerView, 'The container'), ...errorResponses(...CHANGE, 'container.stopped') },
});

export function containers(app: ApiApp, api: Api): void {
  const { containers, sandboxes, endpoints } = api.desired;
  /** What keeps a container from beginning is told of whatever it is that fails. */
  const withPlace = async (container: Container): Promise<Target[]> => {
    const own = (await endpoints.list()).filter(({ spec }) => spec.sandbox === container.spec.sandbox);
    const place = [await sandboxes.get(container.spec.sandbox), ...own];
    return [container, ...place.filter(({ removing }) => !removing)];
  };
  /** Reads it again; one that goes with its process may be gone by then, and is answered as it was last seen. */
  const latest = (seen: Container) => async (id: string) => {
    try {
      return await containers.get(id);
    } catch (error) {
      if (isSluiceError(error, 'object.notfound')) return seen;
      throw error;
    }
  };
  app.openapi(list, async (c) => c.json({ items: await views(api, await containers.list()) }, 200));
  app.openapi(get, async (c) =>
    c.json(await api.desired.statuses.view(await containers.get(c.req.valid('param').name)), 200),
  );
  app.openapi(put, async (c) => {
    const create = c.req.valid('header')['if-none-match'] === '*';
    const options = { create, actor: api.actor(c) };
    const { object, created } = await containers.put(c.req.valid('param').name, c.req.valid('json'), options);
    const view = await written(api, c, object, waitMs(c.req.valid('query')), latest(object), () => withPlace(object));
    return c.json(view, created ? 201 : 200);
  });
  app.openapi(remove, async (c) => {
    const query = c.req.valid('query');
    const options = { force: query.force === 'true', volumes: query.volumes === 'true', actor: api.actor(c) };
    const container = await containers.remove(c.req.valid('param').name, options);
    // Its name is free for another when the sandbox is gone too.
    const targets = async (): Promise<Target[]> => {
      const sandbox = await sandboxes.list();
      return [container, ...sandbox.filter(({ id }) => id === container.spec.sandbox)];
    };
    const { views, status } = await removed(api, c, [container], waitMs(query), targets);
    return c.json(views[0]!, status);
  });
  app.openapi(start, async (c) => {
    const container = await containers.start(c.req.valid('param').name, { actor: api.actor(c) });
    const wait = waitMs(c.req.valid('query'));
    const view = await written(api, c, container, wait, latest(container), () => withPlace(container));
    return c.json(view, 200);
  });
  for (const [route, verb] of [
    [stop, 'stop'],
    [restart, 'restart'],
  ] as const) {
    app.openapi(route, async (c) => {
      const query: { readonly wait?: string; readonly timeout?: string } = c.req.valid('query');
      const timeoutMs = query.timeout === undefined ? undefined : (parseDuration(query.timeout) ?? 0);
      const container = await containers[verb](c.req.valid('param').name, { actor: api.actor(c), timeoutMs });
      return c.json(await written(api, c, container, waitMs(query), latest(container)), 200);
    });
  }
  app.openapi(rename, async (c) => {
    const { name } = c.req.valid('json');
    const container = await containers.rename(c.req.valid('param').name, name, { actor: api.actor(c) });
    return c.json(await api.desired.statuses.view(container), 200);
  });
  app.openapi(kill, async (c) => {
    const signal = signalName(c.req.valid('query').signal ?? 'SIGKILL');
    const container = await containers.get(c.req.valid('param').name);
    if ((await api.live.runtime.state(container.id))?.state !== 'running')
      throw new SluiceError('container.stopped', `container ${container.name} does not run`, { id: container.id });
    await api.live.runtime.kill(container.id, signal);
    const ends = ['SIGKILL', '9', signalName(container.spec.stopSignal ?? 'SIGTERM')].includes(signal);
    const after = ends ? await containers.stop(container.id, { actor: api.actor(c) }) : container;
    return c.json(await api.desired.statuses.view(after), 200);
  });
}
