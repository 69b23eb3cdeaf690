/** One daemon a state directory: an flock that ends with the process, and the holder's pid in the file for people. By hand: `flock -n lock true`. */
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../errors.ts';

export interface Lock {
  release(): void;
}

/** `flock(fd)` without waiting: true when it was got. Injected, since only the kernel layer makes native calls. */
export type TryFlock = (fd: number) => boolean;

/** Makes the directory when it is not there. Fails with `store.locked`, naming the pid of who holds it, or with `store.unavailable`. */
export function lockState(stateDir: string, tryFlock: TryFlock): Lock {
  const path = join(stateDir, 'lock');
  const fd = openLock(stateDir, path);
  try {
    if (!tryFlock(fd)) {
      const pid = readFileSync(path, 'utf8').trim();
      throw new SluiceError(
        'store.locked',
        `another daemon (pid ${pid || 'unknown'}) holds the state directory ${stateDir}`,
        { stateDir, pid: Number(pid) || undefined },
      );
    }
    writePid(fd);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return { release: () => closeSync(fd) };
}

function openLock(stateDir: string, path: string): number {
  try {
    mkdirSync(stateDir, { recursive: true, mode: 0o711 });
    return openSync(path, 'a+', 0o600);
  } catch (error) {
    throw new SluiceError('store.unavailable', `${path}: ${(error as Error).message}`, { stateDir }, error);
  }
}

/** The pid is for people: a full disk does not keep a daemon from its lock. */
function writePid(fd: number): void {
  ftruncateSync(fd, 0);
  try {
    writeSync(fd, `${process.pid}\n`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
}
