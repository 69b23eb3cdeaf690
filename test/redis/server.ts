/** Real servers of Redis for tests: each in a folder of its own, on a unix socket or a free port of loopback, ended with the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { makeFolder } from '../folder.ts';
import type { Pair } from './authority.ts';

const UP_MS_MAX = 10_000;

/** A port of loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** Of a server that takes nothing but TLS, and of its clients. */
export interface RedisTls {
  readonly ca: string;
  readonly server: Pair;
  readonly client: Pair;
}
export interface RedisHow {
  readonly port?: number;
  readonly sentinel?: boolean;
  readonly tls?: RedisTls;
  readonly password?: string;
}

export class RedisServer {
  readonly folder = makeFolder('redis');
  /** 0: on a unix socket alone. */
  readonly port: number;
  readonly #settings: readonly string[];
  readonly #how: RedisHow;
  #process: ChildProcess | undefined;

  private constructor(settings: readonly string[], how: RedisHow) {
    this.port = how.port ?? 0;
    this.#settings = settings;
    this.#how = how;
  }

  /** `settings` are lines of redis.conf. Nothing is saved unless they say so. */
  static async start(settings: readonly string[] = [], how: RedisHow = {}): Promise<RedisServer> {
    const server = new RedisServer(settings, how);
    await server.start();
    return server;
  }

  get socket(): string {
    return join(this.folder, 'redis.sock');
  }

  get url(): string {
    if (this.port === 0) return `redis+unix://${this.socket}`;
    const { tls, password } = this.#how;
    const login = password === undefined ? '' : `:${encodeURIComponent(password)}@`;
    if (!tls) return `redis://${login}127.0.0.1:${this.port}`;
    return `rediss://${login}127.0.0.1:${this.port}?ca=${tls.ca}&cert=${tls.client.cert}&key=${tls.client.key}`;
  }

  get pid(): number {
    return this.#process!.pid!;
  }

  async start(): Promise<void> {
    const config = join(this.folder, 'redis.conf');
    const { sentinel, tls, password } = this.#how;
    const guard = password === undefined ? [] : [`requirepass ${password}`];
    const listen = tls
      ? ['bind 127.0.0.1', 'port 0', `tls-port ${this.port}`, ...tlsSettings(tls)]
      : this.port === 0
        ? ['port 0', `unixsocket ${this.socket}`]
        : ['bind 127.0.0.1', `port ${this.port}`];
    const common = [`dir ${this.folder}`, `logfile ${join(this.folder, 'redis.log')}`, 'daemonize no'];
    writeFileSync(
      config,
      `${[...listen, ...guard, ...common, ...(sentinel ? [] : ['save ""']), ...this.#settings].join('\n')}\n`,
    );
    const child = spawn('redis-server', [config, ...(sentinel ? ['--sentinel'] : [])], { stdio: 'ignore' });
    this.#process = child;
    const until = performance.now() + UP_MS_MAX;
    for (;;) {
      const answer = await this.ask('PING').catch((error: Error) => error.message);
      if (answer === 'PONG') return;
      if (child.exitCode !== null || performance.now() > until)
        throw new Error(`redis-server in ${this.folder} does not start (${child.exitCode ?? answer})`);
      await sleep(20);
    }
  }

  /** Sends one command over a connection of its own. */
  async ask(command: string, ...args: (string | number)[]): Promise<unknown> {
    const where = this.port === 0 ? { path: this.socket } : { host: '127.0.0.1', port: this.port };
    const { tls, password } = this.#how;
    const secure = tls && { ca: readFileSync(tls.ca), ...readPair(tls.client) };
    const client = new Redis({
      ...where,
      tls: secure,
      password,
      lazyConnect: true,
      retryStrategy: () => null,
      protocol: 2,
    });
    // The command fails with what this says.
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await client.call(command, ...args);
    } finally {
      client.disconnect();
    }
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name);
  }

  /** Ends the process; `SIGTERM` lets it save what it saves. */
  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  async remove(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

const readPair = ({ cert, key }: Pair) => ({ cert: readFileSync(cert), key: readFileSync(key) });

const tlsSettings = ({ ca, server }: RedisTls): string[] => [
  `tls-cert-file ${server.cert}`,
  `tls-key-file ${server.key}`,
  `tls-ca-cert-file ${ca}`,
  'tls-auth-clients yes',
];
