/** The names of a network, and how several networks make a view. Pure. */
import type { NameRecord } from '../../contracts/names.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { Network } from '../../model/network.ts';
import type { Service } from '../../model/service.ts';

export interface NetworkNames {
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
  readonly drafts = new Map<string, Draft>();

  of(name: string): Draft {
    const key = name.toLowerCase();
    const known = this.drafts.get(key);
    if (known) return known;
    const draft: Draft = { a: [], aaaa: [], srv: [] };
    this.drafts.set(key, draft);
    return draft;
  }

  addresses(name: string, addresses: readonly string[]): void {
    const draft = this.of(name);
    for (const address of addresses.map(bare)) (address.includes(':') ? draft.aaaa : draft.a).push(address);
  }
}

/**
 * Sandboxes by name, aliases and `NAME.NETWORK`; services likewise, with `tasks.SERVICE` for their backends and
 * `_port._proto.SERVICE` for named ports. A service wins over a sandbox of the same name; several sandboxes with one alias are
 * answered together. `endpoints` and `services`: those that are ready; `serves`: which sandboxes may be balanced over.
 */
export function namesOfNetwork(
  network: Network,
  endpoints: readonly Endpoint[],
  sandboxName: (endpoint: Endpoint) => string | undefined,
  services: readonly Service[],
  serves: (sandbox: string) => boolean = () => true,
): NetworkNames {
  const drafts = new Drafts();
  const reverse = new Map<string, string>();
  const own = new Set(services.map(({ name }) => name.toLowerCase()));
  const both = (name: string, addresses: readonly string[]): void => {
    drafts.addresses(name, addresses);
    drafts.addresses(`${name}.${network.name}`, addresses);
  };
  for (const endpoint of endpoints) {
    const name = sandboxName(endpoint);
    if (!name) continue;
    for (const each of new Set([name, ...endpoint.spec.aliases]))
      if (!own.has(each.toLowerCase())) both(each, endpoint.spec.addresses);
    for (const address of endpoint.spec.addresses) reverse.set(bare(address), `${name}.${network.name}`.toLowerCase());
  }
  const addressesOf = (sandbox: string): readonly string[] =>
    endpoints.find((endpoint) => endpoint.spec.sandbox === sandbox && serves(sandbox))?.spec.addresses ?? [];
  for (const service of services) {
    for (const each of new Set([service.name, ...service.spec.aliases])) both(each, service.spec.vips);
    drafts.of(`tasks.${service.name}`);
    for (const backend of service.spec.backends)
      both(
        `tasks.${service.name}`,
        'sandbox' in backend ? addressesOf(backend.sandbox) : 'address' in backend ? [backend.address] : [],
      );
    for (const vip of service.spec.vips) reverse.set(vip, `${service.name}.${network.name}`.toLowerCase());
    for (const port of service.spec.ports) {
      if (port.name)
        drafts
          .of(`_${port.name}._${port.protocol}.${service.name}`)
          .srv.push({ priority: 0, weight: 1, port: port.port, target: service.name.toLowerCase() });
    }
  }
  const records = new Map<string, NameRecord>();
  for (const [name, { a, aaaa, srv }] of drafts.drafts)
    records.set(name, { name, a: a.sort(), aaaa: aaaa.sort(), srv });
  return { records, reverse };
}

/**
 * A view's records from its networks', in the order given: the first network that has a name owns it, another's is shadowed (and named,
 * for the log) unless it is the same set of names anyway. `NAME.NETWORK` always finds the other.
 */
export function mergeViews(networks: readonly NetworkNames[]): {
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
