/**
 * Names: what each view resolves. The names of a network are kept, and of what changes only what that is called is made anew; a view is the
 * sum of its networks'. Changes are gathered for a moment, so that a hundred new sandboxes are a few updates, not a hundred.
 */
import type { Clock, Timer } from '../../clock.ts';
import type { NameRecord } from '../../contracts/names.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { Network } from '../../model/network.ts';
import { placeOfSandbox } from '../container/place.ts';
import type { Context } from '../context.ts';
import { peerServes, withReplicas } from '../replica/replica.ts';
import type { View, Views } from '../view.ts';
import { NetworkNames } from './network-names.ts';
import { type Called, callOfEndpoint, callOfService, changeOf, mergeViews, type NameDifference } from './record.ts';

/** Changes wait this long for company, milliseconds. */
const GATHER_MS = 2;
/** Names that a line of the log shows. */
const SHOWN_MAX = 10;

export class NameController {
  readonly #context: Context;
  readonly #clock: Clock;
  readonly #networks = new Map<string, NetworkNames>();
  /** Endpoints and services of networks that have changed; undefined: all of them, and the network. */
  readonly #dirty = new Map<string, Set<string> | undefined>();
  #timer: Timer | undefined;
  #open = false;
  views: Views | undefined;

  constructor(context: Context) {
    this.#context = context;
    this.#clock = context.clock;
  }

  /** What was there at start has been seen once: from now on views are published. */
  open(): void {
    this.#open = true;
    for (const view of this.views?.all() ?? []) this.#publish(view);
  }

  /** What these endpoints and services of the network are called may have changed; without `members`: what everybody there is. */
  touch(networkId: string, members?: readonly string[]): void {
    if (!this.#open) {
      this.#networks.delete(networkId);
      return;
    }
    const known = this.#dirty.get(networkId);
    if (!members) this.#dirty.set(networkId, undefined);
    else if (known) for (const member of members) known.add(member);
    else if (!this.#dirty.has(networkId)) this.#dirty.set(networkId, new Set(members));
    this.#timer ??= this.#clock.after(GATHER_MS, () => this.flush());
  }

  /** Publishes what is waiting, now. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const dirty = new Map(this.#dirty);
    this.#dirty.clear();
    const differs = new Map<string, NameDifference>();
    for (const [id, members] of dirty) {
      const names = this.#networks.get(id);
      if (names) differs.set(id, this.#renew(id, names, members));
    }
    for (const view of this.views?.all() ?? []) {
      const touched = view.networks.filter((id) => dirty.has(id));
      if (touched.some((id) => dirty.get(id) === undefined)) this.#publish(view);
      else for (const id of touched) this.#change(view, differs.get(id));
    }
  }

  /** Makes all names anew: nothing may have changed of which nobody was told here. Ids of the networks of which something had. */
  review(): string[] {
    this.flush();
    const stale: string[] = [];
    for (const [id, names] of this.#networks) {
      const differs = this.#renew(id, names);
      if (differs.records.size + differs.reverse.size === 0) continue;
      stale.push(id);
      const shown = [...differs.records.keys(), ...differs.reverse.keys()].slice(0, SHOWN_MAX);
      this.#context.logger.warn({ network: id, names: shown }, 'names were not as they should be');
      for (const view of this.views?.withNetwork(id) ?? []) this.#change(view, differs);
    }
    return stale;
  }

  async fill(view: View): Promise<void> {
    if (!this.#open) return;
    this.flush();
    this.#publish(view);
  }

  drop(view: View): void {
    this.#context.names.removeView(view.number);
    for (const id of view.networks) if (this.views?.withNetwork(id).length === 0) this.#networks.delete(id);
  }

  /** What somebody on these networks finds by the name, in lower case. */
  find(networkIds: readonly string[], name: string): NameRecord | undefined {
    this.flush();
    for (const { id } of this.#inOrder(networkIds)) {
      const record = this.#namesOf(id).records.get(name);
      if (record) return record;
    }
    return undefined;
  }

  #inOrder(networkIds: readonly string[]): Network[] {
    const { world } = this.#context;
    return networkIds.flatMap((id) => world.networks.get(id) ?? []).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #publish(view: View): void {
    const networks = this.#inOrder(view.networks);
    const { records, reverse, shadowed } = mergeViews(networks.map(({ id }) => this.#namesOf(id)));
    this.#tellShadowed(view, shadowed);
    this.#context.names.setView({
      view: view.number,
      records,
      reverse,
      subnets: networks.flatMap(({ spec }) => spec.subnets.map(({ cidr }) => cidr)),
      forward: networks.some(({ spec }) => !spec.internal),
    });
  }

  #change(view: View, differs: NameDifference | undefined): void {
    if (!differs || differs.records.size + differs.reverse.size === 0) return;
    const networks = this.#inOrder(view.networks).map(({ id }) => this.#namesOf(id));
    const { records, reverse, shadowed } = changeOf(networks, differs);
    this.#tellShadowed(view, shadowed);
    this.#context.names.changeView({ view: view.number, records, reverse });
  }

  #tellShadowed({ number }: View, names: readonly string[]): void {
    if (names.length > 0)
      this.#context.logger.info({ view: number, names }, 'names of a later network are shadowed by an earlier one');
  }

  #namesOf(networkId: string): NetworkNames {
    const known = this.#networks.get(networkId);
    if (known) return known;
    const names = new NetworkNames();
    this.#renew(networkId, names);
    this.#networks.set(networkId, names);
    return names;
  }

  /** Makes anew what these are called, or everybody. */
  #renew(networkId: string, names: NetworkNames, members?: Iterable<string>): NameDifference {
    const { world } = this.#context;
    const network = world.networks.get(networkId);
    const all = (): Set<string> =>
      new Set([
        ...names.members(),
        ...world.endpointsOfNetwork(networkId).map(({ id }) => id),
        ...world.peersOfNetwork(networkId).keys(),
        ...[...world.services.values()].filter(({ spec }) => spec.network === networkId).map(({ id }) => id),
      ]);
    for (const member of members ?? all()) names.set(member, network && this.#callOf(network, member));
    return names.settle();
  }

  /** What an endpoint or a service of the network is called, if it is to be found. */
  #callOf(network: Network, id: string): Called | undefined {
    const { world, tracker } = this.#context;
    const endpoint = world.endpoints.get(id) ?? world.peersOfNetwork(network.id).get(id);
    if (endpoint?.spec.network === network.id) {
      if (!this.#isNamed(endpoint)) return undefined;
      // Another node's sandbox is known by its endpoint alone.
      const own = world.sandboxes.get(endpoint.spec.sandbox)?.name;
      return callOfEndpoint(endpoint, own ?? endpoint.name.slice(0, -network.name.length - 1), network.name);
    }
    const service = world.services.get(id);
    if (!service || service.spec.network !== network.id || service.removing || !tracker.isReady('service', id))
      return undefined;
    return callOfService(withReplicas(world, service), network.name, (sandbox) => this.#serving(network.id, sandbox));
  }

  #isNamed({ id, removing, owner, spec }: Endpoint): boolean {
    const { world, tracker } = this.#context;
    if (removing) return false;
    if (!world.endpoints.has(id)) return world.serves(owner);
    return tracker.isReady('endpoint', id) && placeOfSandbox(this.#context, spec.sandbox).named;
  }

  /** Addresses of the sandbox on the network, if it may be balanced over. */
  #serving(networkId: string, sandbox: string): readonly string[] {
    const { world } = this.#context;
    const own = world.endpointsOfSandbox(sandbox).find(({ spec }) => spec.network === networkId);
    const endpoint = own ?? world.peerOfSandbox(networkId, sandbox);
    if (!endpoint || !this.#isNamed(endpoint)) return [];
    const serves = own ? placeOfSandbox(this.#context, sandbox).serving : peerServes(endpoint);
    return serves ? endpoint.spec.addresses : [];
  }
}
