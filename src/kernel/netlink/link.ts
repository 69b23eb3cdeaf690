/** Links over rtnetlink. By hand: `ip -d link`. */
import type { BridgeOptions, Link, LinkChange, VethOptions, VxlanDf, VxlanOptions } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import { canonicalAddress, fromBytes, macFromBytes, macToBytes, toBytes } from '../../model/ip.ts';
import { errnoOf, kernelError } from '../libc.ts';
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
  QDISC: 6,
  MASTER: 10,
  LINKINFO: 18,
  IFALIAS: 20,
  AF_SPEC: 26,
  GROUP: 27,
  NET_NS_FD: 28,
  EXT_MASK: 29,
  NUM_TX_QUEUES: 31,
  NUM_RX_QUEUES: 32,
} as const;
const INFO = { KIND: 1, DATA: 2, SLAVE_KIND: 4, SLAVE_DATA: 5 } as const;
/** Of BRPORT.STATE, beside 0 disabled. */
const BR_STATE_FORWARDING = 3;
const BRPORT = { STATE: 1, MODE: 4, LEARNING: 8, UNICAST_FLOOD: 9, NEIGH_SUPPRESS: 32, ISOLATED: 33 } as const;
const VXLAN = { ID: 1, LOCAL: 4, TTL: 5, LEARNING: 7, PORT: 15, LOCAL6: 17, DF: 29 } as const;
/** enum ifla_vxlan_df */
const VXLAN_DF: readonly VxlanDf[] = ['unset', 'set', 'inherit'];
const VETH_INFO_PEER = 1;
const AF_INET6 = 10;
const IFLA_INET6_ADDR_GEN_MODE = 8;
/** IFNAMSIZ without the closing NUL. */
const IFNAME_BYTES_MAX = 15;
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

const nested = (value: Buffer | undefined): ReadonlyMap<number, Buffer> => (value ? attrs(value) : NOTHING);
const NOTHING: ReadonlyMap<number, Buffer> = new Map();

/** `noop` is what a link has that has never been up. */
const queueing = (name: string): string | undefined => (['', 'noqueue', 'noop'].includes(name) ? undefined : name);

function parseLink({ data }: Pick<Message, 'data'>): Link {
  const found = attrs(data, 16);
  const info = nested(found.get(IFLA.LINKINFO));
  const kind = readText(info.get(INFO.KIND));
  const details = kind === 'vxlan' ? nested(info.get(INFO.DATA)) : NOTHING;
  const slave = nested(info.get(INFO.SLAVE_DATA));
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
    qdisc: queueing(readText(found.get(IFLA.QDISC))),
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
            ttl: details.get(VXLAN.TTL)?.[0] ?? 0,
            df: VXLAN_DF[details.get(VXLAN.DF)?.[0] ?? 0] ?? 'unset',
          }
        : undefined,
  };
}

const skipStats = attr(IFLA.EXT_MASK, u32(RTEXT_FILTER_SKIP_STATS));

export const listLinks = (socket: NetlinkSocket): Link[] =>
  socket.dump(
    { type: RTM_GETLINK, flags: 0, payload: Buffer.concat([header(0), skipStats]), what: 'list links' },
    parseLink,
  );

export function getLink(socket: NetlinkSocket, which: string | number): Link | null {
  // What cannot be a link's name or number is none's; the kernel would call it malformed.
  if (which === 0 || which === '' || (typeof which === 'string' && Buffer.byteLength(which) > IFNAME_BYTES_MAX))
    return null;
  const payload =
    typeof which === 'number' ? [header(which), skipStats] : [header(0), attr(IFLA.IFNAME, text(which)), skipStats];
  return socket.get(
    { type: RTM_GETLINK, flags: 0, payload: Buffer.concat(payload), what: `look up link ${which}` },
    parseLink,
  );
}

const changeRequest = (link: number, parts: readonly Buffer[], flags: Buffer, what: string): Request => ({
  type: RTM_NEWLINK,
  flags: 0,
  payload: Buffer.concat([flags, ...parts]),
  what: `change link ${link} ${what}`,
});

/** The requests of a change in the order in which the kernel can take them. */
export function planChange(link: number, { up, port, ...rest }: LinkChange): Request[] {
  const parts: Buffer[] = [];
  if (rest.name !== undefined) parts.push(attr(IFLA.IFNAME, text(rest.name)));
  if (rest.mac !== undefined) parts.push(attr(IFLA.ADDRESS, macToBytes(rest.mac)));
  if (rest.mtu !== undefined) parts.push(attr(IFLA.MTU, u32(rest.mtu)));
  if (rest.master !== undefined) parts.push(attr(IFLA.MASTER, u32(rest.master)));
  if (rest.alias !== undefined) parts.push(attr(IFLA.IFALIAS, Buffer.from(rest.alias)));
  if (rest.group !== undefined) parts.push(attr(IFLA.GROUP, u32(rest.group)));
  if (rest.netnsFd !== undefined) parts.push(attr(IFLA.NET_NS_FD, u32(rest.netnsFd)));
  if (rest.addrGenMode !== undefined)
    parts.push(nest(IFLA.AF_SPEC, nest(AF_INET6, attr(IFLA_INET6_ADDR_GEN_MODE, u8(rest.addrGenMode)))));
  const flags = up === undefined ? header(link) : header(link, up ? IFF_UP : 0, IFF_UP);
  if (!port) return [changeRequest(link, parts, flags, JSON.stringify({ ...rest, up }))];

  // Port flags exist once the link is a port, and it must not forward a frame before they are set: master, flags, up.
  const requests: Request[] = [];
  if (parts.length > 0) requests.push(changeRequest(link, parts, header(link), JSON.stringify(rest)));
  const set = (
    [
      [BRPORT.LEARNING, port.learning],
      [BRPORT.NEIGH_SUPPRESS, port.neighSuppress],
      [BRPORT.ISOLATED, port.isolated],
      [BRPORT.MODE, port.hairpin],
      [BRPORT.UNICAST_FLOOD, port.unicastFlood],
    ] as const
  ).flatMap(([type, on]) => (on === undefined ? [] : [attr(type, u8(on ? 1 : 0))]));
  if (port.forwarding) set.push(attr(BRPORT.STATE, u8(BR_STATE_FORWARDING)));
  const info = nest(IFLA.LINKINFO, attr(INFO.SLAVE_KIND, text('bridge')), nest(INFO.SLAVE_DATA, ...set));
  requests.push(changeRequest(link, [info], header(link), JSON.stringify({ port })));
  if (up !== undefined) requests.push(changeRequest(link, [], flags, JSON.stringify({ up })));
  return requests;
}

export function setLink(socket: NetlinkSocket, link: number, change: LinkChange): void {
  const requests = planChange(link, change);
  if (requests.length === 1) socket.change(requests[0]!);
  else for (const error of socket.batch(requests)) if (error) throw error;
}

function create(
  socket: NetlinkSocket,
  name: string,
  kind: string,
  parts: readonly Buffer[],
  data: readonly Buffer[],
): Link {
  const info = [attr(INFO.KIND, text(kind)), ...(data.length > 0 ? [nest(INFO.DATA, ...data)] : [])];
  socket.change({
    type: RTM_NEWLINK,
    flags: NLM_F.CREATE | NLM_F.EXCL,
    payload: Buffer.concat([header(0), attr(IFLA.IFNAME, text(name)), ...parts, nest(IFLA.LINKINFO, ...info)]),
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

type Wanted = Pick<LinkChange, 'alias' | 'mtu' | 'mac' | 'group' | 'up'>;

/**
 * Sets what differs. New links pass here too: the kernel takes no alias at creation, and the next life of the daemon takes an unmarked
 * link of the name over.
 */
function settle(socket: NetlinkSocket, link: Link, wanted: Wanted): Link {
  const differs = Object.entries(wanted).filter(
    ([key, value]) => value !== undefined && link[key as keyof Wanted] !== value,
  );
  if (differs.length === 0) return link;
  const change = Object.fromEntries(differs);
  setLink(socket, link.ifindex, change);
  return { ...link, ...change };
}

export function ensureBridge(socket: NetlinkSocket, name: string, { mac, mtu, alias }: BridgeOptions): Link {
  const link =
    existing(socket, name, 'bridge') ??
    create(socket, name, 'bridge', [attr(IFLA.ADDRESS, macToBytes(mac)), attr(IFLA.MTU, u32(mtu))], []);
  return settle(socket, link, { alias, mtu, mac: mac.toLowerCase(), up: true });
}

/** Else a veth is made with one for each processor, of which it uses the first, and waits for a grace period to say so: twice the time. */
const ONE_QUEUE = [attr(IFLA.NUM_TX_QUEUES, u32(1)), attr(IFLA.NUM_RX_QUEUES, u32(1))];

export function ensureVeth(socket: NetlinkSocket, name: string, options: VethOptions): Link {
  const { mtu, alias, group, peer } = options;
  const mac = options.mac?.toLowerCase();
  const parts = [attr(IFLA.MTU, u32(mtu)), ...ONE_QUEUE];
  if (mac) parts.push(attr(IFLA.ADDRESS, macToBytes(mac)));
  if (group !== undefined) parts.push(attr(IFLA.GROUP, u32(group)));
  const other = [
    header(0),
    attr(IFLA.IFNAME, text(peer.name)),
    attr(IFLA.ADDRESS, macToBytes(peer.mac)),
    attr(IFLA.MTU, u32(peer.mtu)),
    ...ONE_QUEUE,
  ];
  if (peer.netnsFd !== undefined) other.push(attr(IFLA.NET_NS_FD, u32(peer.netnsFd)));
  try {
    // Nearly always there is none: looking first would cost more than to be told so.
    return settle(socket, create(socket, name, 'veth', parts, [plainNest(VETH_INFO_PEER, ...other)]), { alias });
  } catch (error) {
    if (errnoOf(error) !== EEXIST) throw error;
    const found = existing(socket, name, 'veth');
    if (!found) throw error;
    return settle(socket, found, { alias, mtu, mac, group });
  }
}

export function ensureVxlan(socket: NetlinkSocket, name: string, options: VxlanOptions): Link {
  const { vni, port, mtu, alias, ttl = 0, df = 'unset' } = options;
  const mac = options.mac.toLowerCase();
  const local = canonicalAddress(options.local);
  let link = existing(socket, name, 'vxlan');
  const found = link?.vxlan;
  const wanted: NonNullable<Link['vxlan']> = { vni, port, local, learning: false, ttl, df };
  if (link && !(Object.keys(wanted) as (keyof typeof wanted)[]).every((key) => found?.[key] === wanted[key])) {
    // Most of these cannot be changed in place.
    if (link.alias !== '' && link.alias !== alias)
      throw new SluiceError(
        'kernel.exists',
        `add vxlan ${name}: one of VNI ${found?.vni} with another owner's mark "${link.alias}" has that name`,
        { link: name },
      );
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
      attr(VXLAN.TTL, u8(ttl)),
      attr(VXLAN.DF, u8(VXLAN_DF.indexOf(df))),
      attr(VXLAN.LEARNING, u8(0)),
      attr(VXLAN.PORT, u16be(port)),
    ],
  );
  return settle(socket, link, { alias, mtu, mac });
}

/** Deleting what is absent succeeds. */
export const removeLink = (socket: NetlinkSocket, link: number): void =>
  socket.remove({ type: RTM_DELLINK, flags: 0, payload: header(link), what: `delete link ${link}` }, [ENODEV]);

/** IFLA_GROUP of links about to be deleted; any number but 0 that nobody else uses. */
const DOOMED_GROUP = 0x5c1d;

/**
 * One veth alone keeps its deleter waiting for 15 ms in the kernel, 32 in one request by group for 27: for grace periods, most of them after
 * the lock on links was given back. `aside` is a socket for this alone; its thread waits, not the event loop.
 */
export async function removeLinks(
  socket: NetlinkSocket,
  aside: () => NetlinkSocket,
  doomed: readonly number[],
): Promise<void> {
  if (doomed.length === 0) return;
  const refusals = socket.batch(
    doomed.map((link) =>
      changeRequest(link, [attr(IFLA.GROUP, u32(DOOMED_GROUP))], header(link), 'into the doomed group'),
    ),
  );
  for (const refusal of refusals) if (refusal && errnoOf(refusal) !== ENODEV) throw refusal;
  using deleter = aside();
  const payload = Buffer.concat([header(0), attr(IFLA.GROUP, u32(DOOMED_GROUP))]);
  await deleter.removeLater({ type: RTM_DELLINK, flags: 0, payload, what: `delete links ${doomed.join(' ')}` }, [
    ENODEV,
  ]);
}
