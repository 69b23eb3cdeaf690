/** Forwarding entries of bridges and VXLAN devices over rtnetlink. By hand: `bridge fdb`. */
import type { FdbEntry, Netlink } from '../../contracts/kernel.ts';
import { fromBytes, macFromBytes, macToBytes, toBytes } from '../../model/ip.ts';
import { attr, attrs, type Message, NLM_F } from './message.ts';
import {
  ABSENT,
  NDA,
  NUD_PERMANENT,
  neighbourHeader,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
  throwFirst,
} from './neigh.ts';
import type { NetlinkSocket, Request } from './socket.ts';

type FdbSpec = Parameters<Netlink['ensureFdb']>[0][number];

/** `static` of `bridge fdb`: in the bridge's table NUD_PERMANENT would mean an address of the bridge itself. */
const NUD_NOARP = 0x40;
const NTF_SELF = 2;
const NTF_MASTER = 4;
const AF_BRIDGE = 7;
const EEXIST = 17;
const ZERO_MAC = '00:00:00:00:00:00';

function parse({ data }: Message): FdbEntry | undefined {
  if (data[0] !== AF_BRIDGE) return;
  const found = attrs(data, 12);
  const mac = found.get(NDA.LLADDR);
  const dst = found.get(NDA.DST);
  if (!mac) return;
  return {
    ifindex: data.readInt32LE(4),
    mac: macFromBytes(mac),
    dst: dst && fromBytes(dst),
    vni: found.get(NDA.VNI)?.readUInt32LE(),
    table: (data[10]! & NTF_SELF) !== 0 && !found.has(NDA.MASTER) ? 'self' : 'master',
    permanent: (data.readUInt16LE(8) & NUD_PERMANENT) !== 0,
  };
}

export function listFdb(socket: NetlinkSocket, link?: number): FdbEntry[] {
  const request = { type: RTM_GETNEIGH, flags: 0, payload: neighbourHeader(AF_BRIDGE, link ?? 0), what: 'list FDB' };
  return socket.dump(request, (message) => {
    const entry = parse(message);
    return link === undefined || entry?.ifindex === link ? entry : undefined;
  });
}

function request(type: number, flags: number, { link, mac, dst, table }: FdbSpec): Request {
  const self = table === 'self';
  const header = neighbourHeader(AF_BRIDGE, link, self ? NUD_PERMANENT : NUD_NOARP, self ? NTF_SELF : NTF_MASTER);
  const parts = [header, attr(NDA.LLADDR, macToBytes(mac))];
  if (dst) parts.push(attr(NDA.DST, toBytes(dst)));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${type === RTM_NEWNEIGH ? 'set' : 'remove'} forwarding entry ${mac}${dst ? ` dst ${dst}` : ''} ${table} on link ${link}`,
  };
}

export function ensureFdb(socket: NetlinkSocket, entries: readonly FdbSpec[]): void {
  // The all-zero entry holds a list of destinations: it is appended to, and a second REPLACE would be EOPNOTSUPP.
  const flags = (mac: string): number => NLM_F.CREATE | (mac === ZERO_MAC ? NLM_F.APPEND : NLM_F.REPLACE);
  const results = socket.batch(entries.map((entry) => request(RTM_NEWNEIGH, flags(entry.mac), entry)));
  // A destination that was appended before exists.
  throwFirst(results, [EEXIST]);
}

export const removeFdb = (socket: NetlinkSocket, entries: readonly FdbSpec[]): void =>
  throwFirst(socket.batch(entries.map((entry) => request(RTM_DELNEIGH, 0, entry))), ABSENT);
