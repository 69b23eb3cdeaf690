/**
 * Runs containers on one host: an OCI runtime under a monitor that outlives the daemon. `runtime/engine` holds the real one,
 * `runtime/fake.ts` one in memory; both pass test/conformance/runtime. The engine keeps everything it must know in its own
 * directory: a daemon that starts anew asks `list`. Verbs are idempotent where that makes sense; deleting the absent succeeds.
 */
import type { ContainerSpec } from '../model/container.ts';
import type { ImageConfig } from './image.ts';

export interface ContainerState {
  readonly id: string;
  readonly state: 'created' | 'running' | 'exited';
  readonly pid?: number;
  /** 128 + signal for a death by signal. */
  readonly exitCode?: number;
  readonly oomKilled?: boolean;
  /** ISO 8601, true also for an exit that happened while no daemon lived. */
  readonly startedAt?: string;
  readonly exitedAt?: string;
  /** Of the plan it was created with. */
  readonly generation: number;
}

export interface ContainerPlan {
  readonly id: string;
  readonly name: string;
  readonly spec: ContainerSpec;
  readonly image: ImageConfig;
  /** Mounted root file system. */
  readonly rootfs: string;
  readonly netnsPath: string;
  /** Absolute directory under the cgroup v2 mount that the sandbox has; the container's own lies below it. */
  readonly cgroupPath: string;
  /** Host files that are mounted over these paths inside: /etc/resolv.conf, /etc/hosts, /etc/hostname. */
  readonly files: Readonly<Record<string, string>>;
  /** First id outside of a user namespace's range, whose root owns the files; absent: no user namespace. */
  readonly shift?: number;
  /** Host directories of volumes by volume name, made and filled already. */
  readonly volumes: Readonly<Record<string, string>>;
}

export interface ExecPlan {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly user?: string;
  readonly workdir?: string;
  readonly tty: boolean;
  readonly privileged: boolean;
  readonly stdin: boolean;
}

export interface OutputChunk {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Uint8Array;
}

/** A process's standard streams. Ending the iteration detaches; the process goes on. */
export interface Streams {
  readonly output: AsyncIterable<OutputChunk>;
  write(data: Uint8Array): Promise<void>;
  /** End of standard input. */
  closeInput(): void;
  resize(columns: number, rows: number): void;
  /** Lets go of the streams. */
  detach(): void;
}

export interface ExecProcess extends Streams {
  /** 126 when it could not be executed, 127 when it is not there. */
  readonly exit: Promise<number>;
  kill(signal: string): void;
}

export interface LogLine {
  /** ISO 8601 with nanoseconds as written. */
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  /** With its newline, unless it was written in parts. */
  readonly text: string;
}

export interface LogOptions {
  readonly follow: boolean;
  /** Last lines only. */
  readonly tail?: number;
  /** Milliseconds since 1970. */
  readonly since?: number;
  readonly until?: number;
  readonly signal: AbortSignal;
}

export interface ContainerStats {
  readonly cpuNs: number;
  readonly memoryBytes: number;
  readonly memoryLimit?: number;
  readonly pids: number;
  readonly readBytes: number;
  readonly writeBytes: number;
}

/** Failures: `runtime.notfound` (127), `runtime.notexecutable` (126), `runtime.*` with the OCI runtime's own words. */
export interface Runtime {
  /** Writes the bundle and creates the container, its process not yet started. Replaces what an earlier generation left, logs kept. */
  create(plan: ContainerPlan): Promise<ContainerState>;
  start(id: string): Promise<ContainerState>;
  /** To the first process; to all of them with `all`. A dead container: succeeds. */
  kill(id: string, signal: string, options?: { readonly all?: boolean }): Promise<void>;
  pause(id: string): Promise<void>;
  resume(id: string): Promise<void>;
  /** Kills what still runs, takes the cgroup and the bundle apart. `logs`: also the log. */
  delete(id: string, options?: { readonly keepLogs?: boolean }): Promise<void>;
  state(id: string): Promise<ContainerState | null>;
  list(): Promise<readonly ContainerState[]>;
  /** Called on every exit that is noticed, once each, also for those found at start. */
  onExit(listener: (state: ContainerState) => void): void;
  exec(id: string, plan: ExecPlan): Promise<ExecProcess>;
  /** The streams of the first process; several may attach. */
  attach(id: string): Promise<Streams>;
  logs(id: string, options: LogOptions): AsyncIterable<LogLine>;
  stats(id: string): Promise<ContainerStats>;
  /** Processes as the host sees them. */
  processes(id: string): Promise<readonly { readonly pid: number; readonly command: string; readonly user: string }[]>;
  /** A tar stream of a path inside, resolved inside the container's root and never outside of it. */
  copyOut(id: string, rootfs: string, path: string): AsyncIterable<Uint8Array>;
  copyIn(id: string, rootfs: string, path: string, tar: AsyncIterable<Uint8Array>): Promise<void>;
  /** Stops watching; containers and monitors go on. */
  close(): Promise<void>;
}
