/** The client against the server over a real unix socket. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Listener, type ServeOptions, serve, serveTcp } from '../../src/api/server.ts';
import { type Client, createClient } from '../../src/client/client.ts';
import { systemClock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';
import { createLogger } from '../../src/log.ts';
import type { WatchMessage } from '../../src/model/answer.ts';
import { World } from '../unit/api-world.ts';

const logger = createLogger('silent');
let folder: string;
let socket: string;
let world: World;
let open: Listener[];
let client: Client;

const listen = async (options: Partial<ServeOptions> = {}, to = world): Promise<Listener> => {
  const listener = await serve(to.api({ heartbeatMs: 50 }), {
    socket,
    clock: systemClock,
    logger,
    graceMs: 200,
    ...options,
  });
  open.push(listener);
  return listener;
};
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), `sluice-api-${process.pid}-`));
  socket = join(folder, 'run', 'sluice.sock');
  world = new World();
  open = [];
  client = createClient({ socket });
});
afterEach(async () => {
  world.life.abort();
  for (const listener of open) await listener.close();
  rmSync(folder, { recursive: true, force: true });
});

/** What the server answers to these bytes, until it closes. */
function raw(bytes: string | Uint8Array, keepOpen = false): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const connection = connect(socket);
  let text = '';
  connection.on('data', (chunk) => {
    text += chunk;
  });
  connection.on('close', () => resolve(text));
  connection.on('error', (error: NodeJS.ErrnoException) =>
    error.code === 'ECONNRESET' ? resolve(text) : reject(error),
  );
  connection.write(bytes);
  if (!keepOpen) connection.end();
  return promise;
}
const jsonOf = (answer: string) => JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4));

describe('the client', () => {
  test('does all that the API offers', async () => {
    await listen();
    const wait = { waitMs: 5000 };
    const web = await client.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] }, wait);
    expect(web.status?.state).toBe('ready');
    await client.networks.put('db', { subnets: [{ cidr: '10.9.0.0/24' }] }, wait);
    expect((await client.networks.list()).map(({ name }) => name).sort()).toEqual(['db', 'web']);
    expect((await client.networks.get(web.id.slice(0, 12))).name).toBe('web');
    const box = await client.sandboxes.put('box', { networks: [{ network: 'web' }] }, wait);
    expect((await client.sandboxes.list()).length).toBe(1);
    expect((await client.sandboxes.get('box')).spec.origin).toBe('own');
    const joined = await client.sandboxes.connect('box', { network: 'db', ip: '10.9.0.9' }, wait);
    expect(joined.spec.addresses).toEqual(['10.9.0.9/24']);
    expect((await client.endpoints.list()).length).toBe(2);
    expect((await client.endpoints.get(joined.id)).id).toBe(joined.id);
    await client.sandboxes.disconnect('box', 'db', wait);
    await client.services.put('shop', { network: 'web', ports: [{ port: 80 }] }, wait);
    const updated = await client.services.update('shop', { add: [{ sandbox: 'box' }] }, wait);
    expect(updated.spec.backends).toEqual([{ sandbox: box.id }]);
    expect((await client.services.list()).length).toBe(1);
    expect((await client.services.get('shop')).name).toBe('shop');
    await expect(client.sandboxes.remove('box', wait)).rejects.toMatchObject({ code: 'object.inuse' });
    await client.sandboxes.remove('box', { ...wait, force: true });
    expect((await client.services.get('shop')).spec.backends).toEqual([]);
    expect((await client.networks.prune(wait)).map(({ name }) => name)).toEqual(['db']);
    await expect(client.networks.remove('web')).rejects.toMatchObject({ code: 'object.inuse' });
    await client.services.remove('shop', wait);
    await client.networks.remove('web', wait);
    expect(await client.networks.list()).toEqual([]);
    expect((await client.version()).version).toBe('1.2.3');
    expect((await client.status()).state).toBe('ok');
    expect(await client.metrics()).toBeTypeOf('string');
    expect((await client.openapi()).openapi).toBe('3.1.0');
  });

  test('turns refusals into coded errors, create-only too', async () => {
    await listen();
    await expect(client.networks.get('nix')).rejects.toMatchObject({
      code: 'object.notfound',
      details: { ref: 'nix' },
    });
    await client.networks.put('web', {}, { create: true });
    const again = client.networks.put('web', {}, { create: true });
    await expect(again).rejects.toSatisfy((error) => error instanceof SluiceError && error.code === 'object.exists');
    await expect(client.networks.put('-', {})).rejects.toMatchObject({ code: 'request.invalid' });
    const large = client.networks.put('web', { labels: { a: 'x'.repeat(3_000_000) } });
    await expect(large).rejects.toMatchObject({ code: 'request.toolarge' });
    await expect(client.networks.get('a/../b')).rejects.toMatchObject({ code: 'request.invalid' });
  });

  test('says how to start a daemon that is not there, and who may speak to one that is', async () => {
    await expect(client.version()).rejects.toMatchObject({
      code: 'daemon.unreachable',
      message: expect.stringMatching(/ENOENT.*systemctl start sluiced/),
    });
    await expect(client.watch()[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'daemon.unreachable' });
    await listen();
    const script = `
      const { createClient } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/client/client.ts'))});
      process.setuid(65534);
      try { await createClient({ socket: ${JSON.stringify(socket)} }).version(); } catch (e) { console.log(e.code, e.message); }`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
    expect(stdout).toMatch(/^daemon\.unreachable .*(EACCES|EPERM).*group/);
  });

  test('refuses an address that is none', () => {
    for (const host of ['tcp://x', 'ftp://x/', 'http://x/path', 'nonsense', 'unix://relative']) {
      expect(() => createClient({ host }), host).toThrow(SluiceError);
    }
    expect(createClient({ host: 'http://127.0.0.1:80' }).host).toBe('http://127.0.0.1');
    expect(createClient({ host: '/a/b' }).host).toBe('unix:///a/b');
  });

  test('gives up on a daemon that does not answer, and names what is no daemon', async () => {
    await listen();
    world.store.hold = new Promise(() => undefined);
    const hasty = createClient({ socket, timeoutMs: 100 });
    await expect(hasty.networks.list()).rejects.toMatchObject({
      code: 'daemon.unreachable',
      details: { limitMs: 100 },
    });
    const other = join(folder, 'other.sock');
    const stranger = createServer((connection) => connection.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi'));
    await new Promise<void>((resolve) => stranger.listen(other, resolve));
    await expect(createClient({ socket: other }).version()).rejects.toThrow(/not a Sluice daemon/);
    stranger.close();
  });
});

describe('the watch', () => {
  test('resumes over a restart and misses nothing', async () => {
    const first = await listen();
    const done = new AbortController();
    const seen: WatchMessage[] = [];
    const names: string[] = [];
    const connected = Promise.withResolvers<void>();
    const reading = (async () => {
      for await (const message of client.watch({ kinds: ['network'], signal: done.signal })) {
        seen.push(message);
        if (message.type === 'relist') connected.resolve();
        if (message.type === 'change') {
          for (const change of message.changes) if ('object' in change && change.object) names.push(change.object.name);
        }
        if (names.includes('three')) done.abort();
      }
    })();
    await connected.promise;
    world.fate = () => 'nothing';
    await client.networks.put('one', {});
    await systemClock.sleep(30);
    await first.close();
    open = [];
    await world.desired.networks.put('two', {}, {});
    await listen();
    await client.networks.put('three', {});
    await reading;
    expect(names).toEqual(['one', 'two', 'three']);
    expect(seen.filter(({ type }) => type === 'relist')).toHaveLength(1);
  });

  test('another store means relist', async () => {
    const first = await listen();
    const done = new AbortController();
    let relists = 0;
    const connected = Promise.withResolvers<void>();
    const reading = (async () => {
      for await (const { type } of client.watch({ signal: done.signal })) {
        if (type === 'relist' && ++relists === 2) done.abort();
        connected.resolve();
      }
    })();
    await connected.promise;
    await systemClock.sleep(20);
    await first.close();
    const empty = new World();
    empty.store.incarnation = 'second';
    open = [];
    await listen({}, empty);
    await reading;
    expect(relists).toBe(2);
    empty.life.abort();
  });

  test('breaking out of it frees the place', async () => {
    await listen();
    for (let round = 0; round < 3; round++) {
      for await (const message of client.watch()) {
        expect(message.type).toBe('relist');
        break;
      }
    }
    await systemClock.sleep(50);
  });
});

describe('the socket', () => {
  test('is for root alone without the group, 0660 with it', async () => {
    const first = await listen();
    expect(first.address).toBe(`unix://${socket}`);
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    await first.close();
    expect(existsSync(socket)).toBe(false);
    const second = await listen({ group: 'no-such-group' });
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    await second.close();
    await listen({ group: 'daemon' });
    expect(statSync(socket).mode & 0o777).toBe(0o660);
    expect(statSync(socket).gid).toBe(1);
    expect(existsSync(`${socket}.new`)).toBe(false);
  });

  test('of a living daemon is left alone, of a dead one is replaced, a file is refused', async () => {
    await listen();
    await expect(listen()).rejects.toMatchObject({ code: 'daemon.running' });
    await client.version();
    const dead = join(folder, 'dead.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, 'SIGKILL'))`;
    await expect(promisify(execFile)(process.execPath, ['-e', script])).rejects.toMatchObject({ signal: 'SIGKILL' });
    expect(existsSync(dead)).toBe(true);
    await listen({ socket: dead });
    expect((await createClient({ socket: dead }).version()).api).toBe('v1');
    const file = join(folder, 'file');
    writeFileSync(file, 'precious');
    await expect(listen({ socket: file })).rejects.toMatchObject({ code: 'config.invalid' });
    await expect(listen({ socket: join(folder, 'x'.repeat(200)) })).rejects.toMatchObject({ code: 'config.invalid' });
    await expect(listen({ socket: join(file, 'below') })).rejects.toMatchObject({ code: 'config.invalid' });
  });

  test('a successor keeps its socket when the predecessor closes', async () => {
    const old = await listen();
    rmSync(socket);
    await listen();
    await old.close();
    expect((await client.version()).version).toBe('1.2.3');
  });

  test('the actor is who the kernel says it is', async () => {
    const asked: number[] = [];
    world.peer = (fd) => {
      asked.push(fd);
      return { uid: 7, pid: 4242 };
    };
    await listen();
    await client.networks.put('web', {});
    const watch = client.watch({ from: 0 });
    for await (const message of watch) {
      expect(message).toMatchObject({ type: 'change', actor: 'uid:7 pid:4242' });
      break;
    }
    expect(asked.every((fd) => fd > 2)).toBe(true);
  });

  test('close lets a request in flight end, and cuts what takes too long', async () => {
    const listener = await listen();
    world.delayMs = 60;
    const inFlight = client.networks.put('web', {}, { waitMs: 5000 });
    await systemClock.sleep(20);
    await Promise.all([listener.close(), expect(inFlight).resolves.toMatchObject({ name: 'web' })]);
    open = [];
    const next = await listen();
    world.store.hold = new Promise(() => undefined);
    const stuck = client.networks.list();
    await systemClock.sleep(20);
    await Promise.all([next.close(), expect(stuck).rejects.toMatchObject({ code: 'daemon.unreachable' })]);
    open = [];
  });
});

describe('odd callers', () => {
  test('a slow head and a slow body are cut off with a code', async () => {
    await listen({ headMsMax: 150, requestMsMax: 300 });
    const start = performance.now();
    const slowHead = raw('GET /v1/version HTTP/1.1\r\nHost: x\r\n', true);
    const head =
      'PUT /v1/networks/web HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"a"';
    const slowBody = raw(head, true);
    for (const answer of await Promise.all([slowHead, slowBody])) {
      expect(answer).toMatch(/^HTTP\/1\.1 408 /);
      expect(jsonOf(answer).code).toBe('request.slow');
    }
    expect(performance.now() - start).toBeLessThan(5000);
    expect(world.calls).toEqual([]);
    expect((await client.version()).version).toBe('1.2.3');
  });

  test('many slow callers do not keep others from being served', async () => {
    await listen({ headMsMax: 2000, requestMsMax: 2000 });
    const slow = Array.from({ length: 100 }, () => raw('GET / HTTP/1.1\r\nX: ', true));
    await client.networks.put('web', {}, { waitMs: 5000 });
    for (const listener of open) await listener.close();
    open = [];
    await Promise.all(slow);
  });

  test.each([
    ['no HTTP at all', '\x16\x03\x01\x02\x00\x01\x00', 400],
    ['a wrong version', 'GET / HTTP/9.9\r\n\r\n', 400],
    ['a bad host', 'GET /v1/version HTTP/1.1\r\nHost: a b c\r\nConnection: close\r\n\r\n', 400],
    ['a bad target', 'GET /\\evil HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 400],
    ['a large header', `GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(70_000)}\r\n\r\n`, 400],
    ['an odd expectation', 'GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\nConnection: close\r\n\r\n', 400],
    ['two lengths', 'PUT /v1/networks/w HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}', 400],
    ['no host, HTTP/1.0', 'GET /v1/version HTTP/1.0\r\n\r\n', 200],
    ['no host, HTTP/1.1', 'GET /v1/version HTTP/1.1\r\nConnection: close\r\n\r\n', 200],
    ['an absolute target', 'GET http://evil/v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', 200],
    [
      'an upgrade',
      'GET /v1/version HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n',
      200,
    ],
  ])('%s', async (_name, bytes, status) => {
    await listen();
    const answer = await raw(bytes);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    const body = jsonOf(answer);
    if (status !== 200) expect(body).toMatchObject({ code: 'request.invalid', message: expect.any(String) });
    expect((await client.version()).version).toBe('1.2.3');
  });

  test('a caller that leaves in the middle of a wait or a body leaves nothing behind', async () => {
    await listen();
    world.fate = () => 'nothing';
    const body = '{}';
    const head = `PUT /v1/networks/web?wait=60s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: `;
    for (const bytes of [`${head}${body.length}\r\n\r\n${body}`, `${head}100\r\n\r\n${body}`]) {
      const connection = connect(socket);
      connection.write(bytes);
      await systemClock.sleep(50);
      connection.destroy();
    }
    await systemClock.sleep(50);
    expect((await client.version()).version).toBe('1.2.3');
  });

  test('200 PUTs of one name at once over the socket create it once', async () => {
    await listen();
    const puts = Array.from({ length: 200 }, () => client.networks.put('web', {}, { waitMs: 8000 }));
    expect(new Set((await Promise.all(puts)).map(({ id }) => id)).size).toBe(1);
    expect(await client.networks.list()).toHaveLength(1);
  });
});

test('the TCP listener serves its app and refuses what is no address', async () => {
  const app = world.api();
  const options = { clock: systemClock, logger };
  const listener = await serveTcp(app, '127.0.0.1:0', options);
  expect((await createClient({ host: listener.address }).version()).node).toBe('node-1');
  await expect(serveTcp(app, listener.address.slice('http://'.length), options)).rejects.toMatchObject({
    code: 'config.invalid',
  });
  for (const wrong of ['9100', 'x:y', ':9100', '127.0.0.1:99999']) {
    await expect(serveTcp(app, wrong, options)).rejects.toMatchObject({ code: 'config.invalid' });
  }
  await listener.close();
});

test('importing the client loads neither HTTP nor zod nor crypto', async () => {
  const path = join(import.meta.dirname, '../../src/client/client.ts');
  const script = `
    const before = new Set(process.moduleLoadList);
    await import(${JSON.stringify(path)});
    const loaded = process.moduleLoadList.filter((name) => !before.has(name));
    console.log(JSON.stringify(loaded));`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script]);
  const loaded = JSON.parse(stdout) as string[];
  expect(loaded.filter((name) => /\b(http|undici|crypto)\b/.test(name))).toEqual([]);
  expect(loaded.length).toBeLessThan(60);
});
