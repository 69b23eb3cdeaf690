import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ApiApp } from '../../src/api/context.ts';
import { COMMON_CODES } from '../../src/api/errors.ts';
import { describeApi } from '../../src/api/openapi.ts';
import { ERROR_CODES, type ErrorCode } from '../../src/errors.ts';
import { documentedCodes, operationsOf } from './api-check.ts';
import { World } from './api-world.ts';

let world: World;
let app: ApiApp;
beforeEach(() => {
  world = new World();
  app = world.api();
});
afterEach(() => world.life.abort());

/** What Hono routes, in the document's spelling; middleware is registered for ALL. */
const routed = (): string[] =>
  app.routes
    .filter(({ method }) => method !== 'ALL')
    .map(({ method, path }) => `${method} ${path.replaceAll(/:([^/]+)/g, '{$1}')}`);

test('every route is documented and every documented one is routed', () => {
  const documented = [...operationsOf(app).keys()].sort();
  expect(documented.length).toBeGreaterThan(20);
  // Validators are registered beside their handler.
  expect([...new Set(routed())].sort()).toEqual(documented);
});

test('every documented operation is reached, not answered by the fallback', async () => {
  for (const name of operationsOf(app).keys()) {
    const [method, path] = name.split(' ') as [string, string];
    const response = await app.request(path.replaceAll(/\{[^}]+\}/g, 'web'), { method });
    if (response.headers.get('content-type') === 'text/event-stream') await response.body?.cancel();
    else if (response.headers.get('content-type') === 'application/json') {
      const { code } = (await response.json()) as { code?: string };
      expect(['request.unknown', 'request.method'], name).not.toContain(code);
    }
  }
});

describe.each([...operationsOf(new World().api())])('%s', (_name, operation) => {
  test('documents every common code, each under its status', () => {
    for (const [status, response] of Object.entries(operation.responses)) {
      if (Number(status) < 400) continue;
      const codes = documentedCodes(operation, Number(status));
      expect(codes.length).toBeGreaterThan(0);
      for (const code of codes) {
        expect(ERROR_CODES[code as ErrorCode]?.[0]).toBe(Number(status));
        expect((response as { description?: string }).description).toContain(code);
      }
    }
    const all = Object.keys(operation.responses).flatMap((status) => documentedCodes(operation, Number(status)));
    for (const code of COMMON_CODES) expect(all).toContain(code);
  });
});

test('operation ids are unique, every reference resolves, every request body forbids unknown keys', () => {
  const document = describeApi(app, '0');
  const text = JSON.stringify(document);
  const ids = [...text.matchAll(/"operationId":"([^"]+)"/g)].map((match) => match[1]);
  expect(new Set(ids).size).toBe(ids.length);
  const schemas = (document.components?.schemas ?? {}) as Record<string, { additionalProperties?: unknown }>;
  for (const [, name] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) expect(schemas).toHaveProperty([name!]);
  for (const name of [
    'NetworkRequest',
    'SandboxRequest',
    'ConnectRequest',
    'AttachmentRequest',
    'ServiceRequest',
    'BackendsRequest',
  ]) {
    expect(schemas[name]?.additionalProperties, name).toBe(false);
  }
});
