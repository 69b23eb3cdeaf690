/** /v1/endpoints: read only; they are made and removed by connecting sandboxes */
import { createRoute } from '@hono/zod-openapi';
import { endpointView, listOf } from '../model/schema.ts';
import { type Api, type ApiApp, json, noQuery, refParam, views } from './context.ts';
import { errorResponses, REF_CODES } from './errors.ts';

const tags = ['endpoints'];

const list = createRoute({
  method: 'get',
  path: '/v1/endpoints',
  operationId: 'listEndpoints',
  summary: 'All endpoints',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(endpointView), 'The endpoints'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/endpoints/{name}',
  operationId: 'getEndpoint',
  summary: 'One endpoint, with the packets it was refused by reason',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(endpointView, 'The endpoint'), ...errorResponses(...REF_CODES) },
});

export function endpoints(app: ApiApp, api: Api): void {
  const { endpoints } = api.desired;
  app.openapi(list, async (c) => c.json({ items: await views(api, await endpoints.list()) }, 200));
  app.openapi(get, async (c) => {
    const endpoint = await endpoints.get(c.req.valid('param').name);
    return c.json(await api.desired.statuses.view(endpoint), 200);
  });
}
