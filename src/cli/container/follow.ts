/** Attached to a container's first process until it ends or is let go of; a daemon that is exchanged meanwhile is waited for. */
import type { Client } from '../../client/client.ts';
import type { Session } from '../../client/container/session.ts';
import { isSluiceError, toSluiceError } from '../../errors.ts';
import type { Container } from '../../model/container.ts';
import type { Context } from '../command/command.ts';
import { DETACH_KEYS, readKeys, type StreamOptions, stream, wentAway } from './stream.ts';

/** Exit status of a failure that is ours, as Docker has it. */
export const OURS = 125;
/** How long a daemon that went away is waited for. */
const AWAY_MS_MAX = 60_000;
const AWAY_MS = 200;

export interface FollowOptions {
  /** Start it, attached before its first instruction. */
  readonly start: boolean;
  readonly stdin: boolean;
  readonly detachKeys?: readonly number[];
  readonly signals: boolean;
}

/** Its exit status; 0 when it was let go of. */
export async function follow(
  { terminal }: Context,
  client: Client,
  container: Container,
  options: FollowOptions,
): Promise<number> {
  const { id, spec } = container;
  const streamed: StreamOptions = {
    tty: spec.tty,
    stdin: options.stdin && spec.stdin,
    detachKeys: options.detachKeys ?? (spec.tty ? readKeys(DETACH_KEYS) : []),
    signals: options.signals && !spec.tty,
  };
  const generation = spec.generation + (options.start && spec.wanted !== 'created' ? 1 : 0);
  let session: Session | null = await client.containers.attach(id, { start: options.start, stdin: streamed.stdin });
  let awaySince: number | null = null;
  for (;;) {
    try {
      session ??= await client.containers.attach(id, { stdin: streamed.stdin });
      awaySince = null;
      return (await stream(terminal, session, streamed)) ?? 0;
    } catch (error) {
      // It has ended meanwhile: how is known, also of one that went with its process.
      if (isSluiceError(error, 'container.stopped', 'object.notfound', 'object.removing'))
        return (await client.containers.exit(id, { generation })).exitCode;
      awaySince ??= performance.now();
      if (!wentAway(error) || performance.now() - awaySince > AWAY_MS_MAX) throw error;
    }
    session = null;
    await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
  }
}

/** Says what went wrong; exit status 127 for a program that is not there, 126 for one that cannot be executed, else ours. */
export function statusOf({ terminal }: Context, error: unknown): number {
  const { message, code } = toSluiceError(error);
  terminal.err(`sluice: ${message} (${code})\n`);
  if (code === 'runtime.notfound') return 127;
  return code === 'runtime.notexecutable' ? 126 : OURS;
}
