/** The client's connections: kept between calls, and never the reason why a call fails or is made twice. */
import { rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Client, createClient } from '../../src/client/client.ts';
import { makeFolder } from '../folder.ts';

describe('connections of the client', () => {
  let folder: string;
  let server: Server;
  let client: Client;
  let sockets: Socket[];
  let calls: string[];
  /** What the server does with a request before it answers. */
  let before: (socket: Socket) => boolean;

  beforeEach(async () => {
    folder = makeFolder('client');
    [sockets, calls, before] = [[], [], () => true];
    server = createServer((request, response) => {
      calls.push(`${request.method} ${request.url}`);
      if (!before(request.socket)) return;
      response.setHeader('content-type', 'application/json');
      response.end('{"items": []}');
    });
    server.on('connection', (socket) => sockets.push(socket));
    const socket = join(folder, 'socket');
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    client = createClient({ socket });
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('calls one after the other share one, calls at once do not', async () => {
    for (let call = 0; call < 5; call++) await client.networks.list();
    await client.networks.put('a', {});
    await client.networks.remove('a');
    expect(sockets).toHaveLength(1);
    await Promise.all(Array.from({ length: 4 }, () => client.networks.list()));
    expect(sockets).toHaveLength(4);
    expect(calls).toHaveLength(11);
  });

  test('one that waits is closed here before the daemon would, one that serves a long call is not', {
    timeout: 20_000,
  }, async () => {
    await client.networks.list();
    const [begun, closed] = [performance.now(), Promise.withResolvers<void>()];
    sockets[0]!.once('close', () => closed.resolve());
    await closed.promise;
    expect(performance.now() - begun).toBeGreaterThan(2_500);
    expect(performance.now() - begun).toBeLessThan(server.keepAliveTimeout);
    server.removeAllListeners('request');
    server.on('request', (_request, response) => void setTimeout(() => response.end('{"items": []}'), 3_500));
    await client.networks.list();
    expect(sockets).toHaveLength(2);
  });

  test('one that the daemon has closed is replaced, and the call made once', async () => {
    await client.networks.list();
    // In the same turn: the client has had no chance to see it.
    sockets[0]!.destroy();
    await client.networks.put('a', {});
    expect(calls).toEqual(['GET /v1/networks', 'PUT /v1/networks/a']);
    sockets[1]!.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await client.networks.remove('a');
    expect(calls).toEqual(['GET /v1/networks', 'PUT /v1/networks/a', 'DELETE /v1/networks/a']);
    expect(sockets).toHaveLength(3);
  });

  test('a daemon that dies with a call in its hands: said, and the call not made again', async () => {
    await client.networks.list();
    before = (socket) => {
      socket.destroy();
      return false;
    };
    await expect(client.networks.put('a', {})).rejects.toMatchObject({ code: 'daemon.unreachable' });
    expect(calls).toEqual(['GET /v1/networks', 'PUT /v1/networks/a']);
  });
});
