/** What the engine reads of a container's root file system: accounts, and where mounts lead. */
import { closeSync, constants, fstatSync, lstatSync, openSync, readSync } from 'node:fs';
import { SluiceError } from '../../../src/errors.ts';
import type { ContainerSpec } from '../../../src/model/container.ts';
import { inRoot } from './mount.ts';
import { resolveUser, type User } from './user.ts';

const TEXT_BYTES_MAX = 1 << 20;

/** A regular file's text, empty where there is none: what a container puts there must not hold the daemon up. */
function textIn(root: string, path: string): string {
  let fd: number;
  try {
    fd = openSync(inRoot(root, path), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP', 'EACCES', 'ENXIO'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return '';
    throw error;
  }
  try {
    if (!fstatSync(fd).isFile()) return '';
    const buffer = Buffer.alloc(TEXT_BYTES_MAX);
    return buffer.toString('utf8', 0, readSync(fd, buffer));
  } finally {
    closeSync(fd);
  }
}

export const userIn = (root: string, user: string): User =>
  resolveUser(user, { passwd: textIn(root, '/etc/passwd'), group: textIn(root, '/etc/group') });

/** Bind mounts need a source; one that is missing is said before anything is made. */
export function checkSources({ mounts }: Pick<ContainerSpec, 'mounts'>): void {
  for (const { type, source } of mounts) {
    if (type !== 'bind' || (source && lstatSync(source, { throwIfNoEntry: false }))) continue;
    throw new SluiceError('runtime.spec', `the source of a mount is missing: ${source}`, { source });
  }
}
