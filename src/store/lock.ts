/** One daemon a state directory: an flock that ends with the process, and the holder's pid beside it for people. */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../errors.ts';

export interface Lock {
  release(): void;
}

/** `flock(fd)` without waiting: true when it was got. Injected, since only the kernel layer makes native calls. */
export type TryFlock = (fd: number) => boolean;

/** Fails with `store.locked`, naming the pid of who holds it. */
export function lockState(stateDir: string, tryFlock: TryFlock): Lock {
  mkdirSync(stateDir, { recursive: true });
  const path = join(stateDir, 'lock');
  const fd = openSync(path, 'a+', 0o600);
  if (!tryFlock(fd)) {
    const pid = readFileSync(path, 'utf8').trim();
    closeSync(fd);
    throw new SluiceError(
      'store.locked',
      `another daemon (pid ${pid || 'unknown'}) holds the state directory ${stateDir}`,
      { stateDir, pid: Number(pid) || undefined },
    );
  }
  ftruncateSync(fd, 0);
  writeSync(fd, `${process.pid}\n`);
  return { release: () => closeSync(fd) };
}
