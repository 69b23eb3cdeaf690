/** Transfers over the API: words as they come, the result or the error at the end, and who leaves ends it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { transferStream } from '../../src/api/image/transfer.ts';
import { createClient } from '../../src/client/client.ts';
import { systemClock } from '../../src/clock.ts';
import type { TransferOptions } from '../../src/contracts/image.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import type { ImageProgress } from '../../src/model/image/image.ts';
import { checker } from './api-check.ts';
import { World } from './api-world.ts';
import { CliWorld } from './cli-world.ts';

type Options = Pick<TransferOptions, 'signal' | 'onProgress'>;

const stream = (work: (options: Options) => Promise<unknown>, heartbeatMs = 10_000, signals: AbortSignal[] = []) =>
  transferStream({ clock: systemClock, logger: createLogger('silent'), heartbeatMs, signals }, work);
const word = (what: string, current: number): ImageProgress => ({ type: 'layer', what, text: 'downloading', current });
const textOf = (body: ReadableStream<Uint8Array>): Promise<string> => new Response(body).text();

describe('a stream of a transfer', () => {
  test('says what happens, and ends with the result', async () => {
    const text = await textOf(
      stream(async ({ onProgress }) => {
        onProgress?.(word('a', 1));
        await systemClock.sleep(20);
        onProgress?.(word('a', 2));
        return { x: 1 };
      }),
    );
    expect(text).toBe(
      [
        ': begun\n\n',
        `event: progress\ndata: ${JSON.stringify(word('a', 1))}\n\n`,
        `event: progress\ndata: ${JSON.stringify(word('a', 2))}\n\n`,
        'event: done\ndata: {"x":1}\n\n',
      ].join(''),
    );
  });

  test('keeps only the latest word about each layer for who reads slowly', async () => {
    const body = stream(async ({ onProgress }) => {
      for (let n = 0; n < 10_000; n++) onProgress?.(word(n % 2 ? 'a' : 'b', n));
      return null;
    });
    await systemClock.sleep(20);
    const text = await textOf(body);
    expect(text.match(/event: progress/g)).toHaveLength(2);
    expect(text).toContain('"current":9998');
    expect(text).toContain('"current":9999');
  });

  test('gives signs of life', async () => {
    const text = await textOf(stream(() => systemClock.sleep(100), 20));
    expect(text.match(/: alive/g)!.length).toBeGreaterThanOrEqual(2);
  });

  test.each([
    [new SluiceError('image.digest', 'wrong', { x: 1 }), '{"code":"image.digest","message":"wrong","details":{"x":1}}'],
    [new Error('odd'), '{"code":"internal","message":"odd","details":{}}'],
  ])('ends with the error %s', async (error, data) => {
    expect(await textOf(stream(() => Promise.reject(error)))).toBe(`: begun\n\nevent: error\ndata: ${data}\n\n`);
  });

  test('is ended by who leaves, and by the daemon', async () => {
    for (const leave of ['reader', 'daemon']) {
      const ended = Promise.withResolvers<unknown>();
      const life = new AbortController();
      const body = stream(
        ({ signal }) => {
          signal.addEventListener('abort', () => ended.resolve(signal.reason));
          return ended.promise;
        },
        10_000,
        [life.signal],
      );
      const reader = body.getReader();
      await reader.read();
      if (leave === 'reader') await reader.cancel();
      else life.abort(new SluiceError('daemon.stopping', 'the daemon stops'));
      expect(await ended.promise).toMatchObject({ code: leave === 'reader' ? 'request.invalid' : 'daemon.stopping' });
    }
  });
});

describe('over the socket', () => {
  const world = new CliWorld();
  beforeAll(() => world.open());
  afterAll(() => world.close());
  const client = () => createClient({ socket: world.socket });

  test('an error of a transfer keeps its code', async () => {
    await expect(client().images.pull('busybox')).rejects.toMatchObject({ code: 'image.notfound' });
    await expect(client().images.push('busybox')).rejects.toMatchObject({ code: 'image.notfound' });
  });

  test('a refused archive is answered though its sender has more to send', async () => {
    let sent = 0;
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (; sent < 1e9; sent += 1_000_000) yield Buffer.alloc(1_000_000);
    }
    await expect(client().images.load(endless())).rejects.toMatchObject({ code: 'image.notfound' });
    expect(sent).toBeLessThan(1e9);
  });

  test('the CLI says so and fails', async () => {
    const { status, err } = await world.sluice('pull busybox');
    expect([status, err]).toEqual([1, 'sluice: there is no image here (image.notfound)\n']);
    expect(await world.must('images')).toBe('REPOSITORY  TAG  IMAGE ID  CREATED  SIZE\n');
  });
});

test('what is no archive, and no changes, is refused at once', async () => {
  const world = new World();
  const call = checker(world.api());
  const tar = { 'content-type': 'application/x-tar' };
  for (const path of ['/v1/archives', '/v1/images/import'])
    expect((await call('POST', path, { raw: 'x', headers: { 'content-type': 'text/plain' } })).body.code).toBe(
      'request.unsupported',
    );
  for (const changes of ['{', '{"unknown":1}', '{"env":1}']) {
    const path = `/v1/images/import?changes=${encodeURIComponent(changes)}`;
    expect((await call('POST', path, { raw: 'x', headers: tar })).body.code).toBe('request.invalid');
  }
  expect((await call('GET', '/v1/archives?name=nothing')).body.code).toBe('image.notfound');
  expect((await call('GET', `/v1/images/${encodeURIComponent('a/b:1')}`)).body).toMatchObject({
    code: 'image.notfound',
    message: expect.stringContaining('a/b:1'),
  });
  world.life.abort();
});
