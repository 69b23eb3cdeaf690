/** /v1/cluster */
import { createRoute } from '@hono/zod-openapi';
import { joinAnswer, joinRequest } from '../model/schema.ts';
import { type Api, type ApiApp, json, jsonBody, noQuery } from './context.ts';
import { errorResponses, WRITE_CODES } from './errors.ts';

const join = createRoute({
  method: 'post',
  path: '/v1/cluster/join',
  operationId: 'joinCluster',
  summary: "Takes this host's objects along into the store of a cluster",
  description:
    'The daemon ends after the answer, and is to be started with that store; what runs keeps running meanwhile.',
  tags: ['cluster'],
  request: { query: noQuery, body: jsonBody(joinRequest) },
  responses: {
    200: json(joinAnswer, 'Everything of this host is in the store of the cluster'),
    ...errorResponses(...WRITE_CODES, 'cluster.conflict', 'cluster.member', 'config.invalid', 'store.foreign'),
  },
});

export function cluster(app: ApiApp, api: Api): void {
  app.openapi(join, async (c) => c.json(await api.cluster.join(c.req.valid('json')), 200));
}
