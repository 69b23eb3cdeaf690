/** Registries to push to and pull from: Debian's docker-registry in each of its ways, and one of our own that misbehaves. */
import { spawn } from 'node:child_process';
import { createPrivateKey, randomUUID, sign, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { tool } from './image-bed.ts';
import { SLOWNESS } from './kernel-bed.ts';

export const USER = 'user';
export const PASSWORD = 'pass:word';
const SERVICE = 'registry of the test';
const ISSUER = 'issuer of the test';

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export interface Registry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly port: number;
  /** Path of the certificate, which is its own authority. */
  readonly certificate: string;
  close(): Promise<void>;
}

/** A certificate for loopback, signed by itself. */
async function certify(dir: string): Promise<{ readonly certificate: string; readonly key: string }> {
  const [certificate, key] = [join(dir, 'ca.crt'), join(dir, 'key.pem')];
  const name = ['-subj', '/CN=registry', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost'];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  await tool('openssl', 'req', '-x509', ...kind, '-keyout', key, '-out', certificate, ...name);
  return { certificate, key };
}

/** Runs docker-registry on loopback until `close`. `login`: how it wants to know us. */
export async function openRegistry(
  dir: string,
  { tls = false, login }: { readonly tls?: boolean; readonly login?: 'basic' | 'token' } = {},
): Promise<Registry> {
  mkdirSync(dir, { recursive: true });
  const { certificate, key } = await certify(dir);
  const port = await freePort();
  const tokens = login === 'token' ? await openTokens(certificate, key) : null;
  const auth: Record<string, object> = {
    basic: { htpasswd: { realm: 'test', path: join(dir, 'htpasswd') } },
    token: { token: { realm: tokens?.url, service: SERVICE, issuer: ISSUER, rootcertbundle: certificate } },
  };
  if (login === 'basic') {
    const hash = 'import crypt, sys; print(crypt.crypt(sys.argv[1], crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)))';
    writeFileSync(
      join(dir, 'htpasswd'),
      `${USER}:${await tool('/usr/bin/python3', '-W', 'ignore', '-c', hash, PASSWORD)}\n`,
    );
  }
  // YAML takes JSON.
  const config = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: join(dir, 'data') }, delete: { enabled: true } },
    http: { addr: `127.0.0.1:${port}`, secret: 'x', ...(tls ? { tls: { certificate, key } } : {}) },
    ...(login ? { auth: auth[login] } : {}),
  };
  writeFileSync(join(dir, 'config.yml'), JSON.stringify(config));
  const child = spawn('docker-registry', ['serve', join(dir, 'config.yml')], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said += chunk));
  const exited = once(child, 'exit');
  const until = performance.now() + 10_000 * SLOWNESS;
  while (!(await answers(port, tls))) {
    if (child.exitCode !== null || performance.now() > until)
      throw new Error(`docker-registry does not serve: ${said}`);
    await sleep(20);
  }
  return {
    host: `127.0.0.1:${port}`,
    port,
    certificate,
    async close() {
      child.kill('SIGKILL');
      await exited;
      await tokens?.close();
    },
  };
}

function answers(port: number, tls: boolean): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const probe = tls
    ? connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false }, () => {
        resolve(true);
        probe.destroy();
      })
    : request({ port, host: '127.0.0.1', path: '/v2/' }, (answer) => {
        answer.resume();
        resolve(true);
      });
  probe.on('error', () => resolve(false));
  if ('abort' in probe) probe.end();
  return promise;
}

/** A token server by the distribution specification: anybody may pull from `public/…`, the user may do all. */
async function openTokens(certificate: string, key: string): Promise<{ readonly url: string; close(): Promise<void> }> {
  const x5c = [new X509Certificate(readFileSync(certificate)).raw.toString('base64')];
  const privateKey = createPrivateKey(readFileSync(key));
  const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const server = createServer((asked, answer) => {
    const url = new URL(asked.url!, 'http://x');
    const { authorization } = asked.headers;
    const known = authorization === `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`;
    if (authorization && !known) {
      answer.writeHead(401).end();
      return;
    }
    const access = url.searchParams.getAll('scope').map((scope) => {
      const [type, name, actions] = scope.split(':');
      const allowed = known ? actions!.split(',') : name!.startsWith('public/') ? ['pull'] : [];
      return { type, name, actions: allowed };
    });
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: ISSUER, sub: USER, aud: url.searchParams.get('service'), jti: randomUUID(), access };
    const text = `${encode({ typ: 'JWT', alg: 'ES256', x5c })}.${encode({ ...claims, nbf: now - 10, iat: now, exp: now + 60 })}`;
    const signature = sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });
    answer.writeHead(200).end(JSON.stringify({ token: `${text}.${signature.toString('base64url')}`, expires_in: 60 }));
  });
  return { url: `${await listen(server)}/token`, close: () => closing(server) };
}

async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
async function closing(server: Server): Promise<void> {
  server.close();
  server.closeAllConnections();
  await once(server, 'close');
}

/** Answers a request and returns true, or leaves it to the registry's better self. */
export type Behaviour = (asked: IncomingMessage, answer: ServerResponse) => boolean;

/** A registry of one image that does as it is told to. */
export class BadRegistry {
  readonly content = new Map<string, { readonly type: string; readonly bytes: Buffer }>();
  behave: Behaviour = () => false;
  readonly seen: IncomingMessage[] = [];
  host = '';
  readonly #server = createServer((asked, answer) => {
    this.seen.push(asked);
    if (!this.behave(asked, answer)) this.serve(asked, answer);
  });

  async open(): Promise<void> {
    this.host = (await listen(this.#server)).slice('http://'.length);
  }
  close(): Promise<void> {
    return closing(this.#server);
  }

  serve(asked: IncomingMessage, answer: ServerResponse): void {
    const key = asked.url!.split('/').at(-1)!;
    const found = this.content.get(key);
    if (!found) {
      answer.writeHead(404, { 'content-type': 'application/json' });
      answer.end(JSON.stringify({ errors: [{ code: 'UNKNOWN', message: `no ${key}` }] }));
      return;
    }
    const start = Number(/^bytes=(\d+)-$/.exec(asked.headers.range ?? '')?.[1] ?? 0);
    const { bytes, type } = found;
    const range = start > 0 ? { 'content-range': `bytes ${start}-${bytes.length - 1}/${bytes.length}` } : {};
    answer.writeHead(start > 0 ? 206 : 200, { 'content-type': type, 'content-length': bytes.length - start, ...range });
    answer.end(bytes.subarray(start));
  }
}
