/** Neighbours and forwarding entries, both struct ndmsg. By hand: `ip neigh`, `bridge fdb`. */
import type { FdbEntry, Neighbour, Netlink } from '../contracts/kernel.ts';
import { familyOf, fromBytes, macFromBytes, macToBytes, toBytes } from '../model/ip.ts';
import { errnoOf } from './libc.ts';
import { attr, attrs, NLM_F, u32 } from './message.ts';
import type { NetlinkSocket, Request } from './socket.ts';

type NeighbourSpec = Parameters<Netlink['ensureNeighbours']>[0][number];
type FdbSpec = Parameters<Netlink['ensureFdb']>[0][number];

const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const RTM_GETNEIGH = 30;
const NDA = { DST: 1, LLADDR: 2, VNI: 7, IFINDEX: 8, MASTER: 9 } as const;
/** Permanent: the neighbour table is one for all namespaces, and anything else is collected when it is full. */
const NUD_PERMANENT = 0x80;
/** `static` of `bridge fdb`. */
const NUD_NOARP = 0x40;
const NTF_SELF = 2;
const NTF_MASTER = 4;
const AF_BRIDGE = 7;
const AF_INET = 2;
const AF_INET6 = 10;
const ZERO_MAC = '00:00:00:00:00:00';
const ABSENT = [2 /* ENOENT */, 19 /* ENODEV */, 3 /* ESRCH */];

/** struct ndmsg */
function header(family: number, link: number, state = 0, flags = 0): Buffer {
  const out = Buffer.alloc(12);
  out[0] = family;
  out.writeInt32LE(link, 4);
  out.writeUInt16LE(state, 8);
  out[10] = flags;
  return out;
}

function throwFirst(results: readonly (Error | null)[], forgiven: readonly number[] = []): void {
  for (const error of results) if (error && !forgiven.includes(errnoOf(error))) throw error;
}

export function listNeighbours(socket: NetlinkSocket, link?: number): Neighbour[] {
  return [AF_INET, AF_INET6].flatMap((family) => {
    const parts = [header(family, 0)];
    if (link !== undefined) parts.push(attr(NDA.IFINDEX, u32(link)));
    return socket
      .dump({ type: RTM_GETNEIGH, flags: 0, payload: Buffer.concat(parts), what: 'list neighbours' })
      .map(({ data }) => {
        const found = attrs(data, 12);
        const mac = found.get(NDA.LLADDR);
        return {
          ifindex: data.readInt32LE(4),
          ip: fromBytes(found.get(NDA.DST) ?? Buffer.alloc(4)),
          mac: mac ? macFromBytes(mac) : '',
          state: data.readUInt16LE(8),
        };
      });
  });
}

function neighbourRequest(
  type: number,
  flags: number,
  { link, ip, mac }: Omit<NeighbourSpec, 'mac'> & { readonly mac?: string },
): Request {
  const parts = [header(familyOf(ip) === 4 ? AF_INET : AF_INET6, link, NUD_PERMANENT), attr(NDA.DST, toBytes(ip))];
  if (mac) parts.push(attr(NDA.LLADDR, macToBytes(mac)));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${mac ? 'set' : 'remove'} neighbour ${ip} on link ${link}`,
  };
}

export const ensureNeighbours = (socket: NetlinkSocket, entries: readonly NeighbourSpec[]): void =>
  throwFirst(socket.batch(entries.map((entry) => neighbourRequest(RTM_NEWNEIGH, NLM_F.CREATE | NLM_F.REPLACE, entry))));

export const removeNeighbours = (socket: NetlinkSocket, entries: readonly Omit<NeighbourSpec, 'mac'>[]): void =>
  throwFirst(socket.batch(entries.map((entry) => neighbourRequest(RTM_DELNEIGH, 0, entry))), ABSENT);

export function listFdb(socket: NetlinkSocket, link?: number): FdbEntry[] {
  return socket
    .dump({ type: RTM_GETNEIGH, flags: 0, payload: header(AF_BRIDGE, link ?? 0), what: 'list forwarding entries' })
    .flatMap(({ data }): FdbEntry[] => {
      const ifindex = data.readInt32LE(4);
      if (data[0] !== AF_BRIDGE || (link !== undefined && ifindex !== link)) return [];
      const found = attrs(data, 12);
      const mac = found.get(NDA.LLADDR);
      const dst = found.get(NDA.DST);
      if (!mac) return [];
      return [
        {
          ifindex,
          mac: macFromBytes(mac),
          dst: dst && fromBytes(dst),
          vni: found.get(NDA.VNI)?.readUInt32LE(),
          table: (data[10]! & NTF_SELF) !== 0 && !found.has(NDA.MASTER) ? 'self' : 'master',
          permanent: (data.readUInt16LE(8) & NUD_PERMANENT) !== 0,
        },
      ];
    });
}

function fdbRequest(type: number, flags: number, { link, mac, dst, table }: FdbSpec): Request {
  const parts = [
    header(AF_BRIDGE, link, table === 'self' ? NUD_PERMANENT : NUD_NOARP, table === 'self' ? NTF_SELF : NTF_MASTER),
    attr(NDA.LLADDR, macToBytes(mac)),
  ];
  if (dst) parts.push(attr(NDA.DST, toBytes(dst)));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${type === RTM_NEWNEIGH ? 'set' : 'remove'} forwarding entry ${mac} ${table} on link ${link}`,
  };
}

export function ensureFdb(socket: NetlinkSocket, entries: readonly FdbSpec[]): void {
  // The all-zero entry holds a list of destinations: it is appended to, and a second REPLACE would be EOPNOTSUPP.
  const flags = (mac: string): number => NLM_F.CREATE | (mac === ZERO_MAC ? NLM_F.APPEND : NLM_F.REPLACE);
  throwFirst(
    socket.batch(entries.map((entry) => fdbRequest(RTM_NEWNEIGH, flags(entry.mac), entry))),
    [17 /* EEXIST: appended before */],
  );
}

export const removeFdb = (socket: NetlinkSocket, entries: readonly FdbSpec[]): void =>
  throwFirst(socket.batch(entries.map((entry) => fdbRequest(RTM_DELNEIGH, 0, entry))), ABSENT);
