/** Sockets of a namespace: listed with their BPF storage, and destroyed. By hand: `ss -tan dst ADDR`, `ss -K`. */
import type { Namespace, SocketFilter, SocketInfo, Sockets } from '../../contracts/kernel.ts';
import { canonicalAddress, familyOf, fromBytes, toBytes } from '../../model/ip.ts';
import { errnoOf } from '../libc.ts';
import { attr, attrs, eachAttr, type Message, nest, u32 } from './message.ts';
import { NETLINK_SOCK_DIAG, NetlinkSocket } from './socket.ts';

const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const IPPROTO = { tcp: 6, udp: 17 } as const;
const AF_INET = 2;
const AF_INET6 = 10;
const TCP_TIME_WAIT = 6;
const TCP_LISTEN = 10;
/** All but LISTEN and TIME_WAIT. */
const STATES_DEFAULT = ~((1 << TCP_TIME_WAIT) | (1 << TCP_LISTEN)) >>> 0;
/** linux/inet_diag.h */
const INET_DIAG_REQ_BYTECODE = 1;
const INET_DIAG_REQ_SK_BPF_STORAGES = 2;
const INET_DIAG_SK_BPF_STORAGES = 20;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD = 1;
const SK_DIAG_BPF_STORAGE = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE = 3;
const INET_DIAG_BC_D_COND = 8;
const NO_COOKIE = 0xffffffff;
/** ENOENT, ESTALE: it ended before. */
const GONE = [2, 116];

const V4_MAPPED = '::ffff:';

/** struct inet_diag_req_v2 with a socket id. */
function request(family: number, protocol: number, states: number, id: Uint8Array): Buffer {
  const out = Buffer.alloc(8 + 48);
  out[0] = family;
  out[1] = protocol;
  out.writeUInt32LE(states, 4);
  out.set(id, 8);
  return out;
}

/** A program for the kernel's filter: remote address and port. Jumps past the end mean no. */
function bytecode(remote: string | undefined, port: number | undefined): Buffer {
  const bytes = remote === undefined ? Buffer.alloc(0) : Buffer.from(toBytes(remote));
  const family = remote === undefined ? 0 : familyOf(remote) === 4 ? AF_INET : AF_INET6;
  const condition = Buffer.alloc(8);
  condition[0] = family;
  condition[1] = bytes.length * 8;
  condition.writeInt32LE(port ?? -1, 4);
  const length = 4 + 8 + bytes.length;
  const op = Buffer.alloc(4);
  op[0] = INET_DIAG_BC_D_COND;
  op[1] = length;
  op.writeUInt16LE(length + 4, 2);
  return Buffer.concat([op, condition, bytes]);
}

function parse(protocol: 'tcp' | 'udp', { data }: Message): SocketInfo {
  const family = data[0] === AF_INET6 ? 6 : 4;
  const size = family === 4 ? 4 : 16;
  const storages = attrs(data, 72).get(INET_DIAG_SK_BPF_STORAGES);
  let storage: Uint8Array | undefined;
  for (const [type, value] of storages ? eachAttr(storages) : []) {
    const found = type === SK_DIAG_BPF_STORAGE ? attrs(value).get(SK_DIAG_BPF_STORAGE_MAP_VALUE) : undefined;
    if (found) storage = Uint8Array.from(found);
  }
  return {
    family,
    protocol,
    state: data[1] ?? 0,
    localPort: data.readUInt16BE(4),
    remotePort: data.readUInt16BE(6),
    local: fromBytes(data.subarray(8, 8 + size)),
    remote: fromBytes(data.subarray(24, 24 + size)),
    cookie: data.readBigUInt64LE(44),
    storage,
    uid: data.readUInt32LE(64),
    inode: data.readUInt32LE(68),
  };
}

/**
 * A backend's end destroys thousands of sockets one by one, so the diagnosis socket of a namespace is kept until the event loop turns;
 * longer, and it would keep a removed namespace alive.
 */
export class KernelSockets implements Sockets, Disposable {
  #open: { readonly identity: string; readonly socket: NetlinkSocket } | undefined;

  list(namespace: Namespace, filter: SocketFilter): SocketInfo[] {
    const socket = this.#socketIn(namespace);
    return [AF_INET, AF_INET6].flatMap((family) => dump(socket, family, filter));
  }

  destroy(namespace: Namespace, info: SocketInfo): boolean {
    const family = info.family === 4 ? AF_INET : AF_INET6;
    const payload = request(family, IPPROTO[info.protocol], NO_COOKIE, socketId(info));
    const what = `destroy ${info.protocol} socket ${info.local} port ${info.localPort} to ${info.remote} port ${info.remotePort}`;
    const [error] = this.#socketIn(namespace).batch([{ type: SOCK_DESTROY, flags: 0, payload, what }]);
    if (error && !GONE.includes(errnoOf(error))) throw error;
    return !error;
  }

  [Symbol.dispose](): void {
    this.#open?.socket[Symbol.dispose]();
    this.#open = undefined;
  }

  #socketIn(namespace: Namespace): NetlinkSocket {
    if (this.#open?.identity === namespace.identity) return this.#open.socket;
    this[Symbol.dispose]();
    const socket = namespace.run(() => new NetlinkSocket(NETLINK_SOCK_DIAG, 'sock_diag'));
    const open = { identity: namespace.identity, socket };
    this.#open = open;
    setImmediate(() => {
      socket[Symbol.dispose]();
      if (this.#open === open) this.#open = undefined;
    });
    return socket;
  }
}

function dump(socket: NetlinkSocket, family: number, filter: SocketFilter): SocketInfo[] {
  const { protocol, remotePort, storageFd, states = STATES_DEFAULT } = filter;
  const remote = filter.remote && canonicalAddress(filter.remote);
  if (remote && familyOf(remote) === 6 && family === AF_INET) return [];
  const parts = [request(family, IPPROTO[protocol], states, Buffer.alloc(48))];
  // A v4-mapped socket matches an IPv4 condition, too.
  if (remote !== undefined || remotePort !== undefined)
    parts.push(attr(INET_DIAG_REQ_BYTECODE, bytecode(remote, remotePort)));
  // UDP dumps carry no storage.
  if (storageFd !== undefined && protocol === 'tcp')
    parts.push(nest(INET_DIAG_REQ_SK_BPF_STORAGES, attr(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, u32(storageFd))));
  const what = `list ${protocol} sockets${remote === undefined ? '' : ` to ${remote}`}`;
  return socket.dump({ type: SOCK_DIAG_BY_FAMILY, flags: 0, payload: Buffer.concat(parts), what }, (message) => {
    const info = parse(protocol, message);
    // Looked at once more: what is listed may be destroyed next.
    const fits =
      (remote === undefined || info.remote === remote) && (remotePort === undefined || info.remotePort === remotePort);
    return fits ? info : undefined;
  });
}

/** struct inet_diag_sockid: ports, addresses, interface, cookie. */
function socketId(info: SocketInfo): Buffer {
  const out = Buffer.alloc(48);
  out.writeUInt16BE(info.localPort, 0);
  out.writeUInt16BE(info.remotePort, 2);
  const bytes = (address: string): Uint8Array =>
    toBytes(info.family === 6 && !address.includes(':') ? `${V4_MAPPED}${address}` : address);
  out.set(bytes(info.local), 4);
  out.set(bytes(info.remote), 20);
  out.writeBigUInt64LE(info.cookie, 40);
  return out;
}
