/**
 * Mounts: the BPF file system, where pinned programs outlive the daemon, and what network namespaces stand on.
 * By hand: `mount -t bpf bpf /sys/fs/bpf`, `findmnt`.
 */
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { timed } from '../metrics.ts';
import { tryFlock } from './fd.ts';
import { check, fsError, kernelError, lastErrno, libc } from './libc.ts';

const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_SHARED = 1 << 20;
const MNT_DETACH = 2;
const ENOENT = 2;
const ENOTDIR = 20;
const EINVAL = 22;
const ETIMEDOUT = 110;
/** linux/magic.h */
export const NSFS_MAGIC = 0x6e736673;
export const CGROUP2_MAGIC = 0x63677270;
const BPF_FS_MAGIC = 0xcafe4a11;
/** sizeof(struct statfs) is 120 on 64-bit Linux. */
const STATFS_BYTES = 256;

/** How long another process may hold a directory that we mount on, and how often we look. */
const LOCK_MS_MAX = 1_000;
const LOCK_STEP_MS = 2;

/** Magic number of the file system that a path is on, null where there is no such path. */
export function fileSystem(path: string): number | null {
  const out = Buffer.alloc(STATFS_BYTES);
  if (libc.statfs(path, out) === 0) return Number(out.readBigInt64LE(0));
  const errno = lastErrno();
  if (errno === ENOENT || errno === ENOTDIR) return null;
  throw kernelError(errno, `statfs ${path}`);
}

/** `mount --bind` */
export const bindMount = (source: string, target: string): void =>
  timed('mount', 'bind', () => {
    check(libc.mount(source, target, 'none', MS_BIND, null), `mount ${source} at ${target}`);
  });

/** `umount --lazy` */
export const unmount = (path: string): void =>
  timed('mount', 'unmount', () => {
    check(libc.umount2(path, MNT_DETACH), `unmount ${path}`);
  });

/** `mount --make-shared`; false where the directory is no mount point. */
function makeShared(dir: string): boolean {
  if (libc.mount('', dir, 'none', MS_SHARED, null) === 0) return true;
  const errno = lastErrno();
  if (errno === EINVAL) return false;
  throw kernelError(errno, `share ${dir}`);
}

/**
 * Makes the directory a shared mount point of its own, as `ip netns` does with /run/netns: an unmount of ours then reaches the copies
 * that other mount namespaces have of it, and a namespace ends when it is removed.
 */
export function shareDirectory(dir: string): void {
  makeDirectory(dir);
  if (makeShared(dir)) return;
  // Two at once would mount it twice, and one's namespaces would lie under the other's mount.
  locked(dir, () => {
    if (makeShared(dir)) return;
    check(libc.mount(dir, dir, 'none', MS_BIND | MS_REC, null), `bind ${dir} on itself`);
    check(libc.mount('', dir, 'none', MS_SHARED | MS_REC, null), `share ${dir}`);
  });
}

/** A bpffs at that path, mounted if there is none. */
export function ensureBpffs(path: string): void {
  makeDirectory(path);
  if (fileSystem(path) === BPF_FS_MAGIC) return;
  // A second mount would hide what somebody pinned in the first.
  locked(path, () => {
    if (fileSystem(path) === BPF_FS_MAGIC) return;
    timed('mount', 'bpffs', () => check(libc.mount('bpf', path, 'bpf', 0, null), `mount a bpffs at ${path}`));
  });
}

function makeDirectory(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw fsError(error, `make directory ${dir}`);
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/** Runs `fn` while no other process that asks is in here for the same directory. */
function locked(dir: string, fn: () => void): void {
  const fd = openSync(dir, 'r');
  try {
    for (let waited = 0; !tryFlock(fd); waited += LOCK_STEP_MS) {
      if (waited >= LOCK_MS_MAX) throw kernelError(ETIMEDOUT, `lock ${dir}`, 'another process holds it');
      // Mounting is synchronous, and so is waiting for it; it happens at most once in a directory's life.
      Atomics.wait(pause, 0, 0, LOCK_STEP_MS);
    }
    fn();
  } finally {
    closeSync(fd);
  }
}
