/** /v1/volumes */
import { createRoute, z } from '@hono/zod-openapi';
import { volumeRequest, volumeView } from '../../model/container/schema.ts';
import { listOf } from '../../model/schema.ts';
import {
  type Api,
  type ApiApp,
  createOnlyHeader,
  json,
  jsonBody,
  nameParam,
  noQuery,
  refParam,
  removed,
  views,
  waitMs,
  waitQuery,
  written,
} from '../context.ts';
import { errorResponses, REF_CODES, WAIT_CODES, WRITE_CODES } from '../errors.ts';

const tags = ['volumes'];

const list = createRoute({
  method: 'get',
  path: '/v1/volumes',
  operationId: 'listVolumes',
  summary: 'All volumes of this node',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(volumeView), 'The volumes'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/volumes/{name}',
  operationId: 'getVolume',
  summary: 'One volume',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(volumeView, 'The volume'), ...errorResponses(...REF_CODES) },
});
const put = createRoute({
  method: 'put',
  path: '/v1/volumes/{name}',
  operationId: 'putVolume',
  summary: 'Creates a volume',
  description: 'Idempotent. The first container that mounts it fills it with what its image has at that place.',
  tags,
  request: { params: nameParam, query: waitQuery, headers: createOnlyHeader, body: jsonBody(volumeRequest) },
  responses: {
    200: json(volumeView, 'It was there'),
    201: json(volumeView, 'It was created'),
    ...errorResponses(...WRITE_CODES, ...WAIT_CODES, 'object.exists'),
  },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/volumes/{name}',
  operationId: 'removeVolume',
  summary: 'Removes a volume and its data',
  tags,
  request: { params: refParam, query: waitQuery },
  responses: {
    200: json(volumeView, 'It is gone; as it was'),
    202: json(volumeView, 'Its removal has begun'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, 'object.inuse'),
  },
});
const prune = createRoute({
  method: 'post',
  path: '/v1/volumes/prune',
  operationId: 'pruneVolumes',
  summary: 'Removes the anonymous volumes that no container mounts; with `all` the named ones too',
  tags,
  request: { query: waitQuery.extend({ all: z.enum(['true', 'false']).optional() }) },
  responses: {
    200: json(listOf(volumeView), 'They are gone; as they were'),
    202: json(listOf(volumeView), 'Their removal has begun'),
    ...errorResponses(...WRITE_CODES, ...WAIT_CODES, 'object.inuse'),
  },
});

export function volumes(app: ApiApp, api: Api): void {
  const { volumes } = api.desired;
  app.openapi(list, async (c) => c.json({ items: await views(api, await volumes.list()) }, 200));
  app.openapi(get, async (c) =>
    c.json(await api.desired.statuses.view(await volumes.get(c.req.valid('param').name)), 200),
  );
  app.openapi(put, async (c) => {
    const options = { create: c.req.valid('header')['if-none-match'] === '*', actor: api.actor(c) };
    const { object, created } = await volumes.put(c.req.valid('param').name, c.req.valid('json'), options);
    const view = await written(api, c, object, waitMs(c.req.valid('query')), volumes.get);
    return c.json(view, created ? 201 : 200);
  });
  app.openapi(prune, async (c) => {
    const query = c.req.valid('query');
    const gone = await volumes.prune({ all: query.all === 'true', actor: api.actor(c) });
    const { views, status } = await removed(api, c, gone, waitMs(query));
    return c.json({ items: views }, status);
  });
  app.openapi(remove, async (c) => {
    const volume = await volumes.remove(c.req.valid('param').name, { actor: api.actor(c) });
    const { views, status } = await removed(api, c, [volume], waitMs(c.req.valid('query')));
    return c.json(views[0]!, status);
  });
}
