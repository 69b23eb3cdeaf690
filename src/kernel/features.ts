/** What this kernel can do, found by trying, never by its version. Tries that make something make it in a namespace that is thrown away. */
import { closeSync, openSync } from 'node:fs';
import { arch, release } from 'node:os';
import koffi from 'koffi';
import type { Cgroups, Features } from '../contracts/kernel.ts';
import { errnoOf, lastErrno, libc } from './libc.ts';
import { attr, NLM_F, nest, text } from './netlink/message.ts';
import {
  NETLINK_GENERIC,
  NETLINK_NETFILTER,
  NETLINK_ROUTE,
  NETLINK_SOCK_DIAG,
  NetlinkSocket,
} from './netlink/socket.ts';
import { inNewNetns } from './netns.ts';

const ENOENT = 2;
const ENODEV = 19;
const EOPNOTSUPP = 95;
const AF_INET = 2;
const IPPROTO_TCP = 6;

/** linux/bpf.h; the number of bpf(2) by architecture. */
const BPF_SYSCALL = arch() === 'x64' ? 321 : 280;
const BPF_PROG_LOAD = 5;
const BPF_PROG_QUERY = 16;
const BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18;
const BPF_CGROUP_INET4_CONNECT = 10;
const BPF_TCX_INGRESS = 46;
const BPF_FUNC_GET_NETNS_COOKIE = 122;
const BPF_ATTR_BYTES = 128;
const LOOPBACK = 1;

/** Each is tried when it is first asked for: the daemon's start pays for none. */
export class KernelFeatures implements Features {
  readonly #cgroups: Pick<Cgroups, 'mount'>;
  readonly #known = new Map<string, boolean>();

  constructor(cgroups: Pick<Cgroups, 'mount'>) {
    this.#cgroups = cgroups;
  }

  get release(): string {
    return release();
  }
  get tcx(): boolean {
    return this.#once('tcx', () => canQuery(LOOPBACK, BPF_TCX_INGRESS));
  }
  get netnsCookieInSockAddr(): boolean {
    return this.#once('netnsCookieInSockAddr', loadsCookieProgram);
  }
  get cgroupBpf(): boolean {
    return this.#once('cgroupBpf', () => {
      const fd = openSync(this.#cgroups.mount, 'r');
      try {
        return canQuery(fd, BPF_CGROUP_INET4_CONNECT);
      } finally {
        closeSync(fd);
      }
    });
  }
  get sockDestroy(): boolean {
    return this.#once('sockDestroy', () => tryAlone(NETLINK_SOCK_DIAG, destroysSockets));
  }
  get nftables(): boolean {
    return this.#once('nftables', () => tryAlone(NETLINK_NETFILTER, answersNftables));
  }
  get vxlan(): boolean {
    return this.#once('vxlan', () => tryAlone(NETLINK_ROUTE, (socket) => knowsLink(socket, 'vxlan')));
  }
  get netem(): boolean {
    return this.#once('netem', () => tryAlone(NETLINK_ROUTE, (socket) => knowsQdisc(socket, 'netem')));
  }
  get ipvs(): boolean {
    return this.#once('ipvs', () => tryAlone(NETLINK_GENERIC, (socket) => knowsFamily(socket, 'IPVS')));
  }
  get overlayfs(): boolean {
    return this.#once('overlayfs', () => {
      // Without layers it is refused, and a file system that the kernel does not know is refused in other words.
      if (libc.mount('none', '/', 'overlay', 0, 'lowerdir=') < 0) return lastErrno() !== ENODEV;
      libc.umount2('/', 0);
      return true;
    });
  }

  #once(name: string, probe: () => boolean): boolean {
    const known = this.#known.get(name) ?? probe();
    this.#known.set(name, known);
    return known;
  }
}

/** Leaving the new namespace ends it. False where not even the socket can be had. */
function tryAlone(protocol: number, probe: (socket: NetlinkSocket) => boolean): boolean {
  return inNewNetns(() => {
    let socket: NetlinkSocket;
    try {
      socket = new NetlinkSocket(protocol, 'probe');
    } catch {
      // EPROTONOSUPPORT: the kernel has no such protocol.
      return false;
    }
    try {
      return probe(socket);
    } finally {
      socket[Symbol.dispose]();
    }
  });
}

/** The errno of one request, 0 where it succeeded. */
function answer(socket: NetlinkSocket, type: number, flags: number, parts: readonly Uint8Array[]): number {
  const [error] = socket.batch([{ type, flags, payload: Buffer.concat(parts), what: 'probe' }]);
  return error ? errnoOf(error) : 0;
}

const RTM_NEWLINK = 16;
const IFLA_IFNAME = 3;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;

/** A link without the rest of what its kind asks for: any refusal but «not supported» shows that the kind is known. */
function knowsLink(socket: NetlinkSocket, kind: string): boolean {
  const info = nest(IFLA_LINKINFO, attr(IFLA_INFO_KIND, text(kind)));
  const parts = [Buffer.alloc(16), attr(IFLA_IFNAME, text('probe0')), info];
  return answer(socket, RTM_NEWLINK, NLM_F.CREATE | NLM_F.EXCL, parts) !== EOPNOTSUPP;
}

const RTM_NEWQDISC = 36;
const TCA_KIND = 1;
const TC_H_ROOT = 0xffffffff;

function knowsQdisc(socket: NetlinkSocket, kind: string): boolean {
  const header = Buffer.alloc(20);
  header.writeInt32LE(LOOPBACK, 4);
  header.writeUInt32LE(TC_H_ROOT, 12);
  const errno = answer(socket, RTM_NEWQDISC, NLM_F.CREATE | NLM_F.REPLACE, [header, attr(TCA_KIND, text(kind))]);
  return errno !== ENOENT;
}

const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_NAME = 2;

function knowsFamily(socket: NetlinkSocket, name: string): boolean {
  const header = Buffer.from([CTRL_CMD_GETFAMILY, 1, 0, 0]);
  return answer(socket, GENL_ID_CTRL, 0, [header, attr(CTRL_ATTR_FAMILY_NAME, text(name))]) === 0;
}

const NFT_MSG_GETGEN = (10 << 8) | 16;

function answersNftables(socket: NetlinkSocket): boolean {
  return answer(socket, NFT_MSG_GETGEN, 0, [Buffer.alloc(4)]) === 0;
}

const SOCK_DESTROY = 21;

/** A socket that cannot be: ENOENT says that it was looked for. */
function destroysSockets(socket: NetlinkSocket): boolean {
  const request = Buffer.alloc(8 + 48);
  request[0] = AF_INET;
  request[1] = IPPROTO_TCP;
  return answer(socket, SOCK_DESTROY, 0, [request]) === ENOENT;
}

/** Whether the kernel knows programs of that attach type at a cgroup or an interface. */
function canQuery(target: number, attachType: number): boolean {
  const attributes = Buffer.alloc(BPF_ATTR_BYTES);
  attributes.writeUInt32LE(target, 0);
  attributes.writeUInt32LE(attachType, 4);
  return Number(libc.bpf(BPF_SYSCALL, BPF_PROG_QUERY, attributes, 64)) === 0;
}

/** `r0 = bpf_get_netns_cookie(ctx); r0 = 1; exit` for connect4. */
function loadsCookieProgram(): boolean {
  const program = Buffer.alloc(3 * 8);
  program.set([0x85, 0, 0, 0], 0);
  program.writeInt32LE(BPF_FUNC_GET_NETNS_COOKIE, 4);
  program.set([0xb7, 0, 0, 0, 1], 8);
  program.set([0x95], 16);
  const license = Buffer.from('GPL\0');
  const attributes = Buffer.alloc(BPF_ATTR_BYTES);
  attributes.writeUInt32LE(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, 0);
  attributes.writeUInt32LE(3, 4);
  attributes.writeBigUInt64LE(koffi.address(program), 8);
  attributes.writeBigUInt64LE(koffi.address(license), 16);
  // expected_attach_type
  attributes.writeUInt32LE(BPF_CGROUP_INET4_CONNECT, 68);
  const fd = Number(libc.bpf(BPF_SYSCALL, BPF_PROG_LOAD, attributes, 72));
  if (fd < 0) return false;
  closeSync(fd);
  return true;
}
