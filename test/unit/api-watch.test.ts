import { afterEach, beforeEach, expect, test } from 'vitest';
import type { ApiApp } from '../../src/api/context.ts';
import { visibleChanges } from '../../src/api/watch.ts';
import { parseEvent } from '../../src/client/stream.ts';
import { systemClock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import { World } from './api-world.ts';

let world: World;
let app: ApiApp;
beforeEach(() => {
  world = new World();
  world.fate = () => 'nothing';
  app = world.api({ heartbeatMs: 100, watchersMax: 3 });
});
afterEach(() => world.life.abort());

/** Reads events one by one; heartbeats are events without data. */
class Reader {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #text = '';
  constructor(response: Response) {
    this.#reader = response.body!.getReader() as ReadableStreamDefaultReader<Uint8Array>;
  }
  async any() {
    while (!this.#text.includes('\n\n')) {
      const { value, done } = await this.#reader.read();
      if (done) return null;
      this.#text += new TextDecoder().decode(value);
    }
    const end = this.#text.indexOf('\n\n');
    const event = parseEvent(this.#text.slice(0, end));
    this.#text = this.#text.slice(end + 2);
    return event;
  }
  async next() {
    for (let event = await this.any(); event; event = await this.any()) {
      if (event.data !== undefined) return { ...event, data: JSON.parse(event.data) };
    }
    return null;
  }
  close() {
    return this.#reader.cancel();
  }
}

const open = async (query = '', headers: Record<string, string> = {}) => {
  const response = await app.request(`/v1/watch${query}`, { headers });
  expect(response.status).toBe(200);
  expect(response.headers.get('content-type')).toBe('text/event-stream');
  return new Reader(response);
};
/** Of driver none, which leases nothing: one write each. */
const put = async (name: string) =>
  (await world.desired.networks.put(name, { driver: 'none' }, { actor: 'uid:0 pid:1' })).object;

test('begins with relist, then tells objects and statuses with the actor and the revision as id', async () => {
  const reader = await open();
  expect(await reader.next()).toMatchObject({ type: 'relist', id: '0', data: { revision: 0 } });
  const network = await put('web');
  expect(await reader.next()).toMatchObject({
    type: 'change',
    id: String(network.revision),
    data: {
      actor: 'uid:0 pid:1',
      changes: [{ kind: 'network', id: network.id, object: { name: 'web', revision: network.revision } }],
    },
  });
  await world.setStatus(network, 'ready');
  expect(await reader.next()).toMatchObject({
    data: { changes: [{ id: network.id, node: 'node-1', status: { state: 'ready' } }] },
  });
  await reader.close();
});

test('resumes from a revision, and Last-Event-ID wins over from', async () => {
  const objects = [await put('a'), await put('b'), await put('c')];
  const fromFirst = await open(`?from=${objects[0]!.revision}`);
  expect((await fromFirst.next())?.data.changes[0].object.name).toBe('b');
  expect((await fromFirst.next())?.data.changes[0].object.name).toBe('c');
  const fromSecond = await open('?from=0', { 'last-event-id': String(objects[1]!.revision) });
  expect((await fromSecond.next())?.data.changes[0].object.name).toBe('c');
  await fromFirst.close();
  await fromSecond.close();
});

test('relist: the log was trimmed, the revision lies ahead, or it is another store', async () => {
  await put('a');
  const revision = await world.store.trim();
  for (const query of ['?from=0', '?from=999999', `?from=${revision}&incarnation=other`]) {
    const reader = await open(query);
    expect(await reader.next()).toMatchObject({ type: 'relist', data: { revision } });
    await reader.close();
  }
  const same = await open(`?from=${revision}&incarnation=${world.store.incarnation}`);
  expect((await same.any())?.data).toBeUndefined();
  await same.close();
});

test('only the kinds asked for; the heartbeat moves the place of what was left out', async () => {
  const reader = await open('?kind=service,endpoint&from=0');
  const network = await put('web');
  expect(await reader.any()).toMatchObject({ id: '0' });
  const beat = await reader.any();
  expect(beat).toEqual({ id: String(network.revision), type: undefined, data: undefined });
  await reader.close();
});

test('inner records are not told', () => {
  const keys = [
    'name/network/node-1/web',
    'lease/p/10.0.0.2',
    'local/node-1/number/view/x',
    'pool/p',
    'network/ab',
    'status/network/ab/n/1',
  ];
  const change = { revision: 9, entries: keys.map((key) => ({ key, value: {}, revision: 9 })) };
  expect(visibleChanges(change, new Set(['network']))).toEqual([
    { kind: 'network', id: 'ab', object: { revision: 9 } },
    { kind: 'network', id: 'ab', node: 'n/1', status: {} },
  ]);
  const gone = { revision: 9, entries: [{ key: 'network/ab', value: null, revision: 9 }] };
  expect(visibleChanges(gone, new Set(['network']))).toEqual([{ kind: 'network', id: 'ab', object: null }]);
});

test('a reader that takes nothing makes nothing pile up', async () => {
  const reader = await open();
  await reader.next();
  const before = world.store.watches;
  for (let n = 0; n < 500; n++) await put(`net-${n}`);
  // The stream asked for at most what fits its one place and the reader's one read.
  let seen = 0;
  for (let event = await reader.next(); event; event = await reader.next()) if (++seen === 500) break;
  expect(seen).toBe(500);
  expect(world.store.watches).toBe(before);
  await reader.close();
});

test('watches are bounded, and one that ends makes room', async () => {
  const readers = [await open(), await open(), await open()];
  const refused = await app.request('/v1/watch');
  expect(refused.status).toBe(503);
  expect(await refused.json()).toMatchObject({ code: 'request.busy' });
  await readers[0]!.close();
  readers.push(await open());
  for (const reader of readers.slice(1)) await reader.close();
});

test('HEAD opens nothing, and one who never reads is let go after a minute', async () => {
  for (let n = 0; n < 10; n++) {
    expect((await app.request('/v1/watch', { method: 'HEAD' })).status).toBe(200);
  }
  const timers: (() => void)[] = [];
  const clock = {
    ...systemClock,
    after: (ms: number, fn: () => void) => {
      if (ms === 60_000) timers.push(fn);
      return systemClock.after(ms, fn);
    },
  };
  const one = world.api({ clock, watchersMax: 1 });
  const response = await one.request('/v1/watch');
  expect((await one.request('/v1/watch')).status).toBe(503);
  for (const fire of timers) fire();
  await expect(new Reader(response).any()).rejects.toMatchObject({ code: 'request.slow' });
  const next = await one.request('/v1/watch');
  expect(next.status).toBe(200);
  await next.body?.cancel();
});

test('a reader that leaves is no failure', async () => {
  const warned: unknown[] = [];
  const logger = Object.assign(createLogger('warn'), { warn: (...words: unknown[]) => warned.push(words) });
  app = world.api({ logger, watchersMax: 1, heartbeatMs: 20 });
  for (let n = 0; n < 3; n++) {
    const reader = await open();
    await reader.next();
    await reader.any();
    await reader.close();
    await systemClock.sleep(30);
  }
  expect(warned).toEqual([]);
});

test('a store that is away is told as an answer; one that goes away ends the stream', async () => {
  const reader = await open();
  await reader.next();
  world.store.breakWatches(new SluiceError('store.unavailable', 'gone'));
  expect(await reader.next()).toBeNull();
  const refused = await app.request('/v1/watch');
  expect(await refused.json()).toMatchObject({ code: 'store.unavailable' });
});

test('the end of the daemon ends the stream', async () => {
  const reader = await open();
  await reader.next();
  await systemClock.sleep(10);
  world.life.abort();
  expect(await reader.next()).toBeNull();
  expect(await (await app.request('/v1/watch')).json()).toMatchObject({ code: 'daemon.stopping' });
});

test('wrong words in the query are refused', async () => {
  for (const query of ['?kind=netwrok', '?kind=', '?from=-1', '?from=x', '?since=1']) {
    expect((await app.request(`/v1/watch${query}`)).status).toBe(400);
  }
  expect((await app.request('/v1/watch', { headers: { 'last-event-id': 'x' } })).status).toBe(400);
});
