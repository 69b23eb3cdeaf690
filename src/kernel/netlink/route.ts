/** Routes over rtnetlink. By hand: `ip route`, `ip -6 route`. */
import type { Netlink, Route } from '../../contracts/kernel.ts';
import { canonicalAddress, formatAddress, formatCidr, fromBytes, parseCidr, toBytes } from '../../model/ip.ts';
import { attr, attrs, type Message, NLM_F, u32 } from './message.ts';
import type { NetlinkSocket, Request } from './socket.ts';

type RouteSpec = Parameters<Netlink['ensureRoute']>[0];

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTA = { DST: 1, OIF: 4, GATEWAY: 5, PRIORITY: 6, TABLE: 15, VIA: 18 } as const;
const RT_TABLE_MAIN = 254;
/** RTPROT_STATIC: set by an administrator, which `ip route` shows as such. */
const RTPROT_STATIC = 4;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTN_UNICAST = 1;
const RTNH_F_ONLINK = 4;
const AF_INET = 2;
const AF_INET6 = 10;
/** ENOENT: not even the table; ESRCH, ENODEV. */
const ABSENT = [2, 3, 19];
/** IP6_RT_PRIO_USER: what the kernel gives an IPv6 route without a metric. */
const IPV6_METRIC_DEFAULT = 1024;

/** struct rtmsg */
function header(
  family: number,
  prefix: number,
  fields: { protocol?: number; scope?: number; type?: number; flags?: number } = {},
): Buffer {
  const out = Buffer.alloc(12);
  out[0] = family;
  out[1] = prefix;
  out[5] = fields.protocol ?? 0;
  out[6] = fields.scope ?? 0;
  out[7] = fields.type ?? 0;
  out.writeUInt32LE(fields.flags ?? 0, 8);
  return out;
}

function parse({ data }: Message): Route {
  const found = attrs(data, 12);
  const v6 = data[0] === AF_INET6;
  // An IPv4 route's gateway of the other family stands behind its family in an attribute of its own.
  const via = found.get(RTA.GATEWAY) ?? found.get(RTA.VIA)?.subarray(2);
  const dst = found.get(RTA.DST);
  return {
    dst: `${dst ? fromBytes(dst) : v6 ? '::' : '0.0.0.0'}/${data[1]}`,
    via: via && fromBytes(via),
    ifindex: found.get(RTA.OIF)?.readUInt32LE() ?? 0,
    table: found.get(RTA.TABLE)?.readUInt32LE() ?? data[4] ?? 0,
    metric: found.get(RTA.PRIORITY)?.readUInt32LE() ?? 0,
    type: data[7] ?? 0,
    protocol: data[5] ?? 0,
  };
}

/** All tables; the kernel leaves out what `of` does not fit. */
export function listRoutes(
  socket: NetlinkSocket,
  of: { readonly family?: number; readonly table?: number; readonly link?: number } = {},
): Route[] {
  const filter: Buffer[] = [];
  if (of.table) filter.push(attr(RTA.TABLE, u32(of.table)));
  if (of.link) filter.push(attr(RTA.OIF, u32(of.link)));
  return (of.family ? [of.family] : [AF_INET, AF_INET6]).flatMap((family) =>
    socket.dump(
      { type: RTM_GETROUTE, flags: 0, payload: Buffer.concat([header(family, 0), ...filter]), what: 'list routes' },
      parse,
    ),
  );
}

function request(type: number, flags: number, route: RouteSpec): Request {
  const cidr = parseCidr(route.dst);
  const family = cidr.family === 4 ? AF_INET : AF_INET6;
  const making = type === RTM_NEWROUTE;
  const fields = making
    ? {
        protocol: RTPROT_STATIC,
        scope: route.via || family === AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
        type: RTN_UNICAST,
        flags: route.onlink ? RTNH_F_ONLINK : 0,
      }
    : { scope: 255 };
  const parts = [header(family, cidr.prefix, fields), attr(RTA.TABLE, u32(route.table ?? RT_TABLE_MAIN))];
  if (cidr.prefix > 0) parts.push(attr(RTA.DST, toBytes(formatAddress(cidr.family, cidr.base))));
  if (route.via) parts.push(attr(RTA.GATEWAY, toBytes(route.via)));
  if (route.link) parts.push(attr(RTA.OIF, u32(route.link)));
  if (route.metric !== undefined) parts.push(attr(RTA.PRIORITY, u32(route.metric)));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${making ? 'set' : 'remove'} route ${route.dst}${route.via ? ` via ${route.via}` : ''}`,
  };
}

/** An equal route is left alone: IPv6 would answer a replacement by moving it, and monitors would see a change where there is none. */
export function ensureRoute(socket: NetlinkSocket, route: RouteSpec): void {
  const cidr = parseCidr(route.dst);
  const dst = formatCidr(cidr);
  const via = route.via && canonicalAddress(route.via);
  const metric = route.metric ?? (cidr.family === 6 ? IPV6_METRIC_DEFAULT : 0);
  const family = cidr.family === 4 ? AF_INET : AF_INET6;
  const there = listRoutes(socket, { family, table: route.table ?? RT_TABLE_MAIN, link: route.link }).some(
    (one) => one.dst === dst && one.via === via && one.metric === metric && one.type === RTN_UNICAST,
  );
  if (!there) socket.change(request(RTM_NEWROUTE, NLM_F.CREATE | NLM_F.REPLACE, route));
}

export const removeRoute = (socket: NetlinkSocket, route: RouteSpec): void =>
  socket.remove(request(RTM_DELROUTE, 0, route), ABSENT);
