/** /v1/version and /v1/status */
import { createRoute } from '@hono/zod-openapi';
import { toSluiceError } from '../errors.ts';
import type { StatusAnswer, SystemReport } from '../model/answer.ts';
import type { Condition } from '../model/object.ts';
import { statusAnswer, versionAnswer } from '../model/schema.ts';
import { type Api, type ApiApp, json, noQuery } from './context.ts';
import { errorResponses } from './errors.ts';
import { countObjects } from './metrics.ts';

const tags = ['system'];

const version = createRoute({
  method: 'get',
  path: '/v1/version',
  operationId: 'getVersion',
  summary: 'What answers here',
  tags,
  request: { query: noQuery },
  responses: { 200: json(versionAnswer, 'Version and node'), ...errorResponses() },
});
const status = createRoute({
  method: 'get',
  path: '/v1/status',
  operationId: 'getStatus',
  summary: 'Health of the daemon: components, conditions, store, counts',
  description: 'Answers 200 also when the store is away or a component fails: the answer says so.',
  tags,
  request: { query: noQuery },
  responses: { 200: json(statusAnswer, 'The health'), ...errorResponses() },
});

/** `Repaired` tells of the past: what it speaks of is well again. `Unencrypted` is how somebody wanted it. */
const ails = ({ active, type }: Condition): boolean => active && type !== 'Repaired' && type !== 'Unencrypted';

export function overall(report: SystemReport, storeAvailable: boolean): StatusAnswer['state'] {
  if (!storeAvailable || report.conditions.some(ails)) return 'degraded';
  if (report.components.some((component) => component.state === 'failing')) return 'degraded';
  return report.components.some((component) => component.state === 'starting') ? 'starting' : 'ok';
}

async function statusOf(api: Api): Promise<StatusAnswer> {
  const { store, node, version } = api;
  const report = api.system.report();
  const { incarnation } = store;
  try {
    const revision = await store.transact([]);
    const counts = await countObjects(store, node, api.desired.statuses);
    const state = overall(report, true);
    const nodes = (await api.nodes.list()).map(({ name, session }) => ({ name, ...session }));
    return { ...report, version, node, state, store: { available: true, incarnation, revision }, counts, nodes };
  } catch (reason) {
    const { code, message } = toSluiceError(reason);
    const state = overall(report, false);
    return { ...report, version, node, state, store: { available: false, incarnation, error: { code, message } } };
  }
}

export function system(app: ApiApp, api: Api): void {
  app.openapi(version, (c) => {
    const { instance, kernel } = api.system.report();
    return c.json({ version: api.version, api: 'v1', node: api.node, instance, kernel }, 200);
  });
  app.openapi(status, async (c) => c.json(await statusOf(api), 200));
}
