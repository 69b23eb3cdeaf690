/** What this kernel can do, found by trying, never by its version. */
import { existsSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import type { Features, Namespaces } from '../contracts/kernel.ts';
import { check, errnoOf, libc } from './libc.ts';
import { attr, NLM_F, nest, text } from './message.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './socket.ts';

const CLONE_NEWNET = 0x40000000;
const RTM_NEWLINK = 16;
const RTM_NEWQDISC = 36;
const IFLA_IFNAME = 3;
const IFLA_LINKINFO = 18;
const IFLA_INFO_KIND = 1;
const TCA_KIND = 1;
const AF_NETLINK = 16;
const NETLINK_NETFILTER = 12;
const EOPNOTSUPP = 95;
const ENOENT = 2;

/** Each is found when it is first asked for: the daemon's start pays for none. */
export class KernelFeatures implements Features {
  readonly #namespaces: Namespaces;
  readonly #known = new Map<string, boolean>();

  constructor(namespaces: Namespaces) {
    this.#namespaces = namespaces;
  }

  get release(): string {
    return release();
  }
  get tcx(): boolean {
    return this.#once('tcx', () => hasSymbol('tcx_prog_attach'));
  }
  get netnsCookieInSockAddr(): boolean {
    return this.#once('cookie', () => hasSymbol('bpf_get_netns_cookie_sock_addr'));
  }
  get cgroupBpf(): boolean {
    return this.#once('cgroupBpf', () => hasSymbol('cgroup_bpf_prog_attach'));
  }
  get sockDestroy(): boolean {
    return this.#once('sockDestroy', () => hasSymbol('tcp_diag_destroy') || hasSymbol('sock_diag_destroy'));
  }
  get nftables(): boolean {
    return this.#once('nftables', () => hasProtocol(NETLINK_NETFILTER));
  }
  get vxlan(): boolean {
    return this.#once('vxlan', () => this.#probe((socket) => hasLinkKind(socket, 'vxlan')));
  }
  get netem(): boolean {
    return this.#once('netem', () => this.#probe((socket) => hasQdisc(socket, 'netem')));
  }
  get ipvs(): boolean {
    return existsSync('/proc/net/ip_vs');
  }
  get overlayfs(): boolean {
    return this.#once('overlayfs', () => readFileSync('/proc/filesystems', 'utf8').includes('\toverlay'));
  }

  #once(name: string, probe: () => boolean): boolean {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    const found = probe();
    this.#known.set(name, found);
    return found;
  }

  /** In a namespace that is thrown away: leaving it ends it. */
  #probe(probe: (socket: NetlinkSocket) => boolean): boolean {
    return this.#namespaces.host.run(() => {
      check(libc.unshare(CLONE_NEWNET), 'unshare(CLONE_NEWNET)');
      const socket = new NetlinkSocket(NETLINK_ROUTE, 'netlink');
      try {
        return probe(socket);
      } finally {
        socket[Symbol.dispose]();
      }
    });
  }
}

/** A link without the rest of what its kind asks for: any refusal but «not supported» shows that the kind is known. */
function hasLinkKind(socket: NetlinkSocket, kind: string): boolean {
  const payload = Buffer.concat([
    Buffer.alloc(16),
    attr(IFLA_IFNAME, text('probe0')),
    nest(IFLA_LINKINFO, attr(IFLA_INFO_KIND, text(kind))),
  ]);
  const [error] = socket.batch([
    { type: RTM_NEWLINK, flags: NLM_F.CREATE | NLM_F.EXCL, payload, what: `probe ${kind}` },
  ]);
  return !error || errnoOf(error) !== EOPNOTSUPP;
}

function hasQdisc(socket: NetlinkSocket, kind: string): boolean {
  const header = Buffer.alloc(20);
  header.writeInt32LE(1, 4);
  header.writeUInt32LE(0xffffffff, 12);
  const [error] = socket.batch([
    {
      type: RTM_NEWQDISC,
      flags: NLM_F.CREATE | NLM_F.REPLACE,
      payload: Buffer.concat([header, attr(TCA_KIND, text(kind))]),
      what: `probe ${kind}`,
    },
  ]);
  return !error || errnoOf(error) !== ENOENT;
}

function hasProtocol(protocol: number): boolean {
  const fd = libc.socket(AF_NETLINK, 3 | 0o2000000, protocol);
  if (fd >= 0) libc.close(fd);
  return fd >= 0;
}

let symbols: string | undefined;

/** A name in /proc/kallsyms, which everybody may read without the addresses. */
function hasSymbol(name: string): boolean {
  symbols ??= readFileSync('/proc/kallsyms', 'utf8');
  return symbols.includes(` ${name}`);
}
