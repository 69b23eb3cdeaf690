/** Endpoints: a sandbox's place on a network, with leased addresses. */
import type { Op } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Endpoint, EndpointSpec } from '../model/endpoint.ts';
import { deriveMac } from '../model/id.ts';
import { canonicalAddress, contains, familyOf, formatCidr, isMac, overlaps, parseCidr } from '../model/ip.ts';
import { topicsOf } from '../model/keys.ts';
import type { Network, SubnetSpec } from '../model/network.ts';
import type { AttachmentRequest } from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import { checkName, type Parts, type Put, Records, retrying, undoing, type WriteOptions } from './records.ts';

const IFNAME_PATTERN = /^[^\s/:]{1,15}$/;
const ALLOW_MAX = 64;
const ALIASES_MAX = 32;

export type Undo = (step: () => Promise<void>) => void;

export class Endpoints {
  readonly records: Records<'endpoint', Endpoint>;
  readonly #parts: Parts;
  readonly #networks: Records<'network', Network>;
  readonly #sandboxes: Records<'sandbox', Sandbox>;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.records = new Records('endpoint', parts);
    this.#networks = new Records('network', parts);
    this.#sandboxes = new Records('sandbox', parts);
  }

  get = (ref: string): Promise<Endpoint> => this.records.get(ref);
  list = (): Promise<Endpoint[]> => this.records.list();

  async ofSandbox(id: string): Promise<Endpoint[]> {
    return (await this.list()).filter(({ spec }) => spec.sandbox === id);
  }

  async connect(sandboxRef: string, request: AttachmentRequest, options: WriteOptions = {}): Promise<Put<Endpoint>> {
    return retrying(async () => {
      const sandbox = await this.#sandboxes.living(sandboxRef);
      const network = await this.#networks.living(request.network);
      const others = (await this.ofSandbox(sandbox.id)).filter(({ removing }) => !removing);
      const there = others.find(({ spec }) => spec.network === network.id);
      if (there && request.ip === undefined && request.ip6 === undefined) return { object: there, created: false };
      if (there) {
        const asked = [request.ip, request.ip6].flatMap((address) => (address ? [canonicalAddress(address)] : []));
        if (asked.every((address) => there.spec.addresses.some((own) => own.split('/')[0] === address)))
          return { object: there, created: false };
        throw new SluiceError(
          'object.exists',
          `sandbox ${sandbox.name} is on network ${network.name} already, with ${there.spec.addresses.join(', ')}`,
          { id: there.id },
        );
      }
      return undoing(async (undo) => {
        const networks = await Promise.all(others.map(({ spec }) => this.#networks.byId(spec.network)));
        const endpoint = await this.plan(
          sandbox,
          network,
          request,
          networks.filter((one) => one !== null),
          undo,
        );
        const ops = [...this.records.creation(endpoint), this.#sandboxes.check(sandbox), this.#networks.check(network)];
        const revision = await this.#parts.store.transact(ops, {
          topics: topicsOf(endpoint, network.id),
          actor: options.actor,
        });
        fault('endpoint.stored');
        return { object: { ...endpoint, revision }, created: true };
      });
    });
  }

  async disconnect(sandboxRef: string, networkRef: string, options: WriteOptions = {}): Promise<Endpoint> {
    return retrying(async () => {
      const sandbox = await this.#sandboxes.get(sandboxRef);
      const network = await this.#networks.get(networkRef);
      const endpoint = (await this.ofSandbox(sandbox.id)).find(
        ({ spec, removing }) => spec.network === network.id && !removing,
      );
      if (!endpoint)
        throw new SluiceError('object.notfound', `sandbox ${sandbox.name} is not on network ${network.name}`, {
          sandbox: sandbox.id,
          network: network.id,
        });
      await this.#parts.store.transact(this.removal(endpoint), {
        topics: topicsOf(endpoint, network.id),
        actor: options.actor,
      });
      return { ...endpoint, removing: true };
    });
  }

  removal(endpoint: Endpoint): Op[] {
    return endpoint.removing ? [] : this.records.removal(endpoint);
  }

  /** The link is gone: the addresses are free, the record goes. */
  async forget(endpoint: Endpoint): Promise<void> {
    const network = await this.#networks.byId(endpoint.spec.network);
    if (network) {
      for (const address of endpoint.spec.addresses) {
        const subnet = subnetOf(network, address.split('/')[0]!);
        if (subnet)
          await this.#parts.ipams
            .get(network.spec.ipam)
            ?.releaseAddress(subnet.pool, address.split('/')[0]!, endpoint.id);
      }
    }
    await this.records.forget(endpoint, endpoint.spec.network);
  }

  /** A new endpoint with its addresses leased; nothing is written but the leases, which `undo` gives back. */
  async plan(
    sandbox: Sandbox,
    network: Network,
    request: AttachmentRequest,
    others: readonly Network[],
    undo: Undo,
  ): Promise<Endpoint> {
    validate(network, request, others);
    const id = this.records.newId();
    const addresses = await this.#lease(id, network, request, undo);
    fault('endpoint.leased');
    const ipv4 = addresses.find((address) => familyOf(address) === 4)?.split('/')[0];
    const spec: EndpointSpec = {
      network: network.id,
      sandbox: sandbox.id,
      addresses,
      mac: request.mac?.toLowerCase() ?? deriveMac(id, ipv4),
      ifname: request.ifname,
      aliases: request.aliases ?? [],
      allow: (request.allow ?? []).map((cidr) => formatCidr(parseCidr(cidr))),
      gwPriority: request.gwPriority ?? 0,
    };
    return this.records.fresh(id, `${sandbox.name}.${network.name}`, this.#parts.node, {}, spec);
  }

  async #lease(owner: string, network: Network, request: AttachmentRequest, undo: Undo): Promise<string[]> {
    const ipam = this.#parts.ipams.get(network.spec.ipam);
    if (!ipam)
      throw new SluiceError('driver.unknown', `there is no IPAM driver ${network.spec.ipam}`, {
        ipam: network.spec.ipam,
      });
    const addresses: string[] = [];
    for (const family of [4, 6] as const) {
      const subnets = network.spec.subnets.filter(({ cidr }) => familyOf(cidr) === family);
      const asked = family === 4 ? request.ip : request.ip6;
      const candidates = asked ? subnets.filter(({ cidr }) => contains(parseCidr(cidr), asked)) : subnets;
      if (asked && candidates.length === 0)
        throw new SluiceError('address.outside', `${asked} is in no subnet of network ${network.name}`, {
          address: asked,
          network: network.id,
        });
      const lease = await firstLease(candidates, (subnet) =>
        ipam.requestAddress({ pool: subnet.pool, owner, address: asked, range: asked ? undefined : subnet.range }),
      );
      if (!lease) continue;
      undo(() => ipam.releaseAddress(lease.subnet.pool, lease.address, owner));
      addresses.push(`${lease.address}/${lease.subnet.cidr.split('/')[1]}`);
    }
    return addresses;
  }
}

/** The first subnet with room; the last one's error when none has. */
async function firstLease(
  subnets: readonly SubnetSpec[],
  lease: (subnet: SubnetSpec) => Promise<{ readonly address: string }>,
): Promise<{ readonly subnet: SubnetSpec; readonly address: string } | null> {
  let full: unknown;
  for (const subnet of subnets) {
    try {
      return { subnet, address: (await lease(subnet)).address };
    } catch (error) {
      if (!(error instanceof SluiceError) || error.code !== 'address.exhausted') throw error;
      full = error;
    }
  }
  if (full) throw full;
  return null;
}

export const subnetOf = (network: Network, address: string): SubnetSpec | undefined =>
  network.spec.subnets.find(({ cidr }) => contains(parseCidr(cidr), address));

function validate(network: Network, request: AttachmentRequest, others: readonly Network[]): void {
  if (request.mac !== undefined && (!isMac(request.mac) || (Number.parseInt(request.mac.slice(0, 2), 16) & 1) !== 0)) {
    throw new SluiceError('request.invalid', `"${request.mac}" is not the MAC address of one interface`, {
      mac: request.mac,
    });
  }
  if (request.ip !== undefined && familyOf(request.ip) !== 4)
    throw new SluiceError('request.invalid', `ip ${request.ip} is not an IPv4 address`, { ip: request.ip });
  if (request.ip6 !== undefined && familyOf(request.ip6) !== 6)
    throw new SluiceError('request.invalid', `ip6 ${request.ip6} is not an IPv6 address`, { ip6: request.ip6 });
  if (
    request.ifname !== undefined &&
    (!IFNAME_PATTERN.test(request.ifname) || ['.', '..', 'lo'].includes(request.ifname))
  ) {
    throw new SluiceError('request.invalid', `"${request.ifname}" cannot name an interface`, {
      ifname: request.ifname,
    });
  }
  if ((request.allow?.length ?? 0) > ALLOW_MAX)
    throw new SluiceError('request.invalid', `more than ${ALLOW_MAX} allowed prefixes`, {});
  if ((request.aliases?.length ?? 0) > ALIASES_MAX)
    throw new SluiceError('request.invalid', `more than ${ALIASES_MAX} aliases`, {});
  for (const cidr of request.allow ?? []) parseCidr(cidr);
  for (const alias of request.aliases ?? []) checkName('endpoint', alias);
  for (const other of others) {
    for (const { cidr } of network.spec.subnets) {
      const clash = other.spec.subnets.find((subnet) => overlaps(parseCidr(subnet.cidr), parseCidr(cidr)));
      if (clash)
        throw new SluiceError(
          'network.overlap',
          `a sandbox cannot be on ${network.name} and ${other.name}: ${cidr} overlaps ${clash.cidr}`,
          { networks: [network.id, other.id] },
        );
    }
  }
}
