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
  readonly #network: string;

  constructor(network: string) {
    this.#network = network;
  }

  of(name: string): Draft {
    const key = name.toLowerCase();
    const known = this.drafts.get(key);
    if (known) return known;
    const draft: Draft = { a: [], aaaa: [], srv: [] };
    this.drafts.set(key, draft);
    return draft;
  }

  /** By name, and by `NAME.NETWORK`. */
  addresses(name: string, addresses: readonly string[]): void {
    for (const draft of [this.of(name), this.of(`${name}.${this.#network}`)])
      for (const address of addresses.map(bare)) (address.includes(':') ? draft.aaaa : draft.a).push(address);
  }

  records(): NameRecord[] {
    return [...this.drafts].map(([name, { a, aaaa, srv }]) => ({ name, a: a.sort(), aaaa: aaaa.sort(), srv }));
  }
}

/** What one endpoint's sandbox is called on its network. */
interface Called {
  readonly sandbox: string;
  readonly network: string;
  readonly records: readonly NameRecord[];
  readonly reverse: NetworkNames['reverse'];
}

/** Objects are replaced, never changed: of a large network all but one or two are those of the last time. */
const called = new WeakMap<Endpoint, Called>();

function callOf(endpoint: Endpoint, sandbox: string, network: string): Called {
  const known = called.get(endpoint);
  if (known?.sandbox === sandbox && known.network === network) return known;
  const drafts = new Drafts(network);
  const { addresses, aliases } = endpoint.spec;
  for (const name of new Set([sandbox, ...aliases].map((each) => each.toLowerCase())))
    drafts.addresses(name, addresses);
  const target = `${sandbox}.${network}`.toLowerCase();
  const reverse = new Map(addresses.map((address) => [bare(address), target]));
  const made = { sandbox, network, records: drafts.records(), reverse };
  called.set(endpoint, made);
  return made;
}

/** Records by name; several of one name are answered together. */
class Gathered {
  readonly #one = new Map<string, NameRecord>();
  readonly #several = new Map<string, NameRecord[]>();

  add(record: NameRecord): void {
    const { name } = record;
    const known = this.#one.get(name);
    if (!known) this.#one.set(name, record);
    else if (this.#several.has(name)) this.#several.get(name)!.push(record);
    else this.#several.set(name, [known, record]);
  }

  all(): ReadonlyMap<string, NameRecord> {
    for (const [name, records] of this.#several) {
      const [a, aaaa] = [records.flatMap(({ a = [] }) => a).sort(), records.flatMap(({ aaaa = [] }) => aaaa).sort()];
      this.#one.set(name, { name, a, aaaa, srv: records.flatMap(({ srv = [] }) => srv) });
    }
    return this.#one;
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
  const suffix = `.${network.name}`.toLowerCase();
  const own = new Set(services.flatMap(({ name }) => [name.toLowerCase(), `${name.toLowerCase()}${suffix}`]));
  const records = new Gathered();
  const reverse = new Map<string, string>();
  const bySandbox = new Map<string, Endpoint>();
  for (const endpoint of endpoints) {
    const { sandbox } = endpoint.spec;
    if (!bySandbox.has(sandbox)) bySandbox.set(sandbox, endpoint);
    const name = sandboxName(endpoint);
    if (!name) continue;
    const call = callOf(endpoint, name, network.name);
    for (const record of call.records) if (!own.has(record.name)) records.add(record);
    for (const [address, target] of call.reverse) reverse.set(address, target);
  }
  const addressesOf = (sandbox: string): readonly string[] =>
    serves(sandbox) ? (bySandbox.get(sandbox)?.spec.addresses ?? []) : [];
  const drafts = new Drafts(network.name);
  for (const service of services) {
    for (const each of new Set([service.name, ...service.spec.aliases])) drafts.addresses(each, service.spec.vips);
    drafts.of(`tasks.${service.name}`);
    for (const backend of service.spec.backends)
      drafts.addresses(
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
  for (const record of drafts.records()) records.add(record);
  return { records: records.all(), reverse };
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
