/**
 * overlayfs: read-only directories below, a writable one on top.
 * By hand: `mount -t overlay overlay -o lowerdir=TOP:…:BOTTOM,upperdir=UPPER,workdir=WORK MERGED`.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { timed } from '../../metrics.ts';
import { check, errnoOf, fsError, kernelError, lastErrno, libc } from '../libc.ts';

export interface Overlay {
  /** Absolute paths, the topmost first; at least one. */
  readonly lower: readonly string[];
  readonly upper: string;
  readonly work: string;
  readonly target: string;
}

const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_FSOPEN = 430;
const SYS_FSCONFIG = 431;
const SYS_FSMOUNT = 432;
const SYS_MOUNT_SETATTR = 442;

const FSOPEN_CLOEXEC = 1;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const FSMOUNT_CLOEXEC = 1;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const AT_EMPTY_PATH = 0x1000;
const MOUNT_ATTR_IDMAP = 0x0010_0000n;
const AT_FDCWD = -100;
const EINVAL = 22;
const ENODATA = 61;
/** mount(2) takes one page of options, its ending zero included. */
const MOUNT_OPTIONS_BYTES_MAX = 4095;

/** Nothing that an archive could carry leads the overlay elsewhere, and the upper directory holds whole files. */
const SAFE: readonly (readonly [key: string, value: string])[] = [
  ['redirect_dir', 'nofollow'],
  ['metacopy', 'off'],
  ['index', 'off'],
];

/** Mounts an overlay of any depth that the kernel takes (500 layers since Linux 6.8; about 200 before). */
export function mountOverlay(overlay: Overlay): void {
  timed('mount', 'overlay', () => (takesParts() ? mountByParts(overlay) : mountByOptions(overlay)));
}

let known: boolean | undefined;

/** Whether each layer may be a parameter of its own, so that their number and the length of their paths do not matter (Linux 6.8). */
export function takesParts(): boolean {
  known ??= withContext('ask overlayfs for its parameters', (_, set) => {
    // Before Linux 6.5 any parameter is kept as text, and refused only when all are there: one that nobody knows tells.
    return set('no-such-parameter', '') < 0 && set('lowerdir+', '/') >= 0;
  });
  return known;
}

function mountByParts({ lower, upper, work, target }: Overlay): void {
  const what = `mount an overlay of ${lower.length} layers at ${target}`;
  withContext(what, (fs, set) => {
    const must = (result: number): void => {
      if (result < 0) throw kernelError(lastErrno(), what, messagesOf(fs));
    };
    for (const path of lower) must(set('lowerdir+', path));
    must(set('upperdir', upper));
    must(set('workdir', work));
    for (const [key, value] of SAFE) must(set(key, value));
    must(Number(libc.fsconfig(SYS_FSCONFIG, fs, FSCONFIG_CMD_CREATE, null, null, 0)));
    const mount = Number(libc.fsmount(SYS_FSMOUNT, fs, FSMOUNT_CLOEXEC, 0));
    must(mount);
    try {
      must(Number(libc.moveMount(SYS_MOVE_MOUNT, mount, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)));
    } finally {
      closeSync(mount);
    }
  });
}

/** A file system context of overlayfs, and how its parameters are set: negative is a failure, whose errno is the last one. */
function withContext<T>(what: string, use: (fs: number, set: (key: string, value: string) => number) => T): T {
  const fs = check(Number(libc.fsopen(SYS_FSOPEN, 'overlay', FSOPEN_CLOEXEC)), what);
  try {
    return use(fs, (key, value) => Number(libc.fsconfig(SYS_FSCONFIG, fs, FSCONFIG_SET_STRING, key, value, 0)));
  } finally {
    closeSync(fs);
  }
}

/** What the kernel said to a file system context, one message a read. */
function messagesOf(fs: number): string {
  const messages: string[] = [];
  const out = Buffer.alloc(4096);
  for (;;) {
    try {
      const length = readSync(fs, out);
      if (length === 0) break;
      messages.push(
        out
          .toString('utf8', 0, length)
          .replace(/^[ewi] /, '')
          .trim(),
      );
    } catch (error) {
      // The queue of messages is empty, or this kernel keeps none: the errno alone has to do.
      if (Math.abs((error as NodeJS.ErrnoException).errno ?? 0) !== ENODATA) return messages.join('; ');
      break;
    }
  }
  return messages.join('; ');
}

/** mount(2) with every directory by its descriptor: short, and no character of a path means anything to the parser. Exported for tests. */
export function mountByOptions({ lower, upper, work, target }: Overlay): void {
  const open: number[] = [];
  try {
    const short = (path: string): string => {
      try {
        open.push(openSync(path, constants.O_DIRECTORY | constants.O_RDONLY));
      } catch (error) {
        throw fsError(error, `open ${path}`);
      }
      return `/proc/self/fd/${open.at(-1)}`;
    };
    const options = [
      `lowerdir=${lower.map(short).join(':')}`,
      `upperdir=${short(upper)}`,
      `workdir=${short(work)}`,
      ...SAFE.map(([key, value]) => `${key}=${value}`),
    ].join(',');
    const what = `mount an overlay of ${lower.length} layers at ${target}`;
    if (options.length > MOUNT_OPTIONS_BYTES_MAX)
      throw kernelError(95, what, `this kernel takes fewer layers than ${lower.length}; Linux 6.8 takes 500`);
    check(libc.mount('overlay', target, 'overlay', 0, options), what);
  } finally {
    for (const fd of open) closeSync(fd);
  }
}

/**
 * Mounts the directory again at `target`, with owners moved as the user namespace behind `userns` (a path such as /proc/PID/ns/user) maps
 * them: a file of id 0 there belongs to the namespace's root. The file system must know idmapped mounts (ext4, xfs, btrfs, tmpfs do).
 * By hand: `mount --bind --map-users 0:SHIFT:65536 …` (util-linux 2.39).
 */
export function mountShifted(source: string, target: string, userns: string): void {
  const what = `mount ${source} with the owners of ${userns} at ${target}`;
  const namespace = openSync(userns, 'r');
  try {
    const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    const tree = check(Number(libc.openTree(SYS_OPEN_TREE, AT_FDCWD, source, flags)), what);
    try {
      const attributes = Buffer.alloc(32);
      attributes.writeBigUInt64LE(MOUNT_ATTR_IDMAP, 0);
      attributes.writeBigUInt64LE(BigInt(namespace), 24);
      const set = libc.mountSetattr(SYS_MOUNT_SETATTR, tree, '', AT_EMPTY_PATH, attributes, attributes.length);
      check(Number(set), what);
      check(Number(libc.moveMount(SYS_MOVE_MOUNT, tree, '', AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH)), what);
    } finally {
      closeSync(tree);
    }
  } finally {
    closeSync(namespace);
  }
}

/** Unmounts what is mounted at the path, once; nothing there succeeds. */
export function unmountIfMounted(path: string): boolean {
  const MNT_DETACH = 2;
  const ENOENT = 2;
  if (libc.umount2(path, MNT_DETACH) === 0) return true;
  const error = kernelError(lastErrno(), `unmount ${path}`);
  if (errnoOf(error) === EINVAL || errnoOf(error) === ENOENT) return false;
  throw error;
}
