/** What SQLite's failures mean to us. */
import { SluiceError } from '../errors.ts';

/** SQLite's result codes (sqlite3.h); an extended code carries the primary one in its low byte. */
const CORRUPT = 11;
const FULL = 13;
const NOTADB = 26;
/** The file of the WAL's index could not be made longer: in practice a full disk. */
const IOERR_SHMSIZE = 10 | (19 << 8);

/** Runs `work` on the file; what fails becomes `store.damaged`, `store.full` or `store.unavailable`, with SQLite's own words. */
export function guard<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    const { errcode = 0, message } = error as Error & { readonly errcode?: number };
    const primary = errcode & 0xff;
    // A record that is no JSON was not written by us.
    if (primary === CORRUPT || primary === NOTADB || error instanceof SyntaxError)
      throw new SluiceError('store.damaged', `${path} is damaged: ${message}`, { path, errcode }, error);
    if (primary === FULL || errcode === IOERR_SHMSIZE)
      throw new SluiceError('store.full', `${path}: the disk is full (${message}); what runs goes on`, { path }, error);
    throw new SluiceError('store.unavailable', `${path}: ${message}`, { path, errcode }, error);
  }
}
