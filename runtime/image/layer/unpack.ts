/**
 * One layer onto a directory that overlayfs takes as a lower one. Synchronous: it runs in a thread of its own (worker.ts).
 *
 * Nothing an archive says leads out of the directory: names have no `..`, every parent is a directory that was made here, never a symbolic
 * link, and links are made without being followed. The directory must be new and nobody else's, so no name changes its meaning meanwhile.
 */
import {
  chmodSync,
  closeSync,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { isSluiceError, SluiceError } from '../../../src/errors.ts';
import { makeNode, makeWhiteout, setXattr } from '../../../src/kernel/fs/file.ts';
import type { TarEntry, TarHandler } from '../archive/tar-reader.ts';
import { componentsOf, hostile, meaningOf } from './path.ts';

export interface UnpackLimits {
  /** Bytes of the archive once decompressed. */
  readonly layerBytesMax: number;
  readonly entriesMax: number;
}

/** Attributes that speak to overlayfs: only this module may set them. */
const OVERLAY_XATTR = /^(?:trusted|user)\.overlay\./;
const OPAQUE_XATTR = 'trusted.overlay.opaque';
/** The file system does not keep attributes of that kind; what needs them will say so itself. */
const XATTR_REFUSED = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EPERM']);
const DIRECTORY_MODE = 0o755;

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

export class LayerUnpacker implements TarHandler {
  readonly #root: string;
  readonly #limits: UnpackLimits;
  readonly #umask = process.umask();
  /** Directories known to be real ones, by path below the root. */
  readonly #directories = new Set<string>(['']);
  /** Times of directories are set at the end: what comes into one changes them. */
  readonly #times = new Map<string, number>();
  #entries = 0;
  #bytes = 0;
  #file: { readonly fd: number; readonly path: string; readonly entry: TarEntry } | null = null;
  readonly #lost = new Set<string>();

  /** `root`: an empty directory. */
  constructor(root: string, limits: UnpackLimits) {
    this.#root = root;
    this.#limits = limits;
  }

  /** Bytes of all files. */
  get bytes(): number {
    return this.#bytes;
  }
  get entries(): number {
    return this.#entries;
  }
  /** Names of extended attributes that the file system refused. */
  get lostXattrs(): readonly string[] {
    return [...this.#lost];
  }

  entry(entry: TarEntry): void {
    if (++this.#entries > this.#limits.entriesMax)
      throw new SluiceError('image.limit', `the layer has more than ${this.#limits.entriesMax} entries`, {
        entriesMax: this.#limits.entriesMax,
      });
    try {
      this.#place(entry);
    } catch (error) {
      throw this.#explained(error, entry.path);
    }
  }

  data(chunk: Buffer): void {
    const file = this.#file;
    if (!file) return;
    try {
      for (let at = 0; at < chunk.length; ) at += writeSync(file.fd, chunk, at);
    } catch (error) {
      throw this.#explained(error, file.entry.path);
    }
    this.#bytes += chunk.length;
  }

  close(): void {
    const file = this.#file;
    if (!file) return;
    this.#file = null;
    const { fd, entry } = file;
    try {
      if (entry.uid !== 0 || entry.gid !== 0) fchownSync(fd, entry.uid, entry.gid);
      // After the owner: a change of it takes the set-id bits away, and file capabilities.
      if ((entry.mode & (this.#umask | 0o7000)) !== 0) fchmodSync(fd, entry.mode);
      this.#setXattrs(file.path, entry);
      futimesSync(fd, entry.mtime, entry.mtime);
    } catch (error) {
      throw this.#explained(error, entry.path);
    } finally {
      closeSync(fd);
    }
  }

  /** All entries are in. */
  finish(): void {
    for (const [directory, mtime] of this.#times) lutimesSync(this.#at(directory), mtime, mtime);
  }

  /** After a failure: lets go of an open file. */
  abandon(): void {
    if (this.#file) closeSync(this.#file.fd);
    this.#file = null;
  }

  /** The bytes of a path on disk. */
  #at(path: string): Buffer {
    return Buffer.concat([Buffer.from(this.#root), Buffer.from(path === '' ? '' : `/${path}`, 'latin1')]);
  }

  #place(entry: TarEntry): void {
    const parts = componentsOf(entry.path);
    const name = parts.at(-1);
    if (name === undefined) {
      if (entry.type !== 'directory') throw hostile('would replace the root', entry.path);
      this.#describe('', entry);
      return;
    }
    const parent = parts.slice(0, -1).join('/');
    this.#ensureDirectory(parent, entry.path);
    const meaning = meaningOf(name, entry.path);
    if (meaning.kind === 'ignored') return;
    if (meaning.kind === 'opaque') {
      setXattr(this.#at(parent), OPAQUE_XATTR, Buffer.from('y'));
      return;
    }
    if (meaning.kind === 'whiteout') {
      this.#whiteout(parent === '' ? meaning.name : `${parent}/${meaning.name}`);
      return;
    }
    const path = parts.join('/');
    if (entry.type === 'directory') this.#directory(path, entry);
    else this.#other(path, entry);
  }

  /** Hides a name of the layers below. What this layer itself has by that name stays: it says what is there, not below. */
  #whiteout(path: string): void {
    try {
      makeWhiteout(this.#at(path));
    } catch (error) {
      if (!isSluiceError(error, 'kernel.exists')) throw error;
      if (this.#directories.has(path)) setXattr(this.#at(path), OPAQUE_XATTR, Buffer.from('y'));
    }
  }

  #ensureDirectory(path: string, wanted: string): void {
    if (this.#directories.has(path)) return;
    const cut = path.lastIndexOf('/');
    this.#ensureDirectory(cut < 0 ? '' : path.slice(0, cut), wanted);
    try {
      mkdirSync(this.#at(path), DIRECTORY_MODE);
      chmodSync(this.#at(path), DIRECTORY_MODE);
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error;
      // Whatever is a directory here is in the set: this is a file, a link, a device or a whiteout.
      throw hostile('lies below what is no directory', wanted);
    }
    this.#directories.add(path);
  }

  #directory(path: string, entry: TarEntry): void {
    if (!this.#directories.has(path)) {
      const replaced = this.#remove(path);
      mkdirSync(this.#at(path), DIRECTORY_MODE);
      this.#directories.add(path);
      // A whiteout and then a directory of that name: nothing below it may show through.
      if (replaced === 'whiteout') setXattr(this.#at(path), OPAQUE_XATTR, Buffer.from('y'));
    }
    this.#describe(path, entry);
  }

  #describe(path: string, entry: TarEntry): void {
    const at = this.#at(path);
    if (entry.uid !== 0 || entry.gid !== 0 || path === '') lchownSync(at, entry.uid, entry.gid);
    chmodSync(at, entry.mode);
    this.#setXattrs(path, entry);
    this.#times.set(path, entry.mtime);
  }

  /** Takes away what an earlier entry put there. */
  #remove(path: string): 'nothing' | 'whiteout' | 'something' {
    const at = this.#at(path);
    if (this.#directories.has(path)) {
      rmSync(at, { recursive: true });
      for (const known of this.#directories) {
        if (known !== path && !known.startsWith(`${path}/`)) continue;
        this.#directories.delete(known);
        this.#times.delete(known);
      }
      return 'something';
    }
    try {
      const { rdev, mode } = lstatSync(at);
      unlinkSync(at);
      return rdev === 0 && (mode & 0o170000) === 0o020000 ? 'whiteout' : 'something';
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return 'nothing';
      throw error;
    }
  }

  #other(path: string, entry: TarEntry): void {
    const make = (): void => {
      const at = this.#at(path);
      if (entry.type === 'file') {
        // Never through a link, and never into what is there: `wx` is O_CREAT | O_EXCL.
        const fd = openSync(at, 'wx', entry.mode & 0o777);
        this.#file = { fd, path, entry };
      } else if (entry.type === 'link') {
        linkSync(this.#linkTarget(entry), at);
      } else if (entry.type === 'symlink') {
        symlinkSync(Buffer.from(entry.link, 'latin1'), at);
      } else if (entry.type !== 'directory') {
        makeNode(at, entry.type, entry.mode, entry);
      }
    };
    try {
      make();
    } catch (error) {
      if (codeOf(error) !== 'EEXIST' && !isSluiceError(error, 'kernel.exists')) throw error;
      // A link to itself would be lost by making room for it.
      if (entry.type === 'link' && componentsOf(entry.link).join('/') === path) return;
      this.#remove(path);
      make();
    }
    if (entry.type === 'file' || entry.type === 'link') return;
    const at = this.#at(path);
    if (entry.uid !== 0 || entry.gid !== 0) lchownSync(at, entry.uid, entry.gid);
    if (entry.type !== 'symlink') chmodSync(at, entry.mode);
    this.#setXattrs(path, entry);
    lutimesSync(at, entry.mtime, entry.mtime);
  }

  /** A hard link's target: what this layer has by that name, reached through its own directories. */
  #linkTarget(entry: TarEntry): Buffer {
    const parts = componentsOf(entry.link);
    const path = parts.join('/');
    const parent = parts.slice(0, -1).join('/');
    if (path === '' || this.#directories.has(path)) throw hostile('is a hard link to a directory', entry.path);
    if (!this.#directories.has(parent)) throw hostile('is a hard link to what is not in the layer', entry.path);
    return this.#at(path);
  }

  #setXattrs(path: string, entry: TarEntry): void {
    for (const [name, value] of entry.xattrs) {
      if (OVERLAY_XATTR.test(name)) continue;
      try {
        setXattr(this.#at(path), name, value);
      } catch (error) {
        if (!isSluiceError(error) || !XATTR_REFUSED.has(String(error.details.name))) throw error;
        this.#lost.add(name);
      }
    }
  }

  /** A failure of the kernel by what it means for the archive. */
  #explained(error: unknown, path: string): unknown {
    if (isSluiceError(error) && !error.code.startsWith('kernel.')) return error;
    const code = isSluiceError(error) ? String(error.details.name) : codeOf(error);
    if (code === 'ENOSPC' || code === 'EDQUOT')
      return new SluiceError('image.full', `the disk is full: ${hostile('does not fit', path).message}`, {}, error);
    if (code === 'ENOENT') return hostile('is a hard link to what is not in the layer', path);
    if (['ENAMETOOLONG', 'EINVAL', 'ELOOP', 'EMLINK', 'ENOTDIR', 'ENXIO'].includes(code ?? ''))
      return hostile(`cannot be made (${code})`, path);
    return error;
  }
}
