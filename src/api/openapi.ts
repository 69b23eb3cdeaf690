/** The OpenAPI document, made from the routes as they are registered. */
import { createRoute, z } from '@hono/zod-openapi';
import { type ApiApp, json, noQuery } from './context.ts';
import { errorResponses } from './errors.ts';

const route = createRoute({
  method: 'get',
  path: '/v1/openapi.json',
  operationId: 'getOpenApi',
  summary: 'This document',
  tags: ['system'],
  request: { query: noQuery },
  responses: { 200: json(z.record(z.string(), z.unknown()), 'OpenAPI 3.1'), ...errorResponses() },
});

export function describeApi(app: ApiApp, version: string) {
  return app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Sluice',
      version,
      description:
        'Networks, sandboxes, endpoints and services of one Sluice daemon, on its unix socket. Writes store the desired ' +
        'state and answer; `wait` holds the answer until it is programmed. Every error is `{code, message, details}`.',
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    servers: [{ url: 'http://localhost', description: 'The unix socket /run/sluice/sluice.sock' }],
    tags: [
      { name: 'networks' },
      { name: 'sandboxes', description: 'Network namespaces and their attachment to networks.' },
      { name: 'endpoints', description: 'A sandbox on a network. Read only.' },
      { name: 'services', description: 'Names and addresses balanced over backends.' },
      { name: 'containers', description: 'Images run as process trees in sandboxes of their own.' },
      { name: 'volumes', description: 'Directories that outlive the containers which mount them.' },
      { name: 'nodes', description: 'Hosts of the cluster and their sessions.' },
      { name: 'images', description: 'OCI images: registries, archives, the store.' },
      { name: 'diagnosis', description: 'What is amiss, and where. Read only.' },
      { name: 'system' },
    ],
  });
}

export function openapi(app: ApiApp, version: string): void {
  let document: ReturnType<typeof describeApi> | undefined;
  app.openapi(route, (c) => {
    document ??= describeApi(app, version);
    return c.json(document as unknown as Record<string, unknown>, 200);
  });
}
