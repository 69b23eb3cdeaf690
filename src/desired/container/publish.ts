/** Ports that a container is to publish: what a request means, and free ones where it names none. */

import type { Image } from '../../contracts/image.ts';
import type { Ports } from '../../contracts/kernel.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import type { ContainerRequest, PublishRequest } from '../../model/container/request.ts';
import type { Container, PublishSpec } from '../../model/container.ts';
import { canonicalAddress, formatCidr, parseCidr } from '../../model/ip.ts';
import type { Service } from '../../model/service.ts';
import { type Parts, Records } from '../records.ts';

/** RFC 6335: the range that nobody registers. */
const FIRST = 49_152;
const LAST = 65_535;
const ATTEMPTS_MAX = 256;

const every = (address: string | undefined): boolean =>
  address === undefined || address === '0.0.0.0' || address === '::';

/** As many as a request may name. */
const EXPOSED_MAX = 1_024;

/**
 * What is asked for, and with `publishAll` then every port that the image exposes and nobody named, in order, so that asking again means the
 * same. `request.invalid` for one that is neither TCP nor UDP. Pure.
 */
export function publishRequests(
  { image, publish = [], publishAll = false }: Pick<ContainerRequest, 'image' | 'publish' | 'publishAll'>,
  { config }: Pick<Image, 'config'>,
): readonly PublishRequest[] {
  if (!publishAll) return publish;
  const named = new Set(publish.map(({ target, protocol = 'tcp' }) => `${target}/${protocol}`));
  const exposed = config.ports.map((text) => {
    const [, port, protocol = 'tcp'] = /^(\d{1,5})(?:\/(tcp|udp))?$/i.exec(text) ?? [];
    const target = Number(port);
    if (port === undefined || target < 1 || target > 65_535)
      throw new SluiceError('request.invalid', `image ${image} exposes ${text}, which is no port of TCP or UDP`, {
        image,
        port: text,
      });
    return { target, protocol: protocol.toLowerCase() as PublishSpec['protocol'] };
  });
  if (exposed.length > EXPOSED_MAX)
    throw new SluiceError('request.invalid', `image ${image} exposes more than ${EXPOSED_MAX} ports`, { image });
  const all = new Map(exposed.map((one) => [`${one.target}/${one.protocol}`, one]));
  const rest = [...all].filter(([key]) => !named.has(key)).map(([, one]) => one);
  return [...publish, ...rest.sort((a, b) => a.target - b.target || (a.protocol < b.protocol ? -1 : 1))];
}

/** The same with ports chosen that are free: of what `before` published, as they were. */
export async function publishing(
  parts: Parts,
  name: string,
  requests: readonly PublishRequest[],
  before: readonly PublishSpec[] = [],
): Promise<PublishSpec[]> {
  const { clock, ports, node } = parts;
  const chosen = requests.some(({ published }) => published === undefined);
  const containers = chosen ? await new Records<'container', Container>('container', parts).list() : [];
  const services = chosen ? await new Records<'service', Service>('service', parts).list() : [];
  const random = (): number => {
    const [high = 0, low = 0] = clock.random(2);
    return (high * 256 + low) / 65_536;
  };
  const published = [...containers, ...services]
    .filter(({ owner }) => owner === node || owner === null)
    .flatMap(({ spec }) => spec.publish ?? []);
  const choose = portChooser(published, requests, { ports, random });
  return publishOf(name, requests, (n, protocol) => {
    const { target, protocol: was, published: port } = before[n] ?? {};
    return target === requests[n]?.target && was === protocol ? port! : choose(n, protocol);
  });
}

/** `choose`: a port of the host for the n-th, which names none. `request.invalid` for two that are one. Pure. */
export function publishOf(
  name: string,
  requests: readonly PublishRequest[],
  choose: (n: number, protocol: PublishSpec['protocol']) => number,
): PublishSpec[] {
  const refuse = (message: string): never => {
    throw new SluiceError('request.invalid', `${name}: ${message}`, { name });
  };
  const all = requests.map((request, n): PublishSpec => {
    const { address, target, protocol = 'tcp', mode = 'host', from } = request;
    const family = address?.includes(':');
    const clients = from === undefined || from === 'any' ? from : from.map((cidr) => formatCidr(parseCidr(cidr)));
    if (Array.isArray(clients) && clients.length === 0) refuse(`port ${target}/${protocol}: from= names nobody`);
    if (Array.isArray(clients) && family !== undefined && !clients.some((cidr) => cidr.includes(':') === family))
      refuse(`port ${target}/${protocol}: from= names nobody who could reach ${address}`);
    return {
      ...(address !== undefined && { address: canonicalAddress(address) }),
      published: request.published ?? choose(n, protocol),
      target,
      protocol,
      mode,
      ...(clients !== undefined && { from: clients }),
    };
  });
  for (const [n, one] of all.entries()) {
    const twice = all.slice(0, n).some(
      (other) =>
        other.published === one.published &&
        other.protocol === one.protocol &&
        (other.address === one.address ||
          // One for all addresses, of its family where it names one.
          ((every(other.address) || every(one.address)) &&
            (other.address === undefined ||
              one.address === undefined ||
              other.address.includes(':') === one.address.includes(':')))),
    );
    if (twice) refuse(`port ${one.published}/${one.protocol} of the host is published twice`);
  }
  return all;
}

/** Chooses among ports that are not published already nor, where it can be asked, anybody else on the host. */
export function portChooser(
  published: readonly PublishSpec[],
  requests: readonly PublishRequest[],
  { ports, random }: { readonly ports?: Ports; readonly random: () => number },
): (n: number, protocol: PublishSpec['protocol']) => number {
  const taken = new Set([
    ...published.map((one) => `${one.protocol}/${one.published}`),
    ...requests.map(({ protocol = 'tcp', published }) => `${protocol}/${published}`),
  ]);
  return (n, protocol) => {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const port = FIRST + Math.floor(random() * (LAST - FIRST + 1));
      const key = `${protocol}/${port}`;
      if (taken.has(key)) continue;
      taken.add(key);
      if (isFree(ports, protocol, requests[n]?.address ?? '0.0.0.0', port)) return port;
    }
    throw new SluiceError('port.inuse', `no free port between ${FIRST} and ${LAST} was found`, { protocol });
  };
}

function isFree(ports: Ports | undefined, protocol: PublishSpec['protocol'], address: string, port: number): boolean {
  try {
    ports?.hold(protocol, address, port)?.[Symbol.dispose]();
    return true;
  } catch (error) {
    if (isSluiceError(error, 'port.inuse')) return false;
    throw error;
  }
}
