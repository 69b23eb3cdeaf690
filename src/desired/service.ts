/** Services: a VIP, its ports, and what they are balanced over. */
import type { Op } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { PublishSpec } from '../model/container.ts';
import { shortId } from '../model/id.ts';
import { canonicalAddress, contains, type Family, familyOf, parseCidr } from '../model/ip.ts';
import { attachmentKey, objectPrefix, placementTopic, topicsOf } from '../model/keys.ts';
import type { Network } from '../model/network.ts';
import type { BackendRequest, ReplicasRequest, ServiceRequest } from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { Assignment, AssignmentAnswer } from '../model/service/placement.ts';
import { type BackendSpec, isProtocol, type ReplicaSpec, type Service, type ServiceSpec } from '../model/service.ts';
import { imageCalled } from './container/image.ts';
import { publishing } from './container/publish.ts';
import { leaseFrom, releaseAll } from './lease.ts';
import { backendKey, keepingPorts, keepingPublish, unknownBackends } from './newer.ts';
import { checkName, type Parts, type Put, type PutOptions, Records, sameJson, type WriteOptions } from './records.ts';
import { BACKENDS_MAX, backendAddress, checkPort, isMeant, portsOf, unique } from './service/port.ts';
import { checkCount, replicasOf } from './service/replica.ts';
import { retrying, type Undo, undoing } from './turn.ts';

export interface ServiceChange {
  /** First these come … */
  readonly addBackends?: readonly BackendRequest[];
  /** … then these go; one without a port whatever its port. */
  readonly removeBackends?: readonly BackendRequest[];
}

export class Services {
  readonly records: Records<'service', Service>;
  readonly #parts: Parts;
  readonly #networks: Records<'network', Network>;
  readonly #sandboxes: Records<'sandbox', Sandbox>;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.records = new Records('service', parts);
    this.#networks = new Records('network', parts);
    this.#sandboxes = new Records('sandbox', parts);
  }

  get = (ref: string): Promise<Service> => this.records.get(ref);
  list = (): Promise<Service[]> => this.records.list();

  /**
   * Idempotent by name. Of one that is there ports, backends, aliases and labels follow the request; on another network or with another VIP
   * it is `object.exists`. Also `request.invalid`, `object.notfound`, `service.backend`, `address.outside`, `address.inuse`,
   * `address.exhausted`.
   */
  async put(name: string, request: ServiceRequest, options: PutOptions = {}): Promise<Put<Service>> {
    checkName('service', name);
    return this.#parts.turns.take('backends', () =>
      retrying(async () => {
        const found = await this.records.byName(name);
        if (!found) return { object: await this.#create(name, request, options), created: true };
        if (options.create) throw new SluiceError('object.exists', `a service ${name} exists`, { name, id: found.id });
        return { object: await this.#replace(found, request, options), created: false };
      }),
    );
  }

  /** `service.backend` for one to add that is not on the network, and for one to remove that is not there. */
  update(ref: string, change: ServiceChange, options: WriteOptions = {}): Promise<Service> {
    const { addBackends = [], removeBackends = [] } = change;
    return this.#parts.turns.take('backends', () =>
      retrying(async () => {
        const service = await this.records.living(ref);
        const network = await this.#network(service);
        const come = await this.#backends(network, addBackends, service.spec.vips);
        const all = unique([...service.spec.backends, ...come.specs]);
        const gone: BackendSpec[] = [];
        for (const request of removeBackends) {
          const asked = await this.#identify(request);
          if (!all.some((backend) => isMeant(backend, asked)))
            throw new SluiceError('service.backend', `${nameOf(request)} is not a backend of service ${service.name}`, {
              service: service.id,
            });
          gone.push(asked);
        }
        const backends = all.filter((backend) => !gone.some((asked) => isMeant(backend, asked)));
        return this.#write(service, { ...service.spec, backends }, come.ops, service.labels, options);
      }),
    );
  }

  /** How many replicas, and of which image. `service.noreplicas`, `image.notfound`. */
  change(ref: string, change: ReplicasRequest, options: WriteOptions = {}): Promise<Service> {
    return retrying(async () => {
      const service = await this.records.living(ref);
      const { replicas } = service.spec;
      if (!replicas)
        throw new SluiceError('service.noreplicas', `service ${service.name} has backends only, no image to run`, {
          service: service.id,
        });
      const next = await this.#changed(service.name, replicas, change);
      return this.#write(service, { ...service.spec, replicas: next }, [], service.labels, options);
    });
  }

  /** Which nodes are to run how many of its replicas, by name of the node. */
  async assignments(ref: string): Promise<AssignmentAnswer[]> {
    const { id } = await this.records.get(ref);
    const { items } = await this.#parts.store.list<Assignment>(objectPrefix('assignment'));
    return items
      .filter(({ value }) => value.spec.service === id)
      .map(({ value }) => ({ node: value.owner!, count: value.spec.count }))
      .sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  /** Marks it for removal. */
  remove(ref: string, options: WriteOptions = {}): Promise<Service> {
    return retrying(async () => {
      const service = await this.records.get(ref);
      if (service.removing) return service;
      const revision = await this.#parts.store.transact(await this.records.removing(service), {
        topics: topicsOfService(service),
        actor: options.actor,
      });
      return { ...service, removing: true, revision };
    });
  }

  /** The data plane has let go of it: VIPs are free, the record goes. Repeating it harms nobody. */
  async forget(service: Service): Promise<void> {
    const network = await this.#networks.byId(service.spec.network);
    await releaseAll(this.#parts, network, service.spec.vips, service.id);
    fault('service.released');
    await this.records.forget(service, service.spec.network);
  }

  async #network(service: Service): Promise<Network> {
    const network = await this.#networks.byId(service.spec.network);
    if (!network)
      throw new SluiceError('object.notfound', `the network of service ${service.name} is gone`, {
        network: service.spec.network,
      });
    return network;
  }

  /** The image need not be here for another number of what runs already. */
  async #changed(
    name: string,
    before: ReplicaSpec,
    { count, image, updateParallelism }: ReplicasRequest,
  ): Promise<ReplicaSpec> {
    if (count !== undefined) checkCount(count, before.placement);
    const placement = updateParallelism ? { ...before.placement, updateParallelism } : before.placement;
    const counted = { ...before, count: count ?? before.count, placement };
    if (image === undefined) return counted;
    const container = { ...before.container, image };
    return replicasOf(name, { ...counted, container }, await imageCalled(this.#parts.images, image), before);
  }

  async #replicas(name: string, { replicas }: ServiceRequest, before?: ReplicaSpec): Promise<ReplicaSpec | undefined> {
    if (!replicas) return undefined;
    return replicasOf(name, replicas, await imageCalled(this.#parts.images, replicas.container.image), before);
  }

  async #create(name: string, request: ServiceRequest, options: WriteOptions): Promise<Service> {
    const network = await this.#networks.living(request.network);
    if (network.spec.subnets.length === 0)
      throw new SluiceError('request.invalid', `network ${network.name} has no addresses for a VIP`, {
        network: network.id,
      });
    const asked = vipsOf(network, request.ips ?? []);
    const ports = portsOf(name, request);
    const aliases = aliasesOf(request);
    const replicas = await this.#replicas(name, request);
    const publish = request.publish && (await publishing(this.#parts, `service ${name}`, request.publish));
    const backends = await this.#backends(network, request.backends ?? [], [...asked.values()]);
    const id = this.records.newId();
    const service = await undoing(async (undo) => {
      const { vips, standing } = await this.#vips(id, network, asked, undo);
      fault('service.leased');
      const spec: ServiceSpec = {
        network: network.id,
        vips,
        ports,
        backends: backends.specs,
        replicas,
        aliases,
        publish,
      };
      const service = this.records.fresh(id, name, network.owner, request.labels ?? {}, spec);
      const revision = await this.#parts.store.transact(
        [...standing, ...this.records.creation(service), ...this.#networks.reference(network), ...backends.ops],
        { topics: topicsOfService(service), actor: options.actor },
      );
      return { ...service, revision };
    });
    fault('service.stored');
    return service;
  }

  async #replace(service: Service, request: ServiceRequest, options: WriteOptions): Promise<Service> {
    const network = await this.#networks.get(request.network);
    if (network.id !== service.spec.network)
      throw new SluiceError('object.exists', `service ${service.name} exists on another network`, { id: service.id });
    const { vips } = service.spec;
    const asked = vipsOf(network, request.ips ?? []);
    if (asked.size > 0 && !sameJson([...asked.values()].sort(), [...vips].sort()))
      throw new SluiceError('object.exists', `service ${service.name} exists with VIP ${vips.join(', ')}`, {
        id: service.id,
        vips,
      });
    const { specs, ops } = await this.#backends(network, request.backends ?? [], vips);
    const there = new Map(service.spec.backends.map((backend) => [backendKey(backend), backend]));
    const backends = [
      ...specs.map((one) => there.get(backendKey(one)) ?? one),
      ...unknownBackends([...there.values()]),
    ];
    const replicas = await this.#replicas(service.name, request, service.spec.replicas);
    const ports = keepingPorts(service.spec.ports, portsOf(service.name, request));
    const publish = await this.#published(service, request);
    const spec = { ...service.spec, ports, backends, replicas, aliases: aliasesOf(request), publish };
    return this.#write(service, spec, ops, request.labels ?? {}, options);
  }

  /** Ports that were chosen for it stay. */
  async #published({ name, spec }: Service, request: ServiceRequest): Promise<PublishSpec[] | undefined> {
    const before = spec.publish ?? [];
    const known = before.filter(({ protocol }) => isProtocol(protocol));
    const asked = request.publish && (await publishing(this.#parts, `service ${name}`, request.publish, known));
    const publish = keepingPublish(before, asked ?? []);
    return asked || publish.length > 0 ? publish : undefined;
  }

  async #write(
    service: Service,
    spec: ServiceSpec,
    ops: readonly Op[],
    labels: Service['labels'],
    options: WriteOptions,
  ): Promise<Service> {
    if (spec.backends.length > BACKENDS_MAX)
      throw new SluiceError('request.invalid', `service ${service.name}: more than ${BACKENDS_MAX} backends`, {
        service: service.id,
      });
    if (sameJson([spec, labels], [service.spec, service.labels])) return service;
    const revision = await this.#parts.store.transact([this.records.change(service, { spec, labels }), ...ops], {
      topics: topicsOfService({ ...service, spec }, service),
      actor: options.actor,
    });
    return { ...service, spec, labels, revision };
  }

  /** A VIP of each family that was asked for, or that the network has. */
  async #vips(owner: string, network: Network, asked: ReadonlyMap<Family, string>, undo: Undo) {
    const [vips, standing]: [string[], Op[]] = [[], []];
    for (const family of [4, 6] as const) {
      const own = asked.get(family);
      const subnets = network.spec.subnets.filter(
        ({ cidr }) => familyOf(cidr) === family && (!own || contains(parseCidr(cidr), own)),
      );
      if (subnets.length === 0 || (asked.size > 0 && !own)) continue;
      const lease = await leaseFrom(
        this.#parts,
        network,
        subnets,
        ({ vips: range }) => ({ owner, address: own, range: own ? undefined : range, purpose: 'vip' as const }),
        undo,
      );
      vips.push(lease.address);
      standing.push(...lease.standing);
    }
    return { vips, standing };
  }

  /** Backends with sandboxes by id, and the writes by which a sandbox that goes meanwhile is noticed. `service.backend`. */
  async #backends(
    network: Network,
    requests: readonly BackendRequest[],
    vips: readonly string[],
  ): Promise<{ readonly specs: BackendSpec[]; readonly ops: Op[] }> {
    if (requests.length > BACKENDS_MAX)
      throw new SluiceError('request.invalid', `more than ${BACKENDS_MAX} backends`, { count: requests.length });
    const specs: BackendSpec[] = [];
    const sandboxes = new Map<string, Sandbox>();
    for (const request of requests) {
      checkPort(request.port);
      if ('address' in request) {
        const address = backendAddress(request.address);
        checkReach(network, address, vips);
        specs.push({ address, port: request.port });
        continue;
      }
      const sandbox = await this.#sandboxes.living(request.sandbox);
      const isOn = await this.#parts.store.get(attachmentKey(sandbox.id, network.id));
      if (!isOn)
        throw new SluiceError(
          'service.backend',
          `sandbox ${sandbox.name} is not on network ${network.name}: a service reaches its backends there`,
          { sandbox: sandbox.id, network: network.id },
        );
      sandboxes.set(sandbox.id, sandbox);
      specs.push({ sandbox: sandbox.id, port: request.port });
    }
    return {
      specs: unique(specs),
      ops: [...sandboxes.values()].flatMap((sandbox) => this.#sandboxes.reference(sandbox)),
    };
  }

  /** A backend to take out: its sandbox need not be on the network any more. */
  async #identify(request: BackendRequest): Promise<BackendSpec> {
    checkPort(request.port);
    if ('address' in request) return { address: backendAddress(request.address), port: request.port };
    return { sandbox: (await this.#sandboxes.get(request.sandbox)).id, port: request.port };
  }
}

/** The scheduler hears of those that have, or had, replicas. */
const topicsOfService = (service: Service, before = service): string[] => [
  ...topicsOf(service, service.spec.network),
  ...(service.spec.replicas || before.spec.replicas ? [placementTopic] : []),
];

const nameOf = (backend: BackendRequest): string => {
  const name = 'sandbox' in backend ? backend.sandbox : backend.address;
  return `${name.length === 64 ? shortId(name) : name}${backend.port === undefined ? '' : ` port ${backend.port}`}`;
};

function aliasesOf({ aliases = [] }: ServiceRequest): string[] {
  for (const alias of aliases) checkName('service', alias);
  return [...new Set(aliases)];
}

/** VIPs that were asked for, one a family, each in a subnet of the network. */
function vipsOf(network: Network, ips: readonly string[]): Map<Family, string> {
  const asked = new Map<Family, string>();
  for (const text of ips) {
    const ip = canonicalAddress(text);
    const family = familyOf(ip);
    if (!network.spec.subnets.some(({ cidr }) => contains(parseCidr(cidr), ip)))
      throw new SluiceError('address.outside', `VIP ${ip} is in no subnet of network ${network.name}`, {
        address: ip,
        network: network.id,
      });
    if (asked.has(family)) throw new SluiceError('request.invalid', `more than one IPv${family} VIP`, { ips });
    asked.set(family, ip);
  }
  return asked;
}

/** A plain address must be of a family in which the service has (or, `vips` being empty, gets) a VIP, and not the VIP itself. */
function checkReach(network: Network, address: string, vips: readonly string[]): void {
  const own = vips.length > 0 ? vips : network.spec.subnets.map(({ cidr }) => cidr);
  if (!own.some((text) => familyOf(text) === familyOf(address)))
    throw new SluiceError('service.backend', `${address}: the service has no IPv${familyOf(address)} address`, {
      address,
    });
  if (vips.includes(address)) throw new SluiceError('service.backend', `${address} is the service itself`, { address });
}
