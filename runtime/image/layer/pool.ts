/** The threads that unpack layers: born when there is work, gone when there was none for a while. */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { Clock, Timer } from '../../../src/clock.ts';
import { type ErrorCode, SluiceError } from '../../../src/errors.ts';
import type { FromWorker, ToWorker, UnpackJob, UnpackResult } from './job.ts';

/** More than that only wait for the disk. */
const WORKERS_MAX = 4;
const IDLE_MS = 10_000;

export interface JobOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (current: number) => void;
}

interface Waiting extends JobOptions {
  readonly job: UnpackJob;
  /** Takes the ear off the signal: one that is given later must not stop whoever has the thread then. */
  forget: () => void;
  readonly resolve: (result: UnpackResult) => void;
  readonly reject: (reason: unknown) => void;
}

export class UnpackPool {
  readonly #file: string;
  readonly #clock: Clock;
  readonly #max: number;
  /** Every thread; null while it has nothing to do. */
  readonly #workers = new Map<Worker, Waiting | null>();
  readonly #idle = new Map<Worker, Timer>();
  readonly #queue: Waiting[] = [];

  /** `file`: the module that the threads run. */
  constructor(file: string, clock: Clock, max = Math.min(WORKERS_MAX, availableParallelism())) {
    this.#file = file;
    this.#clock = clock;
    this.#max = max;
  }

  /** Resolves when the job is done. An abort rejects with the signal's reason once the thread has cleaned up. */
  run(job: UnpackJob, options: JobOptions): Promise<UnpackResult> {
    options.signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<UnpackResult>();
    this.#queue.push({ ...options, job, resolve, reject, forget: () => undefined });
    this.#next();
    return promise;
  }

  /** Ends all threads; what they had begun stays for the sweep at the next start. */
  async close(): Promise<void> {
    for (const timer of this.#idle.values()) timer.cancel();
    for (const { reject } of this.#queue.splice(0))
      reject(new SluiceError('daemon.stopping', 'the daemon is stopping'));
    await Promise.all([...this.#workers.keys()].map((worker) => worker.terminate()));
  }

  #next(): void {
    const waiting = this.#queue[0];
    if (!waiting) return;
    const free = [...this.#workers].find(([, current]) => current === null)?.[0];
    if (!free && this.#workers.size >= this.#max) return;
    this.#queue.shift();
    if (waiting.signal.aborted) waiting.reject(waiting.signal.reason);
    else this.#start(free ?? this.#open(), waiting);
    this.#next();
  }

  #start(worker: Worker, waiting: Waiting): void {
    this.#idle.get(worker)?.cancel();
    this.#idle.delete(worker);
    this.#workers.set(worker, waiting);
    worker.ref();
    const abort = (): void => this.#send(worker, { type: 'abort' });
    waiting.signal.addEventListener('abort', abort, { once: true });
    waiting.forget = () => waiting.signal.removeEventListener('abort', abort);
    this.#send(worker, { type: 'run', job: waiting.job });
  }

  #send(worker: Worker, message: ToWorker): void {
    worker.postMessage(message);
  }

  #open(): Worker {
    // Flags of the process, --expose-gc or --input-type, are not for it.
    const worker = new Worker(this.#file, { execArgv: [] });
    this.#workers.set(worker, null);
    worker.on('message', (message: FromWorker) => this.#hear(worker, message));
    worker.on('error', (error) => this.#lose(worker, error));
    worker.on('exit', (code) => this.#lose(worker, new Error(`the thread that unpacks ended with ${code}`)));
    return worker;
  }

  #hear(worker: Worker, message: FromWorker): void {
    const waiting = this.#workers.get(worker);
    if (!waiting) return;
    if (message.type === 'progress') {
      waiting.onProgress?.(message.current);
      return;
    }
    waiting.forget();
    this.#workers.set(worker, null);
    worker.unref();
    this.#idle.set(
      worker,
      this.#clock.after(IDLE_MS, () => {
        this.#idle.delete(worker);
        this.#workers.delete(worker);
        void worker.terminate();
      }),
    );
    if (message.type === 'done') waiting.resolve(message.result);
    else if (waiting.signal.aborted) waiting.reject(waiting.signal.reason);
    else waiting.reject(new SluiceError(message.code as ErrorCode, message.message, message.details));
    this.#next();
  }

  #lose(worker: Worker, error: Error): void {
    const waiting = this.#workers.get(worker);
    if (!this.#workers.delete(worker)) return;
    this.#idle.get(worker)?.cancel();
    this.#idle.delete(worker);
    waiting?.forget();
    waiting?.reject(new SluiceError('internal', `a layer could not be unpacked: ${error.message}`, {}, error));
    this.#next();
  }
}
