/** Every answer that is not a success: `{code, message, details}`, whatever went wrong and wherever. */
import { z } from '@hono/zod-openapi';
import type { Context, ErrorHandler, NotFoundHandler } from 'hono';
import { HTTPException } from 'hono/http-exception';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import { ERROR_CODES, type ErrorCode, SluiceError, toSluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';

/** Codes that any route may answer: they come from the connection, the daemon's life or the store, not from the resource. */
export const COMMON_CODES = [
  'request.invalid',
  'request.slow',
  'request.timeout',
  'request.busy',
  'store.unavailable',
  'store.damaged',
  'daemon.stopping',
  'internal',
] as const satisfies readonly ErrorCode[];

/** Codes of a name or abbreviated id that refers to something. */
export const REF_CODES = ['object.notfound', 'object.ambiguous'] as const satisfies readonly ErrorCode[];

/** Codes of routes that write. */
export const WRITE_CODES = [
  'request.toolarge',
  'request.unsupported',
  'store.conflict',
  'store.full',
  'store.fenced',
] as const satisfies readonly ErrorCode[];

/** Codes that `wait` adds: the time limit, and whatever a controller met while it programmed the change. */
export const WAIT_CODES = [
  'wait.timeout',
  'object.notfound',
  'object.removing',
  'address.exhausted',
  'address.inuse',
  'driver.unknown',
  'driver.failed',
  'driver.timeout',
  'driver.open',
  'kernel.missing',
  'kernel.denied',
  'kernel.failed',
  'kernel.exists',
  'kernel.notfound',
] as const satisfies readonly ErrorCode[];

/** Codes of containers: the image is gone, or the OCI runtime could not. */
export const RUN_CODES = [
  'image.notfound',
  'runtime.notfound',
  'runtime.notexecutable',
  'runtime.spec',
  'runtime.failed',
  'runtime.missing',
] as const satisfies readonly ErrorCode[];

const makeErrorSchema = (codes: readonly ErrorCode[]) =>
  z.strictObject({
    code: z.enum(codes),
    message: z.string().openapi({ description: 'What was tried, on what, and what the kernel or peer answered.' }),
    details: z.record(z.string(), z.unknown()),
  });

/** Schemas by their codes: most routes have the same, and to make them all anew took a seventh of the daemon's start. */
const schemas = new Map<string, ReturnType<typeof makeErrorSchema>>();
function errorSchema(codes: readonly ErrorCode[]) {
  const key = codes.join(' ');
  const known = schemas.get(key);
  if (known) return known;
  const made = makeErrorSchema(codes);
  schemas.set(key, made);
  return made;
}

export interface ErrorResponse {
  readonly description: string;
  readonly content: { readonly 'application/json': { readonly schema: ReturnType<typeof errorSchema> } };
}

/** OpenAPI responses of these codes and the common ones, by HTTP status. */
export function errorResponses(...codes: readonly ErrorCode[]): Record<number, ErrorResponse> {
  const byStatus = new Map<number, ErrorCode[]>();
  for (const code of new Set([...codes, ...COMMON_CODES])) {
    const status = ERROR_CODES[code][0];
    byStatus.set(status, [...(byStatus.get(status) ?? []), code]);
  }
  return Object.fromEntries(
    [...byStatus].map(([status, ofStatus]) => [
      status,
      {
        description: ofStatus.map((code) => `\`${code}\`: ${ERROR_CODES[code][1]}`).join('\n\n'),
        content: { 'application/json': { schema: errorSchema(ofStatus) } },
      },
    ]),
  );
}

/** The zod problems as `{path, message}`, the path in the caller's own terms: `body.subnets.0.cidr`, `query.wait`. */
function problemsOf(error: z.ZodError, target: string): { path: string; message: string }[] {
  const where = { json: 'body', param: 'path' }[target] ?? target;
  return error.issues.map((issue) => ({ path: [where, ...issue.path].join('.'), message: issue.message }));
}

type Checked = { readonly target: string } & (
  | { readonly success: true }
  | { readonly success: false; readonly error: z.ZodError }
);

/** Default hook of every route: a value that does not fit its schema. */
export function refuseInvalid(result: Checked, c: Context): void {
  // An absent body would count as {}, and a PUT of {} takes away what an object had.
  if (result.target === 'json' && c.req.header('content-type') === undefined) {
    const problems = [{ path: 'body', message: 'missing' }];
    throw new SluiceError('request.invalid', 'invalid request: body: missing', { problems });
  }
  if (result.success) return;
  const problems = problemsOf(result.error, result.target);
  const words = problems.slice(0, 5).map((problem) => `${problem.path}: ${problem.message}`);
  if (problems.length > 5) words.push(`and ${problems.length - 5} more`);
  throw new SluiceError('request.invalid', `invalid request: ${words.join('; ')}`, { problems });
}

/** Hono's own exceptions (unreadable JSON, wrong content type) and a caller that left, as coded errors. */
function translate(error: Error, aborted: boolean): SluiceError {
  if (error instanceof HTTPException) {
    if (error.status === 415) {
      return new SluiceError('request.unsupported', 'the body must be declared as Content-Type: application/json');
    }
    return new SluiceError('request.invalid', error.message, {}, error);
  }
  if (aborted && !(error instanceof SluiceError)) {
    return new SluiceError('request.invalid', 'the caller left before the request was whole', {}, error);
  }
  return toSluiceError(error);
}

/** Details go out as JSON; what cannot (a bigint, a cycle) must not turn an error into a crash. */
function safeJson(error: SluiceError): string {
  try {
    return JSON.stringify(error, (_key, value) => (typeof value === 'bigint' ? value.toString() : value));
  } catch (reason) {
    return JSON.stringify({ code: error.code, message: error.message, details: { unprintable: String(reason) } });
  }
}

export function errorResponse(error: SluiceError, headers: Record<string, string> = {}): Response {
  return new Response(safeJson(error), {
    status: error.status as ContentfulStatusCode,
    headers: { 'content-type': 'application/json', ...headers },
  });
}

export function errorHandler(logger: Logger): ErrorHandler {
  return (reason, c) => {
    const error = translate(reason, c.req.raw.signal.aborted);
    const context = { method: c.req.method, path: c.req.path, code: error.code, details: error.details };
    if (error.code === 'internal') logger.error({ ...context, err: error.cause ?? error }, error.message);
    else logger.debug(context, error.message);
    return errorResponse(error);
  };
}

/** `/v1/networks/:name` as a pattern. */
const matcher = (path: string): RegExp =>
  new RegExp(`^${path.replaceAll(/[.*+?^$()|[\]\\]/g, '\\$&').replaceAll(/:[^/]+/g, '[^/]+')}$`);

/** No such path, or a path that does not know the method (then with the header Allow). */
export function notFoundHandler(
  routes: readonly { readonly method: string; readonly path: string }[],
): NotFoundHandler {
  const known = routes
    .filter((route) => route.method !== 'ALL')
    .map((route) => ({ ...route, at: matcher(route.path) }));
  return (c) => {
    const methods = [...new Set(known.filter((route) => route.at.test(c.req.path)).map((route) => route.method))];
    if (methods.length === 0) {
      const message = `no such path: ${c.req.path}; the API is described at /v1/openapi.json`;
      return errorResponse(new SluiceError('request.unknown', message, { path: c.req.path }));
    }
    if (methods.includes('GET')) methods.push('HEAD');
    const message = `${c.req.path} does not know ${c.req.method}, only ${methods.join(', ')}`;
    const error = new SluiceError('request.method', message, { path: c.req.path, methods });
    return errorResponse(error, { allow: methods.join(', ') });
  };
}
