/** /v1/networks */
import { createRoute } from '@hono/zod-openapi';
import type { PeersAnswer } from '../model/answer.ts';
import { listOf, networkRequest, networkView, peersAnswer, subnetsRequest } from '../model/schema.ts';
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

const tags = ['networks'];

const list = createRoute({
  method: 'get',
  path: '/v1/networks',
  operationId: 'listNetworks',
  summary: 'All networks',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(networkView), 'The networks'), ...errorResponses() },
});
const get = createRoute({
  method: 'get',
  path: '/v1/networks/{name}',
  operationId: 'getNetwork',
  summary: 'One network',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(networkView, 'The network'), ...errorResponses(...REF_CODES) },
});
const peers = createRoute({
  method: 'get',
  path: '/v1/networks/{name}/peers',
  operationId: 'getPeers',
  summary: "A network's endpoints on all nodes, and what of them is amiss in this node's kernel",
  description:
    'Compares the forwarding and neighbour tables of this node with what should be in them, and changes nothing.',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(peersAnswer, 'The endpoints'), ...errorResponses(...REF_CODES) },
});
const put = createRoute({
  method: 'put',
  path: '/v1/networks/{name}',
  operationId: 'putNetwork',
  summary: 'Creates a network, or changes what may change',
  description:
    'Idempotent: the same body again changes nothing. Subnets and driver of a network that exists are fixed.',
  tags,
  request: { params: nameParam, query: waitQuery, headers: createOnlyHeader, body: jsonBody(networkRequest) },
  responses: {
    200: json(networkView, 'It was there'),
    201: json(networkView, 'It was created'),
    ...errorResponses(
      ...WRITE_CODES,
      ...WAIT_CODES,
      'object.exists',
      'network.overlap',
      'pool.exhausted',
      'address.outside',
    ),
  },
});
const addSubnets = createRoute({
  method: 'post',
  path: '/v1/networks/{name}/subnets',
  operationId: 'addSubnets',
  summary: 'Adds subnets to an overlay that fills up; its endpoints keep their addresses',
  tags,
  request: { params: refParam, query: waitQuery, body: jsonBody(subnetsRequest) },
  responses: {
    200: json(networkView, 'The network as it is now'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, 'network.overlap', 'address.outside'),
  },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/networks/{name}',
  operationId: 'removeNetwork',
  summary: 'Removes a network that nothing uses',
  tags,
  request: { params: refParam, query: waitQuery },
  responses: {
    200: json(networkView, 'It is gone; as it was'),
    202: json(networkView, 'Its removal has begun'),
    ...errorResponses(...REF_CODES, ...WRITE_CODES, ...WAIT_CODES, 'object.inuse', 'network.builtin'),
  },
});
const prune = createRoute({
  method: 'post',
  path: '/v1/networks/prune',
  operationId: 'pruneNetworks',
  summary: 'Removes every network that nothing uses',
  tags,
  request: { query: waitQuery },
  responses: {
    200: json(listOf(networkView), 'They are gone; as they were'),
    202: json(listOf(networkView), 'Their removal has begun'),
    ...errorResponses(...WRITE_CODES, ...WAIT_CODES),
  },
});

async function peersOf(api: Api, ref: string): Promise<PeersAnswer> {
  const network = await api.desired.networks.get(ref);
  const nodes = new Map((await api.nodes.list()).map((node) => [node.name, node]));
  const endpoints = (await api.desired.endpoints.list()).filter(({ spec }) => spec.network === network.id);
  const items = endpoints.map(({ id, name, owner, spec: { mac, addresses } }) => {
    const node = nodes.get(owner ?? api.node);
    // Without a record a node is not known to be anywhere: it has been removed, or has not registered yet.
    const state = node?.session.state ?? 'lost';
    return { id, name, node: owner ?? api.node, state, vtep: node?.spec.vtep, mac, addresses };
  });
  return { items, ...(await api.peers.inspect(network.id)) };
}

export function networks(app: ApiApp, api: Api): void {
  const { networks } = api.desired;
  app.openapi(list, async (c) => c.json({ items: await views(api, await networks.list()) }, 200));
  app.openapi(get, async (c) => {
    const network = await networks.get(c.req.valid('param').name);
    return c.json(await api.desired.statuses.view(network), 200);
  });
  app.openapi(peers, async (c) => c.json(await peersOf(api, c.req.valid('param').name), 200));
  app.openapi(put, async (c) => {
    const create = c.req.valid('header')['if-none-match'] === '*';
    const options = { create, actor: api.actor(c) };
    const { object, created } = await networks.put(c.req.valid('param').name, c.req.valid('json'), options);
    const view = await written(api, c, object, waitMs(c.req.valid('query')), networks.get);
    return c.json(view, created ? 201 : 200);
  });
  app.openapi(addSubnets, async (c) => {
    const { add } = c.req.valid('json');
    const network = await networks.addSubnets(c.req.valid('param').name, add, { actor: api.actor(c) });
    return c.json(await written(api, c, network, waitMs(c.req.valid('query')), networks.get), 200);
  });
  app.openapi(remove, async (c) => {
    const network = await networks.remove(c.req.valid('param').name, { actor: api.actor(c) });
    const { views, status } = await removed(api, c, [network], waitMs(c.req.valid('query')));
    return c.json(views[0]!, status);
  });
  app.openapi(prune, async (c) => {
    const pruned = await networks.prune({ actor: api.actor(c) });
    const { views, status } = await removed(api, c, pruned, waitMs(c.req.valid('query')));
    return c.json({ items: views }, status);
  });
}
