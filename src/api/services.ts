/** /v1/services */
import { createRoute } from '@hono/zod-openapi';
import { listOf } from '../model/schema.ts';
import {
  assignmentAnswer,
  backendsRequest,
  replicasRequest,
  serviceRequest,
  serviceView,
} from '../model/service/schema.ts';
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
} from './context.ts';
import { errorResponses, REF_CODES, WAIT_CODES, WRITE_CODES } from './errors.ts';

const tags = ['services'];

const list = createRoute({
  method: 'get',
  path: '/v1/services',
  operationId: 'listServices',
  summary: 'All services',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(serviceView), 'The services'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/services/{name}',
  operationId: 'getService',
  summary: 'One service',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(serviceView, 'The service'), ...errorResponses(...REF_CODES) },
});
const put = createRoute({
  method: 'put',
  path: '/v1/services/{name}',
  operationId: 'putService',
  summary: 'Creates a service, or changes what may change',
  description:
    'Idempotent. Ports and backends are replaced by those given; network and VIPs of one that exists are fixed.',
  tags,
  request: { params: nameParam, query: waitQuery, headers: createOnlyHeader, body: jsonBody(serviceRequest) },
  responses: {
    200: json(serviceView, 'It was there'),
    201: json(serviceView, 'It was created'),
    ...errorResponses(
      ...REF_CODES,
      ...WRITE_CODES,
      ...WAIT_CODES,
      'object.exists',
      'address.outside',
      'service.backend',
      'image.notfound',
    ),
  },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/services/{name}',
  operationId: 'removeService',
  summary: 'Removes a service: its VIP refuses connections and its name goes',
  tags,
  request: { params: refParam, query: waitQuery },
  responses: {
    200: json(serviceView, 'It is gone; as it was'),
    202: json(serviceView, 'Its removal has begun'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES),
  },
});
const update = createRoute({
  method: 'post',
  path: '/v1/services/{name}/backends',
  operationId: 'updateBackends',
  summary: 'Adds and removes backends; open connections to a removed one stay',
  tags,
  request: { params: refParam, query: waitQuery, body: jsonBody(backendsRequest) },
  responses: {
    200: json(serviceView, 'The service as it is now'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, 'service.backend'),
  },
});

const assignments = createRoute({
  method: 'get',
  path: '/v1/services/{name}/assignments',
  operationId: 'listAssignments',
  summary: 'Which nodes are to run how many of its replicas',
  description: 'Fewer in all than replicas are wanted: the others have no place.',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(listOf(assignmentAnswer), 'The assignments'), ...errorResponses(...REF_CODES) },
});
const scale = createRoute({
  method: 'post',
  path: '/v1/services/{name}/replicas',
  operationId: 'updateReplicas',
  summary: 'Changes how many replicas run, and of which image',
  description: 'Those of an earlier image are replaced one after another, each when a new one serves.',
  tags,
  request: { params: refParam, query: waitQuery, body: jsonBody(replicasRequest) },
  responses: {
    200: json(serviceView, 'The service as it is now'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, 'service.noreplicas', 'image.notfound'),
  },
});

export function services(app: ApiApp, api: Api): void {
  const { services } = api.desired;
  app.openapi(list, async (c) => c.json({ items: await views(api, await services.list()) }, 200));
  app.openapi(get, async (c) => {
    const service = await services.get(c.req.valid('param').name);
    return c.json(await api.desired.statuses.view(service), 200);
  });
  app.openapi(put, async (c) => {
    const create = c.req.valid('header')['if-none-match'] === '*';
    const options = { create, actor: api.actor(c) };
    const { object, created } = await services.put(c.req.valid('param').name, c.req.valid('json'), options);
    const view = await written(api, c, object, waitMs(c.req.valid('query')), services.get);
    return c.json(view, created ? 201 : 200);
  });
  app.openapi(remove, async (c) => {
    const service = await services.remove(c.req.valid('param').name, { actor: api.actor(c) });
    const { views, status } = await removed(api, c, [service], waitMs(c.req.valid('query')));
    return c.json(views[0]!, status);
  });
  app.openapi(update, async (c) => {
    const { add, remove } = c.req.valid('json');
    const change = { addBackends: add, removeBackends: remove };
    const service = await services.update(c.req.valid('param').name, change, { actor: api.actor(c) });
    return c.json(await written(api, c, service, waitMs(c.req.valid('query')), services.get), 200);
  });
  app.openapi(assignments, async (c) => c.json({ items: await services.assignments(c.req.valid('param').name) }, 200));
  app.openapi(scale, async (c) => {
    const service = await services.change(c.req.valid('param').name, c.req.valid('json'), { actor: api.actor(c) });
    return c.json(await written(api, c, service, waitMs(c.req.valid('query')), services.get), 200);
  });
}
