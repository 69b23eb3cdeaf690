/**
 * Published ports of containers and services. Before a container starts, its ports are held against others of this host and translated; while it has a name
 * they stay so, whatever becomes of the daemon. A hold ends with the daemon and is taken up again by the next one.
 */
import type { PublishedPort } from '../../contracts/publisher.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import type { Container, PublishSpec, ShownPort } from '../../model/container.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import { contains, familyOf, parseCidr } from '../../model/ip.ts';
import { isProtocol, type Service } from '../../model/service.ts';
import type { Context } from '../context.ts';
import type { Blocker } from '../firewall/forward.ts';
import { LoopbackPorts } from './loopback.ts';
import { type Candidate, type Defaults, isKeptIn, planPort, planWays, publishDifferences, shownPorts } from './plan.ts';

export interface PublishOptions {
  /** Where a port without an address of its own is published. */
  readonly address?: string;
  /** Chains of others that keep strangers from this host by default. */
  readonly closed: () => readonly Blocker[];
}

/** How long what was found of others' chains is believed, milliseconds. */
const CLOSED_MS = 1_000;

/** ifindex of lo in every namespace. */
const LO = 1;

/** What only a newer version knows it publishes. */
const isKnown = ({ protocol }: PublishSpec): boolean => isProtocol(protocol);

const keyOf = ({ protocol, address, port }: PublishedPort): string => `${protocol} ${address} ${port}`;

export class PublishController {
  readonly #context: Context;
  readonly #options: PublishOptions;
  readonly #loopback: LoopbackPorts;
  /** By container, then by port; null where the port could not be held yet. */
  readonly #holds = new Map<string, Map<string, Disposable | null>>();
  #closed: { readonly at: number; readonly blockers: readonly Blocker[] } | undefined;

  constructor(context: Context, options: PublishOptions) {
    this.#context = context;
    this.#options = options;
    this.#loopback = new LoopbackPorts(context);
  }

  load(): Promise<void> {
    return this.#loopback.load();
  }

  /**
   * Its ports are published as they should be, once its endpoints are ready; what is shown of them. `port.inuse`, `port.address`,
   * `port.unreachable`: nothing more is published than was.
   */
  ensure(container: Container): Promise<ShownPort[]> {
    const { publish, sandbox } = container.spec;
    return this.#ensure(container, publish.filter(isKnown), () => planWays(this.#candidates(sandbox)));
  }

  /**
   * The same over a service's backends: those of this host whose answers come back by the service's network. As many as the publisher takes,
   * always the same ones. `port.unreachable` where the network has no gateway here.
   */
  async ensureService(service: Service, endpoints: readonly Endpoint[]): Promise<ShownPort[]> {
    const { ways, families } = this.#waysOf(service, endpoints);
    return this.#ensure(service, (service.spec.publish ?? []).filter(isKnown), ways, families);
  }

  /** What is published of a container that has its name otherwise than it should be. */
  compare({ id, spec }: Container): Difference[] {
    return this.#compare(id, spec.publish.filter(isKnown), planWays(this.#candidates(spec.sandbox)), []);
  }

  compareService(service: Service, endpoints: readonly Endpoint[]): Difference[] {
    const { ways, families } = this.#waysOf(service, endpoints);
    return this.#compare(service.id, (service.spec.publish ?? []).filter(isKnown), ways(), families);
  }

  #compare(
    id: string,
    publish: readonly PublishSpec[],
    ways: readonly Candidate[],
    families: readonly (4 | 6)[],
  ): Difference[] {
    const { defaults } = this.#defaultsOf(publish);
    const want = publish.flatMap((port) => planPort(port, ways, defaults, families) ?? []);
    return publishDifferences(want, this.#context.publisher.published().get(id) ?? []);
  }

  #defaultsOf(publish: readonly PublishSpec[]): { defaults: Defaults; blockers: readonly Blocker[] } {
    const { address } = this.#options;
    const blockers = publish.some((port) => isKeptIn(port, { address, closed: true })) ? this.#blockers() : [];
    return { defaults: { address, closed: blockers.length > 0, loopback6: this.#hasLoopback6() }, blockers };
  }

  #waysOf(service: Service, endpoints: readonly Endpoint[]) {
    const { world, publisher } = this.#context;
    const { spec } = service;
    const network = world.networks.get(spec.network);
    const subnets = network?.spec.internal ? [] : (network?.spec.subnets ?? []);
    const families = subnets.flatMap(({ cidr, gateway }) => (gateway ? [familyOf(cidr)] : []));
    const ways = (): Candidate[] =>
      [4, 6].flatMap((family) =>
        spec.backends
          .flatMap((backend): Candidate[] => {
            if (!('sandbox' in backend)) return [];
            if (!endpoints.some((one) => one.spec.sandbox === backend.sandbox && world.isOwn(one))) return [];
            return planWays(this.#candidates(backend.sandbox))
              .filter((way) => way.network === network?.name && familyOf(way.address) === family)
              .map((way) => (backend.port ? { ...way, port: backend.port } : way));
          })
          .sort((a, b) => (a.address < b.address ? -1 : 1))
          .slice(0, publisher.capabilities().backendsMax),
      );
    return { ways, families };
  }

  async #ensure(
    { kind, id, name }: Container | Service,
    publish: readonly PublishSpec[],
    waysNow: () => Candidate[],
    families: readonly (4 | 6)[] = [],
  ): Promise<ShownPort[]> {
    const { publisher } = this.#context;
    if (publish.length === 0) {
      this.withdraw(id);
      return [];
    }
    const ways = waysNow();
    const { defaults, blockers } = this.#defaultsOf(publish);
    const shown: ShownPort[] = [];
    const ports = publish.flatMap((port) => {
      const planned = planPort(port, ways, defaults, families);
      if (planned) {
        shown.push(...shownPorts(planned, port));
        return planned;
      }
      // Perhaps it has left a network: its address there may soon be another's.
      this.withdraw(id);
      throw new SluiceError(
        'port.unreachable',
        `${kind} ${name} has no address by which port ${port.target}/${port.protocol} could be published${port.address ? ` on ${port.address}` : ''}: it takes a network with a gateway on this host that is not internal${port.address === '::1' && port.protocol === 'udp' ? ', and UDP on ::1 an IPv6 one' : ''}`,
        { [kind]: id, port: port.target },
      );
    });
    // The loopback's port and every address's could not both be held.
    this.#letGo(id, new Set(ports.map(keyOf)));
    const undo = this.#hold(id, ports);
    try {
      publisher.ensure(id, ports);
      await this.#loopback.ensure(id, ports);
      for (const ifname of new Set(ports.flatMap(({ backends }) => backends.map((backend) => backend.ifname))))
        this.#admitLoopback(ifname);
    } catch (error) {
      undo();
      throw this.#named(error);
    }
    const kept = publish.filter((port) => isKeptIn(port, defaults));
    await this.#context.tracker.condition(kind, id, 'LoopbackOnly', kept.length > 0, keptWords(kept, blockers));
    return shown;
  }

  /** Its end has come. */
  withdraw(id: string): void {
    this.#loopback.withdraw(id);
    this.#context.publisher.remove(id);
    this.#letGo(id, new Set());
    this.#holds.delete(id);
  }

  /** Owners that are no more, in words. */
  prune(): string[] {
    const { world, publisher } = this.#context;
    const keep = new Set([...world.containers.keys(), ...world.services.keys()]);
    this.#loopback.prune(keep);
    const count = publisher.prune(keep);
    return count > 0 ? [`published ports of ${count} objects that are no more`] : [];
  }

  /** What of it the data plane has, for its prune. */
  wanted = (): ReturnType<LoopbackPorts['wanted']> => this.#loopback.wanted();
  collect = (): Promise<void> => this.#loopback.collect();

  /** The daemon ends: what is published stays, others may bind the ports beside it. */
  stop(): void {
    for (const id of [...this.#holds.keys()]) this.#letGo(id, new Set());
    this.#holds.clear();
  }

  #candidates(sandbox: string): Candidate[] {
    const { world, tracker } = this.#context;
    return world
      .endpointsOfSandbox(sandbox)
      .filter(({ removing }) => !removing)
      .flatMap(({ spec }) => {
        const network = world.networks.get(spec.network);
        const { ifname } = tracker.detail<{ ifname: string }>('network', spec.network);
        if (!network || network.spec.internal || ifname === undefined) return [];
        return spec.addresses.flatMap((cidr): Candidate[] => {
          const address = cidr.split('/')[0]!;
          const subnet = network.spec.subnets.find((one) => contains(parseCidr(one.cidr), address));
          if (!subnet?.gateway) return [];
          return [{ network: network.name, priority: spec.gwPriority, address, ifname, subnet: subnet.cidr }];
        });
      });
  }

  /** Holds what is not held. What was published before stays so, whoever took its port while no daemon was there. */
  #hold(id: string, ports: readonly PublishedPort[]): () => void {
    const { kernel } = this.#context;
    const holds = this.#holds.get(id) ?? new Map<string, Disposable | null>();
    this.#holds.set(id, holds);
    const published = new Set((this.#context.publisher.published().get(id) ?? []).map(keyOf));
    const added: string[] = [];
    const undo = (): void => {
      for (const key of added) {
        holds.get(key)?.[Symbol.dispose]();
        holds.delete(key);
      }
    };
    for (const port of ports) {
      const key = keyOf(port);
      if (holds.get(key)) continue;
      try {
        // Another one's is found by its name first.
        if (!published.has(key)) this.#refuseTaken(id, port);
        holds.set(key, kernel.ports.hold(port.protocol, port.address, port.port));
        added.push(key);
      } catch (error) {
        if (published.has(key) && isSluiceError(error, 'port.inuse', 'port.address')) continue;
        undo();
        throw error;
      }
    }
    return undo;
  }

  #refuseTaken(id: string, { protocol, port, address }: PublishedPort): void {
    for (const [owner, theirs] of this.#context.publisher.published()) {
      const taken = theirs.some(
        (their) => their.protocol === protocol && their.port === port && sharesAddress(their.address, address),
      );
      if (owner !== id && taken) throw this.#named(new SluiceError('port.inuse', '', { owner, port, protocol }));
    }
  }

  /** Says whose a port is by the name of the container or service. */
  #named(error: unknown): unknown {
    if (!isSluiceError(error, 'port.inuse') || typeof error.details.owner !== 'string') return error;
    const { owner, port, protocol } = error.details;
    const { containers, services } = this.#context.world;
    const { kind = 'container', name = owner } = containers.get(owner) ?? services.get(owner) ?? {};
    const details = { ...error.details };
    return new SluiceError(
      'port.inuse',
      `port ${port}/${protocol} of this host is published by ${kind} ${name}`,
      details,
    );
  }

  #letGo(id: string, keep: ReadonlySet<string>): void {
    const holds = this.#holds.get(id);
    for (const [key, hold] of holds ?? []) {
      if (keep.has(key)) continue;
      hold?.[Symbol.dispose]();
      holds?.delete(key);
    }
  }

  /** Answers to clients of 127.0.0.1 may come in there; the publisher's table keeps everything else of that kind out. */
  #admitLoopback(ifname: string): void {
    const { host } = this.#context.kernel;
    const key = `net.ipv4.conf.${ifname}.route_localnet`;
    if (host.getSysctl(key) !== '1') host.setSysctl(key, '1');
  }

  #hasLoopback6(): boolean {
    return this.#context.kernel.host.netlink.addresses(LO).some(({ cidr }) => cidr === '::1/128');
  }

  #blockers(): readonly Blocker[] {
    const now = this.#context.clock.monotonic();
    if (!this.#closed || now - this.#closed.at > CLOSED_MS)
      this.#closed = { at: now, blockers: this.#options.closed() };
    return this.#closed.blockers;
  }
}

const sharesAddress = (a: string, b: string): boolean =>
  a.includes(':') === b.includes(':') && (a === b || [a, b].some((one) => one === '0.0.0.0' || one === '::'));

function keptWords(kept: readonly { readonly published: number }[], blockers: readonly Blocker[]): string {
  if (kept.length === 0) return '';
  const { chain, table, owner } = blockers[0]!;
  const ports = kept.map(({ published }) => published).join(', ');
  return `port ${ports} is published on the loopback alone, since chain ${chain} of table ${table}${owner ? ` (${owner})` : ''} keeps strangers from this host; publish it with from=any or from=CIDR to let them in`;
}
