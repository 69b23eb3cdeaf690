/** A user namespace to take a mapping of owners from. By hand: `unshare --user`, then /proc/PID/uid_map. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type Clock, withTimeLimit } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';

/** As many ids as a namespace of a container has. */
export const SHIFT_IDS = 65_536;
const LIMIT_MS = 5_000;

/** Runs `use` with the path of a namespace whose ids 0… are `shift`… outside. */
export async function withUserNamespace(clock: Clock, shift: number, use: (path: string) => void): Promise<void> {
  // It lives as long as somebody holds its standard input, so that it ends with us too.
  const child = spawn('unshare', ['--user', '--', 'sh', '-c', 'echo ready; read -r _'], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const failed = (why: string): SluiceError =>
    new SluiceError('kernel.failed', `a user namespace could not be made: ${why}`);
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  const ended = once(child, 'close').then(
    () => failed(said.trim() || 'unshare ended'),
    (error: Error) => failed(error.message),
  );
  const ready = once(child.stdout, 'data').then(() => null);
  try {
    const early = withTimeLimit(clock, LIMIT_MS, Promise.race([ready, ended]), () => failed('it took too long'));
    const error = await early;
    if (error) throw error;
    for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${child.pid}/${map}`, `0 ${shift} ${SHIFT_IDS}\n`);
    use(`/proc/${child.pid}/ns/user`);
  } finally {
    child.stdin.end();
    child.kill('SIGKILL');
  }
}
