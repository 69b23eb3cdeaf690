/**
 * What node:fs leaves out of files: device nodes, whiteouts, extended attributes, and a whole file system written back. Paths may be bytes,
 * for the names in archives are not always text. By hand: `mknod`, `setfattr`, `sync -f`.
 */
import { closeSync, openSync } from 'node:fs';
import { kernelError, lastErrno, libc } from '../libc.ts';

const S_IFIFO = 0o010000;
const S_IFCHR = 0o020000;
const S_IFBLK = 0o060000;

const KINDS = { fifo: S_IFIFO, char: S_IFCHR, block: S_IFBLK } as const;

const zeroEnded = (path: Buffer | string): Buffer => Buffer.concat([Buffer.from(path as string), Buffer.alloc(1)]);

function check(result: number, what: string): void {
  if (result < 0) throw kernelError(lastErrno(), what);
}

/** makedev(3) of glibc. */
const deviceNumber = (major: number, minor: number): bigint =>
  BigInt(minor & 0xff) |
  (BigInt(major & 0xfff) << 8n) |
  (BigInt(minor & ~0xff & 0xffffffff) << 12n) |
  (BigInt(major & ~0xfff & 0xffffffff) << 32n);

/** `mknod`; `mode`: its permission bits, from which the process's mask is taken away. */
export function makeNode(
  path: Buffer | string,
  kind: keyof typeof KINDS,
  mode: number,
  device: { readonly major: number; readonly minor: number } = { major: 0, minor: 0 },
): void {
  const number = deviceNumber(device.major, device.minor);
  check(libc.mknod(zeroEnded(path), KINDS[kind] | (mode & 0o7777), number), `mknod ${path} ${kind}`);
}

/** What hides a name of the layers below in an overlay: a character device 0/0. */
export const makeWhiteout = (path: Buffer | string): void => makeNode(path, 'char', 0);

/** `setfattr -h`: sets an extended attribute of the path itself, never of what a symbolic link there points to. */
export function setXattr(path: Buffer | string, name: string, value: Uint8Array): void {
  check(libc.lsetxattr(zeroEnded(path), zeroEnded(name), value, value.length, 0), `set ${name} of ${path}`);
}

/** `getfattr -h`; null where the path has no such attribute. Values have at most 64 KiB (XATTR_SIZE_MAX). */
export function getXattr(path: Buffer | string, name: string): Buffer | null {
  const out = Buffer.alloc(65_536);
  const length = Number(libc.lgetxattr(zeroEnded(path), zeroEnded(name), out, out.length));
  if (length >= 0) return out.subarray(0, length);
  const errno = lastErrno();
  const ENODATA = 61;
  if (errno === ENODATA) return null;
  throw kernelError(errno, `get ${name} of ${path}`);
}

/** `sync -f`: everything on the file system of that directory is on its disk when this returns. Blocks the thread. */
export function syncFileSystem(dir: string): void {
  const fd = openSync(dir, 'r');
  try {
    check(libc.syncfs(fd), `sync ${dir}`);
  } finally {
    closeSync(fd);
  }
}
