/**
 * A cluster of one size: a Redis of its own, and its nodes in processes that stand still (SIGSTOP) while another size is measured, so that all
 * sizes are there at once and disturb each other in nothing but memory. Every process dies with this one.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { systemClock, withTimeLimit } from '../../../src/clock.ts';
import { SluiceError } from '../../../src/errors.ts';
import { makeFolder } from '../../../test/folder.ts';
import { SESSION_MS } from './node.ts';
import type { Scale } from './population.ts';
import { type SeededEndpoint, seed } from './seed.ts';
import type { Answers, Order } from './worker.ts';

/** Nodes of one process: as many as can wait while one of them takes over what the store has. */
export const NODES_A_PROCESS = 25;
const REDIS_UP_MS = 10_000;
/** Until every node has woken up, has a session and has seen every other one. */
const SETTLED_MS_MAX = 600_000;
const ASK_MS = 250;
/** Between two processes that wake up: every node looks at all others then. The first time some have to list the store again. */
const WAKE_MS = 200;
const WAKE_FIRST_MS = 2_000;
/** Until each has looked at the others since it woke up, and they at it: what it knew before says nothing. */
const AWARE_MS = SESSION_MS / 2;
/** Redis has a machine to itself elsewhere: here it comes before the nodes, which are many on few processors. */
const REDIS_NICE = '-15';

/** Ends with this process, whatever ends that. */
const tied = (argv: readonly string[]): readonly [string, string[]] => ['setpriv', ['--pdeathsig', 'KILL', ...argv]];

class Worker {
  readonly child: ChildProcess;
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  #asked = 0;

  constructor() {
    const [file, args] = tied([process.execPath, '--expose-gc', join(import.meta.dirname, 'worker.ts')]);
    this.child = spawn(file, args, { stdio: ['ignore', 2, 2, 'ipc'] });
    this.child.on('message', ({ id, answer, error }: { id: number; answer?: unknown; error?: string }) => {
      const waiting = this.#waiting.get(id)!;
      this.#waiting.delete(id);
      if (error === undefined) waiting.resolve(answer);
      else waiting.reject(new SluiceError('internal', error));
    });
    this.child.on('exit', (code, signal) => {
      for (const { reject } of this.#waiting.values())
        reject(new SluiceError('internal', `a process with nodes ended (${code ?? signal})`));
    });
  }

  async ask<O extends Order>(order: O): Promise<Answers[O['do']]> {
    const id = this.#asked++;
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting.set(id, waiting);
    this.child.send({ id, order }, (error) => {
      if (error) waiting.reject(error);
    });
    return (await waiting.promise) as Answers[O['do']];
  }
}

/** What Redis says of itself. */
export interface RedisCount {
  /** Sent to all connections but the one that asks. */
  readonly bytes: number;
  /** Scripts and blocking reads: what clients send, not what scripts do. */
  readonly commands: number;
}

export class Crowd {
  readonly scale: Scale;
  readonly folder = makeFolder('scale');
  readonly #children: ChildProcess[] = [];
  readonly #workers: Worker[] = [];
  endpoints: readonly SeededEndpoint[] = [];
  #redis: Redis | undefined;

  private constructor(scale: Scale) {
    this.scale = scale;
  }

  /** Starts everything, waits until it has settled and leaves it standing still. */
  static async open(scale: Scale, say: (line: string) => void): Promise<Crowd> {
    const crowd = new Crowd(scale);
    try {
      await crowd.#open(say);
      return crowd;
    } catch (error) {
      await crowd.close();
      throw error;
    }
  }

  async #open(say: (line: string) => void): Promise<void> {
    const { nodes } = this.scale;
    const startedAt = performance.now();
    const path = join(this.folder, 'redis.sock');
    const settings = ['--port', '0', '--unixsocket', path, '--dir', this.folder, '--save', '', '--maxclients', '8000'];
    const [file, args] = tied(['nice', '-n', REDIS_NICE, 'redis-server', ...settings]);
    this.#children.push(spawn(file, args, { stdio: ['ignore', 'ignore', 'inherit'] }));
    // Commands wait for the connection, and that for the server.
    const redis = new Redis({ path, protocol: 2, maxRetriesPerRequest: null, retryStrategy: () => 20 });
    this.#redis = redis;
    redis.on('error', (error) => {
      if (redis.status === 'ready') say(`redis of ${nodes} nodes: ${error.message}`);
    });
    const late = (): Error => new SluiceError('wait.timeout', `redis-server did not answer within ${REDIS_UP_MS} ms`);
    await withTimeLimit(systemClock, REDIS_UP_MS, redis.ping(), late);
    const url = `redis+unix://${path}`;
    this.endpoints = await seed(url, this.scale);
    const seeded = performance.now();
    const folder = join(this.folder, 'nodes');
    mkdirSync(folder);
    await this.#start(url, folder);
    await this.#settle();
    // All sizes have to fit into memory at once.
    await this.ask({ do: 'shrink' });
    const seconds = (from: number, to: number): number => Math.round((to - from) / 1_000);
    say(`${nodes} nodes: filled in ${seconds(startedAt, seeded)} s, up after ${seconds(seeded, performance.now())} s`);
    this.#stop();
  }

  /** Wakes the nodes up for the time of the work. */
  async awake<T>(work: () => Promise<T>): Promise<T> {
    try {
      await this.#wake(WAKE_MS);
      await sleep(AWARE_MS);
      await this.#settle();
      return await work();
    } finally {
      this.#stop();
    }
  }

  /** The answers of all processes. */
  ask<O extends Order>(order: O): Promise<Answers[O['do']][]> {
    return Promise.all(this.#workers.map((worker) => worker.ask(order)));
  }

  change({ node, id }: SeededEndpoint): Promise<Answers['change']> {
    return this.#workerOf(node).ask({ do: 'change', node, endpoint: id });
  }

  /** Read off their connections by node. */
  async bytes(): Promise<ReadonlyMap<number, number>> {
    return new Map((await this.ask({ do: 'bytes' })).flat());
  }

  async count(): Promise<RedisCount> {
    const redis = this.#redis!;
    const commands = await redis.info('commandstats');
    // What this connection was told is nobody's of the cluster.
    const own = redis.stream.bytesRead;
    const stats = await redis.info('stats');
    const calls = [...commands.matchAll(/^cmdstat_(?:evalsha|eval|xread):calls=(\d+)/gm)];
    return {
      bytes: Number(/^total_net_output_bytes:(\d+)/m.exec(stats)![1]) - own,
      commands: calls.reduce((sum, [, count]) => sum + Number(count), 0),
    };
  }

  async close(): Promise<void> {
    this.#redis?.disconnect();
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const ended = once(child, 'exit');
      // Also of a process that stands still.
      child.kill('SIGKILL');
      await ended;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** Process by process, as many at once as there are processors: each node lists the store, and whoever is up already stands still meanwhile. */
  async #start(url: string, dir: string): Promise<void> {
    let first = 0;
    const lane = async (): Promise<void> => {
      while (first < this.scale.nodes) {
        const from = first;
        first += NODES_A_PROCESS;
        const worker = new Worker();
        this.#workers[from / NODES_A_PROCESS] = worker;
        this.#children.push(worker.child);
        for (let node = from; node < Math.min(from + NODES_A_PROCESS, this.scale.nodes); node++)
          await worker.ask({ do: 'start', url, dir, node });
        await worker.ask({ do: 'shrink' });
        worker.child.kill('SIGSTOP');
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, lane));
    await this.#wake(WAKE_FIRST_MS);
  }

  #workerOf(node: number): Worker {
    return this.#workers[Math.floor(node / NODES_A_PROCESS)]!;
  }

  /** Process by process: a pause, and until it has time to answer. */
  async #wake(pauseMs: number): Promise<void> {
    for (const worker of this.#workers) {
      worker.child.kill('SIGCONT');
      await sleep(pauseMs);
      await worker.ask({ do: 'bytes' });
    }
  }

  #stop(): void {
    for (const { child } of this.#workers) child.kill('SIGSTOP');
  }

  async #settle(): Promise<void> {
    const until = performance.now() + SETTLED_MS_MAX;
    const { nodes } = this.scale;
    while (!(await this.ask({ do: 'settled', nodes })).every(Boolean)) {
      if (performance.now() > until)
        throw new SluiceError('internal', `${nodes} nodes did not see each other within ${SETTLED_MS_MAX / 1_000} s`);
      await sleep(ASK_MS);
    }
  }
}
