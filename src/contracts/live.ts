/**
 * Containers as they run on this host, for what is a stream or a question to a process and so never part of the state. The controller of
 * containers is behind it, src/api in front. `container.stopped` where a process is needed and there is none.
 */
import type { PeerReport } from '../model/answer.ts';
import type { Container } from '../model/container.ts';
import type { DiffAnswer, DiffQuery } from '../model/diagnosis/diff.ts';
import type { TraceAnswer, TraceQuery } from '../model/diagnosis/trace.ts';
import type { ContainerState, Runtime, Streams } from './runtime.ts';

export interface LiveContainers {
  readonly runtime: Pick<Runtime, 'kill' | 'exec' | 'logs' | 'stats' | 'processes' | 'state'>;
  /**
   * The streams of the first process. With `generation` that of a life which has not begun: they are attached before its first instruction,
   * and what keeps it from beginning rejects.
   */
  attach(id: string, generation?: number, signal?: AbortSignal): Promise<Streams>;
  /** How the life of that generation, or a later one, ended; waits for it. Also of a container that was removed a moment ago. `object.notfound`. */
  exit(id: string, generation: number, signal: AbortSignal): Promise<ContainerState>;
  copyOut(container: Container, path: string): AsyncIterable<Uint8Array>;
  /** Unpacks into the directory `path`. */
  copyIn(container: Container, path: string, tar: AsyncIterable<Uint8Array>): Promise<void>;
}

/** What the kernel has of a network's endpoints, as opposed to what was written of them. */
export interface LivePeers {
  /** By id. Changes nothing. */
  inspect(networkId: string): Promise<PeerReport>;
}

/** What is amiss on this host. Looks and changes nothing. */
export interface LiveDiagnosis {
  /** `object.notfound`, `object.ambiguous`. */
  diff(query: DiffQuery): Promise<DiffAnswer>;
  /** `object.notfound`, `object.ambiguous`. */
  trace(query: TraceQuery): Promise<TraceAnswer>;
  /** What another node asks. `request.invalid` for what this one does not know. */
  answer(about: string, body: unknown): Promise<unknown>;
}
