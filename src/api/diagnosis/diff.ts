/** /v1/diff */
import { createRoute } from '@hono/zod-openapi';
import { diffAnswer, diffQuery } from '../../model/diagnosis/schema.ts';
import { type Api, type ApiApp, json } from '../context.ts';
import { errorResponses, REF_CODES } from '../errors.ts';

const diff = createRoute({
  method: 'get',
  path: '/v1/diff',
  operationId: 'getDiff',
  summary: "How this node's kernel differs from what should be, object by object",
  description: 'Looks at links, addresses, routes, nft tables and BPF maps, and changes nothing.',
  tags: ['diagnosis'],
  request: { query: diffQuery },
  responses: { 200: json(diffAnswer, 'What differs'), ...errorResponses(...REF_CODES) },
});

export function diffs(app: ApiApp, api: Api): void {
  app.openapi(diff, async (c) => c.json(await api.diagnosis.diff(c.req.valid('query')), 200));
}
