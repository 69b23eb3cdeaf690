/** Traces: what is asked of the world, the kernel and the other node, gathered for plan.ts. Nothing is changed. */
import type { Drift } from '../../../contracts/dataplane.ts';
import type { PeerProber } from '../../../contracts/prober.ts';
import { SluiceError, toSluiceError } from '../../../errors.ts';
import { parseTarget, type TraceAnswer, type TraceQuery } from '../../../model/diagnosis/trace.ts';
import type { Endpoint } from '../../../model/endpoint.ts';
import { canonicalAddress, contains, parseCidr, tryParse } from '../../../model/ip.ts';
import type { Network } from '../../../model/network.ts';
import type { NodeSession } from '../../../model/node.ts';
import type { Sandbox } from '../../../model/sandbox.ts';
import type { Service } from '../../../model/service.ts';
import type { Context } from '../../context.ts';
import type { NameController } from '../../service/name.ts';
import type { ServiceController } from '../../service/service.ts';
import type { Spaces } from '../../spaces.ts';
import { troubleOf } from '../../tracker.ts';
import { type Differ, find } from '../diff.ts';
import { type HopFact, type NameFact, planTrace, type RemoteFact, type RouteFact, type ServiceFact } from './plan.ts';
import { readSteps, type TargetQuestion, targetSteps } from './target.ts';

/** The other nodes, as src/cluster knows them. */
export interface OtherNodes {
  sessionOf(node: string): NodeSession;
  answers: PeerProber['answers'];
  ask(node: string, about: string, body: unknown): Promise<unknown>;
}

export interface TracerParts {
  readonly context: Context;
  readonly differ: Differ;
  readonly spaces: Pick<Spaces, 'get' | 'path'>;
  readonly names: Pick<NameController, 'find'>;
  readonly services: Pick<ServiceController, 'plan'>;
  readonly others: OtherNodes | undefined;
}

/** What questions about the end of a way are called. */
export const TRACE = 'trace';
/** Backends that are followed to their end. */
const HOPS_MAX = 8;
const ECHO_MS = 500;
const RT_TABLE_MAIN = 254;
const RTN_UNICAST = 1;
const bare = (address: string): string => address.split('/')[0]!;

interface Source {
  readonly sandbox: Sandbox;
  readonly endpoints: readonly Endpoint[];
  readonly networks: readonly Network[];
  /** Of the data plane, looked at once for all steps. */
  readonly drifts: readonly Drift[];
}

export class Tracer {
  readonly #parts: TracerParts;

  constructor(parts: TracerParts) {
    this.#parts = parts;
  }

  /** `object.notfound`, `object.ambiguous`, `request.invalid`. */
  async trace({ from, to }: TraceQuery): Promise<TraceAnswer> {
    const { context, differ, spaces } = this.#parts;
    const { node } = context;
    const target = parseTarget(to);
    if (!target) throw new SluiceError('request.invalid', `"${to}" is no name and no address`, { to });
    const source = await this.#source(from);
    const { sandbox, endpoints, networks, drifts } = source;
    const isAddress = tryParse(target.host) !== null;
    const name = isAddress ? ({ kind: 'address' } as const) : this.#name(source, target.host);
    const addresses = isAddress ? [canonicalAddress(target.host)] : name.kind === 'found' ? name.addresses : [];
    const service = this.#serviceOf(addresses, networks);
    const fact = service && (await this.#service(service, addresses, target.port, source));
    const found = (await Promise.all(endpoints.map((endpoint) => differ.of(endpoint, drifts)))).flat();
    const missing = found.filter(({ what }) => what.startsWith('route '));
    const ends = service
      ? this.#backends(service, addresses, target.port)
      : addresses.map((address) => ({ address, port: target.port }));
    const hops: HopFact[] = [];
    for (const end of fact?.elsewhere === undefined ? ends.slice(0, HOPS_MAX) : [])
      hops.push({ ...end, missing, ...(await this.#hop(source, end)) });
    const steps = planTrace({
      node,
      sandbox: sandbox.name,
      enter: `nsenter --net=${spaces.path(sandbox)} `,
      to: target.host,
      name,
      source: found.filter(({ what }) => !what.startsWith('route ')),
      networks: networks.map((network) => network.name),
      service: fact,
      hops,
    });
    const wrong = steps.find(({ state }) => state === 'wrong');
    return { from: sandbox.name, node: sandbox.owner ?? node, to, reachable: !wrong, wrong, steps };
  }

  /** What another node wants to know of this one. */
  async answer(about: string, body: unknown): Promise<unknown> {
    const { endpoint, address } = (body ?? {}) as Partial<TargetQuestion>;
    if (about !== TRACE || typeof endpoint !== 'string' || typeof address !== 'string')
      throw new SluiceError(
        'request.invalid',
        `node ${this.#parts.context.node} does not know such a question: ${about}`,
      );
    return { steps: await targetSteps(this.#parts, body as TargetQuestion, this.#parts.context.dataplane.compare()) };
  }

  /** A sandbox or container of this node. */
  async #source(ref: string): Promise<Source> {
    const { world, desired, node } = this.#parts.context;
    const container = [...world.containers.values()].find(({ id, name }) => name === ref || id === ref);
    const own = container ? world.sandboxes.get(container.spec.sandbox) : undefined;
    let sandbox = own;
    try {
      sandbox ??= find('sandbox', [...world.sandboxes.values()], ref) as Sandbox;
    } catch (error) {
      const theirs = (await desired.sandboxes.list()).find(({ name, owner }) => name === ref && owner !== node);
      if (!theirs) throw error;
      const message = `sandbox ${ref} is on node ${theirs.owner}: a way begins where its sandbox is, ask there`;
      throw new SluiceError('object.notfound', message, { node: theirs.owner });
    }
    const endpoints = world.endpointsOfSandbox(sandbox.id).filter(({ removing }) => !removing);
    const networks = endpoints.flatMap(({ spec }) => world.networks.get(spec.network) ?? []);
    return { sandbox, endpoints, networks, drifts: this.#parts.context.dataplane.compare() };
  }

  #name({ networks }: Source, host: string): NameFact {
    const { context, names } = this.#parts;
    const { world } = context;
    const wanted = host.toLowerCase().replace(/\.$/, '');
    const record = names.find(
      networks.map(({ id }) => id),
      wanted,
    );
    const addresses = [...(record?.a ?? []), ...(record?.aaaa ?? [])];
    if (addresses.length > 0) return { kind: 'found', addresses };
    const nameOf = (id: string): string => world.networks.get(id)?.name ?? id;
    const service = [...world.services.values()].find((one) => one.name === host);
    if (service)
      return { kind: 'hidden', what: 'service', networks: this.#apart(networks, [service.spec.network], nameOf) };
    const sandbox = [...world.sandboxes.values()].find((one) => one.name === host);
    if (!sandbox) return { kind: 'foreign', forwarded: networks.some(({ spec }) => !spec.internal) };
    const its = world.endpointsOfSandbox(sandbox.id).map(({ spec }) => spec.network);
    return { kind: 'hidden', what: 'sandbox', networks: this.#apart(networks, its, nameOf) };
  }

  /** Names of networks that are none of the source's; none, where one is shared. */
  #apart(own: readonly Network[], its: readonly string[], nameOf: (id: string) => string): string[] {
    return its.some((id) => own.some((network) => network.id === id)) ? [] : its.map(nameOf);
  }

  #serviceOf(addresses: readonly string[], networks: readonly Network[]): Service | undefined {
    const all = [...this.#parts.context.world.services.values()].filter(({ removing }) => !removing);
    const has = (service: Service): boolean => service.spec.vips.some((vip) => addresses.includes(vip));
    const near = all.find((one) => has(one) && networks.some(({ id }) => id === one.spec.network));
    return near ?? all.find(has);
  }

  /** Backends of the sets that the addresses and the port lead to. */
  #sets(service: Service, addresses: readonly string[], port: number | undefined) {
    return this.#parts.services
      .plan(service)
      .filter((set) => addresses.includes(set.address) && (port === undefined || set.port === 0 || set.port === port));
  }

  #backends(service: Service, addresses: readonly string[], port: number | undefined) {
    const sets = this.#sets(service, addresses, port);
    const all = sets.flatMap(({ backends }) =>
      backends.map((one) => ({ address: one.address, port: one.port || port })),
    );
    return [...new Map(all.map((one) => [`${one.address} ${one.port}`, one])).values()];
  }

  async #service(
    service: Service,
    addresses: readonly string[],
    port: number | undefined,
    { sandbox, networks, drifts }: Source,
  ): Promise<ServiceFact> {
    const { context, differ } = this.#parts;
    const near = networks.some(({ id }) => id === service.spec.network);
    const ports = service.spec.ports.map((one) => `${one.port}/${one.protocol}`);
    return {
      name: service.name,
      vip: service.spec.vips.filter((vip) => addresses.includes(vip)).join(', '),
      ports,
      served: this.#sets(service, addresses, port).length > 0,
      backends: this.#backends(service, addresses, port).map(
        (one) => `${one.address}${one.port ? `:${one.port}` : ''}`,
      ),
      // By its identity the kernel knows which services the sandbox has.
      differences: near ? [...(await differ.of(sandbox, drifts)), ...(await differ.of(service, drifts))] : [],
      elsewhere: near ? undefined : (context.world.networks.get(service.spec.network)?.name ?? ''),
    };
  }

  async #hop(
    source: Source,
    { address, port }: { readonly address: string; readonly port?: number },
  ): Promise<Pick<HopFact, 'route' | 'end'>> {
    const { context } = this.#parts;
    const { world, tracker } = context;
    const near = this.#holder(address, source.networks);
    const network =
      near?.network ??
      source.networks.find(({ spec }) => spec.subnets.some((one) => contains(parseCidr(one.cidr), address)));
    const route = this.#route(source, address, network);
    if (near) return { route, end: await this.#end(source, near, address, port) };
    if (network) {
      const isGateway = network.spec.subnets.some(({ gateway }) => gateway === address);
      return { route, end: { kind: isGateway ? 'gateway' : 'nobody', network: network.name } };
    }
    const apart = this.#holder(address, [...world.networks.values()]);
    if (apart) return { route, end: { kind: 'apart', sandbox: this.#nameOf(apart), network: apart.network.name } };
    const blocked = source.networks
      .map(({ id }) => troubleOf(tracker, 'network', id, 'ForwardBlocked'))
      .find((text) => text !== undefined);
    return { route, end: { kind: 'outside', internal: source.networks.every(({ spec }) => spec.internal), blocked } };
  }

  /** The endpoint with that address on one of the networks, the first that has one. */
  #holder(
    address: string,
    networks: readonly Network[],
  ): { readonly endpoint: Endpoint; readonly network: Network } | undefined {
    const { world } = this.#parts.context;
    for (const network of networks) {
      const all = [...world.endpointsOfNetwork(network.id), ...world.peersOfNetwork(network.id).values()];
      const endpoint = all.find(
        ({ spec, removing }) => !removing && spec.addresses.some((one) => bare(one) === address),
      );
      if (endpoint) return { endpoint, network };
    }
    return undefined;
  }

  #nameOf({ endpoint, network }: { readonly endpoint: Endpoint; readonly network: Network }): string {
    const { world } = this.#parts.context;
    return world.sandboxes.get(endpoint.spec.sandbox)?.name ?? endpoint.name.slice(0, -network.name.length - 1);
  }

  /** The route that the sandbox's packets take: the longest prefix, then the lowest metric. */
  #route({ sandbox, endpoints }: Source, address: string, network: Network | undefined): RouteFact | null {
    const { kernel } = this.#parts.context;
    const space = sandbox.spec.origin === 'host' ? kernel.host : this.#parts.spaces.get(sandbox.id);
    if (!space) return null;
    const prefixOf = (dst: string): number => Number(dst.split('/')[1]);
    const [best] = space.netlink
      .routes(RT_TABLE_MAIN)
      .filter(({ dst, type }) => type === RTN_UNICAST && contains(parseCidr(dst), address))
      .sort((a, b) => prefixOf(b.dst) - prefixOf(a.dst) || a.metric - b.metric);
    if (!best) return null;
    const link = space.netlink.link(best.ifindex);
    const mac = endpoints.find(({ spec }) => spec.network === network?.id)?.spec.mac;
    const direct = best.via === undefined && link?.mac === mac;
    return { dst: best.dst, via: best.via, ifname: link?.name ?? `interface ${best.ifindex}`, direct };
  }

  async #end(
    { endpoints, drifts }: Source,
    near: { readonly endpoint: Endpoint; readonly network: Network },
    address: string,
    port: number | undefined,
  ): Promise<HopFact['end']> {
    const { context } = this.#parts;
    const { endpoint, network } = near;
    const sandbox = this.#nameOf(near);
    const question: TargetQuestion = { endpoint: endpoint.id, address, port };
    if (context.world.isOwn(endpoint))
      return { kind: 'here', sandbox, steps: await targetSteps(this.#parts, question, drifts) };
    const own = endpoints.find(({ spec }) => spec.network === network.id)!;
    const vtep = context.world.nodeNamed(context.node)?.spec.vtep;
    const from = { mac: own.spec.mac, addresses: own.spec.addresses.map(bare), vtep };
    return { kind: 'there', sandbox, remote: await this.#remote(near, address, { ...question, from }) };
  }

  async #remote(
    { endpoint, network }: { readonly endpoint: Endpoint; readonly network: Network },
    address: string,
    question: TargetQuestion,
  ): Promise<RemoteFact> {
    const { context, differ, others } = this.#parts;
    const node = endpoint.owner ?? '';
    const vtep = context.world.nodeNamed(node)?.spec.vtep;
    const { mac } = endpoint.spec;
    const silent = { error: `node ${node} could not be asked: this daemon knows no others` };
    const asked = others
      ? others.ask(node, TRACE, question).then(
          (body) => ({ steps: readSteps(body) }),
          (error: unknown) => ({ error: toSluiceError(error).message }),
        )
      : silent;
    // Understood or not, an answer is no reason to fail.
    const [answer, echo, tunnel] = await Promise.all([
      Promise.resolve(asked).catch((error: unknown) => ({ error: toSluiceError(error).message })),
      vtep === undefined ? undefined : others?.answers(vtep, ECHO_MS),
      differ.tunnel(network),
    ]);
    const keys = [mac, address, vtep];
    return {
      node,
      mac,
      vtep,
      place: tunnel.place,
      devices: [...tunnel.devices, ...differ.guard()],
      peers: tunnel.peers.filter(({ key }) => keys.includes(key)),
      state: others?.sessionOf(node).state ?? 'ready',
      echo,
      narrow: troubleOf(context.tracker, 'node', context.node, 'UnderlayMtu'),
      spoilt: troubleOf(context.tracker, 'node', context.node, 'ChecksumOffload'),
      answer,
    };
  }
}
