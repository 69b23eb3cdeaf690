/** /v1/sandboxes, and their attachment to networks */
import { createRoute, z } from '@hono/zod-openapi';
import type { Sandbox } from '../model/sandbox.ts';
import { connectRequest, endpointView, listOf, ref, sandboxRequest, sandboxView } from '../model/schema.ts';
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
  removeQuery,
  views,
  waitMs,
  waitQuery,
  written,
} from './context.ts';
import { errorResponses, REF_CODES, WAIT_CODES, WRITE_CODES } from './errors.ts';
import type { Target } from './wait.ts';

const tags = ['sandboxes'];
const JOIN_CODES = ['object.exists', 'address.outside', 'network.overlap'] as const;

const list = createRoute({
  method: 'get',
  path: '/v1/sandboxes',
  operationId: 'listSandboxes',
  summary: 'All sandboxes',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(sandboxView), 'The sandboxes'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/sandboxes/{name}',
  operationId: 'getSandbox',
  summary: 'One sandbox',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(sandboxView, 'The sandbox'), ...errorResponses(...REF_CODES) },
});
const put = createRoute({
  method: 'put',
  path: '/v1/sandboxes/{name}',
  operationId: 'putSandbox',
  summary: 'Creates a sandbox with its endpoints',
  description:
    'Idempotent; a sandbox that exists with another namespace, host name or network is `object.exists`. With `wait`, also ' +
    'its endpoints are waited for.',
  tags,
  request: { params: nameParam, query: waitQuery, headers: createOnlyHeader, body: jsonBody(sandboxRequest) },
  responses: {
    200: json(sandboxView, 'It was there'),
    201: json(sandboxView, 'It was created'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, ...JOIN_CODES),
  },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/sandboxes/{name}',
  operationId: 'removeSandbox',
  summary: 'Removes a sandbox and its endpoints',
  tags,
  request: { params: refParam, query: removeQuery },
  responses: {
    200: json(sandboxView, 'It is gone; as it was'),
    202: json(sandboxView, 'Its removal has begun'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, 'object.inuse'),
  },
});

const attachmentParams = z.object({
  name: ref.openapi({ description: 'Sandbox: name, id, or the beginning of an id.' }),
  network: ref.openapi({ description: 'Network: name, id, or the beginning of an id.' }),
});
const connect = createRoute({
  method: 'put',
  path: '/v1/sandboxes/{name}/networks/{network}',
  operationId: 'connectSandbox',
  summary: 'Joins a sandbox to a network',
  description: 'Idempotent: the same body again changes nothing.',
  tags,
  request: { params: attachmentParams, query: waitQuery, body: jsonBody(connectRequest) },
  responses: {
    200: json(endpointView, 'The endpoint was there'),
    201: json(endpointView, 'The endpoint was created'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, ...JOIN_CODES),
  },
});
const disconnect = createRoute({
  method: 'delete',
  path: '/v1/sandboxes/{name}/networks/{network}',
  operationId: 'disconnectSandbox',
  summary: 'Takes a sandbox off a network',
  tags,
  request: { params: attachmentParams, query: waitQuery },
  responses: {
    200: json(endpointView, 'The endpoint is gone; as it was'),
    202: json(endpointView, 'Its removal has begun'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES),
  },
});

export function sandboxes(app: ApiApp, api: Api): void {
  const { sandboxes, endpoints } = api.desired;
  const withEndpoints = async (sandbox: Sandbox, removing: boolean): Promise<Target[]> => {
    const own = (await endpoints.list()).filter(({ spec }) => spec.sandbox === sandbox.id);
    return [sandbox, ...own.filter((endpoint) => (endpoint.removing ?? false) === removing)];
  };
  app.openapi(list, async (c) => c.json({ items: await views(api, await sandboxes.list()) }, 200));
  app.openapi(get, async (c) => {
    const sandbox = await sandboxes.get(c.req.valid('param').name);
    return c.json(await api.desired.statuses.view(sandbox), 200);
  });
  app.openapi(put, async (c) => {
    const create = c.req.valid('header')['if-none-match'] === '*';
    const options = { create, actor: api.actor(c) };
    const { object, created } = await sandboxes.put(c.req.valid('param').name, c.req.valid('json'), options);
    const targets = () => withEndpoints(object, false);
    const view = await written(api, c, object, waitMs(c.req.valid('query')), sandboxes.get, targets);
    return c.json(view, created ? 201 : 200);
  });
  app.openapi(remove, async (c) => {
    const query = c.req.valid('query');
    const options = { force: query.force === 'true', actor: api.actor(c) };
    const sandbox = await sandboxes.remove(c.req.valid('param').name, options);
    // An endpoint that cannot be taken apart is why its sandbox stays: the caller is told that cause.
    const { views, status } = await removed(api, c, [sandbox], waitMs(query), () => withEndpoints(sandbox, true));
    return c.json(views[0]!, status);
  });
  app.openapi(connect, async (c) => {
    const { name, network } = c.req.valid('param');
    const request = { network, ...c.req.valid('json') };
    const { object, created } = await endpoints.connect(name, request, { actor: api.actor(c) });
    const view = await written(api, c, object, waitMs(c.req.valid('query')), endpoints.get);
    return c.json(view, created ? 201 : 200);
  });
  app.openapi(disconnect, async (c) => {
    const { name, network } = c.req.valid('param');
    const endpoint = await endpoints.disconnect(name, network, { actor: api.actor(c) });
    const { views, status } = await removed(api, c, [endpoint], waitMs(c.req.valid('query')));
    return c.json(views[0]!, status);
  });
}
