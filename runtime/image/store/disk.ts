/** Files that are whole or not there, and what a full disk is called. */
import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SluiceError } from '../../../src/errors.ts';

/** A failure of a write: `image.full` where the disk is, else as it is. */
export function diskError(error: unknown, what: string): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new SluiceError('image.full', `the disk is full: ${what}`, {}, error);
}

/** Brings the names in a directory to the disk. */
export async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

let count = 0;

/** Replaces the file as a whole: whoever reads it, also after a crash, finds the old or the new one. */
export async function replaceFile(path: string, text: string, mode = 0o644): Promise<void> {
  const fresh = join(dirname(path), `.${basename(path)}.${process.pid}.${count++}`);
  try {
    const handle = await open(fresh, 'wx', mode);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(fresh, path);
    await syncDirectory(dirname(path));
  } catch (error) {
    await rm(fresh, { force: true });
    throw diskError(error, `${path} could not be written`);
  }
}

/** One after another for each key; a key that nobody holds costs nothing. */
export class Turns {
  readonly #last = new Map<string, Promise<unknown>>();

  async run<T>(key: string, work: () => Promise<T>): Promise<T> {
    const before = this.#last.get(key);
    const mine = (async () => {
      // Whoever was first has answered for its own failure.
      await before?.catch(() => undefined);
      return work();
    })();
    this.#last.set(key, mine);
    try {
      return await mine;
    } finally {
      if (this.#last.get(key) === mine) this.#last.delete(key);
    }
  }
}
