/** Links over rtnetlink. By hand: `ip -d link`. */
import type { BridgeOptions, Link, LinkChange, VethOptions, VxlanOptions } from '../contracts/kernel.ts';
import { fromBytes, macFromBytes, macToBytes, toBytes } from '../model/ip.ts';
import { kernelError } from './libc.ts';
import { attr, attrs, type Message, NLM_F, nest, plainNest, readText, text, u8, u16be, u32 } from './message.ts';
import type { NetlinkSocket, Request } from './socket.ts';

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const IFF_UP = 1;
const RTEXT_FILTER_SKIP_STATS = 8;
/** linux/if_link.h */
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  LINKINFO: 18,
  IFALIAS: 20,
  AF_SPEC: 26,
  GROUP: 27,
  NET_NS_FD: 28,
  EXT_MASK: 29,
} as const;
const INFO = { KIND: 1, DATA: 2, SLAVE_KIND: 4, SLAVE_DATA: 5 } as const;
const BRPORT = { MODE: 4, LEARNING: 8, UNICAST_FLOOD: 9, NEIGH_SUPPRESS: 32, ISOLATED: 33 } as const;
const VXLAN = { ID: 1, LOCAL: 4, LEARNING: 7, PORT: 15, LOCAL6: 17 } as const;
const VETH_INFO_PEER = 1;
const AF_INET6 = 10;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const EEXIST = 17;
const ENODEV = 19;

/** struct ifinfomsg */
function header(index: number, flags = 0, change = 0): Buffer {
  const out = Buffer.alloc(16);
  out.writeInt32LE(index, 4);
  out.writeUInt32LE(flags, 8);
  out.writeUInt32LE(change, 12);
  return out;
}

export function parseLink({ data }: Pick<Message, 'data'>): Link {
  const found = attrs(data, 16);
  const info = attrs(found.get(IFLA.LINKINFO) ?? Buffer.alloc(0));
  const kind = readText(info.get(INFO.KIND));
  const details = attrs(info.get(INFO.DATA) ?? Buffer.alloc(0));
  const slave = attrs(info.get(INFO.SLAVE_DATA) ?? Buffer.alloc(0));
  const flag = (type: number): boolean => slave.get(type)?.[0] === 1;
  return {
    ifindex: data.readInt32LE(4),
    name: readText(found.get(IFLA.IFNAME)),
    // ARPHRD_LOOPBACK
    kind: kind || (data.readUInt16LE(2) === 772 ? 'loopback' : 'device'),
    mac: macFromBytes(found.get(IFLA.ADDRESS) ?? Buffer.alloc(0)),
    mtu: found.get(IFLA.MTU)?.readUInt32LE() ?? 0,
    up: (data.readUInt32LE(8) & IFF_UP) !== 0,
    master: found.get(IFLA.MASTER)?.readUInt32LE() ?? 0,
    peer: found.get(IFLA.LINK)?.readUInt32LE() ?? 0,
    alias: readText(found.get(IFLA.IFALIAS)),
    group: found.get(IFLA.GROUP)?.readUInt32LE() ?? 0,
    port:
      readText(info.get(INFO.SLAVE_KIND)) === 'bridge'
        ? {
            learning: flag(BRPORT.LEARNING),
            neighSuppress: flag(BRPORT.NEIGH_SUPPRESS),
            isolated: flag(BRPORT.ISOLATED),
            hairpin: flag(BRPORT.MODE),
            unicastFlood: flag(BRPORT.UNICAST_FLOOD),
          }
        : undefined,
    vxlan:
      kind === 'vxlan'
        ? {
            vni: details.get(VXLAN.ID)?.readUInt32LE() ?? 0,
            port: details.get(VXLAN.PORT)?.readUInt16BE() ?? 0,
            local: fromBytes(details.get(VXLAN.LOCAL) ?? details.get(VXLAN.LOCAL6) ?? Buffer.alloc(4)),
            learning: details.get(VXLAN.LEARNING)?.[0] === 1,
          }
        : undefined,
  };
}

const skipStats = attr(IFLA.EXT_MASK, u32(RTEXT_FILTER_SKIP_STATS));

export const listLinks = (socket: NetlinkSocket): Link[] =>
  socket
    .dump({ type: RTM_GETLINK, flags: 0, payload: Buffer.concat([header(0), skipStats]), what: 'list links' })
    .map(parseLink);

export function getLink(socket: NetlinkSocket, which: string | number): Link | null {
  const payload =
    typeof which === 'number' ? [header(which), skipStats] : [header(0), attr(IFLA.IFNAME, text(which)), skipStats];
  const message = socket.get({
    type: RTM_GETLINK,
    flags: 0,
    payload: Buffer.concat(payload),
    what: `look up link ${which}`,
  });
  return message && parseLink(message);
}

function changeLink(link: number, change: LinkChange): Request {
  const parts: Buffer[] = [change.up === undefined ? header(link) : header(link, change.up ? IFF_UP : 0, IFF_UP)];
  if (change.name !== undefined) parts.push(attr(IFLA.IFNAME, text(change.name)));
  if (change.mac !== undefined) parts.push(attr(IFLA.ADDRESS, macToBytes(change.mac)));
  if (change.mtu !== undefined) parts.push(attr(IFLA.MTU, u32(change.mtu)));
  if (change.master !== undefined) parts.push(attr(IFLA.MASTER, u32(change.master)));
  if (change.alias !== undefined) parts.push(attr(IFLA.IFALIAS, Buffer.from(change.alias)));
  if (change.group !== undefined) parts.push(attr(IFLA.GROUP, u32(change.group)));
  if (change.netnsFd !== undefined) parts.push(attr(IFLA.NET_NS_FD, u32(change.netnsFd)));
  if (change.addrGenMode !== undefined)
    parts.push(nest(IFLA.AF_SPEC, nest(AF_INET6, attr(IFLA_INET6_ADDR_GEN_MODE, u8(change.addrGenMode)))));
  if (change.port) {
    const flags: [number, boolean | undefined][] = [
      [BRPORT.LEARNING, change.port.learning],
      [BRPORT.NEIGH_SUPPRESS, change.port.neighSuppress],
      [BRPORT.ISOLATED, change.port.isolated],
      [BRPORT.MODE, change.port.hairpin],
      [BRPORT.UNICAST_FLOOD, change.port.unicastFlood],
    ];
    const set = flags.flatMap(([type, on]) => (on === undefined ? [] : [attr(type, u8(on ? 1 : 0))]));
    parts.push(nest(IFLA.LINKINFO, attr(INFO.SLAVE_KIND, text('bridge')), nest(INFO.SLAVE_DATA, ...set)));
  }
  return {
    type: RTM_NEWLINK,
    flags: 0,
    payload: Buffer.concat(parts),
    what: `change link ${link} ${JSON.stringify(change)}`,
  };
}

export const setLink = (socket: NetlinkSocket, link: number, change: LinkChange): void =>
  socket.change(changeLink(link, change));

function create(
  socket: NetlinkSocket,
  name: string,
  kind: string,
  parts: readonly Buffer[],
  data: readonly Buffer[],
): Link {
  const info =
    data.length > 0
      ? nest(IFLA.LINKINFO, attr(INFO.KIND, text(kind)), nest(INFO.DATA, ...data))
      : nest(IFLA.LINKINFO, attr(INFO.KIND, text(kind)));
  socket.change({
    type: RTM_NEWLINK,
    flags: NLM_F.CREATE | NLM_F.EXCL,
    payload: Buffer.concat([header(0), attr(IFLA.IFNAME, text(name)), ...parts, info]),
    what: `add ${kind} ${name}`,
  });
  const made = getLink(socket, name);
  if (!made) throw kernelError(ENODEV, `add ${kind} ${name}`, 'it vanished at once');
  return made;
}

/** An existing link of the kind; one of another kind under that name is `kernel.exists`. */
function existing(socket: NetlinkSocket, name: string, kind: string): Link | null {
  const found = getLink(socket, name);
  if (found && found.kind !== kind)
    throw kernelError(EEXIST, `add ${kind} ${name}`, `a ${found.kind} of that name exists`);
  return found;
}

/** Mark and MTU of a link that was there. */
function adopt(
  socket: NetlinkSocket,
  link: Link,
  change: { readonly alias: string; readonly mtu: number; readonly mac?: string },
): Link {
  const wanted: LinkChange = {
    ...(link.alias === change.alias ? {} : { alias: change.alias }),
    ...(link.mtu === change.mtu ? {} : { mtu: change.mtu }),
    ...(change.mac === undefined || link.mac === change.mac ? {} : { mac: change.mac }),
  };
  if (Object.keys(wanted).length > 0) setLink(socket, link.ifindex, wanted);
  return getLink(socket, link.ifindex) ?? link;
}

export function ensureBridge(socket: NetlinkSocket, name: string, { mac, mtu, alias }: BridgeOptions): Link {
  let link = existing(socket, name, 'bridge');
  // The alias cannot be given at creation on all kernels: it is set right after, and an unmarked link of the name is taken over.
  link ??= create(socket, name, 'bridge', [attr(IFLA.ADDRESS, macToBytes(mac)), attr(IFLA.MTU, u32(mtu))], []);
  link = adopt(socket, link, { alias, mtu, mac });
  if (!link.up) setLink(socket, link.ifindex, { up: true });
  return getLink(socket, link.ifindex) ?? link;
}

export function ensureVeth(socket: NetlinkSocket, name: string, { mac, mtu, alias, group, peer }: VethOptions): Link {
  const found = existing(socket, name, 'veth');
  if (found) return adopt(socket, found, { alias, mtu });
  const parts = [attr(IFLA.MTU, u32(mtu))];
  if (mac) parts.push(attr(IFLA.ADDRESS, macToBytes(mac)));
  if (group !== undefined) parts.push(attr(IFLA.GROUP, u32(group)));
  const other = [
    header(0),
    attr(IFLA.IFNAME, text(peer.name)),
    attr(IFLA.ADDRESS, macToBytes(peer.mac)),
    attr(IFLA.MTU, u32(peer.mtu)),
  ];
  if (peer.netnsFd !== undefined) other.push(attr(IFLA.NET_NS_FD, u32(peer.netnsFd)));
  const link = create(socket, name, 'veth', parts, [plainNest(VETH_INFO_PEER, ...other)]);
  setLink(socket, link.ifindex, { alias });
  return { ...link, alias };
}

export function ensureVxlan(
  socket: NetlinkSocket,
  name: string,
  { vni, port, local, mtu, mac, alias }: VxlanOptions,
): Link {
  let link = existing(socket, name, 'vxlan');
  if (link && (link.vxlan?.vni !== vni || link.vxlan.port !== port || link.vxlan.local !== local)) {
    removeLink(socket, link.ifindex);
    link = null;
  }
  link ??= create(
    socket,
    name,
    'vxlan',
    [attr(IFLA.ADDRESS, macToBytes(mac)), attr(IFLA.MTU, u32(mtu))],
    [
      attr(VXLAN.ID, u32(vni)),
      attr(local.includes(':') ? VXLAN.LOCAL6 : VXLAN.LOCAL, toBytes(local)),
      attr(VXLAN.LEARNING, u8(0)),
      attr(VXLAN.PORT, u16be(port)),
    ],
  );
  return adopt(socket, link, { alias, mtu, mac });
}

/** Deleting what is absent succeeds. */
export function removeLink(socket: NetlinkSocket, link: number): void {
  const [error] = socket.batch([{ type: RTM_DELLINK, flags: 0, payload: header(link), what: `delete link ${link}` }]);
  if (error && (error as { details?: { errno?: number } }).details?.errno !== ENODEV) throw error;
}

export function removeGroup(socket: NetlinkSocket, group: number): void {
  const [error] = socket.batch([
    {
      type: RTM_DELLINK,
      flags: 0,
      payload: Buffer.concat([header(0), attr(IFLA.GROUP, u32(group))]),
      what: `delete links of group ${group}`,
    },
  ]);
  if (error && (error as { details?: { errno?: number } }).details?.errno !== ENODEV) throw error;
}
