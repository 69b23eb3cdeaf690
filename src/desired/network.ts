/** Networks: their subnets, gateways and names. */
import type { Lease } from '../contracts/driver.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { canonicalAddress, contains, familyOf, formatAddress, formatCidr, lastOf, parseCidr } from '../model/ip.ts';
import { MTU_MIN_IPV4, MTU_MIN_IPV6 } from '../model/mtu.ts';
import { BUILTIN_NETWORKS, type Network, type NetworkSpec, type SubnetSpec } from '../model/network.ts';
import type { NetworkRequest } from '../model/request.ts';
import type { Service } from '../model/service.ts';
import {
  checkName,
  type Parts,
  type Put,
  type PutOptions,
  Records,
  retrying,
  undoing,
  type WriteOptions,
} from './records.ts';

const MTU_MAX = 65_535;

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

  /** `bridge`, `host` and `none`, made where they are missing. */
  async ensureBuiltin(): Promise<void> {
    for (const driver of BUILTIN_NETWORKS)
      if (!(await this.records.byName(driver))) await this.#create(driver, { driver }, {});
  }

  async put(name: string, request: NetworkRequest, options: PutOptions = {}): Promise<Put<Network>> {
    checkName('network', name);
    for (;;) {
      const found = await this.records.byName(name);
      if (!found) {
        try {
          return { object: await this.#create(name, request, options), created: true };
        } catch (error) {
          // Somebody else made it meanwhile: judge theirs.
          if (isSluiceError(error, 'store.conflict') && (await this.records.byName(name))) continue;
          throw error;
        }
      }
      if (options.create) throw new SluiceError('object.exists', `a network ${name} exists`, { name, id: found.id });
      const differs = difference(found, request);
      if (differs)
        throw new SluiceError(
          'object.exists',
          `network ${name} exists with another ${differs}; a network does not change`,
          { name, id: found.id, differs },
        );
      return { object: found, created: false };
    }
  }

  async remove(ref: string, options: WriteOptions = {}): Promise<Network> {
    return retrying(async () => {
      const network = await this.records.get(ref);
      if ((BUILTIN_NETWORKS as readonly string[]).includes(network.name))
        throw new SluiceError('network.builtin', `network ${network.name} is always there`, { name: network.name });
      if (network.removing) return network;
      const users = await this.#users(network.id);
      if (users.length > 0)
        throw new SluiceError('object.inuse', `network ${network.name} is used by ${users.join(', ')}`, {
          network: network.id,
          users,
        });
      await this.#parts.store.transact(this.records.removal(network), {
        topics: this.#topics(network),
        actor: options.actor,
      });
      return { ...network, removing: true };
    });
  }

  /** Marks every network that nobody uses, but the built-in ones. */
  async prune(options: WriteOptions = {}): Promise<Network[]> {
    const removed: Network[] = [];
    for (const network of await this.list()) {
      if (network.removing || (BUILTIN_NETWORKS as readonly string[]).includes(network.name)) continue;
      try {
        removed.push(await this.remove(network.id, options));
      } catch (error) {
        if (!isSluiceError(error, 'object.inuse', 'object.notfound')) throw error;
      }
    }
    return removed;
  }

  /** The kernel side is gone: addresses and record go, too. */
  async forget(network: Network): Promise<void> {
    const ipam = this.#parts.ipams.get(network.spec.ipam);
    for (const { pool } of network.spec.subnets) await ipam?.releasePool(pool);
    await this.records.forget(network);
  }

  #topics(network: Network): string[] {
    return [network.owner === null ? 'cluster' : `node/${network.owner}`];
  }

  async #users(networkId: string): Promise<string[]> {
    const endpoints = (await this.#endpoints.list()).filter(({ spec }) => spec.network === networkId);
    const services = (await this.#services.list()).filter(({ spec }) => spec.network === networkId);
    return [...endpoints.map(({ name }) => `endpoint ${name}`), ...services.map(({ name }) => `service ${name}`)];
  }

  async #create(name: string, request: NetworkRequest, options: WriteOptions): Promise<Network> {
    const driver = this.#parts.drivers.get(request.driver ?? 'bridge');
    const { scope, addresses } = driver.capabilities();
    const id = this.records.newId();
    const ipv4 = request.ipv4 ?? true;
    const ipv6 = request.ipv6 ?? (request.subnets ?? []).some(({ cidr }) => cidr && familyOf(cidr) === 6);
    if (addresses && !ipv4 && !ipv6)
      throw new SluiceError('request.invalid', `network ${name}: neither IPv4 nor IPv6`, { name });
    if (request.mtu !== undefined && (request.mtu < (ipv6 ? MTU_MIN_IPV6 : MTU_MIN_IPV4) || request.mtu > MTU_MAX)) {
      throw new SluiceError(
        'request.invalid',
        `network ${name}: an MTU of ${request.mtu} is not between ${ipv6 ? MTU_MIN_IPV6 : MTU_MIN_IPV4} and ${MTU_MAX}`,
        { mtu: request.mtu },
      );
    }
    const base = {
      driver: driver.name,
      scope,
      ipam: request.ipam ?? 'default',
      ipv4,
      ipv6,
      internal: request.internal ?? false,
      mtu: request.mtu,
      options: request.options ?? {},
    };
    // Refuse before anything is leased, with the subnets as they were asked for.
    const asked = (request.subnets ?? []).flatMap(({ cidr, gateway }) =>
      cidr ? [{ cidr: formatCidr(parseCidr(cidr, { strict: true })), gateway }] : [],
    );
    driver.validate({
      id,
      name,
      subnets: asked,
      internal: base.internal,
      ipv4,
      ipv6,
      mtu: base.mtu,
      options: base.options,
    });
    if (!addresses && asked.length > 0)
      throw new SluiceError('request.invalid', `networks of driver ${driver.name} have no subnets`, {
        driver: driver.name,
      });
    return undoing(async (undo) => {
      const subnets: SubnetSpec[] = [];
      for (const subnet of addresses ? wantedSubnets(request, ipv4, ipv6) : [])
        subnets.push(await this.#lease(id, scope, base.ipam, subnet, undo));
      fault('network.leased');
      const spec: NetworkSpec = { ...base, subnets };
      const network = this.records.fresh(
        id,
        name,
        scope === 'local' ? this.#parts.node : null,
        request.labels ?? {},
        spec,
      );
      const revision = await this.#parts.store.transact(this.records.creation(network), {
        topics: this.#topics(network),
        actor: options.actor,
      });
      fault('network.stored');
      return { ...network, revision };
    });
  }

  async #lease(
    owner: string,
    space: 'local' | 'global',
    ipamName: string,
    subnet: WantedSubnet,
    undo: (step: () => Promise<void>) => void,
  ): Promise<SubnetSpec> {
    const ipam = this.#parts.ipams.get(ipamName);
    if (!ipam)
      throw new SluiceError(
        'driver.unknown',
        `there is no IPAM driver ${ipamName} (known: ${[...this.#parts.ipams.keys()].join(', ')})`,
        { ipam: ipamName },
      );
    if (subnet.cidr) checkSubnet(subnet.cidr, subnet);
    const avoid = this.#parts.hostPrefixes();
    const pool = await ipam.requestPool({ space, family: subnet.family, cidr: subnet.cidr, avoid, owner });
    undo(() => ipam.releasePool(pool.id));
    checkSubnet(pool.cidr, subnet);
    const aux: Record<string, string> = {};
    for (const [name, address] of Object.entries(subnet.aux ?? {})) {
      aux[name] = canonicalAddress(address);
      await ipam.requestAddress({ pool: pool.id, owner, address, purpose: 'aux' });
    }
    const gateway = (await this.#gateway(ipam, pool.id, owner, subnet)).address;
    return { cidr: pool.cidr, gateway, range: subnet.range && formatCidr(parseCidr(subnet.range)), aux, pool: pool.id };
  }

  #gateway(
    ipam: { requestAddress(request: object): Promise<Lease> },
    pool: string,
    owner: string,
    { gateway, range }: WantedSubnet,
  ): Promise<Lease> {
    return ipam.requestAddress({
      pool,
      owner,
      address: gateway,
      range: gateway ? undefined : range,
      purpose: 'gateway',
    });
  }
}

interface WantedSubnet {
  readonly family: 4 | 6;
  readonly cidr?: string;
  readonly gateway?: string;
  readonly range?: string;
  readonly aux?: Readonly<Record<string, string>>;
}

/** One a family: what was asked for, automatic where the family was asked for without a subnet. */
function wantedSubnets({ subnets = [] }: NetworkRequest, ipv4: boolean, ipv6: boolean): WantedSubnet[] {
  const wanted: WantedSubnet[] = [];
  for (const subnet of subnets) {
    const hint = subnet.cidr ?? subnet.gateway ?? subnet.range;
    wanted.push({
      ...subnet,
      family: hint ? familyOf(hint) : ipv4 ? 4 : 6,
      cidr: subnet.cidr && formatCidr(parseCidr(subnet.cidr, { strict: true })),
    });
  }
  for (const [family, on] of [
    [4, ipv4],
    [6, ipv6],
  ] as const) {
    const has = wanted.some((subnet) => subnet.family === family);
    if (has && !on)
      throw new SluiceError('request.invalid', `a subnet of IPv${family} on a network without IPv${family}`, {
        family,
      });
    if (!has && on) wanted.push({ family });
  }
  return wanted;
}

/** Smallest subnets that leave room for a gateway and an endpoint. */
const PREFIX_MAX = { 4: 31, 6: 127 } as const;

function checkSubnet(text: string, { gateway, range, aux = {} }: WantedSubnet): void {
  const cidr = parseCidr(text);
  if (cidr.prefix > PREFIX_MAX[cidr.family])
    throw new SluiceError('request.invalid', `${text} has no room for a gateway and an endpoint`, { cidr: text });
  const first = formatAddress(cidr.family, cidr.base);
  if (cidr.family === 4 && (first.startsWith('127.') || first.startsWith('0.') || Number(first.split('.')[0]) >= 224)) {
    throw new SluiceError(
      'request.invalid',
      `${text} cannot be a network: loopback, "this network" and multicast addresses`,
      { cidr: text },
    );
  }
  for (const [what, address] of Object.entries({ gateway, ...aux })) {
    if (address !== undefined && !contains(cidr, address))
      throw new SluiceError('address.outside', `${what} ${address} is not in ${text}`, { address, cidr: text });
  }
  if (range !== undefined) {
    const part = parseCidr(range);
    if (part.family !== cidr.family || part.base < cidr.base || lastOf(part) > lastOf(cidr))
      throw new SluiceError('address.outside', `the range ${range} is not in ${text}`, { range, cidr: text });
  }
}

/** The first thing in which a request differs from the network that is there; only what the request says counts. */
function difference({ spec, labels }: Network, request: NetworkRequest): string | null {
  const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  if ((request.driver ?? 'bridge') !== spec.driver) return 'driver';
  if ((request.internal ?? false) !== spec.internal) return 'internal';
  if (request.mtu !== spec.mtu) return 'mtu';
  if (request.ipv4 !== undefined && request.ipv4 !== spec.ipv4) return 'ipv4';
  if (request.ipv6 !== undefined && request.ipv6 !== spec.ipv6) return 'ipv6';
  if (!same(sorted(request.options ?? {}), sorted(spec.options))) return 'options';
  if (!same(sorted(request.labels ?? {}), sorted(labels))) return 'labels';
  for (const subnet of request.subnets ?? []) {
    if (!subnet.cidr) continue;
    const there = spec.subnets.find(({ cidr }) => cidr === formatCidr(parseCidr(subnet.cidr!)));
    if (!there || (subnet.gateway && canonicalAddress(subnet.gateway) !== there.gateway)) return 'subnet';
  }
  return null;
}

const sorted = (record: Readonly<Record<string, string>>): [string, string][] =>
  Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
