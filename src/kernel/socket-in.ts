/**
 * Sockets that are born inside a namespace, as descriptors. UDP ones may be handed to dgram; listeners stay outside libuv, whose accept
 * loop spins on a listener that somebody destroyed (`ss -K`).
 */
import type { Namespace } from '../contracts/kernel.ts';
import { familyOf, toBytes } from '../model/ip.ts';
import { check, kernelError, lastErrno, libc } from './libc.ts';
import { u32 } from './netlink/message.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const EAGAIN = 11;
const LISTEN_BACKLOG = 128;

/** struct sockaddr_in or sockaddr_in6. */
export function socketAddress(address: string, port: number): Buffer {
  const v4 = familyOf(address) === 4;
  const out = Buffer.alloc(v4 ? 16 : 28);
  out.writeUInt16LE(v4 ? AF_INET : AF_INET6, 0);
  out.writeUInt16BE(port, 2);
  out.set(toBytes(address), v4 ? 4 : 8);
  return out;
}

function bound(namespace: Namespace, kind: number, address: string, port: number): number {
  const sockaddr = socketAddress(address, port);
  return namespace.run(() => {
    const fd = check(libc.socket(sockaddr.readUInt16LE(0), kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'socket');
    try {
      // A listener may come back while its connections end. On UDP it would let any process that sets it too take the port's datagrams.
      if (kind === SOCK_STREAM)
        check(libc.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, u32(1), 4), 'setsockopt(SO_REUSEADDR)');
      check(libc.bind(fd, sockaddr, sockaddr.length), `bind ${address} port ${port} in ${namespace.path}`);
      if (kind === SOCK_STREAM) check(libc.listen(fd, LISTEN_BACKLOG), `listen on ${address} port ${port}`);
      return fd;
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  });
}

/** A bound UDP socket; a port in use is `kernel.failed` with errno EADDRINUSE in its details. */
export const udpSocketIn = (namespace: Namespace, address: string, port: number): number =>
  bound(namespace, SOCK_DGRAM, address, port);

/** A listening TCP socket. */
export const tcpListenerIn = (namespace: Namespace, address: string, port: number): number =>
  bound(namespace, SOCK_STREAM, address, port);

/** The next connection, null when there is none now; fails when the listener is no more (EINVAL after `ss -K`). */
export function acceptFd(listener: number): number | null {
  const fd = libc.accept4(listener, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) return fd;
  const errno = lastErrno();
  if (errno === EAGAIN) return null;
  throw kernelError(errno, 'accept');
}

export function closeFd(fd: number): void {
  libc.close(fd);
}
