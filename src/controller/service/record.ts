/** What one endpoint or service is called on its network, and how the names of several networks make a view. Pure. */
import type { NameRecord } from '../../contracts/names.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { Service } from '../../model/service.ts';

export interface Called {
  readonly records: readonly NameRecord[];
  /** Address → name. */
  readonly reverse: ReadonlyMap<string, string>;
  /** Of a service: its names at which no sandbox is found, whatever that is called. */
  readonly owned?: ReadonlySet<string>;
}

/** The names of a network. */
export interface Names {
  readonly records: ReadonlyMap<string, NameRecord>;
  /** Address → name. */
  readonly reverse: ReadonlyMap<string, string>;
}

interface Draft {
  a: string[];
  aaaa: string[];
  srv: { priority: number; weight: number; port: number; target: string }[];
}

const bare = (address: string): string => address.split('/')[0]!;

class Drafts {
  readonly #drafts = new Map<string, Draft>();
  readonly #network: string;

  constructor(network: string) {
    this.#network = network;
  }

  of(name: string): Draft {
    const key = name.toLowerCase();
    const known = this.#drafts.get(key);
    if (known) return known;
    const draft: Draft = { a: [], aaaa: [], srv: [] };
    this.#drafts.set(key, draft);
    return draft;
  }

  /** By name, and by `NAME.NETWORK`. */
  addresses(name: string, addresses: readonly string[]): void {
    for (const draft of [this.of(name), this.of(`${name}.${this.#network}`)])
      for (const address of addresses.map(bare)) (address.includes(':') ? draft.aaaa : draft.a).push(address);
  }

  records(): NameRecord[] {
    return [...this.#drafts].map(([name, { a, aaaa, srv }]) => ({ name, a: a.sort(), aaaa: aaaa.sort(), srv }));
  }
}

/** A sandbox by name, aliases and `NAME.NETWORK`. */
export function callOfEndpoint({ spec }: Endpoint, sandbox: string, network: string): Called {
  const drafts = new Drafts(network);
  const { addresses, aliases } = spec;
  for (const name of new Set([sandbox, ...aliases].map((each) => each.toLowerCase())))
    drafts.addresses(name, addresses);
  const target = `${sandbox}.${network}`.toLowerCase();
  return { records: drafts.records(), reverse: new Map(addresses.map((address) => [bare(address), target])) };
}

/**
 * A service likewise, with `tasks.SERVICE` for its backends and `_port._proto.SERVICE` for named ports. `addressesOf`: of a sandbox on the
 * network that may be balanced over; none of another.
 */
export function callOfService(
  { name, spec }: Service,
  network: string,
  addressesOf: (sandbox: string) => readonly string[],
): Called {
  const drafts = new Drafts(network);
  for (const each of new Set([name, ...spec.aliases])) drafts.addresses(each, spec.vips);
  drafts.of(`tasks.${name}`);
  for (const backend of spec.backends)
    drafts.addresses(
      `tasks.${name}`,
      'sandbox' in backend ? addressesOf(backend.sandbox) : 'address' in backend ? [backend.address] : [],
    );
  for (const port of spec.ports) {
    if (port.name)
      drafts
        .of(`_${port.name}._${port.protocol}.${name}`)
        .srv.push({ priority: 0, weight: 1, port: port.port, target: name.toLowerCase() });
  }
  const target = `${name}.${network}`.toLowerCase();
  return {
    records: drafts.records(),
    reverse: new Map(spec.vips.map((vip) => [vip, target])),
    owned: new Set([name.toLowerCase(), target]),
  };
}

/**
 * A view's records from its networks', in the order given: the first network that has a name owns it, another's is shadowed (and named,
 * for the log). `NAME.NETWORK` always finds the other.
 */
export function mergeViews(networks: readonly Names[]): {
  records: NameRecord[];
  reverse: Map<string, string>;
  shadowed: string[];
} {
  const records = new Map<string, NameRecord>();
  const reverse = new Map<string, string>();
  const shadowed: string[] = [];
  for (const network of networks) {
    for (const [name, record] of network.records) {
      if (records.has(name)) shadowed.push(name);
      else records.set(name, record);
    }
    for (const [address, name] of network.reverse) if (!reverse.has(address)) reverse.set(address, name);
  }
  return { records: [...records.values()], reverse, shadowed };
}

/** What differs in a view when that differs in one of its networks: what the first network has that has any. */
export function changeOf(networks: readonly Names[], differs: NameDifference): NameDifference & { shadowed: string[] } {
  const records = new Map<string, NameRecord | undefined>();
  const reverse = new Map<string, string | undefined>();
  const shadowed: string[] = [];
  for (const name of differs.records.keys()) {
    const found = networks.flatMap((network) => network.records.get(name) ?? []);
    if (found.length > 1) shadowed.push(name);
    records.set(name, found[0]);
  }
  for (const address of differs.reverse.keys())
    reverse.set(address, networks.flatMap((network) => network.reverse.get(address) ?? [])[0]);
  return { records, reverse, shadowed };
}

/** Names and addresses of which something differs, as they are now; undefined: gone. */
export interface NameDifference {
  readonly records: ReadonlyMap<string, NameRecord | undefined>;
  readonly reverse: ReadonlyMap<string, string | undefined>;
}
