/**
 * Peers: the endpoints that other hosts have on the networks of which this host has one, as forwarding entries and permanent neighbours.
 * Everything is programmed ahead, in batches; a single endpoint's news cost its own entries, an audit compares with what the kernel has.
 */
import type { NetworkResult } from '../../contracts/driver.ts';
import { fault } from '../../fault.ts';
import type { PeerReport } from '../../model/answer.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { Network } from '../../model/network.ts';
import type { Context } from '../context.ts';
import type { Member } from './plan.ts';
import { PeerTable } from './table.ts';

/** `Status.detail` of a network that spans hosts, while this one takes part. */
export interface TunnelDetail {
  readonly ifindex?: number;
  readonly mtu?: number;
  readonly tunnel?: NetworkResult['tunnel'];
  /** Number of its way through this host (firewall/path.ts). */
  readonly slot?: number;
  /** Whether frames between its endpoints go past the bridge (`on`), and else why they do not. */
  readonly shortcut?: string;
}

export class PeerController {
  readonly #context: Context;
  readonly #tables = new Map<string, PeerTable>();
  /** Endpoints by network that are to be looked at again. */
  readonly #news = new Map<string, Set<string>>();
  /** Networks that are to be compared with the kernel. */
  readonly #whole = new Set<string>();

  constructor(context: Context) {
    this.#context = context;
  }

  /** An endpoint of the network came, changed or went. */
  touch(networkId: string, endpointId: string): void {
    const news = this.#news.get(networkId);
    if (news) news.add(endpointId);
    else this.#news.set(networkId, new Set([endpointId]));
  }

  /** The next look compares all of it. */
  review(networkId: string): void {
    this.#whole.add(networkId);
  }

  async reconcile(networkId: string): Promise<void> {
    const network = this.#context.world.networks.get(networkId);
    const table = network && this.#tableOf(networkId);
    if (!table) {
      this.#forget(networkId);
      return;
    }
    const ids = this.#news.get(networkId) ?? new Set();
    this.#news.delete(networkId);
    const whole = this.#whole.delete(networkId) || !table.synced;
    try {
      if (whole) await this.#sync(network, table);
      else if (ids.size > 0) await table.follow(this.#newsOf(networkId, ids));
    } catch (error) {
      // Nobody knows what of it was done: the next look compares.
      this.#whole.add(networkId);
      throw error;
    }
    fault('network.peers');
  }

  /** Endpoints known on the network, those of this host included. */
  count(networkId: string): number {
    return this.#tables.get(networkId)?.size ?? 0;
  }

  /** Compares with the kernel and changes nothing. */
  async inspect(networkId: string): Promise<PeerReport> {
    const network = this.#context.world.networks.get(networkId);
    const table = network && this.#tableOf(networkId);
    if (!table) return { joined: false, differences: [] };
    return { joined: true, differences: await table.compare(() => this.#membersOf(network)) };
  }

  /** Undefined while the network has no tunnel on this host. */
  #tableOf(networkId: string): PeerTable | undefined {
    const { tracker, kernel, dataplane, clock } = this.#context;
    const { ifindex, tunnel } = tracker.detail<TunnelDetail>('network', networkId);
    if (ifindex === undefined || !tunnel) return undefined;
    const known = this.#tables.get(networkId);
    if (known && known.place.bridge === ifindex && known.place.tunnel === tunnel.ifindex) return known;
    const place = { bridge: ifindex, tunnel: tunnel.ifindex };
    const table = new PeerTable(place, { netlink: kernel.host.netlink, dataplane }, () => clock.sleep(0));
    this.#tables.set(networkId, table);
    return table;
  }

  /** What the kernel must have, and the MACs of those of whom it is not known where they are. */
  #membersOf(network: Network): { members: Member[]; keep: Set<string> } {
    const { world } = this.#context;
    // Older first: where a move has been told half-way, the new place counts.
    const all = [...world.endpointsOfNetwork(network.id), ...world.peersOfNetwork(network.id).values()]
      .filter(({ spec }) => !spec.contested)
      .sort((a, b) => a.revision - b.revision);
    const members = all.flatMap((endpoint) => this.#memberOf(endpoint) ?? []);
    const lost = all.filter((endpoint) => !world.isOwn(endpoint) && !this.#vtepOf(endpoint));
    return { members, keep: new Set(lost.map(({ spec }) => spec.mac)) };
  }

  async #sync(network: Network, table: PeerTable): Promise<void> {
    const { members, keep } = this.#membersOf(network);
    const again = table.synced;
    const amiss = await table.sync(members, keep);
    if (again) await this.#context.tracker.repaired('network', network.id, amiss);
  }

  /** Without those of which it is not known where they are: what is there of theirs stays. */
  #newsOf(networkId: string, ids: ReadonlySet<string>): Map<string, Member | null> {
    const { world } = this.#context;
    const news = new Map<string, Member | null>();
    for (const id of ids) {
      const endpoint = world.peersOfNetwork(networkId).get(id) ?? world.endpoints.get(id);
      const member = endpoint && !endpoint.spec.contested ? this.#memberOf(endpoint) : null;
      if (member !== undefined) news.set(id, member);
    }
    return news;
  }

  /** Undefined while it is not known where it is. */
  #memberOf(endpoint: Endpoint): Member | undefined {
    const { id, revision, spec } = endpoint;
    const vtep = this.#vtepOf(endpoint);
    if (vtep === undefined && !this.#context.world.isOwn(endpoint)) return undefined;
    return { id, revision, mac: spec.mac, addresses: spec.addresses.map((address) => address.split('/')[0]!), vtep };
  }

  #vtepOf(endpoint: Endpoint): string | undefined {
    const { world } = this.#context;
    if (world.isOwn(endpoint) || endpoint.owner === null) return undefined;
    return world.nodeNamed(endpoint.owner)?.spec.vtep;
  }

  #forget(networkId: string): void {
    this.#tables.delete(networkId);
    this.#news.delete(networkId);
    this.#whole.delete(networkId);
  }
}
