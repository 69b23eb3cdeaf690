/** What the engine reads of a container's root file system: accounts, and where mounts lead. */
import { closeSync, constants, existsSync, fstatSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
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
    const file = fstatSync(fd);
    if (!file.isFile()) return '';
    // As long as the file: a health check comes here every time, and to zero a MiB each time was a sixth of a daemon's time.
    const buffer = Buffer.allocUnsafe(Math.min(file.size, TEXT_BYTES_MAX));
    return buffer.toString('utf8', 0, readSync(fd, buffer));
  } finally {
    closeSync(fd);
  }
}

export const userIn = (root: string, user: string): User =>
  resolveUser(user, { passwd: textIn(root, '/etc/passwd'), group: textIn(root, '/etc/group') });

/**
 * The mounts with every symbolic link of their sources taken, before anything is made. A source that is missing, or that is one of `own` (what
 * the daemon keeps) or lies in one, by whatever name, is `runtime.spec`; so is one in which `own` lies (`/`, `/run`), but for a container that is
 * privileged: it could reach everything anyway.
 */
export function realSources(
  { mounts, privileged }: Pick<ContainerSpec, 'mounts' | 'privileged'>,
  own: readonly string[],
): ContainerSpec['mounts'] {
  return mounts.map((mount) => {
    if (mount.type !== 'bind') return mount;
    const { source = '' } = mount;
    const real = realPath(source);
    if (real === null) throw new SluiceError('runtime.spec', `the source of a mount is missing: ${source}`, { source });
    const kept = own.find((path) => liesIn(real, path));
    if (kept !== undefined)
      throw new SluiceError('runtime.spec', `${source} is the daemon's own: no container is given ${kept}`, { source });
    const within = privileged ? undefined : own.find((path) => existsSync(path) && liesIn(realpathSync(path), real));
    if (within !== undefined)
      throw new SluiceError(
        'runtime.spec',
        `${source} holds the daemon's own ${within}: only a container with --privileged is given that`,
        { source },
      );
    return { ...mount, source: real };
  });
}

function realPath(path: string): string | null {
  try {
    return path === '' ? null : realpathSync(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** By device and inode, so that another mount of the same place counts too. */
function liesIn(path: string, kept: string): boolean {
  const there = statSync(kept, { throwIfNoEntry: false });
  if (!there) return false;
  for (let at = path; ; at = dirname(at)) {
    const here = statSync(at, { throwIfNoEntry: false });
    if (here?.dev === there.dev && here.ino === there.ino) return true;
    if (at === '/') return false;
  }
}
