/** Health checks: a program run inside, every so often; consecutive results count. */
import { type Clock, withTimeLimit } from '../../clock.ts';
import type { Runtime } from '../../contracts/runtime.ts';
import { toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { HealthSpec } from '../../model/container.ts';

export type Health = 'starting' | 'healthy' | 'unhealthy';

/** Consecutive failures, and what they make of it. Pure: one result at a time. */
export interface Record {
  readonly health: Health;
  readonly failures: number;
}

/** `aged`: the start period is over. In it failures do not count, and the first success ends it. */
export function judge(before: Record, success: boolean, aged: boolean, retries: number): Record {
  if (success) return { health: 'healthy', failures: 0 };
  if (before.health === 'starting' && !aged) return before;
  const failures = before.failures + 1;
  return { failures, health: failures >= retries ? 'unhealthy' : before.health };
}

/** Program of a check, null: none is wanted. */
export function programOf({ test }: HealthSpec): readonly string[] | null {
  const [kind, ...rest] = test;
  if (kind === 'NONE' || kind === undefined) return null;
  if (kind === 'CMD') return rest;
  if (kind === 'CMD-SHELL') return ['/bin/sh', '-c', rest.join(' ')];
  return test;
}

/** Output of a check is drained, not kept. */
async function drain(output: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of output);
}

interface Watch {
  readonly generation: number;
  readonly stop: AbortController;
  record: Record;
}

export interface HealthOptions {
  readonly clock: Clock;
  readonly runtime: Pick<Runtime, 'exec'>;
  readonly logger: Logger;
  readonly onChange: (id: string) => void;
}

export class HealthChecks {
  readonly #options: HealthOptions;
  readonly #watches = new Map<string, Watch>();

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  /** What is known of the life of that generation; undefined without a check. */
  of(id: string, generation: number): Health | undefined {
    const watch = this.#watches.get(id);
    return watch?.generation === generation ? watch.record.health : undefined;
  }

  /** Checks begin with a process, and go on where an earlier daemon left them. `ageMs`: how long it has run. */
  ensure(id: string, generation: number, spec: HealthSpec, before: Health | undefined, ageMs: number): void {
    const there = this.#watches.get(id);
    if (there?.generation === generation) return;
    this.stop(id);
    const program = programOf(spec);
    if (!program) return;
    const watch: Watch = {
      generation,
      stop: new AbortController(),
      record: { health: before ?? 'starting', failures: before === 'unhealthy' ? spec.retries : 0 },
    };
    this.#watches.set(id, watch);
    void this.#follow(id, spec, program, watch, this.#options.clock.monotonic() - ageMs);
  }

  stop(id: string): void {
    this.#watches.get(id)?.stop.abort(new Error('the container has ended'));
    this.#watches.delete(id);
  }

  stopAll(): void {
    for (const id of [...this.#watches.keys()]) this.stop(id);
  }

  async #follow(
    id: string,
    spec: HealthSpec,
    program: readonly string[],
    watch: Watch,
    startedMs: number,
  ): Promise<void> {
    const { clock, onChange } = this.#options;
    const { signal } = watch.stop;
    while (!signal.aborted) {
      const pause = await clock.sleep(spec.intervalMs, signal).then(
        () => true,
        () => false,
      );
      if (!pause) return;
      const success = await this.#check(id, program, spec.timeoutMs);
      if (signal.aborted) return;
      const before = watch.record;
      watch.record = judge(before, success, clock.monotonic() - startedMs >= spec.startPeriodMs, spec.retries);
      if (before.health !== watch.record.health) onChange(id);
    }
  }

  async #check(id: string, args: readonly string[], timeoutMs: number): Promise<boolean> {
    const { clock, runtime, logger } = this.#options;
    try {
      const check = await runtime.exec(id, { args, env: [], tty: false, privileged: false, stdin: false });
      // Whatever it writes must not fill a pipe.
      const drained = drain(check.output);
      try {
        const late = (): Error => new Error(`no answer within ${timeoutMs} ms`);
        return (await withTimeLimit(clock, timeoutMs, check.exit, late)) === 0;
      } catch (error) {
        check.kill('SIGKILL');
        throw error;
      } finally {
        check.detach();
        await drained.catch((error: unknown) =>
          logger.debug({ id, err: toSluiceError(error).message }, 'check output'),
        );
      }
    } catch (error) {
      logger.debug({ id, err: toSluiceError(error).message }, 'health check failed');
      return false;
    }
  }
}
