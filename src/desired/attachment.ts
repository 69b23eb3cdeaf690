/** One network of a sandbox as it is asked for: pure. */
import { SluiceError } from '../errors.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { canonicalAddress, contains, familyOf, formatCidr, isMac, overlaps, parseCidr } from '../model/ip.ts';
import type { Network } from '../model/network.ts';
import type { AttachmentRequest } from '../model/request.ts';
import { checkName, sameJson } from './records.ts';

/** IFNAMSIZ less the final zero; what the kernel's dev_valid_name refuses. */
const IFNAME_PATTERN = /^[^\s/:]{1,15}$/;
const ALLOW_MAX = 64;
const ALIASES_MAX = 64;

/** Drivers whose networks a sandbox is on by what it is, without an endpoint. */
export const hasEndpoints = ({ spec }: Network): boolean => spec.driver !== 'host' && spec.driver !== 'none';

/** Canonical text of what an attachment asks for; absent fields stay so. `request.invalid`, `address.outside`. */
export function checkAttachment(network: Network, request: AttachmentRequest): AttachmentRequest {
  const refuse = (message: string): never => {
    throw new SluiceError('request.invalid', `network ${network.name}: ${message}`, { network: network.id });
  };
  const { ip, ip6, mac, ifname, aliases = [], allow = [] } = request;
  if (!hasEndpoints(network)) {
    const { network: _, ...asked } = request;
    const what = Object.entries(asked).find(([, value]) => value !== undefined);
    if (what) refuse(`there is no endpoint that could have "${what[0]}"`);
  }
  if (mac !== undefined && (!isMac(mac) || (Number.parseInt(mac.slice(0, 2), 16) & 1) !== 0 || /^[0:]+$/.test(mac)))
    refuse(`"${mac}" is not the MAC address of one interface`);
  if (ip !== undefined && familyOf(ip) !== 4) refuse(`ip ${ip} is not an IPv4 address`);
  if (ip6 !== undefined && familyOf(ip6) !== 6) refuse(`ip6 ${ip6} is not an IPv6 address`);
  if (ifname !== undefined && (!IFNAME_PATTERN.test(ifname) || ['.', '..', 'lo'].includes(ifname)))
    refuse(`"${ifname}" cannot name an interface`);
  if (allow.length > ALLOW_MAX) refuse(`more than ${ALLOW_MAX} allowed prefixes`);
  if (aliases.length > ALIASES_MAX) refuse(`more than ${ALIASES_MAX} aliases`);
  for (const alias of aliases) checkName('endpoint', alias);
  for (const address of [ip, ip6])
    if (
      address !== undefined &&
      !network.spec.subnets.some(({ cidr }) => contains(parseCidr(cidr), canonicalAddress(address)))
    )
      throw new SluiceError('address.outside', `${address} is in no subnet of network ${network.name}`, {
        address,
        network: network.id,
      });
  return {
    ...request,
    ip: ip && canonicalAddress(ip),
    ip6: ip6 && canonicalAddress(ip6),
    mac: mac?.toLowerCase(),
    aliases: [...new Set(aliases)],
    allow: [...new Set(allow.map((cidr) => formatCidr(parseCidr(cidr))))],
  };
}

/** `network.overlap` when one sandbox could not tell two of its networks apart. */
export function checkApart(network: Network, others: readonly Network[]): void {
  for (const other of others) {
    for (const { cidr } of network.spec.subnets) {
      const clash = other.spec.subnets.find((subnet) => overlaps(parseCidr(subnet.cidr), parseCidr(cidr)));
      if (clash)
        throw new SluiceError(
          'network.overlap',
          `a sandbox cannot be on ${network.name} and ${other.name}: ${cidr} overlaps ${clash.cidr}`,
          { networks: [network.id, other.id] },
        );
    }
  }
}

/** The first thing in which the endpoint is not what the (checked) request would make, null: none. What is automatic fits anything. */
export function attachmentDiffers({ spec }: Endpoint, request: AttachmentRequest): string | null {
  const has = (address: string | undefined): boolean =>
    address === undefined || spec.addresses.some((own) => own.split('/')[0] === address);
  if (!has(request.ip) || !has(request.ip6)) return `address (${spec.addresses.join(', ')})`;
  if (request.mac !== undefined && request.mac !== spec.mac) return `MAC address (${spec.mac})`;
  if (request.ifname !== undefined && request.ifname !== spec.ifname) return 'interface name';
  if (!sameJson([...(request.aliases ?? [])].sort(), [...spec.aliases].sort())) return 'set of aliases';
  if (!sameJson([...(request.allow ?? [])].sort(), [...spec.allow].sort())) return 'set of allowed addresses';
  if ((request.gwPriority ?? 0) !== spec.gwPriority) return 'gateway priority';
  return null;
}
