/** A runtime in memory: processes that do what they are told, for everything above the seam. */
import type { Clock } from '../src/clock.ts';
import type {
  ContainerPlan,
  ContainerState,
  ExecPlan,
  ExecProcess,
  LogLine,
  OutputChunk,
  Runtime,
  Streams,
} from '../src/contracts/runtime.ts';
import { SluiceError } from '../src/errors.ts';

/** What a program does with an exec: output and exit status. */
export type Program = (plan: ExecPlan, input: string) => { readonly output?: string; readonly exitCode: number };

export interface FakeRuntime extends Runtime {
  /** Calls, by their first words: `create NAME`, `kill NAME SIGTERM`. */
  readonly calls: string[];
  /** Ends the process. */
  exit(id: string, exitCode: number): void;
  /** It writes this. */
  say(id: string, text: string, stream?: 'stdout' | 'stderr'): void;
  /** What a container's standard input has got. */
  input(id: string): string;
  /** Signals that processes ignore. */
  readonly deaf: Set<string>;
  /** Thrown by the next start, once. */
  refuseStart(error: Error): void;
  program: Program;
  plan(id: string): ContainerPlan | undefined;
}

class Pipe implements AsyncIterable<OutputChunk> {
  readonly #chunks: OutputChunk[] = [];
  #wake = Promise.withResolvers<void>();
  #ended = false;

  push(chunk: OutputChunk): void {
    this.#chunks.push(chunk);
    this.#stir();
  }
  end(): void {
    this.#ended = true;
    this.#stir();
  }
  #stir(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
  async *[Symbol.asyncIterator](): AsyncGenerator<OutputChunk> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk) yield chunk;
      else if (this.#ended) return;
      else await this.#wake.promise;
    }
  }
}

interface Process {
  plan: ContainerPlan;
  state: ContainerState;
  pipes: Set<Pipe>;
  logs: LogLine[];
  input: string;
  followers: Set<() => void>;
}

export function createFakeRuntime({ clock }: { readonly clock: Clock }): FakeRuntime {
  const processes = new Map<string, Process>();
  const listeners: ((state: ContainerState) => void)[] = [];
  const refusals: Error[] = [];
  let pid = 1000;
  const now = (): string => new Date(clock.now()).toISOString();
  const known = (id: string): Process => {
    const found = processes.get(id);
    if (!found) throw new SluiceError('object.notfound', `the runtime knows no container ${id}`, { id });
    return found;
  };
  const nameOf = (id: string): string => processes.get(id)?.plan.name ?? id;

  const fake: FakeRuntime = {
    calls: [],
    deaf: new Set(),
    program: () => ({ exitCode: 0 }),
    plan: (id) => processes.get(id)?.plan,
    refuseStart: (error) => void refusals.push(error),
    exit(id, exitCode) {
      const process = known(id);
      if (process.state.state !== 'running') return;
      process.state = { ...process.state, state: 'exited', pid: undefined, exitCode, exitedAt: now() };
      for (const pipe of process.pipes) pipe.end();
      process.pipes.clear();
      for (const wake of process.followers) wake();
      for (const listener of listeners) listener(process.state);
    },
    say(id, text, stream = 'stdout') {
      const process = known(id);
      process.logs.push({ time: now(), stream, text });
      for (const pipe of process.pipes) pipe.push({ stream, data: Buffer.from(text) });
      for (const wake of process.followers) wake();
    },
    input: (id) => known(id).input,
    async create(plan) {
      fake.calls.push(`create ${plan.name}`);
      const logs = processes.get(plan.id)?.logs ?? [];
      const state: ContainerState = { id: plan.id, state: 'created', generation: plan.spec.generation };
      processes.set(plan.id, { plan, state, pipes: new Set(), logs, input: '', followers: new Set() });
      return state;
    },
    async start(id) {
      const process = known(id);
      fake.calls.push(`start ${process.plan.name}`);
      if (process.state.state !== 'created') return process.state;
      const refusal = refusals.shift();
      if (refusal) throw refusal;
      process.state = { ...process.state, state: 'running', pid: pid++, startedAt: now() };
      return process.state;
    },
    async kill(id, signal) {
      fake.calls.push(`kill ${nameOf(id)} ${signal}`);
      if (known(id).state.state !== 'running' || fake.deaf.has(signal)) return;
      const number = { SIGKILL: 9, SIGTERM: 15, SIGINT: 2 }[signal];
      if (number !== undefined) fake.exit(id, 128 + number);
    },
    pause: async (id) => void fake.calls.push(`pause ${nameOf(id)}`),
    resume: async (id) => void fake.calls.push(`resume ${nameOf(id)}`),
    async delete(id) {
      fake.calls.push(`delete ${nameOf(id)}`);
      if (processes.get(id)?.state.state === 'running') fake.exit(id, 137);
      processes.delete(id);
    },
    state: async (id) => processes.get(id)?.state ?? null,
    list: async () => [...processes.values()].map(({ state }) => state),
    onExit(listener) {
      listeners.push(listener);
      for (const { state } of processes.values()) if (state.state === 'exited') listener(state);
    },
    async exec(id, plan) {
      const process = known(id);
      fake.calls.push(`exec ${process.plan.name} ${plan.args.join(' ')}`);
      const output = new Pipe();
      const { promise, resolve } = Promise.withResolvers<number>();
      let input = '';
      const finish = (): void => {
        const result = fake.program(plan, input);
        if (result.output) output.push({ stream: 'stdout', data: Buffer.from(result.output) });
        output.end();
        resolve(result.exitCode);
      };
      if (!plan.stdin) finish();
      const exec: ExecProcess = {
        output,
        exit: promise,
        write: async (data) => {
          input += Buffer.from(data).toString();
        },
        closeInput: finish,
        resize: (columns, rows) => void fake.calls.push(`resize ${columns}x${rows}`),
        kill: (signal) => void fake.calls.push(`signal ${signal}`),
        detach: () => output.end(),
      };
      return exec;
    },
    async attach(id) {
      const process = known(id);
      const output = new Pipe();
      process.pipes.add(output);
      const streams: Streams = {
        output,
        write: async (data) => {
          process.input += Buffer.from(data).toString();
        },
        closeInput: () => void fake.calls.push(`end of input ${process.plan.name}`),
        resize: (columns, rows) => void fake.calls.push(`resize ${columns}x${rows}`),
        detach() {
          process.pipes.delete(output);
          output.end();
        },
      };
      return streams;
    },
    async *logs(id, { follow, tail, since = 0, until = Number.POSITIVE_INFINITY, signal }) {
      const process = known(id);
      const fits = ({ time }: LogLine): boolean => Date.parse(time) >= since && Date.parse(time) <= until;
      const lines = process.logs.filter(fits);
      yield* tail === undefined ? lines : lines.slice(lines.length - Math.min(tail, lines.length));
      let at = process.logs.length;
      while (follow && !signal.aborted && process.state.state === 'running') {
        const { promise, resolve } = Promise.withResolvers<void>();
        process.followers.add(resolve);
        signal.addEventListener('abort', () => resolve());
        await promise;
        process.followers.delete(resolve);
        yield* process.logs.slice(at).filter(fits);
        at = process.logs.length;
      }
    },
    stats: async () => ({ cpuNs: 1_000_000, memoryBytes: 2_097_152, pids: 1, readBytes: 0, writeBytes: 0 }),
    processes: async (id) => [{ pid: known(id).state.pid ?? 0, user: 'root', command: known(id).plan.name }],
    async *copyOut(_, __, path) {
      yield Buffer.from(path);
    },
    async copyIn(id, _, path, tar) {
      let size = 0;
      for await (const bytes of tar) size += bytes.length;
      fake.calls.push(`copy ${nameOf(id)} ${path} ${size}`);
    },
    close: async () => undefined,
  };
  return fake;
}
