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
const NUD_REACHABLE = 0x02;
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

interface Target {
  readonly state: number;
  readonly flags: number;
}
const SELF: Target = { state: NUD_PERMANENT, flags: NTF_SELF };
const MASTER: Target = { state: NUD_NOARP, flags: NTF_MASTER };
/** Both tables at once. A state that the device takes, that never ages there, and that is `static` to the bridge. */
const BOTH: Target = { state: NUD_NOARP | NUD_REACHABLE, flags: NTF_SELF | NTF_MASTER };

function request(type: number, flags: number, { link, mac, dst, table }: FdbSpec, both = false): Request {
  const target = both ? BOTH : table === 'self' ? SELF : MASTER;
  const header = neighbourHeader(AF_BRIDGE, link, target.state, target.flags);
  const parts = [header, attr(NDA.LLADDR, macToBytes(mac))];
  if (dst) parts.push(attr(NDA.DST, toBytes(dst)));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${type === RTM_NEWNEIGH ? 'set' : 'remove'} forwarding entry ${mac}${dst ? ` dst ${dst}` : ''} ${table}${both ? ' and master' : ''} on link ${link}`,
  };
}

/** An entry of the device's table and, behind it, the bridge's of the same port and MAC are one request. */
export function ensureFdb(socket: NetlinkSocket, entries: readonly FdbSpec[]): void {
  // The all-zero entry holds a list of destinations: it is appended to, and a second REPLACE would be EOPNOTSUPP.
  const flags = (mac: string): number => NLM_F.CREATE | (mac === ZERO_MAC ? NLM_F.APPEND : NLM_F.REPLACE);
  const requests: Request[] = [];
  for (let at = 0; at < entries.length; at++) {
    const [entry, next] = [entries[at]!, entries[at + 1]];
    const both =
      entry.table === 'self' && next?.table === 'master' && next.link === entry.link && next.mac === entry.mac;
    requests.push(request(RTM_NEWNEIGH, flags(entry.mac), entry, both));
    if (both) at++;
  }
  // A destination that was appended before exists.
  throwFirst(socket.batch(requests), [EEXIST]);
}

export const removeFdb = (socket: NetlinkSocket, entries: readonly FdbSpec[]): void =>
  throwFirst(socket.batch(entries.map((entry) => request(RTM_DELNEIGH, 0, entry))), ABSENT);
