/** What a namespace cookie and an attachment number mean: small maps, upserted at each start, pruned after it. */
import {
  type DataplaneEndpoint,
  type DataplaneSandbox,
  type Drift,
  type EndpointCounters,
  HOST_VIEW,
  type Repair,
} from '../contracts/dataplane.ts';
import { bitsOf, canonicalAddress, formatAddress, linkLocalOf, parseCidr } from '../model/ip.ts';
import { checkId } from './input.ts';
import { Counters } from './maps/counters.ts';
import {
  ALLOWED_KEY,
  COOKIE,
  DROP_REASONS,
  DROPS,
  ENDPOINT,
  ENDPOINT_ADDRESSES,
  ENDPOINT_ALLOW,
  ENDPOINT_SPOOF,
  NUMBER,
  RESOLVER,
  SANDBOX,
} from './maps/layout.ts';
import { Table } from './maps/table.ts';

/** Stands in the map of sandboxes for the host itself; no sandbox has it. */
const HOST_ID = '0'.repeat(64);

interface AllowedKey {
  readonly prefixlen: number;
  readonly attachment: number;
  readonly addr: string;
}

/** Bits of the attachment number before those of the address. */
const ATTACHMENT_BITS = 32;

/** The LPM keys of an endpoint: its `allow` list, and addresses of its own that its element has no room for. */
export function allowedKeys({ number, addresses, allow }: DataplaneEndpoint): AllowedKey[] {
  const own = addresses.slice(ENDPOINT_ADDRESSES).map((address) => `${address}/${address.includes(':') ? 128 : 32}`);
  return [...own, ...allow].map((text) => {
    const { family, base, prefix } = parseCidr(text);
    return {
      prefixlen: ATTACHMENT_BITS + 128 - bitsOf(family) + prefix,
      attachment: number,
      addr: formatAddress(family, base),
    };
  });
}

const allowedName = ({ prefixlen, addr }: AllowedKey): string => `${addr}/${prefixlen}`;

export class Identity {
  readonly #sandboxes: Table<{ cookie: bigint }, { view: number; number: number; id: string }>;
  readonly #resolvers: Table<{ number: number }, { port: number; view: number }>;
  readonly #endpoints: Table<
    { number: number },
    {
      mac: string;
      flags: number;
      address_count: number;
      ifindex: number;
      identity: number;
      link_local: string;
      addresses: readonly string[];
      tunnel: number;
      id: string;
    }
  >;
  readonly #allowed: Table<AllowedKey, { number: number }>;
  readonly #drops: Counters<{ readonly packets: readonly bigint[] }>;
  /** Id → its keys, so that a removal by id need not search. */
  readonly #cookies = new Map<string, Set<bigint>>();
  readonly #numbers = new Map<string, number>();
  readonly #allowedOf = new Map<number, Map<string, AllowedKey>>();

  constructor(fdOf: (map: string) => number) {
    this.#sandboxes = new Table('sandboxes', fdOf('sandboxes'), COOKIE, SANDBOX);
    this.#resolvers = new Table('resolvers', fdOf('resolvers'), NUMBER, RESOLVER);
    this.#endpoints = new Table('endpoints', fdOf('endpoints'), NUMBER, ENDPOINT);
    this.#allowed = new Table('allowed', fdOf('allowed'), ALLOWED_KEY, NUMBER);
    this.#drops = new Counters(fdOf('endpoint_drops'), DROPS);
    for (const [{ cookie }, { id }] of this.#sandboxes.entries()) this.#remember(id, cookie);
    for (const [{ number }, { id }] of this.#endpoints.entries()) this.#numbers.set(id, number);
    for (const key of this.#allowed.keys()) this.#indexAllowed(key);
  }

  ensureSandbox({ id, number, view, namespace, dnsPort }: DataplaneSandbox): void {
    checkId('sandbox', id);
    const { cookie } = namespace;
    const before = this.sandbox(id);
    this.#resolvers.put({ number }, { port: dnsPort, view });
    this.#sandboxes.put({ cookie }, { view, number, id });
    this.#remember(id, cookie);
    for (const old of [...this.#cookies.get(id)!]) if (old !== cookie) this.#forget(id, old);
    if (before && before.number !== number) this.#resolvers.delete({ number: before.number });
  }

  /** Whether the host's sockets have a view, as sandboxes' have. */
  serveHost(on: boolean, cookie: bigint): void {
    for (const old of [...(this.#cookies.get(HOST_ID) ?? [])]) if (!on || old !== cookie) this.#forget(HOST_ID, old);
    if (!on) return;
    this.#sandboxes.put({ cookie }, { view: HOST_VIEW, number: 0, id: HOST_ID });
    this.#remember(HOST_ID, cookie);
  }

  get servesHost(): boolean {
    return this.#cookies.has(HOST_ID);
  }

  /** Attachment number of a sandbox that a map holds. */
  sandbox(id: string): { readonly number: number; readonly cookie: bigint } | undefined {
    for (const cookie of this.#cookies.get(id) ?? []) {
      const held = this.#sandboxes.get({ cookie });
      if (held) return { number: held.number, cookie };
    }
    return undefined;
  }

  removeSandbox(id: string): void {
    const held = this.sandbox(id);
    for (const cookie of [...(this.#cookies.get(id) ?? [])]) this.#forget(id, cookie);
    if (held) this.#resolvers.delete({ number: held.number });
  }

  /** The element last: from then on the guard lets the endpoint's frames through. */
  ensureEndpoint(endpoint: DataplaneEndpoint): void {
    const { id, number, mac, addresses, spoof, hostIfindex, tunnel = 0 } = endpoint;
    checkId('endpoint', id);
    const own = addresses.slice(0, ENDPOINT_ADDRESSES).map(canonicalAddress);
    const allowed = allowedKeys(endpoint);
    for (const key of allowed) {
      this.#allowed.put(key, { number: 0 });
      this.#indexAllowed(key);
    }
    this.#drops.ensure(number);
    const before = this.#numbers.get(id);
    this.#endpoints.put(
      { number },
      {
        mac,
        flags: (spoof ? ENDPOINT_SPOOF : 0) | (allowed.length > 0 ? ENDPOINT_ALLOW : 0),
        address_count: own.length,
        ifindex: hostIfindex,
        identity: 0,
        link_local: linkLocalOf(mac),
        addresses: own,
        tunnel,
        id,
      },
    );
    this.#numbers.set(id, number);
    this.#trimAllowed(number, new Set(allowed.map(allowedName)));
    if (before !== undefined && before !== number) this.#forgetEndpoint(before);
  }

  endpoint(id: string): Pick<Required<DataplaneEndpoint>, 'number' | 'mac' | 'hostIfindex' | 'tunnel'> | undefined {
    const number = this.#numbers.get(id);
    const held = number === undefined ? undefined : this.#endpoints.get({ number });
    return held && { number: number!, mac: held.mac, hostIfindex: held.ifindex, tunnel: held.tunnel };
  }

  removeEndpoint(id: string): void {
    const number = this.#numbers.get(id);
    if (number === undefined) return;
    this.#forgetEndpoint(number);
    this.#numbers.delete(id);
  }

  counters(id: string): EndpointCounters {
    const number = this.#numbers.get(id);
    const cpus = number === undefined ? [] : this.#drops.read(number);
    const sum = (reason: number): number => cpus.reduce((all, { packets }) => all + Number(packets[reason]), 0);
    return { drops: Object.fromEntries(DROP_REASONS.map((name, reason) => [name, sum(reason)])) };
  }

  sandboxIds(): string[] {
    return [...this.#cookies.keys()].filter((id) => id !== HOST_ID);
  }

  endpointIds(): string[] {
    return [...this.#numbers.keys()];
  }

  /** Namespaces that are a sandbox's. */
  cookies(): Set<bigint> {
    return new Set([...this.#cookies.values()].flatMap((cookies) => [...cookies]));
  }

  /** Attachment numbers in use; pins of others are strays. */
  attachments(): Set<number> {
    const used = new Set(this.#numbers.values());
    for (const [, { number }] of this.#sandboxes.entries()) used.add(number);
    return used;
  }

  highest(): { attachment: number; view: number } {
    const top = { attachment: 0, view: 0 };
    for (const [, { number, view }] of this.#sandboxes.entries()) {
      top.attachment = Math.max(top.attachment, number);
      top.view = Math.max(top.view, view);
    }
    for (const table of [this.#resolvers, this.#endpoints])
      for (const { number } of table.keys()) top.attachment = Math.max(top.attachment, number);
    return top;
  }

  /** What a step that was cut short left: elements without an owner. */
  sweep(): void {
    const used = this.attachments();
    for (const key of this.#resolvers.keys()) if (!used.has(key.number)) this.#resolvers.delete(key);
    for (const number of [...this.#allowedOf.keys()]) if (!used.has(number)) this.#trimAllowed(number, new Set());
    for (const number of this.#drops.known()) if (!used.has(number)) this.#drops.remove(number);
  }

  audit(): Repair[] {
    const repairs: Repair[] = [];
    const byNumber = this.#byNumber();
    const report = (number: number, what: string, object: 'sandbox' | 'endpoint' = 'endpoint'): void => {
      repairs.push({ ...(byNumber.get(number) ?? { object, id: String(number) }), what });
    };
    const inAllowed = this.#allowed.mend();
    const inEndpoints = this.#endpoints.mend();
    const inResolvers = this.#resolvers.mend();
    const inSandboxes = this.#sandboxes.mend();
    this.#allowed.evict(inAllowed);
    this.#endpoints.evict(inEndpoints);
    this.#resolvers.evict(inResolvers);
    this.#sandboxes.evict(inSandboxes);
    for (const { key, was } of inAllowed) report(key.attachment, `allowed address ${key.addr} was ${was}`);
    for (const { key, was } of inEndpoints) report(key.number, `its identity was ${was}`);
    for (const { key, was } of inResolvers) report(key.number, `its resolver was ${was}`, 'sandbox');
    for (const { key, was } of inSandboxes) {
      const id = this.#sandboxes.get(key)?.id ?? `cookie ${key.cookie}`;
      repairs.push({ object: 'sandbox', id, what: `its identity was ${was}` });
    }
    return repairs;
  }

  /** What `audit` would put right. */
  compare(): Drift[] {
    const byNumber = this.#byNumber();
    const of = (number: number, object: 'sandbox' | 'endpoint' = 'endpoint') =>
      byNumber.get(number) ?? { object, id: String(number) };
    const look = (map: string): string => `bpftool map dump name ${map}`;
    return [
      ...this.#allowed.drifts().map(({ key, was }): Drift => {
        return { ...of(key.attachment), what: `allowed address ${key.addr}`, is: was, look: look('allowed') };
      }),
      ...this.#endpoints.drifts().map(({ key, was }): Drift => {
        return {
          ...of(key.number),
          what: 'what its guard knows of its MAC and addresses',
          is: was,
          look: look('endpoints'),
        };
      }),
      ...this.#resolvers.drifts().map(({ key, was }): Drift => {
        return { ...of(key.number, 'sandbox'), what: 'the port of its resolver', is: was, look: look('resolvers') };
      }),
      ...this.#sandboxes.drifts().map(({ key, was }): Drift => {
        const id = this.#sandboxes.get(key)?.id ?? `cookie ${key.cookie}`;
        return { object: 'sandbox', id, what: 'which view its namespace has', is: was, look: look('sandboxes') };
      }),
    ];
  }

  #byNumber(): Map<number, { object: 'sandbox' | 'endpoint'; id: string }> {
    const byNumber = new Map<number, { object: 'sandbox' | 'endpoint'; id: string }>();
    for (const [, { number, id }] of this.#sandboxes.entries()) byNumber.set(number, { object: 'sandbox', id });
    for (const [id, number] of this.#numbers) byNumber.set(number, { object: 'endpoint', id });
    return byNumber;
  }

  #remember(id: string, cookie: bigint): void {
    const cookies = this.#cookies.get(id);
    if (cookies) cookies.add(cookie);
    else this.#cookies.set(id, new Set([cookie]));
  }

  #forget(id: string, cookie: bigint): void {
    // A namespace may have been taken over by another sandbox since.
    if (this.#sandboxes.get({ cookie })?.id === id) this.#sandboxes.delete({ cookie });
    const cookies = this.#cookies.get(id);
    cookies?.delete(cookie);
    if (cookies?.size === 0) this.#cookies.delete(id);
  }

  #forgetEndpoint(number: number): void {
    this.#endpoints.delete({ number });
    this.#trimAllowed(number, new Set());
    this.#drops.remove(number);
  }

  #indexAllowed(key: AllowedKey): void {
    const keys = this.#allowedOf.get(key.attachment) ?? new Map<string, AllowedKey>();
    this.#allowedOf.set(key.attachment, keys.set(allowedName(key), key));
  }

  #trimAllowed(number: number, keep: ReadonlySet<string>): void {
    const keys = this.#allowedOf.get(number);
    for (const [name, key] of keys ?? []) {
      if (keep.has(name)) continue;
      this.#allowed.delete(key);
      keys!.delete(name);
    }
    if (keys?.size === 0) this.#allowedOf.delete(number);
  }
}
