/** Archives over the socket whose other side stands still, or goes away in the middle: given up in time, and nothing is held for it any more. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type Listener, serve } from '../../src/api/server.ts';
import { createClient } from '../../src/client/client.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { createLogger } from '../../src/log.ts';
import { makeFolder } from '../folder.ts';
import { World } from './api-world.ts';
import { createFakeImages } from './image-fake.ts';

/** As long as nothing may move here, milliseconds; a minute otherwise. */
const STALL_MS = 300;
const clock: Clock = {
  ...systemClock,
  after: (ms, fn) => systemClock.after(ms === 60_000 ? STALL_MS : ms, fn),
};
/** More than the sockets hold. */
const PIECES = 64;
const PIECE = Buffer.alloc(1_000_000, 'x');

const world = new World();
const images = createFakeImages();
const socket = join(makeFolder('stall'), 'sluice.sock');
let listener: Listener;
/** Reads or writes that the daemon has under way. */
let open = 0;
let failure: Promise<unknown>;

async function* archive(pauseMs = 0): AsyncGenerator<Uint8Array> {
  open++;
  try {
    for (let n = 0; n < PIECES; n++) {
      yield PIECE;
      await sleep(pauseMs);
    }
  } finally {
    open--;
  }
}

beforeAll(async () => {
  // The HTTP server prints why a connection breaks.
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  images.put('box');
  images.save = () => archive();
  images.load = async (source) => {
    open++;
    const taken = (async () => {
      for await (const _ of source);
      return [];
    })();
    failure = taken.catch((error: unknown) => error);
    return taken.finally(() => open--);
  };
  world.images.put('box');
  await world.state.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
  await world.state.containers.put('box', { image: 'box', networks: [{ network: 'web' }] });
  world.live = { ...world.live, copyOut: () => archive() };
  const options = { socket, clock, logger: createLogger('silent'), graceMs: 100 };
  listener = await serve(world.api({ clock, images }), options);
});
afterAll(async () => {
  vi.restoreAllMocks();
  world.life.abort();
  await listener.close();
});

const ask = (head: string): Socket => {
  const client = connect(socket);
  client.write(`${head} HTTP/1.1\r\nHost: x\r\n`);
  return client;
};
const closed = async (client: Socket): Promise<void> => {
  if (!client.closed) await once(client, 'close');
};
/** What it says until it has nothing to say. */
async function said(client: Socket, until: RegExp): Promise<string> {
  let text = '';
  for await (const chunk of client as AsyncIterable<Buffer>) {
    text += chunk;
    if (until.test(text)) break;
  }
  return text;
}
const under = (count: number) => expect.poll(() => open, { timeout: 5_000, interval: 5 }).toBe(count);

const READS = ['/v1/archives?name=box', '/v1/containers/box/archive?path=/data'];

test.each(READS)('%s: a reader that stands still is let go', async (path) => {
  const client = ask(`GET ${path}`);
  client.write('\r\n');
  client.pause();
  await under(1);
  const begun = performance.now();
  await under(0);
  expect(performance.now() - begun).toBeGreaterThan(STALL_MS / 2);
  // What it gets when it reads on is no whole archive.
  let bytes = 0;
  client.on('data', (chunk: Buffer) => (bytes += chunk.length)).resume();
  client.on('error', () => undefined);
  await closed(client);
  expect(bytes).toBeGreaterThan(0);
  expect(bytes).toBeLessThan(PIECES * PIECE.length);
});

test.each(READS)('%s: so is one that leaves in the middle; the next one has it whole', async (path) => {
  const client = ask(`GET ${path}`);
  client.write('\r\n');
  await once(client, 'data');
  await under(1);
  client.destroy();
  await under(0);
  const whole = ask(`GET ${path}`);
  whole.write('Connection: close\r\n\r\n');
  let bytes = 0;
  for await (const chunk of whole as AsyncIterable<Buffer>) bytes += chunk.length;
  expect(bytes).toBeGreaterThan(PIECES * PIECE.length);
});

test('a reader that is slow, and takes something now and then, is not', async () => {
  const whole = await createClient({ socket }).images.save(['box']);
  let bytes = 0;
  for await (const chunk of whole) {
    const before = Math.floor(bytes / (16 * PIECE.length));
    bytes += chunk.length;
    if (Math.floor(bytes / (16 * PIECE.length)) > before) await sleep(STALL_MS / 2);
  }
  expect(bytes).toBe(PIECES * PIECE.length);
});

const upload = (): Socket => {
  const client = ask('POST /v1/archives');
  client.write('Content-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n');
  return client;
};

test('a sender that stands still is told so, and what it sent is given up', async () => {
  const client = upload();
  expect(await said(client, /event: error/)).toContain('"code":"request.slow"');
  expect(await failure).toMatchObject({ code: 'request.slow' });
  await under(0);
});

test('one that leaves in the middle is no whole archive', async () => {
  const client = upload();
  await under(1);
  client.destroy();
  expect(await failure).toMatchObject({ code: 'request.invalid', message: expect.stringContaining('left before') });
  await under(0);
});
