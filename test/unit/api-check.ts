/** Calls an app and holds every answer against its own OpenAPI document: status, code, and the shape of what is listed. */
import { expect } from 'vitest';
import type { ApiApp } from '../../src/api/context.ts';
import { describeApi } from '../../src/api/openapi.ts';
import { ERROR_CODES } from '../../src/errors.ts';

export interface Answer {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: a test reads what it expects.
  readonly body: any;
  readonly headers: Headers;
}
export interface Sent {
  readonly body?: unknown;
  readonly raw?: string | Uint8Array<ArrayBuffer>;
  readonly headers?: Record<string, string>;
  readonly signal?: AbortSignal;
}

type Operation = {
  readonly responses: Record<string, { readonly content?: Record<string, { readonly schema?: unknown }> }>;
};

/** The codes that an operation documents for a status. */
export function documentedCodes(operation: Operation, status: number): string[] {
  const schema = operation.responses[status]?.content?.['application/json']?.schema as
    | { properties?: { code?: { enum?: string[] } } }
    | undefined;
  return schema?.properties?.code?.enum ?? [];
}

export function operationsOf(app: ApiApp): Map<string, Operation> {
  const document = describeApi(app, '0');
  const operations = new Map<string, Operation>();
  for (const [path, item] of Object.entries(document.paths ?? {})) {
    for (const [method, operation] of Object.entries(item as object)) {
      operations.set(`${method.toUpperCase()} ${path}`, operation as Operation);
    }
  }
  return operations;
}

export function checker(app: ApiApp) {
  const operations = [...operationsOf(app)].map(([name, operation]) => {
    const [method, path] = name.split(' ') as [string, string];
    return { method, at: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{[^}]+\}/g, '[^/]+')}$`), operation };
  });

  return async (method: string, path: string, sent: Sent = {}): Promise<Answer> => {
    const headers: Record<string, string> = { ...sent.headers };
    if (sent.body !== undefined) headers['content-type'] ??= 'application/json';
    const body = sent.raw ?? (sent.body === undefined ? undefined : JSON.stringify(sent.body));
    const response = await app.request(path, { method, headers, body, signal: sent.signal });
    const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
    const text = await response.text();
    const answer = { status: response.status, body: isJson ? JSON.parse(text) : text, headers: response.headers };
    const bare = new URL(`http://localhost${path}`).pathname;
    // The literal path wins over one with a parameter, as in the router.
    const operation = operations
      .filter((known) => known.method === method && known.at.test(bare))
      .sort((a, b) => a.at.source.split('[').length - b.at.source.split('[').length)[0]?.operation;
    if (response.status >= 400) {
      expect(Object.keys(answer.body).sort(), `${method} ${path}`).toEqual(['code', 'details', 'message']);
      expect(ERROR_CODES, `${method} ${path}`).toHaveProperty([answer.body.code]);
      expect(response.status).toBe(ERROR_CODES[answer.body.code as keyof typeof ERROR_CODES][0]);
      if (operation)
        expect(documentedCodes(operation, response.status), `${method} ${path}`).toContain(answer.body.code);
      else expect(['request.unknown', 'request.method']).toContain(answer.body.code);
    } else {
      expect(Object.keys(operation?.responses ?? {}), `${method} ${path}`).toContain(String(response.status));
    }
    return answer;
  };
}
