/** Services: a VIP, its ports, and what they are balanced over. */
import { SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { canonicalAddress, contains, familyOf, parseCidr } from '../model/ip.ts';
import { topicsOf } from '../model/keys.ts';
import type { Network } from '../model/network.ts';
import type { BackendRequest, ServiceRequest } from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { BackendSpec, Service, ServicePort, ServiceSpec } from '../model/service.ts';
import { subnetOf, type Undo } from './endpoint.ts';
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

const BACKENDS_MAX = 1_024;
const PORTS_MAX = 64;
const PORT_NAME_PATTERN = /^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$/;

export interface ServiceChange {
  readonly addBackends?: readonly BackendRequest[];
  readonly removeBackends?: readonly BackendRequest[];
}

export class Services {
  readonly records: Records<'service', Service>;
  readonly #parts: Parts;
  readonly #networks: Records<'network', Network>;
  readonly #sandboxes: Records<'sandbox', Sandbox>;
  readonly #endpoints: Records<'endpoint', Endpoint>;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.records = new Records('service', parts);
    this.#networks = new Records('network', parts);
    this.#sandboxes = new Records('sandbox', parts);
    this.#endpoints = new Records('endpoint', parts);
  }

  get = (ref: string): Promise<Service> => this.records.get(ref);
  list = (): Promise<Service[]> => this.records.list();

  async put(name: string, request: ServiceRequest, options: PutOptions = {}): Promise<Put<Service>> {
    checkName('service', name);
    return retrying(async () => {
      const found = await this.records.byName(name);
      if (!found) return { object: await this.#create(name, request, options), created: true };
      if (options.create) throw new SluiceError('object.exists', `a service ${name} exists`, { name, id: found.id });
      return { object: await this.#replace(found, request, options), created: false };
    });
  }

  async update(
    ref: string,
    { addBackends = [], removeBackends = [] }: ServiceChange,
    options: WriteOptions = {},
  ): Promise<Service> {
    return retrying(async () => {
      const service = await this.records.living(ref);
      const network = await this.#network(service);
      const gone = await this.#backends(network, removeBackends, false);
      const come = await this.#backends(network, addBackends, true);
      const missing = gone.find((backend) => !service.spec.backends.some((own) => fits(own, backend)));
      if (missing)
        throw new SluiceError(
          'service.backend',
          `${await this.#describe(missing)} is not a backend of service ${service.name}`,
          { service: service.id },
        );
      const kept = service.spec.backends.filter((own) => !gone.some((backend) => fits(own, backend)));
      return this.#write(service, { ...service.spec, backends: unique([...kept, ...come]) }, options);
    });
  }

  async remove(ref: string, options: WriteOptions = {}): Promise<Service> {
    return retrying(async () => {
      const service = await this.records.get(ref);
      if (service.removing) return service;
      await this.#parts.store.transact(this.records.removal(service), {
        topics: topicsOf(service, service.spec.network),
        actor: options.actor,
      });
      return { ...service, removing: true };
    });
  }

  /** The data plane has let go of it: VIPs are free, the record goes. */
  async forget(service: Service): Promise<void> {
    const network = await this.#networks.byId(service.spec.network);
    for (const vip of network ? service.spec.vips : []) {
      const subnet = subnetOf(network!, vip);
      if (subnet) await this.#parts.ipams.get(network!.spec.ipam)?.releaseAddress(subnet.pool, vip, service.id);
    }
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

  async #create(name: string, request: ServiceRequest, options: WriteOptions): Promise<Service> {
    const network = await this.#networks.living(request.network);
    if (network.spec.subnets.length === 0)
      throw new SluiceError('request.invalid', `network ${network.name} has no addresses for a VIP`, {
        network: network.id,
      });
    const ports = portsOf(name, request);
    const backends = await this.#backends(network, request.backends ?? [], true);
    for (const alias of request.aliases ?? []) checkName('service', alias);
    const id = this.records.newId();
    return undoing(async (undo) => {
      const vips = await this.#vips(id, network, request.ips ?? [], undo);
      fault('service.leased');
      const spec: ServiceSpec = { network: network.id, vips, ports, backends, aliases: request.aliases ?? [] };
      const service = this.records.fresh(id, name, network.owner, request.labels ?? {}, spec);
      const revision = await this.#parts.store.transact(
        [...this.records.creation(service), this.#networks.check(network)],
        { topics: topicsOf(service, network.id), actor: options.actor },
      );
      fault('service.stored');
      return { ...service, revision };
    });
  }

  /** PUT of a service that is there: ports, backends, aliases and labels follow the request; network and VIP stay. */
  async #replace(service: Service, request: ServiceRequest, options: WriteOptions): Promise<Service> {
    if (service.removing)
      throw new SluiceError('object.removing', `service ${service.name} is being removed`, { id: service.id });
    const network = await this.#networks.get(request.network);
    if (network.id !== service.spec.network)
      throw new SluiceError('object.exists', `service ${service.name} exists on another network`, { id: service.id });
    const other = (request.ips ?? []).map(canonicalAddress).find((ip) => !service.spec.vips.includes(ip));
    if (other)
      throw new SluiceError(
        'object.exists',
        `service ${service.name} exists with VIP ${service.spec.vips.join(', ')}`,
        { id: service.id },
      );
    const backends = await this.#backends(network, request.backends ?? [], true);
    const spec: ServiceSpec = {
      ...service.spec,
      ports: portsOf(service.name, request),
      backends,
      aliases: request.aliases ?? [],
    };
    return this.#write(service, spec, options, request.labels ?? {});
  }

  async #write(service: Service, spec: ServiceSpec, options: WriteOptions, labels = service.labels): Promise<Service> {
    if (spec.backends.length > BACKENDS_MAX)
      throw new SluiceError('request.invalid', `more than ${BACKENDS_MAX} backends`, { service: service.id });
    if (JSON.stringify([spec, labels]) === JSON.stringify([service.spec, service.labels])) return service;
    const revision = await this.#parts.store.transact([this.records.change(service, { spec, labels })], {
      topics: topicsOf(service, spec.network),
      actor: options.actor,
    });
    return { ...service, spec, labels, revision };
  }

  async #vips(owner: string, network: Network, asked: readonly string[], undo: Undo): Promise<string[]> {
    const ipam = this.#parts.ipams.get(network.spec.ipam);
    if (!ipam)
      throw new SluiceError('driver.unknown', `there is no IPAM driver ${network.spec.ipam}`, {
        ipam: network.spec.ipam,
      });
    for (const ip of asked) {
      if (!network.spec.subnets.some(({ cidr }) => contains(parseCidr(cidr), canonicalAddress(ip))))
        throw new SluiceError('address.outside', `VIP ${ip} is in no subnet of network ${network.name}`, {
          address: ip,
        });
    }
    const vips: string[] = [];
    for (const family of [4, 6] as const) {
      const own = asked.filter((ip) => familyOf(ip) === family);
      if (own.length > 1) throw new SluiceError('request.invalid', `more than one IPv${family} VIP`, { ips: own });
      const subnet = network.spec.subnets.find(
        ({ cidr }) => familyOf(cidr) === family && (!own[0] || contains(parseCidr(cidr), own[0])),
      );
      // VIPs that were asked for say which families there are.
      if (!subnet || (asked.length > 0 && !own[0])) continue;
      const lease = await ipam.requestAddress({ pool: subnet.pool, owner, address: own[0], purpose: 'vip' });
      undo(() => ipam.releaseAddress(subnet.pool, lease.address, owner));
      vips.push(lease.address);
    }
    return vips;
  }

  /** With sandboxes by id. `strict`: a sandbox must be there and on the network. */
  async #backends(network: Network, requests: readonly BackendRequest[], strict: boolean): Promise<BackendSpec[]> {
    if (requests.length > BACKENDS_MAX)
      throw new SluiceError('request.invalid', `more than ${BACKENDS_MAX} backends`, {});
    const endpoints = strict && requests.some((request) => 'sandbox' in request) ? await this.#endpoints.list() : [];
    const specs: BackendSpec[] = [];
    for (const request of requests) {
      checkPort(request.port);
      if ('address' in request) {
        specs.push({ address: canonicalAddress(request.address), port: request.port });
        continue;
      }
      const sandbox = strict
        ? await this.#sandboxes.living(request.sandbox)
        : await this.#sandboxes.get(request.sandbox);
      if (
        strict &&
        !endpoints.some(({ spec, removing }) => spec.sandbox === sandbox.id && spec.network === network.id && !removing)
      ) {
        throw new SluiceError(
          'service.backend',
          `sandbox ${sandbox.name} is not on network ${network.name}: a service reaches its backends there`,
          { sandbox: sandbox.id, network: network.id },
        );
      }
      specs.push({ sandbox: sandbox.id, port: request.port });
    }
    return unique(specs);
  }

  async #describe(backend: BackendSpec): Promise<string> {
    if ('address' in backend) return backend.address;
    return (await this.#sandboxes.byId(backend.sandbox))?.name ?? backend.sandbox.slice(0, 12);
  }
}

const keyOf = (backend: BackendSpec): string =>
  'sandbox' in backend ? `s/${backend.sandbox}/${backend.port ?? ''}` : `a/${backend.address}/${backend.port ?? ''}`;
const unique = (backends: readonly BackendSpec[]): BackendSpec[] => [
  ...new Map(backends.map((backend) => [keyOf(backend), backend])).values(),
];

/** A removal without a port takes the backend out whatever its port. */
function fits(own: BackendSpec, asked: BackendSpec): boolean {
  const same =
    'sandbox' in own
      ? 'sandbox' in asked && own.sandbox === asked.sandbox
      : 'address' in asked && own.address === asked.address;
  return same && (asked.port === undefined || asked.port === own.port);
}

function checkPort(port: number | undefined): void {
  if (port !== undefined && (!Number.isInteger(port) || port < 1 || port > 65_535))
    throw new SluiceError('request.invalid', `${port} is not a port`, { port });
}

function portsOf(name: string, { ports = [] }: ServiceRequest): ServicePort[] {
  if (ports.length > PORTS_MAX)
    throw new SluiceError('request.invalid', `service ${name}: more than ${PORTS_MAX} ports`, { name });
  const list = ports.map(({ name: portName, port, target = port, protocol = 'tcp' }): ServicePort => {
    checkPort(port);
    checkPort(target);
    if (portName !== undefined && !PORT_NAME_PATTERN.test(portName))
      throw new SluiceError(
        'request.invalid',
        `"${portName}" cannot name a port: lower-case letters, digits and "-", 15 at most`,
        { name: portName },
      );
    return { name: portName, port, target, protocol };
  });
  for (const [i, port] of list.entries()) {
    const same = list.findIndex(
      (other) =>
        (other.port === port.port && other.protocol === port.protocol) ||
        (port.name !== undefined && other.name === port.name && other.protocol === port.protocol),
    );
    if (same !== i)
      throw new SluiceError(
        'request.invalid',
        `service ${name}: port ${port.port}/${port.protocol} or its name stands twice`,
        { port: port.port },
      );
  }
  return list;
}
