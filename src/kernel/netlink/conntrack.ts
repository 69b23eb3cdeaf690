/** The host's tracked connections: found by what their first packet asked for, and forgotten. By hand: `conntrack -L`, `conntrack -D`. */
import type { Conntrack, Namespace } from '../../contracts/kernel.ts';
import { fromBytes } from '../../model/ip.ts';
import { attrs, eachAttr, attr as encode, type Message } from './message.ts';
import { NETLINK_NETFILTER, NetlinkSocket, type Request } from './socket.ts';

/** linux/netfilter/nfnetlink_conntrack.h: subsystem 1. */
const CT_GET = (1 << 8) | 1;
const CT_DELETE = (1 << 8) | 2;
const CTA_TUPLE_ORIG = 1;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_DST = [2, 4] as const;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
const NLA_F_NESTED = 0x8000;
const IPPROTO = { tcp: 6, udp: 17 } as const;

/** struct nfgenmsg */
const header = (family: number): Buffer => Buffer.from([family, 0, 0, 0]);

export class KernelConntrack implements Conntrack {
  remove(namespace: Namespace, match: Parameters<Conntrack['remove']>[1]): number {
    const what = `forget connections to ${match.protocol} port ${match.port}`;
    const socket = namespace.run(() => new NetlinkSocket(NETLINK_NETFILTER, 'conntrack'));
    try {
      const removals = socket.dump({ type: CT_GET, flags: 0, payload: header(0), what }, (message) =>
        fits(message, match) ? removalOf(message, what) : undefined,
      );
      // What ended meanwhile is forgotten, too.
      for (const removal of removals) socket.remove(removal, [2]);
      return removals.length;
    } finally {
      socket[Symbol.dispose]();
    }
  }
}

function fits({ data }: Message, { protocol, addresses, port }: Parameters<Conntrack['remove']>[1]): boolean {
  const tuple = attrs(data, 4).get(CTA_TUPLE_ORIG);
  if (!tuple) return false;
  const parts = attrs(tuple);
  const l4 = attrs(parts.get(CTA_TUPLE_PROTO) ?? Buffer.alloc(0));
  if (l4.get(CTA_PROTO_NUM)?.[0] !== IPPROTO[protocol]) return false;
  if (l4.get(CTA_PROTO_DST_PORT)?.readUInt16BE(0) !== port) return false;
  const ip = attrs(parts.get(CTA_TUPLE_IP) ?? Buffer.alloc(0));
  const dst = CTA_IP_DST.map((type) => ip.get(type)).find((bytes) => bytes !== undefined);
  return dst !== undefined && addresses.has(fromBytes(dst));
}

/** By tuple and zone; the id says that it is still the same connection. */
function removalOf({ data }: Message, what: string): Request {
  const parts = [header(data[0] ?? 0)];
  for (const [type, value] of eachAttr(data, 4)) {
    if (type === CTA_TUPLE_ORIG) parts.push(encode(type | NLA_F_NESTED, value));
    if (type === CTA_ID || type === CTA_ZONE) parts.push(encode(type, value));
  }
  return { type: CT_DELETE, flags: 0, payload: Buffer.concat(parts), what };
}
