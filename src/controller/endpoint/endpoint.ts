/**
 * Endpoints: the driver's link, moved into the sandbox and configured there, guarded by the data plane. Order: link, move, guard,
 * address, up, routes; removal in reverse, after services and names have let go of it.
 */
import type { EndpointResult, JoinResult } from '../../contracts/driver.ts';
import type { Link, Namespace } from '../../contracts/kernel.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import { fault } from '../../fault.ts';
import type { Contest, Endpoint, EndpointDetail } from '../../model/endpoint.ts';
import type { Network } from '../../model/network.ts';
import type { Sandbox } from '../../model/sandbox.ts';
import { type Context, driverNetwork } from '../context.ts';
import type { TunnelDetail } from '../peer/peer.ts';
import type { Spaces } from '../spaces.ts';
import { ensureInside, type Inside, withdrawInside } from './inside.ts';
import { planRoutes, syncDefaultRoutes } from './route.ts';

/** What must let go of an endpoint before its link goes. */
export type Withdrawal = (endpoint: Endpoint) => Promise<void>;

export class EndpointController {
  readonly #context: Context;
  readonly #spaces: Spaces;
  readonly #withdraw: Withdrawal;
  /** Gateways and interface (ifindex in the sandbox) of each endpoint that is joined, for the choice of the default route. */
  readonly #joins = new Map<string, { readonly joined: JoinResult; readonly link: number }>();

  /** Those that are contested and taken down in this life. */
  readonly #down = new Set<string>();

  constructor(context: Context, spaces: Spaces, withdraw: Withdrawal) {
    this.#context = context;
    this.#spaces = spaces;
    this.#withdraw = withdraw;
  }

  async reconcile(id: string): Promise<void> {
    const endpoint = this.#context.world.endpoints.get(id);
    if (!endpoint) return;
    if (endpoint.removing) await this.#remove(endpoint);
    else if (endpoint.spec.contested) await this.#giveUp(endpoint, endpoint.spec.contested);
    else await this.#ensure(endpoint);
  }

  async #ensure(endpoint: Endpoint): Promise<void> {
    const { world, tracker, drivers } = this.#context;
    const network = world.networks.get(endpoint.spec.network);
    const sandbox = world.sandboxes.get(endpoint.spec.sandbox);
    // Both trigger their endpoints when they become ready; an endpoint without a status is pending.
    if (!network || !sandbox || !tracker.isReady('network', network.id) || !tracker.isReady('sandbox', sandbox.id))
      return;
    // A global network's devices come with this host's first endpoint on it; then this one is looked at again.
    if (network.spec.scope === 'global' && tracker.detail<TunnelDetail>('network', network.id).ifindex === undefined)
      return;
    const namespace = sandbox.spec.origin === 'host' ? this.#context.kernel.host : this.#spaces.get(sandbox.id);
    if (!namespace) return;
    const wasReady = tracker.isReady('endpoint', endpoint.id);
    const driver = drivers.get(network.spec.driver);
    const { result, link, changed } = await this.#link(endpoint, network, namespace);
    const joined = await driver.join(driverNetwork(network), endpointForDriver(endpoint));
    if (!link || !result.link) {
      await tracker.ready(endpoint, {});
      return;
    }
    await this.#guard(endpoint, network, result.link, link.up);
    fault('endpoint.dataplane');
    const inside: Inside = {
      link,
      mtu: result.link.mtu,
      endpoint: endpoint.spec,
      joined,
      ipv6: endpoint.spec.addresses.some((address) => address.includes(':')),
    };
    const made = ensureInside(namespace, inside);
    changed.push(...made.changed);
    if (!link.up) await this.#open(endpoint, network, result.link);
    this.#joins.set(endpoint.id, { joined, link: link.ifindex });
    fault('endpoint.address');
    changed.push(...this.#routes(sandbox, namespace));
    if (wasReady) await tracker.repaired('endpoint', endpoint.id, changed);
    await tracker.ready(endpoint, {
      hostIfname: result.link.hostIfname,
      hostIfindex: result.link.hostIfindex,
      ifname: made.name,
      mtu: result.link.mtu,
    });
    fault('endpoint.ready');
  }

  /** The driver's link, inside the namespace. A link whose inner end is in neither namespace belongs to a namespace that is lost: made anew. */
  async #link(
    endpoint: Endpoint,
    network: Network,
    namespace: Namespace,
  ): Promise<{ result: EndpointResult; link: Link | null; changed: string[] }> {
    const { kernel, drivers } = this.#context;
    const driver = drivers.get(network.spec.driver);
    const changed: string[] = [];
    for (const last of [false, true]) {
      const result = await driver.createEndpoint(driverNetwork(network), endpointForDriver(endpoint), namespace.path);
      changed.push(...(result.changed ?? []));
      fault('endpoint.link');
      if (!result.link) return { result, link: null, changed };
      const inside = namespace.netlink.link(result.link.ifindex);
      if (inside?.mac === endpoint.spec.mac) return { result, link: inside, changed };
      const outside = kernel.host.netlink.link(result.link.ifname);
      if (outside) {
        kernel.host.netlink.setLink(outside.ifindex, { netnsFd: namespace.fd });
        fault('endpoint.moved');
        return { result, link: namespace.netlink.link(result.link.ifname), changed };
      }
      if (last) break;
      await driver.deleteEndpoint(network.id, endpoint.id);
    }
    throw new SluiceError(
      'driver.failed',
      `driver ${driver.name} reports a link for endpoint ${endpoint.name} that is neither on the host nor in the sandbox`,
      { endpoint: endpoint.id },
    );
  }

  /** `direct`: its frames may take the shortcut past the bridge. */
  async #guard(
    endpoint: Endpoint,
    network: Network,
    { hostIfindex, hostQueued: queued }: NonNullable<EndpointResult['link']>,
    direct: boolean,
  ): Promise<void> {
    if (hostIfindex === undefined) return;
    const { dataplane, desired, tracker } = this.#context;
    dataplane.ensureEndpoint({
      id: endpoint.id,
      number: await desired.numbers.allocate('attachment', endpoint.id),
      hostIfindex,
      mac: endpoint.spec.mac,
      addresses: endpoint.spec.addresses.map((address) => address.split('/')[0]!),
      allow: endpoint.spec.allow,
      spoof: network.spec.options.spoof === 'allow',
      tunnel: direct ? tracker.detail<TunnelDetail>('network', network.id).tunnel?.ifindex : undefined,
      queued,
    });
  }

  /**
   * The shortcut to it, last: what came by it while the bridge did not forward for it yet would be answered with a question for a neighbour
   * that the bridge drops, and the kernel asks again only after a second.
   */
  async #open(endpoint: Endpoint, network: Network, link: NonNullable<EndpointResult['link']>): Promise<void> {
    const { kernel, logger, tracker } = this.#context;
    if (link.hostIfindex === undefined || !tracker.detail<TunnelDetail>('network', network.id).tunnel) return;
    try {
      kernel.host.netlink.setLink(link.hostIfindex, { port: { forwarding: true } });
    } catch (error) {
      if (!isSluiceError(error) || error.details.name !== 'ENETDOWN') throw error;
      logger.warn({ endpoint: endpoint.id, err: error.message }, 'the bridge serves it until the next audit');
      return;
    }
    await this.#guard(endpoint, network, link, true);
  }

  /** The sandbox's default routes, chosen among all its endpoints. */
  #routes(sandbox: Sandbox, namespace: Namespace): string[] {
    if (namespace === this.#context.kernel.host) return [];
    const { world } = this.#context;
    const live = world.endpointsOfSandbox(sandbox.id).filter(({ removing, spec }) => !removing && !spec.contested);
    const candidates = live.flatMap((endpoint) => {
      const join = this.#joins.get(endpoint.id);
      const network = world.networks.get(endpoint.spec.network);
      return join && network ? [{ ...join, network: network.name, priority: endpoint.spec.gwPriority }] : [];
    });
    return syncDefaultRoutes(namespace, planRoutes(candidates), sandbox.spec.origin === 'attached');
  }

  /** Its address is another's: nothing of it may answer to that. The record stays, so that people see what happened. */
  async #giveUp(endpoint: Endpoint, { address, by }: Contest): Promise<void> {
    if (this.#down.has(endpoint.id)) return;
    const message = `${address} was given twice, and ${by} has it longer: this endpoint is down until its sandbox is connected anew`;
    // First: who names it or balances over it lets go because of that.
    await this.#context.tracker.refused(endpoint, { code: 'address.contested', message }, {});
    await this.#takeDown(endpoint);
    this.#down.add(endpoint.id);
  }

  async #remove(endpoint: Endpoint): Promise<void> {
    const { desired, tracker } = this.#context;
    await this.#takeDown(endpoint);
    this.#down.delete(endpoint.id);
    await desired.numbers.releaseWith('attachment', endpoint.id, (ops) => desired.endpoints.forget(endpoint, ops));
    tracker.forget('endpoint', endpoint.id);
  }

  async #takeDown(endpoint: Endpoint): Promise<void> {
    const { world, drivers, dataplane, tracker } = this.#context;
    const network = world.networks.get(endpoint.spec.network);
    const sandbox = world.sandboxes.get(endpoint.spec.sandbox);
    const joined = this.#joins.get(endpoint.id)?.joined;
    this.#joins.delete(endpoint.id);
    await this.#withdraw(endpoint);
    const namespace = this.#spaces.get(endpoint.spec.sandbox);
    // Whoever still runs in the sandbox must not send from an address that is about to be somebody else's.
    const { ifname } = tracker.detail<EndpointDetail>('endpoint', endpoint.id);
    if (namespace) withdrawInside(namespace, endpoint, { ifname, joined });
    if (namespace && sandbox && !sandbox.removing) this.#routes(sandbox, namespace);
    fault('endpoint.withdrawn');
    if (network) {
      const driver = drivers.get(network.spec.driver);
      await driver.leave(driverNetwork(network), endpointForDriver(endpoint));
      await driver.deleteEndpoint(network.id, endpoint.id);
    }
    fault('endpoint.unlinked');
    // The guard stays until the link is gone: an unknown sender is dropped, an unguarded one would not be.
    dataplane.removeEndpoint(endpoint.id);
  }
}

const endpointForDriver = (endpoint: Endpoint) => ({
  id: endpoint.id,
  mac: endpoint.spec.mac,
  addresses: endpoint.spec.addresses,
});
