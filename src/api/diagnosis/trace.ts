/** /v1/trace */
import { createRoute } from '@hono/zod-openapi';
import { traceAnswer, traceQuery } from '../../model/diagnosis/schema.ts';
import { type Api, type ApiApp, json } from '../context.ts';
import { errorResponses, REF_CODES } from '../errors.ts';

const trace = createRoute({
  method: 'get',
  path: '/v1/trace',
  operationId: 'getTrace',
  summary: 'The way from a sandbox of this node to a name or address, and what is wrong on it first',
  description:
    'Walks name, service, route, neighbour, forwarding entry, tunnel, and asks the other host what it finds; each step is ok, wrong or was not asked. Changes nothing.',
  tags: ['diagnosis'],
  request: { query: traceQuery },
  responses: { 200: json(traceAnswer, 'The steps'), ...errorResponses(...REF_CODES) },
});

export function traces(app: ApiApp, api: Api): void {
  app.openapi(trace, async (c) => c.json(await api.diagnosis.trace(c.req.valid('query')), 200));
}
