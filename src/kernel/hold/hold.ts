/**
 * Ports of the host that are kept from others by a socket that is bound and never read from: whoever binds the port next gets EADDRINUSE.
 * That it is bound says nothing to clients: what is published is translated before a socket would be looked for.
 */
import type { Namespace, Ports, SocketInfo, Sockets } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import { familyOf } from '../../model/ip.ts';
import { check, errnoOf, libc, SOCK_CLOEXEC, SOL_SOCKET } from '../libc.ts';
import { u32 } from '../netlink/message.ts';
import { socketAddress } from '../socket-in.ts';
import { processOf } from './process.ts';

const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SO_RCVBUF = 8;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const EADDRINUSE = 98;
const EADDRNOTAVAIL = 99;

const TCP_TIME_WAIT = 6;
const TCP_LISTEN = 10;
/** Bound, and neither listening nor connected: told by Linux 6.8 and later. */
const TCP_BOUND_INACTIVE = 13;
const UDP_BOUND = 7;
const EVERY_STATE = 0xffff_ffff;

const wildcard = (address: string): boolean => address === '0.0.0.0' || address === '::';

export class KernelPorts implements Ports {
  readonly #host: Namespace;
  readonly #sockets: Sockets;

  constructor(host: Namespace, sockets: Sockets) {
    this.#host = host;
    this.#sockets = sockets;
  }

  hold(protocol: 'tcp' | 'udp', address: string, port: number): Disposable | null {
    try {
      const fd = this.#host.run(() => bind(protocol, address, port));
      return {
        [Symbol.dispose]() {
          libc.close(fd);
        },
      };
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === EADDRNOTAVAIL)
        throw new SluiceError('port.address', `this host has no address ${address}`, { address }, error);
      if (errno !== EADDRINUSE) throw error;
      const holders = this.#holders(protocol, address, port);
      const holder = holders.find(({ state }) => state !== TCP_TIME_WAIT) ?? null;
      if (!holder && holders.length > 0) return null;
      const by = (holder && processOf(holder.inode)) ?? 'a process that does not listen on it';
      throw new SluiceError('port.inuse', `port ${port}/${protocol} of this host is in use by ${by}`, {
        protocol,
        address,
        port,
        by,
      });
    }
  }

  /** Sockets that keep the port from being bound. Those of ended connections come last. */
  #holders(protocol: 'tcp' | 'udp', address: string, port: number): SocketInfo[] {
    const binds = ({ family, local, localPort, state }: SocketInfo): boolean =>
      localPort === port &&
      (local === address || wildcard(local) || wildcard(address)) &&
      // One that is bound to `::` takes IPv4 as well, unless it was told otherwise.
      (family === familyOf(address) || local === '::') &&
      (protocol === 'udp'
        ? state === UDP_BOUND
        : [TCP_LISTEN, TCP_BOUND_INACTIVE, TCP_TIME_WAIT].includes(state) || state < TCP_TIME_WAIT);
    return this.#sockets.list(this.#host, { protocol, states: EVERY_STATE }).filter(binds);
  }
}

function bind(protocol: 'tcp' | 'udp', address: string, port: number): number {
  const sockaddr = socketAddress(address, port);
  const kind = protocol === 'tcp' ? SOCK_STREAM : SOCK_DGRAM;
  const fd = check(libc.socket(sockaddr.readUInt16LE(0), kind | SOCK_CLOEXEC, 0), 'socket');
  try {
    // Each family is held apart.
    if (familyOf(address) === 6)
      check(libc.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, u32(1), 4), 'setsockopt(IPV6_V6ONLY)');
    // Datagrams of clients that are not let in are not worth keeping.
    check(libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, u32(0), 4), 'setsockopt(SO_RCVBUF)');
    check(libc.bind(fd, sockaddr, sockaddr.length), `bind ${address} port ${port}`);
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}
