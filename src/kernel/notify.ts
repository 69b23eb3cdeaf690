/** systemd's readiness protocol (sd_notify): a datagram to the socket named in NOTIFY_SOCKET; without one nothing happens. */
import { kernelError, lastErrno, libc } from './libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;

export function notifySystemd(state: string, path = process.env.NOTIFY_SOCKET): void {
  if (!path) return;
  // A leading @ means the abstract namespace.
  const name = Buffer.from(path.startsWith('@') ? `\0${path.slice(1)}` : path);
  const address = Buffer.alloc(2 + name.length);
  address.writeUInt16LE(AF_UNIX, 0);
  address.set(name, 2);
  const fd = libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) throw kernelError(lastErrno(), 'socket(AF_UNIX)');
  try {
    const data = Buffer.from(state);
    if (Number(libc.sendto(fd, data, data.length, 0, address, address.length)) < 0)
      throw kernelError(lastErrno(), `notify systemd at ${path}`);
  } finally {
    libc.close(fd);
  }
}
