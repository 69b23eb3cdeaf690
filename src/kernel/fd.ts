import { kernelError, lastErrno, libc } from './libc.ts';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;

/** Who is at the other end of a unix socket (SO_PEERCRED); null when the kernel does not tell. */
export function peerOf(fd: number): { readonly uid: number; readonly pid: number } | null {
  const credentials = Buffer.alloc(12);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, Buffer.from([12, 0, 0, 0])) < 0) return null;
  return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4) };
}

const LOCK_EX = 2;
const LOCK_NB = 4;
const EWOULDBLOCK = 11;

/** `flock -n`: false when another process holds it. */
export function tryFlock(fd: number): boolean {
  if (libc.flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const errno = lastErrno();
  if (errno === EWOULDBLOCK) return false;
  throw kernelError(errno, 'flock');
}
