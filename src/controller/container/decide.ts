/** What is to be done about a container, from what is wanted and what is. Pure. */
import type { ContainerState } from '../../contracts/runtime.ts';
import type { ContainerDetail, ContainerSpec } from '../../model/container.ts';

export type Action =
  /** It is as it should be. */
  | { readonly do: 'rest'; readonly phase: ContainerDetail['phase'] }
  /** Create where there is none of this generation, and start. `again`: by the restart policy. */
  | { readonly do: 'run'; readonly again: boolean }
  | { readonly do: 'stop' }
  /** Its process ended, and the policy starts it again after a pause. */
  | { readonly do: 'pause' }
  /** `--rm`, and it has ended. */
  | { readonly do: 'remove' };

export interface Facts {
  readonly spec: ContainerSpec;
  /** What the runtime knows, null: nothing. */
  readonly state: ContainerState | null;
  /** What was last said of it. */
  readonly detail: Partial<ContainerDetail>;
  /** The pause of the restart policy is over. */
  readonly due: boolean;
}

/** Exit status of a process whose end nobody saw: the host went down with it. */
export const EXIT_UNSEEN = 255;

export function restarts({ restart }: ContainerSpec, exitCode: number, count: number): boolean {
  if (restart.name === 'no') return false;
  if (restart.name !== 'on-failure') return true;
  return exitCode !== 0 && (restart.retriesMax === 0 || count < restart.retriesMax);
}

export function decide({ spec, state, detail, due }: Facts): Action {
  const own = detail.generation === spec.generation;
  if (spec.wanted !== 'running') {
    if (state?.state === 'running') return { do: 'stop' };
    const began = state?.state === 'exited' || (detail.phase !== undefined && detail.phase !== 'created');
    if (spec.wanted === 'stopped' && began && spec.autoRemove) return { do: 'remove' };
    return { do: 'rest', phase: began ? 'exited' : 'created' };
  }
  const ended = (exitCode: number): Action => {
    if (restarts(spec, exitCode, detail.restarts ?? 0)) return due ? { do: 'run', again: true } : { do: 'pause' };
    return spec.autoRemove ? { do: 'remove' } : { do: 'rest', phase: 'exited' };
  };
  // A start that failed is not tried again by itself.
  if (own && detail.failure) return ended(detail.exitCode ?? EXIT_UNSEEN);
  if (state === null) {
    const ran = own && detail.phase !== undefined && detail.phase !== 'created';
    return ran
      ? ended(detail.phase === 'exited' ? (detail.exitCode ?? EXIT_UNSEEN) : EXIT_UNSEEN)
      : { do: 'run', again: false };
  }
  if (state.generation !== spec.generation)
    return state.state === 'running' ? { do: 'stop' } : { do: 'run', again: false };
  if (state.state === 'running') return { do: 'rest', phase: 'running' };
  if (state.state === 'created') return { do: 'run', again: false };
  return ended(state.exitCode ?? EXIT_UNSEEN);
}

/** First pause before the policy starts it again, its cap, and the life after which the count begins anew: milliseconds, as Docker has them. */
export const PAUSE_MS_MIN = 100;
export const PAUSE_MS_MAX = 60_000;
export const LIFE_MS = 10_000;

export const pauseOf = (streak: number): number => Math.min(PAUSE_MS_MAX, PAUSE_MS_MIN * 2 ** Math.min(streak - 1, 20));

/** Whether the life that ended was long enough to count as a success. */
export function livedLong({ startedAt, exitedAt }: Pick<ContainerState, 'startedAt' | 'exitedAt'>): boolean {
  return startedAt !== undefined && exitedAt !== undefined && Date.parse(exitedAt) - Date.parse(startedAt) >= LIFE_MS;
}

/** Its name and, as a replica or backend, its place in the balancing. */
export interface Place {
  readonly named: boolean;
  readonly serving: boolean;
}

/** A container that has ended has no name; one that is to end takes no new connections, nor does one whose health check says otherwise. */
export function placeOf(spec: ContainerSpec, { phase, health, generation }: Partial<ContainerDetail>): Place {
  const runs = phase === 'running' && generation === spec.generation;
  const begins = spec.wanted === 'running' && (phase === undefined || generation !== spec.generation);
  return {
    named: runs || begins || phase === 'restarting',
    serving: runs && spec.wanted === 'running' && (health === undefined || health === 'healthy'),
  };
}
