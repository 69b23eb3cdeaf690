/**
 * Names: what each view resolves. Records are made once a network and cached until something on it changes; a view is the sum of its
 * networks' records. Changes are gathered for a moment, so that a hundred new sandboxes are a few updates, not a hundred.
 */
import type { Clock, Timer } from '../../clock.ts';
import type { NameRecord } from '../../contracts/names.ts';
import type { Network } from '../../model/network.ts';
import { placeOfSandbox } from '../container/place.ts';
import type { Context } from '../context.ts';
import { peerServes, withReplicas } from '../replica/replica.ts';
import type { View, Views } from '../view.ts';
import { mergeViews, type NetworkNames, namesOfNetwork } from './record.ts';

/** Changes wait this long for company, milliseconds. */
const GATHER_MS = 2;

export class NameController {
  readonly #context: Context;
  readonly #clock: Clock;
  readonly #networks = new Map<string, NetworkNames>();
  readonly #dirty = new Set<string>();
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

  /** Something on the network changed. */
  touch(networkId: string): void {
    this.#networks.delete(networkId);
    this.#dirty.add(networkId);
    this.#timer ??= this.#clock.after(GATHER_MS, () => this.flush());
  }

  /** Publishes what is waiting, now. */
  flush(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const touched = [...this.#dirty];
    this.#dirty.clear();
    if (!this.#open) return;
    const views = new Set(touched.flatMap((id) => this.views?.withNetwork(id) ?? []));
    for (const view of views) this.#publish(view);
  }

  async fill(view: View): Promise<void> {
    if (this.#open) this.#publish(view);
  }

  drop(view: View): void {
    this.#context.names.removeView(view.number);
  }

  /** What somebody on these networks resolves. */
  recordsOf(networkIds: readonly string[]): readonly NameRecord[] {
    return mergeViews(this.#inOrder(networkIds).map(({ id }) => this.#namesOf(id))).records;
  }

  #inOrder(networkIds: readonly string[]): Network[] {
    const { world } = this.#context;
    return networkIds.flatMap((id) => world.networks.get(id) ?? []).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  #publish(view: View): void {
    const { names, logger } = this.#context;
    const networks = this.#inOrder(view.networks);
    const { records, reverse, shadowed } = mergeViews(networks.map((network) => this.#namesOf(network.id)));
    if (shadowed.length > 0)
      logger.info({ view: view.number, names: shadowed }, 'names of a later network are shadowed by an earlier one');
    names.setView({
      view: view.number,
      records,
      reverse,
      subnets: networks.flatMap(({ spec }) => spec.subnets.map(({ cidr }) => cidr)),
      forward: networks.some(({ spec }) => !spec.internal),
    });
  }

  #namesOf(networkId: string): NetworkNames {
    const known = this.#networks.get(networkId);
    if (known) return known;
    const { world, tracker } = this.#context;
    const network = world.networks.get(networkId);
    const peers = [...world.peersOfNetwork(networkId).values()];
    const idle = new Set(peers.filter((peer) => !peerServes(peer)).map(({ spec }) => spec.sandbox));
    const made: NetworkNames = network
      ? namesOfNetwork(
          network,
          [
            ...world
              .endpointsOfNetwork(networkId)
              .filter(
                (endpoint) =>
                  !endpoint.removing &&
                  tracker.isReady('endpoint', endpoint.id) &&
                  placeOfSandbox(this.#context, endpoint.spec.sandbox).named,
              ),
            ...peers.filter(({ removing, owner }) => !removing && world.serves(owner)),
          ],
          // Another node's sandbox is known by its endpoint alone.
          ({ name, spec }) => world.sandboxes.get(spec.sandbox)?.name ?? name.slice(0, -network.name.length - 1),
          [...world.services.values()]
            .filter(
              (service) =>
                service.spec.network === networkId && !service.removing && tracker.isReady('service', service.id),
            )
            .map((service) => withReplicas(world, service)),
          (id) => !idle.has(id) && placeOfSandbox(this.#context, id).serving,
        )
      : { records: new Map<string, NameRecord>(), reverse: new Map<string, string>() };
    this.#networks.set(networkId, made);
    return made;
  }
}
