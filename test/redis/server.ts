/** Real servers of Redis for tests: each in a folder of its own, on a unix socket or a free port of loopback, ended with the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { makeFolder } from '../folder.ts';

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

export class RedisServer {
  readonly folder = makeFolder('redis');
  /** 0: on a unix socket alone. */
  readonly port: number;
  readonly #settings: readonly string[];
  readonly #sentinel: boolean;
  #process: ChildProcess | undefined;

  private constructor(port: number, settings: readonly string[], sentinel: boolean) {
    this.port = port;
    this.#settings = settings;
    this.#sentinel = sentinel;
  }

  /** `settings` are lines of redis.conf. Nothing is saved unless they say so. */
  static async start(settings: readonly string[] = [], { port = 0, sentinel = false } = {}): Promise<RedisServer> {
    const server = new RedisServer(port, settings, sentinel);
    await server.start();
    return server;
  }

  get socket(): string {
    return join(this.folder, 'redis.sock');
  }

  get url(): string {
    return this.port === 0 ? `redis+unix://${this.socket}` : `redis://127.0.0.1:${this.port}`;
  }

  get pid(): number {
    return this.#process!.pid!;
  }

  async start(): Promise<void> {
    const config = join(this.folder, 'redis.conf');
    const listen = this.port === 0 ? ['port 0', `unixsocket ${this.socket}`] : ['bind 127.0.0.1', `port ${this.port}`];
    const common = [`dir ${this.folder}`, `logfile ${join(this.folder, 'redis.log')}`, 'daemonize no'];
    writeFileSync(
      config,
      `${[...listen, ...common, ...(this.#sentinel ? [] : ['save ""']), ...this.#settings].join('\n')}\n`,
    );
    const child = spawn('redis-server', [config, ...(this.#sentinel ? ['--sentinel'] : [])], { stdio: 'ignore' });
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
    const client = new Redis({ ...where, lazyConnect: true, retryStrategy: () => null, protocol: 2 });
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
