/** /v1/images, /v1/archives and /v1/registries */
import { Readable } from 'node:stream';
import { createRoute, z } from '@hono/zod-openapi';
import type { Context } from 'hono';
import type { Images } from '../../contracts/image.ts';
import { type ErrorCode, SluiceError } from '../../errors.ts';
import type { Container } from '../../model/container.ts';
import { objectPrefix } from '../../model/keys.ts';
import { listOf } from '../../model/schema.ts';
import { type Api, type ApiApp, type ApiEnv, json, jsonBody, noQuery } from '../context.ts';
import { errorResponses } from '../errors.ts';
import {
  changes,
  image,
  imagesPruned,
  imagesRemoved,
  loginRequest,
  platform,
  pushRequest,
  reference,
  step,
  tagRequest,
  transferRequest,
} from './schema.ts';
import { bodyOf, outgoing, transferStream } from './transfer.ts';

const tags = ['images'];
const TRANSFERS_MAX = 64;

/** Codes of a reference to an image that is here. */
const IMAGE_CODES = ['image.notfound', 'image.reference', 'object.ambiguous'] as const satisfies readonly ErrorCode[];
const STORE_CODES = ['image.manifest', 'image.digest', 'image.limit', 'image.full', 'image.damaged'] as const;
const WRITE_CODES = ['request.toolarge', 'request.unsupported', ...STORE_CODES] as const;

const refParam = z.object({ name: reference });
const flag = z.enum(['true', 'false']).optional();
const events = {
  description:
    'Server-sent events: `progress` (`{type, what, text, current?, total?}`), at last `done` with the result, or `error` as `{code, message, details}`',
  content: { 'text/event-stream': { schema: z.string() } },
};
const tarBody = {
  required: true,
  content: { 'application/x-tar': { schema: z.any().openapi({ type: 'string', format: 'binary' }) } },
};

const list = createRoute({
  method: 'get',
  path: '/v1/images',
  operationId: 'listImages',
  summary: 'All images',
  tags,
  request: { query: noQuery },
  responses: { 200: json(listOf(image), 'The images'), ...errorResponses(...STORE_CODES, 'image.notfound') },
});
const get = createRoute({
  method: 'get',
  path: '/v1/images/{name}',
  operationId: 'getImage',
  summary: 'One image',
  description: 'A name with slashes is one segment of the path: `docker.io%2Flibrary%2Fbusybox:latest`.',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(image, 'The image'), ...errorResponses(...IMAGE_CODES, ...STORE_CODES) },
});
const history = createRoute({
  method: 'get',
  path: '/v1/images/{name}/history',
  operationId: 'getImageHistory',
  summary: 'The steps that made an image, the latest first',
  tags,
  request: { params: refParam, query: noQuery },
  responses: { 200: json(listOf(step), 'The steps'), ...errorResponses(...IMAGE_CODES, ...STORE_CODES) },
});
const tag = createRoute({
  method: 'post',
  path: '/v1/images/{name}/tag',
  operationId: 'tagImage',
  summary: 'Gives an image one more name, which leaves whoever had it',
  tags,
  request: { params: refParam, query: noQuery, body: jsonBody(tagRequest) },
  responses: { 200: json(image, 'The image'), ...errorResponses(...IMAGE_CODES, ...WRITE_CODES) },
});
const remove = createRoute({
  method: 'delete',
  path: '/v1/images/{name}',
  operationId: 'removeImage',
  summary: 'Removes a name, and the image with its last one',
  tags,
  request: {
    params: refParam,
    query: z.strictObject({
      force: flag.openapi({
        description: 'Also when a container was made from it (it stays, unnamed), or by an id with several names.',
      }),
    }),
  },
  responses: {
    200: json(imagesRemoved, 'What went'),
    ...errorResponses(...IMAGE_CODES, ...WRITE_CODES, 'image.inuse', 'store.conflict'),
  },
});
const prune = createRoute({
  method: 'post',
  path: '/v1/images/prune',
  operationId: 'pruneImages',
  summary: 'Removes images that have no name and that no container was made from',
  tags,
  request: { query: z.strictObject({ all: flag.openapi({ description: 'Also those with names.' }) }) },
  responses: { 200: json(imagesPruned, 'What went'), ...errorResponses(...WRITE_CODES, 'image.notfound') },
});
const pull = createRoute({
  method: 'post',
  path: '/v1/images/pull',
  operationId: 'pullImage',
  summary: 'Pulls an image from its registry',
  tags,
  request: { query: noQuery, body: jsonBody(transferRequest) },
  responses: { 200: events, ...errorResponses('request.toolarge', 'request.unsupported') },
});
const push = createRoute({
  method: 'post',
  path: '/v1/images/push',
  operationId: 'pushImage',
  summary: 'Pushes an image to the registry that its name says',
  tags,
  request: { query: noQuery, body: jsonBody(pushRequest) },
  responses: { 200: events, ...errorResponses('request.toolarge', 'request.unsupported') },
});
const importing = createRoute({
  method: 'post',
  path: '/v1/images/import',
  operationId: 'importImage',
  summary: 'Makes an image of a plain file system as a tar',
  tags,
  request: {
    query: z.strictObject({
      name: reference.optional(),
      platform,
      changes: z
        .string()
        .max(65_536)
        .optional()
        .openapi({ description: 'ImageChanges as JSON: how its containers run.' }),
    }),
    body: tarBody,
  },
  responses: { 200: events, ...errorResponses('request.unsupported') },
});
const load = createRoute({
  method: 'post',
  path: '/v1/archives',
  operationId: 'loadImages',
  summary: 'Loads a docker archive or an OCI layout as a tar: plain, gzip or zstd',
  tags,
  request: { query: z.strictObject({ platform }), body: tarBody },
  responses: { 200: events, ...errorResponses('request.unsupported') },
});
const save = createRoute({
  method: 'get',
  path: '/v1/archives',
  operationId: 'saveImages',
  summary: 'An archive of images that is an OCI layout and a docker archive in one',
  tags,
  request: {
    query: z.strictObject({
      name: z.union([reference, z.array(reference).max(256)]).openapi({ description: 'Images, by repetition.' }),
    }),
  },
  responses: {
    200: { description: 'The archive', content: { 'application/x-tar': { schema: z.string() } } },
    ...errorResponses(...IMAGE_CODES, ...STORE_CODES),
  },
});
const login = createRoute({
  method: 'put',
  path: '/v1/registries/{name}',
  operationId: 'login',
  summary: 'Keeps credentials for a registry once it has taken them',
  tags,
  request: { params: refParam, query: noQuery, body: jsonBody(loginRequest) },
  responses: {
    200: json(z.strictObject({}), 'They are kept'),
    ...errorResponses(
      ...WRITE_CODES,
      'image.reference',
      'image.denied',
      'image.registry',
      'image.timeout',
      'image.notfound',
    ),
  },
});
const logout = createRoute({
  method: 'delete',
  path: '/v1/registries/{name}',
  operationId: 'logout',
  summary: 'Forgets the credentials for a registry',
  tags,
  request: { params: refParam, query: noQuery },
  responses: {
    200: json(z.strictObject({}), 'They are forgotten'),
    ...errorResponses(...WRITE_CODES, 'image.reference'),
  },
});

/** Requests whose body is of any length, and takes as long as it takes. */
export const isUpload = (method: string | undefined, path: string | undefined): boolean =>
  method === 'POST' && /^\/v1\/(?:archives|images\/import)(?:\?|$)/.test(path ?? '');

/** Ids of images that containers were made from, on whatever node their records are. */
async function usersOf(api: Api): Promise<ReadonlySet<string>> {
  const { items } = await api.store.list<Container>(objectPrefix('container'));
  return new Set(items.map(({ value }) => value.spec.imageId));
}

function tarOf(c: Context): AsyncIterable<Uint8Array> {
  const type = c.req.header('content-type') ?? '';
  if (!type.startsWith('application/x-tar'))
    throw new SluiceError('request.unsupported', 'an archive must be declared as Content-Type: application/x-tar');
  // The request itself where there is one: a web stream in between would cost a third of the speed.
  const { incoming } = (c.env ?? {}) as ApiEnv['Bindings'];
  return incoming ?? c.req.raw.body ?? Readable.from([]);
}

function parseChanges(text: string | undefined) {
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new SluiceError('request.invalid', `query.changes is no JSON: ${(error as Error).message}`);
  }
  const parsed = changes.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => ({
    path: ['query.changes', ...path].join('.'),
    message,
  }));
  throw new SluiceError('request.invalid', `invalid request: ${problems[0]?.path}: ${problems[0]?.message}`, {
    problems,
  });
}

export function images(app: ApiApp, api: Api): void {
  const store: Images = api.images;
  let transfers = 0;
  const must = async (name: string) => {
    const found = await store.get(name);
    if (!found) throw new SluiceError('image.notfound', `there is no image ${name} here`, { reference: name });
    return found;
  };
  const transfer = (c: Context, work: Parameters<typeof transferStream>[1]): Response => {
    if (transfers >= TRANSFERS_MAX)
      throw new SluiceError('request.busy', `${TRANSFERS_MAX} transfers are under way already`, {
        transfersMax: TRANSFERS_MAX,
      });
    transfers++;
    const { clock, logger, heartbeatMs } = api;
    const setting = { clock, logger, heartbeatMs, signals: [api.signal, c.req.raw.signal] };
    const stream = transferStream(setting, (options) => work(options).finally(() => transfers--));
    return c.body(stream, 200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  };

  app.openapi(pull, (c) => {
    const { reference, platform } = c.req.valid('json');
    return transfer(c, (options) => store.pull(reference, { ...options, platform }));
  });
  app.openapi(push, (c) => {
    const { reference } = c.req.valid('json');
    return transfer(c, (options) => store.push(reference, options));
  });
  app.openapi(importing, (c) => {
    const { name = null, platform, changes } = c.req.valid('query');
    const wish = { platform, changes: parseChanges(changes) };
    const body = bodyOf(tarOf(c), api.clock);
    return transfer(c, (options) => store.import(body, name, { ...options, ...wish }));
  });
  app.openapi(load, (c) => {
    const { platform } = c.req.valid('query');
    const body = bodyOf(tarOf(c), api.clock);
    return transfer(c, async (options) => ({ items: await store.load(body, { ...options, platform }) }));
  });
  app.openapi(save, async (c) => {
    const { name } = c.req.valid('query');
    const names = typeof name === 'string' ? [name] : name;
    for (const each of names) await must(each);
    if (c.req.method === 'HEAD') return c.body('', 200, { 'content-type': 'application/x-tar' });
    const signal = AbortSignal.any([api.signal, c.req.raw.signal]);
    async function* archive(): AsyncGenerator<Uint8Array> {
      try {
        yield* store.save(names, signal);
      } catch (error) {
        // Its reader sees the connection break; the cause is for the log.
        api.logger.warn({ err: error }, 'an archive could not be saved whole');
        throw error;
      }
    }
    return c.body(outgoing(archive(), { clock: api.clock }), 200, { 'content-type': 'application/x-tar' });
  });
  app.openapi(prune, async (c) => {
    const all = c.req.valid('query').all === 'true';
    return c.json(await store.prune({ all, users: await usersOf(api) }), 200);
  });
  app.openapi(list, async (c) => c.json({ items: [...(await store.list())] }, 200));
  app.openapi(get, async (c) => c.json(await must(c.req.valid('param').name), 200));
  app.openapi(history, async (c) => c.json({ items: [...(await store.history(c.req.valid('param').name))] }, 200));
  app.openapi(tag, async (c) => {
    const { name } = c.req.valid('json');
    await store.tag(c.req.valid('param').name, name);
    return c.json(await must(name), 200);
  });
  app.openapi(remove, async (c) => {
    const force = c.req.valid('query').force === 'true';
    return c.json(await store.remove(c.req.valid('param').name, { force, users: await usersOf(api) }), 200);
  });
  app.openapi(login, async (c) => {
    const { user, password } = c.req.valid('json');
    await store.login(c.req.valid('param').name, user, password);
    return c.json({}, 200);
  });
  app.openapi(logout, async (c) => {
    await store.logout(c.req.valid('param').name);
    return c.json({}, 200);
  });
}
