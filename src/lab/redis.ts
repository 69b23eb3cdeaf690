/** The Redis that the daemons of a lab share. It runs in the namespace `outside`, so that a host can be cut off from it alone. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../errors.ts';
import { REDIS } from './fault.ts';
import type { Station } from './lab.ts';
import { argvAt } from './place.ts';

const UP_MS_MAX = 10_000;

export interface LabRedisOptions {
  /** Made when absent; what it keeps stays there when it stops. */
  readonly folder: string;
  /** It goes on when this process ends, and does not keep it from ending. */
  readonly outlives?: boolean;
}

export class LabRedis {
  readonly #outside: Station;
  readonly #options: LabRedisOptions;
  #process: ChildProcess | undefined;

  constructor(outside: Station, options: LabRedisOptions) {
    this.#outside = outside;
    this.#options = options;
  }

  /** Resolves when it answers. */
  async start(): Promise<void> {
    const { folder, outlives = false } = this.#options;
    if ((await this.#outside.exec('command -v redis-server && command -v redis-cli')).code !== 0)
      throw new SluiceError(
        'config.invalid',
        'a lab needs redis-server and redis-cli on the PATH (Debian: redis-server)',
      );
    await mkdir(folder, { recursive: true });
    const settings = [
      `bind ${REDIS.address}`,
      `port ${REDIS.port}`,
      'protected-mode no',
      `dir ${folder}`,
      `logfile ${join(folder, 'redis.log')}`,
      'daemonize no',
      'save ""',
      'appendonly yes',
    ];
    const config = join(folder, 'redis.conf');
    writeFileSync(config, `${settings.join('\n')}\n`);
    const [file, ...args] = argvAt(this.#outside, ['redis-server', config]);
    const child = spawn(file, args, { cwd: '/', stdio: 'ignore', detached: true });
    if (outlives) child.unref();
    this.#process = child;
    const until = performance.now() + UP_MS_MAX;
    while ((await this.#outside.exec(cli(['ping']))).stdout.trim() !== 'PONG') {
      if (child.exitCode !== null || performance.now() > until)
        throw new SluiceError('wait.timeout', `the lab's Redis does not answer; see its log in ${folder}`);
      await sleep(20);
    }
  }

  /** Its answer to one command, as redis-cli prints it; fails when there is none. */
  async ask(...command: string[]): Promise<string> {
    return (await this.#outside.must(cli(command))).trim();
  }

  /** Ends the process; `SIGTERM` (default) lets it write what it has not written yet. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }
}

const cli = (command: readonly string[]): string[] => [
  'redis-cli',
  ...['-h', REDIS.address, '-p', String(REDIS.port)],
  ...command,
];

/** Settings of a daemon on `host` that shares it. */
export const sharedStore = (host: Station): Readonly<Record<string, unknown>> => ({
  store: `redis://${REDIS.address}:${REDIS.port}`,
  // Its namespace is reached by the lab's hosts alone; that is what TLS and a password would have to bring about.
  insecureStore: true,
  advertise: host.address,
});
