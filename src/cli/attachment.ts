/** How a sandbox joins a network: the flags, and the short form `NETWORK:ip=…,alias=…`. */
import type { AttachmentRequest } from '../model/request.ts';
import { type FlagValues, UsageError } from './command/command.ts';
import { integer, many, one, type Reader, text } from './command/flag.ts';

export const attachmentFlags = {
  ip: one('IP', text, 'This IPv4 address rather than a free one'),
  ip6: one('IP', text, 'This IPv6 address rather than a free one'),
  macAddress: one('MAC', text, 'This MAC address rather than one derived from the address'),
  networkAlias: many('NAME', text, 'A further name on the network', { also: ['--alias'] }),
  allowAddress: many('CIDR', text, 'Addresses that it may also send from'),
  ifname: one('NAME', text, 'Name of the interface inside', { absent: 'the first free ethN' }),
  gwPriority: one('N', integer, 'The network with the highest one gives the default route', { absent: '0' }),
};

type Flags = FlagValues<typeof attachmentFlags>;

/** Absent flags leave no trace in the request. */
export function attachmentOf(flags: Flags): Omit<AttachmentRequest, 'network'> {
  const { ip, ip6, macAddress, networkAlias, allowAddress, ifname, gwPriority } = flags;
  return {
    ...(ip !== undefined && { ip }),
    ...(ip6 !== undefined && { ip6 }),
    ...(macAddress !== undefined && { mac: macAddress }),
    ...(networkAlias.length > 0 && { aliases: networkAlias }),
    ...(allowAddress.length > 0 && { allow: allowAddress }),
    ...(ifname !== undefined && { ifname }),
    ...(gwPriority !== undefined && { gwPriority }),
  };
}

/** Keys of the short form; Docker's `name=NETWORK,…` is read as well. */
const KEYS = ['ip', 'ip6', 'mac-address', 'alias', 'allow-address', 'ifname', 'gw-priority'] as const;

/** `web`, `web:ip=10.20.0.9,alias=db,alias=sql`, `name=web,ip=10.20.0.9`. */
export const readNetwork: Reader<AttachmentRequest> = (given) => {
  const named = /^name=([^,]+)(?:,(.*))?$/s.exec(given);
  const colon = given.indexOf(':');
  const network = named ? named[1]! : colon < 0 ? given : given.slice(0, colon);
  const rest = named ? named[2] : colon < 0 ? undefined : given.slice(colon + 1);
  if (network === '') throw new UsageError(`"${given}" names no network`);
  const values = new Map<string, string[]>();
  for (const part of rest ? rest.split(',') : []) {
    const at = part.indexOf('=');
    const key = part.slice(0, Math.max(0, at));
    if (!(KEYS as readonly string[]).includes(key)) {
      throw new UsageError(`"${part}" in "${given}" is not one of ${KEYS.map((known) => `${known}=…`).join(' ')}`);
    }
    values.set(key, [...(values.get(key) ?? []), text(part.slice(at + 1))]);
  }
  const last = (key: (typeof KEYS)[number]): string | undefined => values.get(key)?.at(-1);
  const priority = last('gw-priority');
  return {
    network,
    ...attachmentOf({
      ip: last('ip'),
      ip6: last('ip6'),
      macAddress: last('mac-address'),
      networkAlias: values.get('alias') ?? [],
      allowAddress: values.get('allow-address') ?? [],
      ifname: last('ifname'),
      gwPriority: priority === undefined ? undefined : integer(priority),
    }),
  };
};

export const networkFlag = many('NETWORK', readNetwork, 'A network to join: NAME, or NAME:ip=…,alias=…', {
  absent: 'bridge',
});

/** The networks of a new sandbox. The plain flags speak of the one network there is; undefined leaves the choice to the daemon. */
export function networksOf(
  networks: readonly AttachmentRequest[],
  flags: Flags,
): readonly AttachmentRequest[] | undefined {
  const plain = attachmentOf(flags);
  if (Object.keys(plain).length === 0) return networks.length > 0 ? networks : undefined;
  if (networks.length > 1) {
    throw new UsageError('with several networks, say for each what concerns it: --network NAME:ip=…,alias=…,ifname=…');
  }
  return [{ network: 'bridge', ...networks[0], ...plain }];
}
