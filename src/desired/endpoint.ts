/** Endpoints: a sandbox's place on a network, with leased addresses. */
import type { Op } from '../contracts/store.ts';
import { isSluiceError, SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { ReplicaOf } from '../model/container.ts';
import type { Endpoint, EndpointSpec } from '../model/endpoint.ts';
import { deriveMac, isId } from '../model/id.ts';
import { contains, familyOf, parseCidr } from '../model/ip.ts';
import { attachmentKey, attachmentPrefix, topicsOf } from '../model/keys.ts';
import type { Network, SubnetSpec } from '../model/network.ts';
import type { AttachmentRequest } from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import { attachmentDiffers, checkApart, checkAttachment, hasEndpoints } from './attachment.ts';
import { leaseFrom, releaseAll } from './lease.ts';
import { type Parts, type Put, Records, type WriteOptions } from './records.ts';
import { retrying, type Undo, undoing } from './turn.ts';

/** Networks of one sandbox. */
export const NETWORKS_MAX = 64;

export interface EndpointFilter {
  /** Name or id. */
  readonly sandbox?: string;
  readonly network?: string;
}

export class Endpoints {
  readonly records: Records<'endpoint', Endpoint>;
  readonly #parts: Parts;
  readonly #networks: Records<'network', Network>;
  readonly #sandboxes: Records<'sandbox', Sandbox>;

  constructor(parts: Parts) {
    this.#parts = parts;
    // A sandbox has one endpoint on a network; its name is made of theirs, and `a.b` + `c` reads like `a` + `b.c`.
    this.records = new Records('endpoint', parts, ({ spec }) => attachmentKey(spec.sandbox, spec.network));
    this.#networks = new Records('network', parts);
    this.#sandboxes = new Records('sandbox', parts);
  }

  /** By `SANDBOX/NETWORK` or `SANDBOX.NETWORK`, id, or the beginning of an id. `object.notfound`, `object.ambiguous`. */
  get = async (ref: string): Promise<Endpoint> => {
    if (!isId(ref)) {
      for (const [at, char] of [...ref].entries()) {
        if (char !== '/' && char !== '.') continue;
        const found = await this.#at(ref.slice(0, at), ref.slice(at + 1));
        if (found) return found;
      }
    }
    return this.records.byIdPrefix(ref);
  };

  list = async (filter: EndpointFilter = {}): Promise<Endpoint[]> => {
    const sandbox = filter.sandbox === undefined ? undefined : (await this.#sandboxes.get(filter.sandbox)).id;
    const network = filter.network === undefined ? undefined : (await this.#networks.get(filter.network)).id;
    return (await this.records.list()).filter(
      ({ spec }) => (!sandbox || spec.sandbox === sandbox) && (!network || spec.network === network),
    );
  };

  /** Those of a sandbox that are not being removed. */
  async ofSandbox(id: string): Promise<Endpoint[]> {
    const { items } = await this.#parts.store.list<{ readonly id: string }>(attachmentPrefix(id));
    const endpoints = await Promise.all(items.map(({ value }) => this.records.byId(value.id)));
    return endpoints.filter((endpoint) => endpoint !== null && !endpoint.removing) as Endpoint[];
  }

  /**
   * Puts the sandbox on the network; one that is there like that is given back, one that is there otherwise is `object.exists`. Also
   * `object.notfound`, `object.removing`, `request.invalid`, `network.overlap`, `address.outside`, `address.inuse`, `address.exhausted`.
   */
  connect(sandboxRef: string, request: AttachmentRequest, options: WriteOptions = {}): Promise<Put<Endpoint>> {
    return retrying(async () => {
      const sandbox = await this.#sandboxes.living(sandboxRef);
      const network = await this.#networks.living(request.network);
      if (!hasEndpoints(network) || sandbox.spec.origin === 'host')
        throw new SluiceError(
          'request.invalid',
          hasEndpoints(network)
            ? `sandbox ${sandbox.name} is the host itself and can be on no other network`
            : `a sandbox is on network ${network.name} from its creation or not at all`,
          { sandbox: sandbox.id, network: network.id },
        );
      const wanted = checkAttachment(network, request);
      const there = await this.#parts.store.get<{ readonly id: string }>(attachmentKey(sandbox.id, network.id));
      const found = there && (await this.records.byId(there.value.id));
      if (!found) return { object: await this.#create(sandbox, network, wanted, options), created: true };
      const differs = attachmentDiffers(found, wanted);
      if (!differs) return { object: found, created: false };
      throw new SluiceError(
        'object.exists',
        `sandbox ${sandbox.name} is on network ${network.name} already, with another ${differs}`,
        { id: found.id, differs },
      );
    });
  }

  /** Takes the sandbox off the network. `object.notfound` also when it is not on it. */
  disconnect(sandboxRef: string, networkRef: string, options: WriteOptions = {}): Promise<Endpoint> {
    return retrying(async () => {
      const sandbox = await this.#sandboxes.get(sandboxRef);
      const network = await this.#networks.get(networkRef);
      const endpoint = await this.records.byClaim(attachmentKey(sandbox.id, network.id));
      if (!endpoint)
        throw new SluiceError('object.notfound', `sandbox ${sandbox.name} is not on network ${network.name}`, {
          sandbox: sandbox.id,
          network: network.id,
        });
      const revision = await this.#parts.store.transact(this.records.removal(endpoint), {
        topics: topicsOf(endpoint, network.id),
        actor: options.actor,
      });
      return { ...endpoint, removing: true, revision };
    });
  }

  /** Tells other nodes whether a replica is balanced over; in one step where the endpoint is still what the caller knows. */
  serve(known: Endpoint, serving: boolean): Promise<void> {
    let first: Endpoint | null = known;
    return retrying(async () => {
      const endpoint = first ?? (await this.records.byId(known.id));
      first = null;
      if (!endpoint || endpoint.removing || (endpoint.spec.serving ?? false) === serving) return;
      await this.#parts.store.transact([this.records.change(endpoint, { spec: { ...endpoint.spec, serving } })], {
        topics: topicsOf(endpoint, endpoint.spec.network),
      });
    });
  }

  /** The link is gone: the addresses are free, the record goes, `more` with it. Repeating it harms nobody. */
  async forget(endpoint: Endpoint, more: readonly Op[] = []): Promise<void> {
    const network = await this.#networks.byId(endpoint.spec.network);
    await releaseAll(this.#parts, network, endpoint.spec.addresses, endpoint.id);
    fault('endpoint.released');
    await this.records.forget(endpoint, endpoint.spec.network, more);
  }

  /**
   * A new endpoint with its addresses leased from a checked request; nothing is written but the leases, which `undo` gives back. `standing`: checks that
   * they are its own, for the transaction that stores it.
   */
  async plan(
    sandbox: Sandbox,
    network: Network,
    request: AttachmentRequest,
    undo: Undo,
    replica?: ReplicaOf,
  ): Promise<{ readonly endpoint: Endpoint; readonly standing: readonly Op[] }> {
    if (request.mac !== undefined) await this.#checkMac(network, request.mac);
    const id = this.records.newId();
    const { addresses, standing } = await this.#lease(id, network, request, undo);
    fault('endpoint.leased');
    const ipv4 = addresses.find((address) => familyOf(address) === 4)?.split('/')[0];
    const spec: EndpointSpec = {
      network: network.id,
      sandbox: sandbox.id,
      addresses,
      mac: request.mac ?? deriveMac(id, ipv4),
      ifname: request.ifname,
      aliases: request.aliases ?? [],
      allow: request.allow ?? [],
      gwPriority: request.gwPriority ?? 0,
      replica,
    };
    return {
      endpoint: this.records.fresh(id, `${sandbox.name}.${network.name}`, this.#parts.node, {}, spec),
      standing,
    };
  }

  /** Writes of a new endpoint on the network. */
  creation(endpoint: Endpoint, network: Network): Op[] {
    return [...this.records.creation(endpoint), ...this.#networks.reference(network)];
  }

  async #create(
    sandbox: Sandbox,
    network: Network,
    request: AttachmentRequest,
    options: WriteOptions,
  ): Promise<Endpoint> {
    const others = await this.ofSandbox(sandbox.id);
    if (others.length >= NETWORKS_MAX)
      throw new SluiceError('request.invalid', `sandbox ${sandbox.name}: more than ${NETWORKS_MAX} networks`, {
        sandbox: sandbox.id,
      });
    if (request.ifname !== undefined && others.some(({ spec }) => spec.ifname === request.ifname))
      throw new SluiceError('request.invalid', `sandbox ${sandbox.name} has an interface ${request.ifname}`, {
        sandbox: sandbox.id,
        ifname: request.ifname,
      });
    const networks = await Promise.all(others.map(({ spec }) => this.#networks.byId(spec.network)));
    checkApart(
      network,
      networks.filter((one) => one !== null),
    );
    const endpoint = await undoing(async (undo) => {
      const { endpoint, standing } = await this.plan(sandbox, network, request, undo);
      const ops = [...standing, ...this.creation(endpoint, network), ...this.#sandboxes.reference(sandbox)];
      const how = { topics: topicsOf(endpoint, network.id), actor: options.actor };
      const { store, numbers } = this.#parts;
      const revision = await numbers.allocateWith('attachment', [endpoint.id], (more) =>
        store.transact([...ops, ...more], how),
      );
      return { ...endpoint, revision };
    });
    fault('endpoint.stored');
    return endpoint;
  }

  /** One address of each family that the network has. */
  async #lease(
    owner: string,
    network: Network,
    request: AttachmentRequest,
    undo: Undo,
  ): Promise<{ addresses: string[]; standing: Op[] }> {
    const [addresses, standing]: [string[], Op[]] = [[], []];
    for (const family of [4, 6] as const) {
      const asked = family === 4 ? request.ip : request.ip6;
      const subnets = network.spec.subnets.filter(
        ({ cidr }) => familyOf(cidr) === family && (!asked || contains(parseCidr(cidr), asked)),
      );
      if (subnets.length === 0) continue;
      const wanted = ({ range, vips }: SubnetSpec) => ({
        owner,
        address: asked,
        range: asked ? undefined : range,
        except: asked ? undefined : vips,
      });
      const lease = await leaseFrom(this.#parts, network, subnets, wanted, undo);
      addresses.push(`${lease.address}/${lease.subnet.cidr.split('/')[1]}`);
      standing.push(...lease.standing);
    }
    return { addresses, standing };
  }

  /** Two endpoints with one MAC would take each other's frames. */
  async #checkMac(network: Network, mac: string): Promise<void> {
    const other = (await this.records.list()).find(({ spec }) => spec.network === network.id && spec.mac === mac);
    if (other)
      throw new SluiceError('address.inuse', `MAC address ${mac} belongs to endpoint ${other.name}`, {
        mac,
        owner: other.id,
        name: other.name,
      });
  }

  async #at(sandboxRef: string, networkRef: string): Promise<Endpoint | null> {
    try {
      const sandbox = await this.#sandboxes.get(sandboxRef);
      const network = await this.#networks.get(networkRef);
      return await this.records.byClaim(attachmentKey(sandbox.id, network.id));
    } catch (error) {
      if (isSluiceError(error, 'object.notfound')) return null;
      throw error;
    }
  }
}
