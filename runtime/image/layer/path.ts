/** Names of archive entries, taken apart. Bytes as `latin1` strings; pure. */
import { SluiceError } from '../../../src/errors.ts';

/** Longest path that the kernel takes (PATH_MAX), with room for where the layer is unpacked. */
const PATH_BYTES_MAX = 3072;
const NAME_BYTES_MAX = 255;

export const WHITEOUT_PREFIX = '.wh.';
export const OPAQUE_NAME = '.wh..wh..opq';
/** What aufs kept for itself; it means nothing to anybody else. */
const AUFS_PREFIX = '.wh..wh.';

const shown = (path: string): string => JSON.stringify(Buffer.from(path, 'latin1').toString('utf8').slice(0, 200));

export const hostile = (what: string, path: string): SluiceError =>
  new SluiceError('image.archive', `the archive's entry ${shown(path)} ${what}`, {
    entry: Buffer.from(path, 'latin1').toString('utf8').slice(0, 512),
  });

/** The components of a name below the root; empty for the root itself. A leading slash means the root. Fails on whatever would lead out. */
export function componentsOf(path: string): string[] {
  if (path.length > PATH_BYTES_MAX) throw hostile('has too long a name', path);
  if (path.includes('\0')) throw hostile('has a zero byte in its name', path);
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  for (const part of parts) {
    if (part === '..') throw hostile('leads out of the layer', path);
    if (part.length > NAME_BYTES_MAX) throw hostile('has too long a name', path);
  }
  return parts;
}

/** What a name asks for: the file itself, that a name of the layers below be hidden, or all that is below a directory. */
export type Meaning =
  | { readonly kind: 'entry' }
  | { readonly kind: 'whiteout'; readonly name: string }
  | { readonly kind: 'opaque' }
  | { readonly kind: 'ignored' };

/** By the OCI image specification, layer.md. `name`: the last component. */
export function meaningOf(name: string, path: string): Meaning {
  if (!name.startsWith(WHITEOUT_PREFIX)) return { kind: 'entry' };
  if (name === OPAQUE_NAME) return { kind: 'opaque' };
  if (name.startsWith(AUFS_PREFIX)) return { kind: 'ignored' };
  const hidden = name.slice(WHITEOUT_PREFIX.length);
  if (hidden === '' || hidden === '.' || hidden === '..') throw hostile('hides what has no name', path);
  return { kind: 'whiteout', name: hidden };
}
