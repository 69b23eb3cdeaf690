/** Ports and backends of a service as they are asked for: pure. */
import { SluiceError } from '../../errors.ts';
import { formatAddress, overlaps, parseAddress, parseCidr } from '../../model/ip.ts';
import type { ServiceRequest } from '../../model/request.ts';
import type { BackendSpec, ServicePort } from '../../model/service.ts';
import { backendKey } from '../newer.ts';

export const BACKENDS_MAX = 1_024;
const PORTS_MAX = 64;
/** RFC 6335, less the rule that a letter must be in it. */
const PORT_NAME_PATTERN = /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/;

export function checkPort(port: number | undefined): void {
  if (port !== undefined && (!Number.isInteger(port) || port < 1 || port > 65_535))
    throw new SluiceError('request.invalid', `${port} is not a port from 1 to 65535`, { port });
}

/** With defaults filled in. `request.invalid`. */
export function portsOf(service: string, { ports = [] }: Pick<ServiceRequest, 'ports'>): ServicePort[] {
  const refuse = (message: string): never => {
    throw new SluiceError('request.invalid', `service ${service}: ${message}`, { name: service });
  };
  if (ports.length > PORTS_MAX) refuse(`more than ${PORTS_MAX} ports`);
  const list = ports.map(({ name, port, target = port, protocol = 'tcp' }): ServicePort => {
    checkPort(port);
    checkPort(target);
    if (protocol !== 'tcp' && protocol !== 'udp') refuse(`"${protocol as string}" is neither tcp nor udp`);
    if (name !== undefined && !PORT_NAME_PATTERN.test(name))
      refuse(`"${name}" cannot name a port: lower-case letters, digits and "-", 15 at most`);
    return { name, port, target, protocol };
  });
  for (const [n, port] of list.entries()) {
    const before = list.slice(0, n).filter(({ protocol }) => protocol === port.protocol);
    if (before.some((other) => other.port === port.port)) refuse(`port ${port.port}/${port.protocol} stands twice`);
    if (port.name !== undefined && before.some((other) => other.name === port.name))
      refuse(`two ${port.protocol} ports are named ${port.name}`);
  }
  return list;
}

/** Where nobody listens. */
const NOT_UNICAST = ['0.0.0.0/8', '224.0.0.0/4', '255.255.255.255/32', '::/128', 'ff00::/8'].map((text) =>
  parseCidr(text),
);

/** Canonical text of a backend's plain address; IPv4 in the form of IPv6 is IPv4. `request.invalid`, `service.backend`. */
export function backendAddress(text: string): string {
  let { family, value } = parseAddress(text);
  if (family === 6 && value >> 32n === 0xffffn) [family, value] = [4, value & 0xffffffffn];
  const address = formatAddress(family, value);
  const own = { family, base: value, prefix: family === 4 ? 32 : 128 };
  if (NOT_UNICAST.some((cidr) => overlaps(cidr, own)))
    throw new SluiceError('service.backend', `${text} is not the address of one host`, { address });
  return address;
}

/** Each once, as it came first and in that order. */
export function unique(backends: readonly BackendSpec[]): BackendSpec[] {
  const all = new Map<string, BackendSpec>();
  for (const backend of backends) if (!all.has(backendKey(backend))) all.set(backendKey(backend), backend);
  return [...all.values()];
}

/** Whether a removal means this backend: without a port it takes out the backend whatever its port. */
export function isMeant(backend: BackendSpec, asked: BackendSpec): boolean {
  const same =
    'sandbox' in backend
      ? 'sandbox' in asked && backend.sandbox === asked.sandbox
      : 'address' in asked && backend.address === asked.address;
  return same && (asked.port === undefined || asked.port === backend.port);
}
