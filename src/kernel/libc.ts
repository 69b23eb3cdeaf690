/** System calls through koffi, the only native door besides libbpf and libnftables. Errors become coded with errno's name. */
import { constants } from 'node:os';
import koffi from 'koffi';
import { type ErrorCode, SluiceError } from '../errors.ts';

const lib = koffi.load(null);

export const libc = {
  setns: lib.func('int setns(int fd, int nstype)'),
  unshare: lib.func('int unshare(int flags)'),
  mount: lib.func(
    'int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)',
  ),
  umount2: lib.func('int umount2(const char *target, int flags)'),
  socket: lib.func('int socket(int domain, int type, int protocol)'),
  bind: lib.func('int bind(int fd, const uint8_t *address, uint32_t length)'),
  connect: lib.func('int connect(int fd, const uint8_t *address, uint32_t length)'),
  shutdown: lib.func('int shutdown(int fd, int how)'),
  listen: lib.func('int listen(int fd, int backlog)'),
  accept4: lib.func('int accept4(int fd, void *address, void *length, int flags)'),
  close: lib.func('int close(int fd)'),
  sendto: lib.func(
    'int64_t sendto(int fd, const uint8_t *data, size_t length, int flags, const uint8_t *address, uint32_t addressLength)',
  ),
  recv: lib.func('int64_t recv(int fd, uint8_t *data, size_t length, int flags)'),
  recvfrom: lib.func(
    'int64_t recvfrom(int fd, uint8_t *data, size_t length, int flags, uint8_t *address, uint8_t *addressLength)',
  ),
  setsockopt: lib.func('int setsockopt(int fd, int level, int name, const uint8_t *value, uint32_t length)'),
  getsockopt: lib.func('int getsockopt(int fd, int level, int name, uint8_t *value, uint8_t *length)'),
  getsockname: lib.func('int getsockname(int fd, uint8_t *address, uint8_t *length)'),
  statfs: lib.func('int statfs(const char *path, uint8_t *out)'),
  flock: lib.func('int flock(int fd, int operation)'),
  ioctl: lib.func('int ioctl(int fd, unsigned long request)'),
  ioctlWith: lib.func('int ioctl(int fd, unsigned long request, uint8_t *argument)'),
  poll: lib.func('int poll(uint8_t *descriptors, unsigned long count, int timeoutMs)'),
  mknod: lib.func('int mknod(const uint8_t *path, uint32_t mode, uint64_t device)'),
  lsetxattr: lib.func(
    'int lsetxattr(const uint8_t *path, const uint8_t *name, const uint8_t *value, size_t length, int flags)',
  ),
  lgetxattr: lib.func('int64_t lgetxattr(const uint8_t *path, const uint8_t *name, uint8_t *out, size_t length)'),
  syncfs: lib.func('int syncfs(int fd)'),
  // The newer mount interface by number: glibc has wrappers since 2.36 only. The numbers are the same on every architecture.
  openTree: lib.func('long syscall(long number, int dir, const char *path, uint32_t flags)'),
  moveMount: lib.func(
    'long syscall(long number, int fromDir, const char *from, int toDir, const char *to, uint32_t flags)',
  ),
  fsopen: lib.func('long syscall(long number, const char *type, uint32_t flags)'),
  fsconfig: lib.func(
    'long syscall(long number, int fd, uint32_t command, const char *key, const char *value, int aux)',
  ),
  fsmount: lib.func('long syscall(long number, int fd, uint32_t flags, uint32_t attributes)'),
  mountSetattr: lib.func(
    'long syscall(long number, int dir, const char *path, uint32_t flags, const uint8_t *attributes, size_t length)',
  ),
  bpf: lib.func('long syscall(long number, int command, uint8_t *attributes, uint32_t length)'),
} as const;

/** Flags of socket(2), accept4(2). */
export const SOCK_CLOEXEC = 0o2000000;
export const SOCK_NONBLOCK = 0o4000;
export const SOL_SOCKET = 1;

const names = new Map<number, string>(Object.entries(constants.errno).map(([name, number]) => [number, name]));
// Linux's own, where libuv's table has another name for the number or none.
names.set(11, 'EAGAIN').set(35, 'EDEADLK').set(95, 'EOPNOTSUPP').set(524, 'ENOTSUPP');

export const errnoName = (errno: number): string => names.get(errno) ?? `errno ${errno}`;

const CODES: Readonly<Record<string, ErrorCode>> = {
  EPERM: 'kernel.denied',
  EACCES: 'kernel.denied',
  EEXIST: 'kernel.exists',
  ENOENT: 'kernel.notfound',
  ENODEV: 'kernel.notfound',
  ESRCH: 'kernel.notfound',
  EOPNOTSUPP: 'kernel.missing',
  EAFNOSUPPORT: 'kernel.missing',
  EPROTONOSUPPORT: 'kernel.missing',
  ENOSYS: 'kernel.missing',
};

/** `what`: what was tried, on what. `message`: the kernel's own words, when it gave some. */
export function kernelError(errno: number, what: string, message = ''): SluiceError {
  const name = errnoName(errno);
  return new SluiceError(CODES[name] ?? 'kernel.failed', `${what}: ${message ? `${message} (${name})` : name}`, {
    errno,
    name,
    message,
  });
}

/** A failure of node:fs as a coded error; what is one already passes through. */
export function fsError(error: unknown, what: string, message = ''): SluiceError {
  if (error instanceof SluiceError) return error;
  return kernelError(Math.abs((error as NodeJS.ErrnoException).errno ?? 0), what, message);
}

/** The errno of a `kernel.*` error, 0 for anything else. */
export const errnoOf = (error: unknown): number =>
  error instanceof SluiceError && typeof error.details.errno === 'number' ? error.details.errno : 0;

/** Where a buffer lies, for structures that hold pointers. The buffer must outlive the call that reads them. */
export const addressOf = (buffer: Uint8Array): bigint => koffi.address(buffer);

export const lastErrno = (): number => koffi.errno();

/** Passes a result through; a negative one is thrown with errno. */
export function check(result: number, what: string): number {
  if (result < 0) throw kernelError(koffi.errno(), what);
  return result;
}
