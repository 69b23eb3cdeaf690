import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseDuration } from '../../src/api/context.ts';
import { judgeGone, judgeReady, type Target, Waits } from '../../src/api/wait.ts';
import { systemClock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { clusterTopic, nodeTopic, objectKey } from '../../src/model/keys.ts';
import type { Obj, Status } from '../../src/model/object.ts';
import { checker } from './api-check.ts';
import { NODE, World } from './api-world.ts';

const id = 'ab'.repeat(32);
const target: Target = { kind: 'network', id, name: 'web', revision: 7 };
const object = { kind: 'network', id, name: 'web', revision: 7 } as Obj;
const status = (state: Status['state'], observed: number, code = 'driver.failed'): Status => ({
  kind: 'network',
  id,
  node: NODE,
  state,
  observed,
  conditions: [],
  detail: {},
  ...(state === 'error' ? { error: { code, message: 'why' } } : {}),
});

describe('verdicts', () => {
  test('ready at the revision or later, not before', () => {
    expect(judgeReady(target, object, null)).toBe('waiting');
    expect(judgeReady(target, object, status('ready', 6))).toBe('waiting');
    expect(judgeReady(target, object, status('pending', 7))).toBe('waiting');
    expect(judgeReady(target, object, status('ready', 7))).toBe('done');
    expect(judgeReady(target, object, status('ready', 8))).toBe('done');
  });
  test('an error of the revision ends it, one of an earlier revision does not', () => {
    expect(judgeReady(target, object, status('error', 6))).toBe('waiting');
    expect(judgeReady(target, object, status('error', 7))).toMatchObject({ code: 'driver.failed' });
    expect(judgeGone(target, object, status('error', 7))).toMatchObject({ code: 'driver.failed' });
  });
  test('a code of a newer version becomes internal and stays in the details', () => {
    const verdict = judgeReady(target, object, status('error', 7, 'warp.broken'));
    expect(verdict).toMatchObject({ code: 'internal', details: { code: 'warp.broken' } });
  });
  test('gone, or going, while ready was waited for', () => {
    expect(judgeReady(target, null, null)).toMatchObject({ code: 'object.notfound' });
    expect(judgeReady(target, { ...object, removing: true }, status('ready', 7))).toMatchObject({
      code: 'object.removing',
    });
    expect(judgeGone(target, { ...object, removing: true }, status('removing', 7))).toBe('waiting');
    expect(judgeGone(target, null, null)).toBe('done');
  });
});

test('durations', () => {
  expect(['0', '30', '30s', '500ms', '2m'].map(parseDuration)).toEqual([0, 30_000, 30_000, 500, 120_000]);
  expect(['', '-1', '1h', '1.5s', '30 s', '12345678'].map(parseDuration)).toEqual([null, null, null, null, null, null]);
});

describe('over the API', () => {
  let world: World;
  let call: ReturnType<typeof checker>;
  beforeEach(() => {
    world = new World();
    call = checker(world.api());
  });
  afterEach(() => world.life.abort());

  test('wait.timeout names what is not ready, and the change stays', async () => {
    world.fate = () => 'nothing';
    const answer = await call('PUT', '/v1/networks/web?wait=30ms', { body: {} });
    expect(answer.status).toBe(504);
    expect(answer.body.details.objects).toMatchObject([{ kind: 'network', name: 'web', state: 'unseen' }]);
    expect(answer.body.message).toContain('network web (unseen)');
    expect((await call('GET', '/v1/networks/web')).status).toBe(200);
  });

  test('an error of the object is answered at once, with its own code', async () => {
    world.fate = () => ({ state: 'error', code: 'driver.failed', message: 'RTNETLINK answers: File exists' });
    const start = performance.now();
    const answer = await call('PUT', '/v1/networks/web?wait=8s', { body: {} });
    expect(performance.now() - start).toBeLessThan(4000);
    expect(answer.status).toBe(502);
    expect(answer.body).toMatchObject({ code: 'driver.failed', details: { name: 'web', stored: true } });
    expect(answer.body.message).toContain('File exists');
  });

  test('the same PUT again waits for nothing when it is ready', async () => {
    await call('PUT', '/v1/networks/web?wait=5s', { body: {} });
    world.fate = () => 'nothing';
    expect((await call('PUT', '/v1/networks/web?wait=5s', { body: {} })).status).toBe(200);
  });

  test('an error that ends by a retry is no error of a later revision', async () => {
    await call('PUT', '/v1/networks/web', { body: {} });
    world.fate = () => ({ state: 'error', code: 'driver.failed' });
    const put = (port: number) =>
      call('PUT', '/v1/services/s?wait=5s', { body: { network: 'web', ports: [{ port }] } });
    expect((await put(80)).status).toBe(502);
    world.fate = () => ({ state: 'ready' });
    expect((await put(81)).status).toBe(200);
    world.fate = (object) => (object.removing ? { state: 'ready' } : { state: 'error', code: 'driver.failed' });
    expect((await put(82)).status).toBe(502);
    expect((await call('DELETE', '/v1/services/s?wait=5s')).status).toBe(200);
  });

  test('one watch of the store serves all who wait', async () => {
    world.delayMs = 40;
    const names = Array.from({ length: 50 }, (_, n) => `net-${n}`);
    const answers = await Promise.all(names.map((name) => call('PUT', `/v1/networks/${name}?wait=5s`, { body: {} })));
    expect(answers.every(({ status }) => status === 201)).toBe(true);
    expect(world.store.watches).toBe(1);
  });

  test('the end of the daemon ends the wait', async () => {
    world.fate = () => 'nothing';
    const pending = call('PUT', '/v1/networks/web?wait=8s', { body: {} });
    await systemClock.sleep(30);
    world.life.abort();
    expect((await pending).body.code).toBe('daemon.stopping');
  });
});

describe('the shared watch', () => {
  let world: World;
  let waits: Waits;
  const settings = () => ({
    store: world.store,
    topics: [clusterTopic, nodeTopic(NODE)],
    node: NODE,
    statuses: world.state.statuses,
    clock: systemClock,
    logger: createLogger('silent'),
    signal: world.life.signal,
  });
  beforeEach(() => {
    world = new World();
    world.fate = () => 'nothing';
    waits = new Waits(settings());
  });
  afterEach(() => world.life.abort());

  test('takes what this node keeps to itself for an answer, before and after it was asked', async () => {
    const { object } = await world.desired.networks.put('web', {}, {});
    const { kind, id, name, revision } = object;
    const ready = { kind, id, node: NODE, state: 'ready', observed: revision, conditions: [], detail: {} } as const;
    const waiting = waits.ready([{ kind, id, name, revision }], 5_000);
    await systemClock.sleep(20);
    world.state.statuses.keep(ready);
    await waiting;
    await waits.ready([{ kind, id, name, revision }], 5_000);
    expect((await world.store.list('status/')).items).toEqual([]);
  });

  const stored = async (name: string) => (await world.desired.networks.put(name, {}, {})).object;

  test('survives a store that goes away and comes back', async () => {
    const network = await stored('web');
    const ready = waits.ready([network], 8000);
    await systemClock.sleep(20);
    world.store.breakWatches(new SluiceError('store.unavailable', 'gone'));
    await systemClock.sleep(20);
    world.store.failure = null;
    await world.setStatus(network, 'ready');
    await ready;
    // What follows comes by a new watch, not by reading.
    const second = await stored('db');
    const also = waits.ready([second], 8000);
    await systemClock.sleep(20);
    await world.setStatus(second, 'ready');
    await also;
    expect(world.store.watches).toBe(2);
  });

  test('reads again after a relist', async () => {
    const network = await stored('web');
    const ready = waits.ready([network], 8000);
    await systemClock.sleep(20);
    // Trimmed before the watch comes round to read it.
    const write = world.setStatus(network, 'ready');
    await Promise.all([write, world.store.trim()]);
    await ready;
  });

  test('a caller that leaves is forgotten', async () => {
    const network = await stored('web');
    const caller = new AbortController();
    const ready = waits.ready([network], 8000, caller.signal);
    await systemClock.sleep(10);
    expect(waits.waiting).toBe(1);
    caller.abort();
    await expect(ready).rejects.toThrow('left');
    expect(waits.waiting).toBe(0);
  });

  test('too many at once are refused', async () => {
    const network = await stored('web');
    const few = new Waits({ ...settings(), waitersMax: 1 });
    const first = few.ready([network], 8000);
    await expect(few.ready([network], 8000)).rejects.toMatchObject({ code: 'request.busy' });
    await world.setStatus(network, 'ready');
    await first;
    await few.ready([network], 8000);
  });

  test('waits for all of several, and for an object to go', async () => {
    const [a, b] = [await stored('a'), await stored('b')];
    let settled = false;
    const both = waits.ready([a, b], 8000).then(() => {
      settled = true;
    });
    await world.setStatus(a, 'ready');
    await systemClock.sleep(20);
    expect(settled).toBe(false);
    await world.setStatus(b, 'ready');
    await both;
    const gone = waits.gone([a], 8000);
    await systemClock.sleep(10);
    await world.store.transact([{ op: 'delete', key: objectKey('network', a.id) }], { topics: [nodeTopic(NODE)] });
    await gone;
    await waits.gone([a], 8000);
  });
});
