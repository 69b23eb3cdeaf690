/** Files in and out of a container, as tar streams: a static tar runs with the container's root as its own, so no link leads outside. */
import { spawn } from 'node:child_process';
import { basename, dirname } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Clock } from '../../../src/clock.ts';
import { SluiceError } from '../../../src/errors.ts';
import { collect, ended, runTool, type Tools } from '../tool.ts';

const LOOK_MS_MAX = 5_000;
/** Neither side has moved a byte for so long: the transfer is given up. */
const STALL_MS = 60_000;

const failure = (words: string, path: string): SluiceError =>
  /No such file|Not a directory|can't stat/i.test(words)
    ? new SluiceError('runtime.notfound', `${path}: ${words.trim() || 'there is no such path'}`, { path })
    : new SluiceError('runtime.failed', `${path}: ${words.trim() || 'tar failed'}`, { path });

/** Ends the transfer when nothing moves; `moved` says that something did. `over` rejects then, for whoever waits for what does not come. */
function guard(clock: Clock, path: string, stop: () => void) {
  let late: SluiceError | undefined;
  const { promise: over, reject } = Promise.withResolvers<never>();
  over.catch(() => undefined);
  const end = (): void => {
    late = new SluiceError('runtime.failed', `${path}: nothing was copied for ${STALL_MS / 1000} s`, { path });
    reject(late);
    stop();
  };
  let timer = clock.after(STALL_MS, end);
  return {
    moved(): void {
      timer.cancel();
      timer = clock.after(STALL_MS, end);
    },
    over,
    done: () => timer.cancel(),
    /** Fails when it was this that ended it. */
    check(): void {
      if (late) throw late;
    },
  };
}

/** `root`: the container's root as the host sees it. A link at the path's end is itself the entry, not what it leads to. */
export async function* copyOut(clock: Clock, tools: Tools, root: string, path: string): AsyncGenerator<Uint8Array> {
  // tar would begin an archive before it finds nothing to put in.
  const look = await runTool(clock, [tools.inside, root, '/', tools.busybox, 'stat', '--', path], {
    env: {},
    limitMs: LOOK_MS_MAX,
  });
  if (look.code !== 0) throw failure(look.stderr, path);
  const name = basename(path) || '.';
  const args = [root, dirname(path) || '/', tools.busybox, 'tar', '-c', '-f', '-', '--', name];
  const child = spawn(tools.inside, args, { env: {}, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
  const words = collect(child.stderr);
  const end = ended(child);
  // Told by the loop's end; an early one must not be an unhandled rejection.
  end.catch(() => undefined);
  const stall = guard(clock, path, () => child.kill('SIGKILL'));
  try {
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
      yield chunk;
      stall.moved();
    }
    const code = await end;
    stall.check();
    if (code !== 0) throw failure(words(), path);
  } finally {
    stall.done();
    child.kill('SIGKILL');
  }
}

/** Unpacks into the directory `path`, which exists. Entries with `..` or a leading `/` are refused or taken relative. */
export async function copyIn(
  clock: Clock,
  tools: Tools,
  root: string,
  path: string,
  tar: AsyncIterable<Uint8Array>,
): Promise<void> {
  const args = [root, path, tools.busybox, 'tar', '-x', '-f', '-'];
  const child = spawn(tools.inside, args, { env: {}, cwd: '/', stdio: ['pipe', 'ignore', 'pipe'] });
  const words = collect(child.stderr);
  const end = ended(child);
  end.catch(() => undefined);
  const stall = guard(clock, path, () => child.kill('SIGKILL'));
  const chunks = tar[Symbol.asyncIterator]();
  async function* watched(): AsyncGenerator<Uint8Array> {
    try {
      for (;;) {
        // A sender that stands still cannot be told to end: it is left.
        const { value, done } = await Promise.race([chunks.next(), stall.over]);
        if (done) return;
        stall.moved();
        yield value;
      }
    } finally {
      // What it says to its end is of no interest any more.
      chunks.return?.().catch(() => undefined);
    }
  }
  try {
    await pipeline(watched(), child.stdin!).catch((error: NodeJS.ErrnoException) => {
      // tar has stopped reading: its own words say why.
      if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_PREMATURE_CLOSE') throw error;
    });
    const code = await end;
    stall.check();
    if (code !== 0) throw failure(words(), path);
  } finally {
    stall.done();
    child.kill('SIGKILL');
  }
}
