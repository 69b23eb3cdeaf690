/** What `--publish` means: `[IP:][HOSTPORT:]PORT[/udp]`, ranges of both, or `published=…,target=…`. */
import type { PublishRequest } from '../../model/container/request.ts';
import { tryParse } from '../../model/ip.ts';
import { UsageError } from './command.ts';
import { many, type Reader } from './flag.ts';

const KEYS = ['published', 'target', 'protocol', 'mode', 'from', 'address'] as const;

function portsOf(given: string, whole: string): number[] {
  const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(given) ?? [];
  const [from, to] = [Number(first), Number(last)];
  if (first === undefined || from < 1 || to > 65_535 || from > to)
    throw new UsageError(`"${given}" in "${whole}" is not a port from 1 to 65535, nor a range of them`);
  return Array.from({ length: to - from + 1 }, (_, n) => from + n);
}

function protocolOf(given: string, whole: string): 'tcp' | 'udp' {
  if (given !== 'tcp' && given !== 'udp') throw new UsageError(`"${given}" in "${whole}" is neither tcp nor udp`);
  return given;
}

function addressOf(given: string, whole: string): string {
  if (tryParse(given) === null) throw new UsageError(`"${given}" in "${whole}" is not an IP address`);
  return given;
}

type Ends = Pick<PublishRequest, 'address' | 'protocol' | 'mode' | 'from'>;

function pairUp(published: readonly number[] | null, target: readonly number[], ends: Ends, whole: string) {
  if (published && published.length !== target.length)
    throw new UsageError(`"${whole}": ${published.length} ports of the host for ${target.length} of the container`);
  return target.map(
    (port, n): PublishRequest => ({ ...(published && { published: published[n] }), target: port, ...ends }),
  );
}

function readLong(given: string): PublishRequest[] {
  const values = new Map<string, string[]>();
  for (const word of given.split(',')) {
    const at = word.indexOf('=');
    const [key, value] = [word.slice(0, at), word.slice(at + 1)];
    if (at < 0 || !(KEYS as readonly string[]).includes(key))
      throw new UsageError(`"${word}" in "${given}" is not one of ${KEYS.map((known) => `${known}=…`).join(', ')}`);
    if (values.has(key) && key !== 'from') throw new UsageError(`"${given}" says ${key}= twice`);
    values.set(key, [...(values.get(key) ?? []), value]);
  }
  const one = (key: (typeof KEYS)[number]): string | undefined => values.get(key)?.[0];
  const [target, published, mode, protocol, address] = (
    ['target', 'published', 'mode', 'protocol', 'address'] as const
  ).map(one);
  if (target === undefined) throw new UsageError(`"${given}" has no target=PORT`);
  if (mode !== undefined && mode !== 'host')
    throw new UsageError(`"${mode}" in "${given}": ports are published by mode=host`);
  const from = values.get('from');
  if (from?.includes('any') && from.length > 1) throw new UsageError(`"${given}" says from=any and others`);
  return pairUp(
    published === undefined ? null : portsOf(published, given),
    portsOf(target, given),
    {
      ...(address !== undefined && { address: addressOf(address, given) }),
      ...(protocol !== undefined && { protocol: protocolOf(protocol, given) }),
      ...(mode !== undefined && { mode }),
      ...(from && { from: from[0] === 'any' ? 'any' : from }),
    },
    given,
  );
}

export const readPublish: Reader<readonly PublishRequest[]> = (given) => {
  if (given.includes('=')) return readLong(given);
  const [, ports = '', protocol] = /^([^/]+)(?:\/(.+))?$/.exec(given) ?? [];
  const [, bracketed, rest = ports] = /^\[([^\]]*)\]:(.*)$/.exec(ports) ?? [];
  const parts = rest.split(':');
  const target = parts.pop()!;
  const published = parts.pop();
  const address = bracketed ?? parts.pop();
  if (parts.length > 0 || (bracketed !== undefined && address !== bracketed))
    throw new UsageError(`"${given}" is not [IP:][HOSTPORT:]PORT[/udp]; an IPv6 address stands in brackets`);
  return pairUp(
    // `IP::PORT` leaves the choice to us.
    published === undefined || published === '' ? null : portsOf(published, given),
    portsOf(target, given),
    {
      ...(address !== undefined && { address: addressOf(address, given) }),
      ...(protocol !== undefined && { protocol: protocolOf(protocol, given) }),
    },
    given,
  );
};

export const publishFlag = many(
  '[IP:][PORT:]PORT[/udp]',
  readPublish,
  'Publish a port on the host; also published=, target=, protocol=, address=, from=CIDR|any',
  { short: 'p' },
);
