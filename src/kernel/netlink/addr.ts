/** Addresses over rtnetlink. By hand: `ip addr`. */
import type { Address } from '../../contracts/kernel.ts';
import { formatAddress, fromBytes, lastOf, parseCidr, toBytes } from '../../model/ip.ts';
import { attr, attrs, type Message, NLM_F, u32 } from './message.ts';
import type { NetlinkSocket, Request } from './socket.ts';

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const IFA = { ADDRESS: 1, LOCAL: 2, BROADCAST: 4, CACHEINFO: 6, FLAGS: 8 } as const;
const IFA_F_NODAD = 2;
/** struct ifa_cacheinfo of an address that stays for ever and is not preferred: preferred, valid, two time stamps. */
const DEPRECATED = Buffer.concat([u32(0), u32(0xffff_ffff), u32(0), u32(0)]);
const AF_INET = 2;
const AF_INET6 = 10;
const EADDRNOTAVAIL = 99;
const ENODEV = 19;

/** struct ifaddrmsg */
function header(family: number, prefix: number, link: number): Buffer {
  const out = Buffer.alloc(8);
  out[0] = family;
  out[1] = prefix;
  out.writeUInt32LE(link, 4);
  return out;
}

function parse({ data }: Message): Address {
  const found = attrs(data, 8);
  const bytes = found.get(IFA.LOCAL) ?? found.get(IFA.ADDRESS) ?? Buffer.alloc(4);
  return {
    ifindex: data.readUInt32LE(4),
    cidr: `${fromBytes(bytes)}/${data[1]}`,
    scope: data[3] ?? 0,
    flags: found.get(IFA.FLAGS)?.readUInt32LE() ?? data[2] ?? 0,
  };
}

/** Of one link, or of all. */
export function listAddresses(socket: NetlinkSocket, link = 0): Address[] {
  return [AF_INET, AF_INET6].flatMap((family) =>
    socket.dump({ type: RTM_GETADDR, flags: 0, payload: header(family, 0, link), what: 'list addresses' }, parse),
  );
}

interface AddressOptions {
  readonly nodad?: boolean;
  readonly deprecated?: boolean;
}

function request(
  type: number,
  flags: number,
  link: number,
  cidr: string,
  { nodad = false, deprecated = false }: AddressOptions = {},
): Request {
  const subnet = parseCidr(cidr);
  const { prefix } = subnet;
  const bytes = toBytes(cidr.split('/')[0]!);
  const v4 = subnet.family === 4;
  const parts = [header(v4 ? AF_INET : AF_INET6, prefix, link), attr(IFA.LOCAL, bytes), attr(IFA.ADDRESS, bytes)];
  if (v4 && prefix < 31) parts.push(attr(IFA.BROADCAST, toBytes(formatAddress(4, lastOf(subnet)))));
  if (nodad && !v4) parts.push(attr(IFA.FLAGS, u32(IFA_F_NODAD)));
  if (deprecated && !v4) parts.push(attr(IFA.CACHEINFO, DEPRECATED));
  return {
    type,
    flags,
    payload: Buffer.concat(parts),
    what: `${type === RTM_NEWADDR ? 'set' : 'remove'} address ${cidr} on link ${link}`,
  };
}

export function ensureAddress(socket: NetlinkSocket, link: number, cidr: string, options?: AddressOptions): void {
  socket.change(request(RTM_NEWADDR, NLM_F.CREATE | NLM_F.REPLACE, link, cidr, options));
}

export const removeAddress = (socket: NetlinkSocket, link: number, cidr: string): void =>
  socket.remove(request(RTM_DELADDR, 0, link, cidr), [EADDRNOTAVAIL, ENODEV]);
