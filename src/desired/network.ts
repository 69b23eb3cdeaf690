/** Networks: their subnets, gateways and names. */
import type { IpamDriver, Lease, NetworkDriver, Pool, PoolRequest } from '../contracts/driver.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { overlaps, parseCidr } from '../model/ip.ts';
import { topicsOf } from '../model/keys.ts';
import {
  BUILTIN_NETWORKS,
  MTU_MIN_IPV4,
  MTU_MIN_IPV6,
  type Network,
  type NetworkSpec,
  type SubnetSpec,
} from '../model/network.ts';
import { isStranger } from '../model/object.ts';
import type { NetworkRequest, SubnetsRequest } from '../model/request.ts';
import type { Service } from '../model/service.ts';
import { ipamOf, lend } from './lease.ts';
import { checkName, type Parts, type Put, type PutOptions, Records, sameJson, type WriteOptions } from './records.ts';
import { checkSubnet, familiesOf, missingSubnet, vipsOf, type WantedSubnet, wantedSubnets } from './subnet.ts';
import { retrying, type Undo, undoing } from './turn.ts';
import { claimVni, releaseVni } from './vni.ts';

const MTU_MAX = 65_535;
/** Prefix length of an automatic IPv4 subnet of a network that spans hosts. */
const GLOBAL_PREFIX = 20;
/** Users that a sentence names; the details name all. */
const NAMED_MAX = 20;
const isBuiltin = (name: string): boolean => (BUILTIN_NETWORKS as readonly string[]).includes(name);

export class Networks {
  readonly records: Records<'network', Network>;
  readonly #parts: Parts;
  readonly #endpoints: Records<'endpoint', Endpoint>;
  readonly #services: Records<'service', Service>;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.records = new Records('network', parts);
    this.#endpoints = new Records('endpoint', parts);
    this.#services = new Records('service', parts);
  }

  get = (ref: string): Promise<Network> => this.records.get(ref);
  list = (): Promise<Network[]> => this.records.list();

  /** `bridge` (IPv4 alone, as Docker's), `host` and `none`, made where they are missing. */
  async ensureBuiltin(): Promise<void> {
    for (const driver of BUILTIN_NETWORKS) if (!(await this.records.byName(driver))) await this.put(driver, { driver });
  }

  /**
   * Idempotent by name. One that is there is given back when it is what the request would make; a network does not change, so else
   * `object.exists` (`network.builtin` for a built-in one). Also `request.invalid`, `driver.unknown`, `network.overlap`,
   * `address.outside`, `pool.exhausted`.
   */
  async put(name: string, request: NetworkRequest, options: PutOptions = {}): Promise<Put<Network>> {
    checkName('network', name);
    return this.#parts.turns.take(`network/${name}`, () => retrying(() => this.#put(name, request, options)));
  }

  /**
   * Gives a network that spans hosts further subnets; those that it has already are passed over. `request.invalid` for other networks,
   * `network.overlap` also within the network itself.
   */
  addSubnets(ref: string, add: SubnetsRequest['add'], options: WriteOptions = {}): Promise<Network> {
    return retrying(async () => {
      const network = await this.records.living(ref);
      const { spec } = network;
      if (spec.scope !== 'global')
        throw new SluiceError('request.invalid', `network ${network.name} keeps the subnets that it was made with`, {
          network: network.id,
          driver: spec.driver,
        });
      const wanted = wantedSubnets({ subnets: add, ipv4: spec.ipv4, ipv6: spec.ipv6 }).slice(0, add.length);
      const fresh = wanted.filter(({ cidr }) => !spec.subnets.some((there) => there.cidr === cidr));
      if (fresh.length === 0) return network;
      for (const { cidr } of fresh) checkAdded(network, cidr);
      return undoing(async (undo) => {
        const subnets: SubnetSpec[] = [...spec.subnets];
        for (const subnet of fresh) subnets.push(await this.#lease(network.id, spec.scope, spec.ipam, subnet, undo));
        const changed: Network = { ...network, spec: { ...spec, subnets } };
        const revision = await this.#parts.store.transact([this.records.change(network, { spec: changed.spec })], {
          topics: topicsOf(network),
          actor: options.actor,
        });
        return { ...changed, revision };
      });
    });
  }

  /** Marks it for removal. `object.inuse` names the endpoints and services on it. */
  remove(ref: string, options: WriteOptions = {}): Promise<Network> {
    return retrying(async () => {
      const network = await this.records.get(ref);
      if (isBuiltin(network.name))
        throw new SluiceError('network.builtin', `network ${network.name} is always there`, { name: network.name });
      if (network.removing) return network;
      const unreferred = await this.records.noNewReference(network.id);
      const users = (await this.#users()).get(network.id) ?? (await this.#strangersOn(network));
      if (users.length > 0) {
        const more = users.length > NAMED_MAX ? ` and ${users.length - NAMED_MAX} more` : '';
        throw new SluiceError(
          'object.inuse',
          `network ${network.name} is used by ${users.slice(0, NAMED_MAX).join(', ')}${more}`,
          { network: network.id, users },
        );
      }
      const revision = await this.#parts.store.transact([...(await this.records.removing(network)), unreferred], {
        topics: topicsOf(network),
        actor: options.actor,
      });
      return { ...network, removing: true, revision };
    });
  }

  /** Marks every network that nobody uses for removal, but the built-in ones. */
  async prune(options: WriteOptions = {}): Promise<Network[]> {
    const users = await this.#users();
    const removed: Network[] = [];
    for (const network of await this.list()) {
      if (network.removing || isBuiltin(network.name) || users.has(network.id)) continue;
      try {
        removed.push(await this.remove(network.id, options));
      } catch (error) {
        // It has found a user or its end meanwhile.
        if (!isSluiceError(error, 'object.inuse', 'object.notfound')) throw error;
      }
    }
    return removed;
  }

  /** The kernel side is gone: addresses and record go, too. Repeating it harms nobody. */
  async forget(network: Network): Promise<void> {
    const { subnets, ipam } = network.spec;
    for (const { pool } of subnets) await ipamOf(this.#parts, ipam).releasePool(pool);
    fault('network.released');
    await this.records.forget(network, undefined, await releaseVni(this.#parts.store, network));
  }

  /** Endpoints and services by the id of their network, those being removed included: their links are still there. */
  async #users(): Promise<Map<string, string[]>> {
    const users = new Map<string, string[]>();
    for (const { kind, name, spec } of [
      ...(await this.#endpoints.list({ whole: true })),
      ...(await this.#services.list({ whole: true })),
    ]) {
      const names = users.get(spec.network) ?? [];
      names.push(`${kind} ${name}`);
      users.set(spec.network, names);
    }
    return users;
  }

  /** Objects of a newer version's kinds that have addresses on it: seldom any, so that not everything is gone through for each network. */
  async #strangersOn({ id, spec }: Network): Promise<string[]> {
    const { store, ipams } = this.#parts;
    const leases: Lease[] = [];
    // One whose driver is not here is not asked: its pools do not go either.
    for (const { pool } of spec.subnets) leases.push(...((await ipams.get(spec.ipam)?.leases(pool)) ?? []));
    const owners = new Set(leases.map(({ owner }) => owner));
    owners.delete(id);
    if (owners.size === 0) return [];
    const { items } = await store.list('');
    return items.flatMap(({ key, value }) =>
      isStranger(key, value) && owners.has(value.id) ? [`${value.kind} ${value.name}`] : [],
    );
  }

  async #put(name: string, request: NetworkRequest, options: PutOptions): Promise<Put<Network>> {
    const found = await this.records.byName(name);
    if (!found) return { object: await this.#create(name, request, options), created: true };
    if (options.create) throw new SluiceError('object.exists', `a network ${name} exists`, { name, id: found.id });
    const differs = difference(found, request);
    if (!differs) return { object: found, created: false };
    if (isBuiltin(name))
      throw new SluiceError('network.builtin', `network ${name} has its own ${differs}, which does not change`, {
        name,
        differs,
      });
    throw new SluiceError(
      'object.exists',
      `network ${name} exists with another ${differs}; a network does not change`,
      { name, id: found.id, differs },
    );
  }

  async #create(name: string, request: NetworkRequest, options: WriteOptions): Promise<Network> {
    const driver = this.#parts.drivers.get(request.driver ?? 'bridge');
    const { scope, addresses } = driver.capabilities();
    const id = this.records.newId();
    const base: Omit<NetworkSpec, 'subnets'> = {
      driver: driver.name,
      scope,
      ipam: request.ipam ?? 'default',
      ...familiesOf(request),
      internal: request.internal ?? false,
      mtu: request.mtu,
      options: request.options ?? {},
    };
    // Refuse before anything is leased.
    const wanted = plan(id, name, request, base, driver, addresses);
    if (wanted.length > 0) ipamOf(this.#parts, base.ipam);
    const network = await undoing(async (undo) => {
      const subnets: SubnetSpec[] = [];
      for (const subnet of wanted) subnets.push(await this.#lease(id, scope, base.ipam, subnet, undo));
      fault('network.leased');
      const owner = scope === 'local' ? this.#parts.node : null;
      const { vni, claim } = scope === 'local' ? {} : await claimVni(this.#parts.store, id, request.vni);
      const network = this.records.fresh(id, name, owner, request.labels ?? {}, { ...base, vni, subnets });
      const ops = [...this.records.creation(network), ...(claim ? [claim] : [])];
      const revision = await this.#parts.store.transact(ops, {
        topics: topicsOf(network),
        actor: options.actor,
      });
      return { ...network, revision };
    });
    fault('network.stored');
    return network;
  }

  async #lease(
    owner: string,
    space: NetworkSpec['scope'],
    ipamName: string,
    { family, cidr, gateway, range, aux }: WantedSubnet,
    undo: Undo,
  ): Promise<SubnetSpec> {
    const ipam = ipamOf(this.#parts, ipamName);
    const avoid = await this.#parts.hostPrefixes(space);
    const size = space === 'global' && family === 4 ? GLOBAL_PREFIX : undefined;
    const pool = await this.#pool({ space, family, cidr, size, avoid, owner }, ipam);
    // Its leases go with it.
    undo(() => ipam.releasePool(pool.id));
    checkSubnet(pool.cidr, { gateway, range, aux });
    // Reserved ones first, so that an automatic gateway keeps clear of them.
    for (const address of Object.values(aux))
      await lend(this.#parts.store, ipam, { pool: pool.id, owner, address, purpose: 'aux' });
    const lease = await lend(this.#parts.store, ipam, {
      pool: pool.id,
      owner,
      address: gateway,
      range: gateway ? undefined : range,
      purpose: 'gateway',
    });
    const vips = space === 'global' ? vipsOf(pool.cidr) : undefined;
    return { cidr: pool.cidr, gateway: lease.address, range, aux, pool: pool.id, vips };
  }

  /** A pool; where it overlaps another network's, the error names that. */
  async #pool(request: PoolRequest, ipam: IpamDriver): Promise<Pool> {
    try {
      return await ipam.requestPool(request);
    } catch (error) {
      const { owner, other } = isSluiceError(error, 'network.overlap') ? error.details : {};
      const network = typeof owner === 'string' ? await this.records.byId(owner) : null;
      if (!network) throw error;
      throw new SluiceError(
        'network.overlap',
        `${request.cidr} overlaps ${other} of network ${network.name}${network.removing ? ', which is being removed' : ''}`,
        { cidr: request.cidr, other, network: network.id, name: network.name },
        error,
      );
    }
  }
}

/** An added subnet is one that was named, and none of the network's own covers any of it. */
function checkAdded(network: Network, cidr: string | undefined): void {
  if (cidr === undefined)
    throw new SluiceError('request.invalid', `network ${network.name}: a subnet to add needs its prefix`, {
      network: network.id,
    });
  const clash = network.spec.subnets.find((there) => overlaps(parseCidr(there.cidr), parseCidr(cidr)));
  if (clash)
    throw new SluiceError('network.overlap', `${cidr} overlaps ${clash.cidr} of network ${network.name} itself`, {
      cidr,
      other: clash.cidr,
      network: network.id,
    });
}

/** What can be said of a request without leasing anything: the subnets it wants, or why it cannot be. */
function plan(
  id: string,
  name: string,
  request: NetworkRequest,
  base: Omit<NetworkSpec, 'subnets'>,
  driver: NetworkDriver,
  addresses: boolean,
): WantedSubnet[] {
  const { ipv4, ipv6, internal, mtu, options } = base;
  if (!addresses && (request.subnets ?? []).length > 0)
    throw new SluiceError('request.invalid', `network ${name}: networks of driver ${driver.name} have no subnets`, {
      driver: driver.name,
    });
  if (request.vni !== undefined && base.scope === 'local')
    throw new SluiceError('request.invalid', `network ${name}: networks of driver ${driver.name} have no VNI`, {
      driver: driver.name,
    });
  if (addresses && !ipv4 && !ipv6)
    throw new SluiceError('request.invalid', `network ${name}: neither IPv4 nor IPv6`, { name });
  const mtuMin = ipv6 ? MTU_MIN_IPV6 : MTU_MIN_IPV4;
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= mtuMin && mtu <= MTU_MAX))
    throw new SluiceError(
      'request.invalid',
      `network ${name}: an MTU of ${mtu} is not between ${mtuMin} and ${MTU_MAX}`,
      { name, mtu },
    );
  const wanted = addresses ? wantedSubnets(request) : [];
  const subnets = wanted.flatMap(({ cidr, gateway }) => (cidr ? [{ cidr, gateway }] : []));
  driver.validate({ id, name, subnets, internal, ipv4, ipv6, mtu, options });
  return wanted;
}

/** The first thing in which the network is not what the request would make, null: none. */
function difference(network: Network, request: NetworkRequest): string | null {
  const { spec, labels } = network;
  if ((request.driver ?? 'bridge') !== spec.driver) return 'driver';
  if ((request.ipam ?? 'default') !== spec.ipam) return 'IPAM driver';
  if ((request.internal ?? false) !== spec.internal) return 'value of internal';
  if (request.mtu !== spec.mtu) return 'MTU';
  if (request.vni !== undefined && request.vni !== spec.vni) return 'VNI';
  const { ipv4, ipv6 } = familiesOf(request);
  if (spec.ipv4 !== ipv4 || spec.ipv6 !== ipv6) return 'choice of IPv4 and IPv6';
  if (!sameJson(request.options ?? {}, spec.options)) return 'set of options';
  if (!sameJson(request.labels ?? {}, labels)) return 'set of labels';
  if (spec.subnets.length === 0) return (request.subnets ?? []).length > 0 ? 'set of subnets' : null;
  const wanted = wantedSubnets(request);
  return wanted.length !== spec.subnets.length || missingSubnet(network, wanted) ? 'set of subnets' : null;
}
