/** /v1/nodes */
import { createRoute } from '@hono/zod-openapi';
import { listOf, nodeRequest, nodeView } from '../model/schema.ts';
import { type Api, type ApiApp, json, jsonBody, noQuery, refParam } from './context.ts';
import { errorResponses, REF_CODES, WRITE_CODES } from './errors.ts';

const tags = ['nodes'];

const list = createRoute({
  method: 'get',
  path: '/v1/nodes',
  operationId: 'listNodes',
  summary: 'All nodes, and what this one knows of their sessions',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(nodeView), 'The nodes'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/nodes/{name}',
  operationId: 'getNode',
  summary: 'One node',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(nodeView, 'The node'), ...errorResponses(...REF_CODES) },
});
const update = createRoute({
  method: 'patch',
  path: '/v1/nodes/{name}',
  operationId: 'updateNode',
  summary: "Changes a node's labels, drains or undrains it",
  description: 'What is not named stays as it is.',
  tags,
  request: { params: refParam, query: noQuery, body: jsonBody(nodeRequest) },
  responses: { 200: json(nodeView, 'The node as it is now'), ...errorResponses(...REF_CODES, ...WRITE_CODES) },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/nodes/{name}',
  operationId: 'removeNode',
  summary: 'Forgets a lost node, its sandboxes and their addresses',
  tags,
  request: { params: refParam, query: noQuery },
  responses: {
    200: json(nodeView, 'It is gone; as it was'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, 'object.inuse'),
  },
});

export function nodes(app: ApiApp, api: Api): void {
  const { nodes } = api;
  app.openapi(list, async (c) => c.json({ items: await nodes.list() }, 200));
  app.openapi(get, async (c) => c.json(await nodes.get(c.req.valid('param').name), 200));
  app.openapi(update, async (c) => {
    const options = { actor: api.actor(c) };
    return c.json(await nodes.update(c.req.valid('param').name, c.req.valid('json'), options), 200);
  });
  app.openapi(remove, async (c) => c.json(await nodes.remove(c.req.valid('param').name, { actor: api.actor(c) }), 200));
}
