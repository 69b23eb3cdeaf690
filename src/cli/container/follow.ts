/** Attached to a container's first process until it ends or is let go of; a daemon that is exchanged meanwhile is waited for. */
import type { Client } from '../../client/client.ts';
import type { Session } from '../../client/container/session.ts';
import { isSluiceError, toSluiceError } from '../../errors.ts';
import type { Container } from '../../model/container.ts';
import type { Context } from '../command/command.ts';
import { WAIT_MS } from '../command/wait.ts';
import type { Terminal } from '../print/terminal.ts';
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
  const status = await overRestarts(async (reached) => {
    try {
      session ??= await client.containers.attach(id, { stdin: streamed.stdin });
      reached();
      return await stream(terminal, session, streamed);
    } catch (error) {
      session = null;
      // It has ended meanwhile: how is known, also of one that went with its process.
      if (!isSluiceError(error, 'container.stopped', 'object.notfound', 'object.removing')) throw error;
      return (await client.containers.exit(id, { generation })).exitCode;
    }
  });
  if (status !== null && spec.autoRemove) await gone(terminal, client, container);
  return status ?? 0;
}

/** Does it again while the daemon is away: a minute, from when it was `reached` last. */
async function overRestarts<T>(work: (reached: () => void) => Promise<T>): Promise<T> {
  let awaySince: number | null = null;
  const reached = (): void => {
    awaySince = null;
  };
  for (;;) {
    try {
      return await work(reached);
    } catch (error) {
      awaySince ??= performance.now();
      if (!wentAway(error) || performance.now() - awaySince > AWAY_MS_MAX) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, AWAY_MS));
  }
}

/** One that goes with its process is waited for: what comes after this command may take its name, and remove its volumes and networks. */
async function gone(terminal: Terminal, client: Client, { id, name, spec }: Container): Promise<void> {
  // As the daemon does it, which may have begun; its sandbox, which has the name too, may be the last to go.
  const options = { force: true, waitMs: WAIT_MS };
  const steps = [
    () => client.containers.remove(id, { ...options, volumes: true }),
    () => client.sandboxes.remove(spec.sandbox, options),
  ];
  for (const step of steps) {
    try {
      await overRestarts<unknown>(step);
    } catch (error) {
      // How it ended is what this command says.
      if (!isSluiceError(error, 'object.notfound'))
        terminal.err(`sluice: warning: container ${name} is not gone yet: ${toSluiceError(error).message}\n`);
    }
  }
}

/** Says what went wrong; exit status 127 for a program that is not there, 126 for one that cannot be executed, else ours. */
export function statusOf({ terminal }: Context, error: unknown): number {
  const { message, code } = toSluiceError(error);
  terminal.err(`sluice: ${message} (${code})\n`);
  if (code === 'runtime.notfound') return 127;
  return code === 'runtime.notexecutable' ? 126 : OURS;
}
