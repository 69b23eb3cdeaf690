/** Neighbours over rtnetlink. By hand: `ip neigh`. */
import type { Neighbour, Netlink } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import { familyOf, fromBytes, macFromBytes, macToBytes, toBytes } from '../../model/ip.ts';
import { errnoOf } from '../libc.ts';
import { attr, attrs, NLM_F, u32 } from './message.ts';
import type { NetlinkSocket, Request } from './socket.ts';

type NeighbourSpec = Parameters<Netlink['ensureNeighbours']>[0][number];

export const RTM_NEWNEIGH = 28;
export const RTM_DELNEIGH = 29;
export const RTM_GETNEIGH = 30;
/** linux/neighbour.h, enum of NDA_* and NUD_*. */
export const NDA = { DST: 1, LLADDR: 2, VNI: 7, IFINDEX: 8, MASTER: 9 } as const;
/** Permanent: the neighbour table is one for all namespaces, and anything else is collected when it is full. */
export const NUD_PERMANENT = 0x80;
const AF_INET = 2;
const AF_INET6 = 10;
/** ENOENT, ESRCH, ENODEV: what is not there need not be removed. */
export const ABSENT: readonly number[] = [2, 3, 19];

/** struct ndmsg */
export function neighbourHeader(family: number, link: number, state = 0, flags = 0): Buffer {
  const out = Buffer.alloc(12);
  out[0] = family;
  out.writeInt32LE(link, 4);
  out.writeUInt16LE(state, 8);
  out[10] = flags;
  return out;
}

/** Throws the first refusal of a batch that is not forgiven, and says how many more there were. */
export function throwFirst(results: readonly (SluiceError | null)[], forgiven: readonly number[] = []): void {
  const refused = results.filter((error) => error !== null && !forgiven.includes(errnoOf(error)));
  const [first] = refused;
  if (!first) return;
  if (refused.length === 1) throw first;
  throw new SluiceError(first.code, `${first.message}; ${refused.length} of ${results.length} were refused`, {
    ...first.details,
    refused: refused.length,
  });
}

export function listNeighbours(socket: NetlinkSocket, link?: number): Neighbour[] {
  return [AF_INET, AF_INET6].flatMap((family) => {
    const parts = [neighbourHeader(family, 0)];
    if (link !== undefined) parts.push(attr(NDA.IFINDEX, u32(link)));
    return socket.dump(
      { type: RTM_GETNEIGH, flags: 0, payload: Buffer.concat(parts), what: 'list neighbours' },
      ({ data }) => {
        const found = attrs(data, 12);
        const mac = found.get(NDA.LLADDR);
        return {
          ifindex: data.readInt32LE(4),
          ip: fromBytes(found.get(NDA.DST) ?? Buffer.alloc(4)),
          mac: mac ? macFromBytes(mac) : '',
          state: data.readUInt16LE(8),
        };
      },
    );
  });
}

function request(
  type: number,
  flags: number,
  { link, ip, mac }: Omit<NeighbourSpec, 'mac'> & { readonly mac?: string },
): Request {
  const family = familyOf(ip) === 4 ? AF_INET : AF_INET6;
  const parts = [neighbourHeader(family, link, NUD_PERMANENT), attr(NDA.DST, toBytes(ip))];
  if (mac) parts.push(attr(NDA.LLADDR, macToBytes(mac)));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${mac ? 'set' : 'remove'} neighbour ${ip} on link ${link}`,
  };
}

export const ensureNeighbours = (socket: NetlinkSocket, entries: readonly NeighbourSpec[]): void =>
  throwFirst(socket.batch(entries.map((entry) => request(RTM_NEWNEIGH, NLM_F.CREATE | NLM_F.REPLACE, entry))));

export const removeNeighbours = (socket: NetlinkSocket, entries: readonly Omit<NeighbourSpec, 'mac'>[]): void =>
  throwFirst(socket.batch(entries.map((entry) => request(RTM_DELNEIGH, 0, entry))), ABSENT);
