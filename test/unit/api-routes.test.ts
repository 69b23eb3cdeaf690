import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ERROR_CODES, type ErrorCode, SluiceError } from '../../src/errors.ts';
import { endpointView, listOf, networkView, sandboxView, statusAnswer, versionAnswer } from '../../src/model/schema.ts';
import { serviceView } from '../../src/model/service/schema.ts';
import { checker } from './api-check.ts';
import { World } from './api-world.ts';

let world: World;
let call: ReturnType<typeof checker>;
beforeEach(() => {
  world = new World();
  call = checker(world.api());
});
afterEach(() => world.life.abort());

const createOnly = { 'if-none-match': '*' };

describe('networks', () => {
  test('put creates, then changes nothing, then is found by name, id and abbreviated id', async () => {
    const body = { subnets: [{ cidr: '10.20.0.0/24' }] };
    const created = await call('PUT', '/v1/networks/web', { body });
    expect(created.status).toBe(201);
    networkView.parse(created.body);
    expect(created.body.status).toBeNull();
    const again = await call('PUT', '/v1/networks/web', { body });
    expect(again.status).toBe(200);
    expect(again.body.revision).toBe(created.body.revision);
    for (const ref of ['web', created.body.id, created.body.id.slice(0, 12)]) {
      const got = await call('GET', `/v1/networks/${ref}`);
      expect(got.status).toBe(200);
      expect(got.body.id).toBe(created.body.id);
    }
    listOf(networkView).parse((await call('GET', '/v1/networks')).body);
  });

  test('If-None-Match: * creates only', async () => {
    expect((await call('PUT', '/v1/networks/web', { body: {}, headers: createOnly })).status).toBe(201);
    const second = await call('PUT', '/v1/networks/web', { body: {}, headers: createOnly });
    expect(second.status).toBe(409);
    expect(second.body.code).toBe('object.exists');
    const odd = await call('PUT', '/v1/networks/web', { body: {}, headers: { 'if-none-match': '"7"' } });
    expect(odd.body.code).toBe('request.invalid');
  });

  test('delete answers 202, and 200 once it has seen it go', async () => {
    world.fate = (object) => (object.removing && object.name === 'slow' ? 'nothing' : { state: 'ready' });
    for (const name of ['slow', 'fast']) await call('PUT', `/v1/networks/${name}`, { body: {} });
    const begun = await call('DELETE', '/v1/networks/slow');
    expect(begun.status).toBe(202);
    expect(begun.body.removing).toBe(true);
    expect((await call('DELETE', '/v1/networks/fast?wait=5s')).status).toBe(200);
    expect((await call('GET', '/v1/networks/fast')).body.code).toBe('object.notfound');
    expect((await call('DELETE', '/v1/networks/fast')).body.code).toBe('object.notfound');
  });

  test('prune removes the unused', async () => {
    await call('PUT', '/v1/networks/used', { body: {} });
    await call('PUT', '/v1/networks/unused', { body: {} });
    await call('PUT', '/v1/sandboxes/box', { body: { networks: [{ network: 'used' }] } });
    const pruned = await call('POST', '/v1/networks/prune?wait=5s');
    expect(pruned.status).toBe(200);
    expect(pruned.body.items.map((item: { name: string }) => item.name)).toEqual(['unused']);
    expect((await call('GET', '/v1/networks')).body.items).toHaveLength(1);
    expect((await call('DELETE', '/v1/networks/used')).body.code).toBe('object.inuse');
  });
});

describe('sandboxes', () => {
  beforeEach(async () => {
    await call('PUT', '/v1/networks/web', { body: {} });
  });

  test('put, connect, disconnect, remove', async () => {
    const put = await call('PUT', '/v1/sandboxes/box?wait=5s', { body: { networks: [{ network: 'web' }] } });
    expect(put.status).toBe(201);
    sandboxView.parse(put.body);
    expect(put.body.status.state).toBe('ready');
    await call('PUT', '/v1/networks/db', { body: { subnets: [{ cidr: '10.9.0.0/24' }] } });
    const body = { ip: '10.9.0.7', aliases: ['api'] };
    const joined = await call('PUT', '/v1/sandboxes/box/networks/db?wait=5s', { body });
    expect(joined.status).toBe(201);
    endpointView.parse(joined.body);
    expect(joined.body.spec.addresses).toEqual(['10.9.0.7/24']);
    expect((await call('PUT', '/v1/sandboxes/box/networks/db', { body })).status).toBe(200);
    const endpoints = await call('GET', '/v1/endpoints');
    expect(listOf(endpointView).parse(endpoints.body).items).toHaveLength(2);
    expect((await call('GET', `/v1/endpoints/${joined.body.id}`)).body.id).toBe(joined.body.id);
    expect((await call('DELETE', '/v1/sandboxes/box/networks/db?wait=5s')).status).toBe(200);
    expect((await call('GET', `/v1/endpoints/${joined.body.id}`)).body.code).toBe('object.notfound');
    listOf(sandboxView).parse((await call('GET', '/v1/sandboxes')).body);
    expect((await call('GET', '/v1/sandboxes/box')).body.name).toBe('box');
    expect((await call('DELETE', '/v1/sandboxes/box?force=true&wait=5s')).status).toBe(200);
    expect(world.calls).toContain('sandboxes.remove box');
  });

  test('wait covers the endpoints', async () => {
    world.fate = (object) =>
      object.kind === 'endpoint' ? { state: 'error', code: 'address.exhausted', message: 'dry' } : { state: 'ready' };
    const put = await call('PUT', '/v1/sandboxes/box?wait=5s', { body: { networks: [{ network: 'web' }] } });
    expect(put.status).toBe(409);
    expect(put.body.code).toBe('address.exhausted');
    expect(put.body.message).toContain('endpoint box.web: dry');
    expect(put.body.details).toMatchObject({ kind: 'endpoint', name: 'box.web', stored: true });
  });
});

test('removal tells which endpoint does not go, and why', async () => {
  await call('PUT', '/v1/networks/web', { body: {} });
  await call('PUT', '/v1/sandboxes/box?wait=5s', { body: { networks: [{ network: 'web' }] } });
  world.fate = ({ kind }) =>
    kind === 'endpoint' ? { state: 'error', code: 'kernel.failed', message: 'EBUSY' } : 'nothing';
  const { status, body } = await call('DELETE', '/v1/sandboxes/box?wait=5s');
  expect(status).toBe(500);
  expect(body).toMatchObject({ code: 'kernel.failed', details: { kind: 'endpoint', name: 'box.web' } });
});

describe('services', () => {
  test('put, change backends, remove', async () => {
    await call('PUT', '/v1/networks/web', { body: {} });
    const box = await call('PUT', '/v1/sandboxes/box', { body: { networks: [{ network: 'web' }] } });
    const body = { network: 'web', ports: [{ port: 80, target: 8080 }], backends: [{ address: '10.0.0.9' }] };
    const put = await call('PUT', '/v1/services/shop?wait=5s', { body });
    expect(put.status).toBe(201);
    serviceView.parse(put.body);
    const change = { add: [{ sandbox: 'box', port: 81 }], remove: [{ address: '10.0.0.9' }] };
    const changed = await call('POST', '/v1/services/shop/backends?wait=5s', { body: change });
    expect(changed.status).toBe(200);
    expect(changed.body.spec.backends).toEqual([{ sandbox: box.body.id, port: 81 }]);
    expect(changed.body.status.observed).toBe(changed.body.revision);
    listOf(serviceView).parse((await call('GET', '/v1/services')).body);
    expect((await call('GET', '/v1/services/shop')).status).toBe(200);
    expect((await call('DELETE', '/v1/sandboxes/box')).body.code).toBe('object.inuse');
    expect((await call('DELETE', '/v1/services/shop?wait=5s')).status).toBe(200);
    expect((await call('GET', '/v1/services/shop')).status).toBe(404);
  });
});

describe('system', () => {
  test('version, status, openapi, metrics', async () => {
    await call('PUT', '/v1/networks/web?wait=5s', { body: {} });
    expect(versionAnswer.parse((await call('GET', '/v1/version')).body)).toMatchObject({ version: '1.2.3', api: 'v1' });
    const status = statusAnswer.parse((await call('GET', '/v1/status')).body);
    expect(status.state).toBe('ok');
    expect(status.store).toMatchObject({ available: true, incarnation: world.store.incarnation });
    expect(status.counts?.network).toEqual({ pending: 0, ready: 1, error: 0, removing: 0 });
    expect((await call('GET', '/v1/openapi.json')).body.openapi).toBe('3.1.0');
    const metrics = await call('GET', '/metrics');
    expect(metrics.headers.get('content-type')).toContain('text/plain');
  });

  test('status tells that the store is away, and says so with 200', async () => {
    world.store.failure = new SluiceError('store.unavailable', 'gone fishing');
    const { status, body } = await call('GET', '/v1/status');
    expect(status).toBe(200);
    expect(body.state).toBe('degraded');
    expect(body.store.error).toEqual({ code: 'store.unavailable', message: 'gone fishing' });
    expect(body.counts).toBeUndefined();
  });
});

describe('errors', () => {
  test('unknown path and unknown method', async () => {
    for (const path of ['/', '/v1', '/v2/networks', '/v1/networks/a/b/c', '/v1/networks/']) {
      expect((await call('GET', path)).body.code).toBe('request.unknown');
    }
    const wrong = await call('DELETE', '/v1/networks');
    expect(wrong.body.code).toBe('request.method');
    expect(wrong.headers.get('allow')).toBe('GET, HEAD');
    expect((await call('PATCH', '/v1/networks/web')).headers.get('allow')).toContain('PUT');
  });

  test.each([
    ['malformed JSON', { raw: '{"a":', headers: { 'content-type': 'application/json' } }, 'request.invalid'],
    ['no body', {}, 'request.invalid'],
    ['no content type', { raw: new Uint8Array([123, 125]) }, 'request.unsupported'],
    ['wrong content type', { raw: '{}', headers: { 'content-type': 'text/plain' } }, 'request.unsupported'],
    ['not an object', { body: [] }, 'request.invalid'],
    ['unknown key', { body: { subnets: [{ cdir: '10.0.0.0/24' }] } }, 'request.invalid'],
    ['too large', { body: { labels: { a: 'x'.repeat(1024 * 1024) } } }, 'request.toolarge'],
  ] as const)('%s', async (_name, sent, code) => {
    const answer = await call('PUT', '/v1/networks/web', sent);
    expect(answer.body.code).toBe(code);
    expect(world.calls).toEqual([]);
  });

  test('a chunked body past the limit is refused without a content length', async () => {
    let chunks = 0;
    const readable = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (++chunks > 20) controller.close();
        else controller.enqueue(new Uint8Array(64 * 1024).fill(32));
      },
    });
    const request = new Request('http://localhost/v1/networks/web', {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: readable,
      duplex: 'half',
    } as RequestInit);
    const response = await world.api().request(request);
    expect(response.status).toBe(413);
    expect(chunks).toBeLessThan(20);
  });

  test('problems carry path and message in the words of the request', async () => {
    const body = { subnets: [{ cidr: '10.0.0.0/33' }], mtu: 1, frob: true };
    const { body: answer } = await call('PUT', '/v1/networks/web?wait=soon', { body });
    expect(answer.code).toBe('request.invalid');
    const query = await call('PUT', '/v1/networks/web?wait=soon', { body: {} });
    expect(query.body.details.problems).toEqual([{ path: 'query.wait', message: expect.stringContaining('30s') }]);
    const { body: inner } = await call('PUT', '/v1/networks/web', { body });
    expect(inner.details.problems.map((problem: { path: string }) => problem.path)).toEqual([
      'body.subnets.0.cidr',
      'body.mtu',
      'body',
    ]);
    expect(inner.message).toContain('frob');
    const named = await call('PUT', '/v1/networks/-web', { body: {} });
    expect(named.body.details.problems[0].path).toBe('path.name');
  });

  test('unknown query keys and repeated ones are refused', async () => {
    expect((await call('GET', '/v1/networks?fields=all')).body.code).toBe('request.invalid');
    expect((await call('DELETE', '/v1/sandboxes/box?forse=true')).body.code).toBe('request.invalid');
    expect((await call('PUT', '/v1/networks/web?wait=1s&wait=2s', { body: {} })).body.code).toBe('request.invalid');
    expect((await call('PUT', '/v1/networks/web?wait=11m', { body: {} })).body.code).toBe('request.invalid');
  });

  test.each(Object.keys(ERROR_CODES) as ErrorCode[])('%s thrown below keeps code, status and details', async (code) => {
    world.failure = new SluiceError(code, 'as it was said', { object: 'web' });
    const response = await world.api().request('/v1/networks/web');
    expect(response.status).toBe(ERROR_CODES[code][0]);
    expect(await response.json()).toEqual({ code, message: 'as it was said', details: { object: 'web' } });
  });

  test('what is no coded error becomes internal; details that are no JSON do no harm', async () => {
    world.failure = new TypeError('x is undefined');
    expect((await call('GET', '/v1/networks')).body.code).toBe('internal');
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    world.failure = new SluiceError('internal', 'cyclic', cycle);
    expect((await call('GET', '/v1/networks')).body.message).toBe('cyclic');
    world.failure = new SluiceError('internal', 'big', { n: 1n });
    expect((await call('GET', '/v1/networks')).body.details).toEqual({ n: '1' });
  });

  test('a handler that never ends is given up', async () => {
    world.store.hold = new Promise(() => undefined);
    const slow = checker(world.api({ timeLimitMs: 30 }));
    const { status, body } = await slow('GET', '/v1/networks');
    expect(status).toBe(504);
    expect(body.code).toBe('request.timeout');
  });
});

test('200 PUTs of one name at once create it once', async () => {
  const answers = await Promise.all(Array.from({ length: 200 }, () => call('PUT', '/v1/networks/web', { body: {} })));
  expect(answers.filter((answer) => answer.status === 201)).toHaveLength(1);
  expect(answers.filter((answer) => answer.status === 200)).toHaveLength(199);
  expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1);
  // And what the others leased on the way is given back.
  expect((await world.ipam.pools()).map(({ owner }) => owner)).toEqual([answers[0]!.body.id]);
});
