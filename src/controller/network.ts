/** Networks: the driver's part, the firewall's part, and what stands in their way. */
import { fault } from '../fault.ts';
import type { Network } from '../model/network.ts';
import { reportBlockers } from './audit.ts';
import { type Context, driverNetwork } from './context.ts';
import type { Firewall } from './firewall/firewall.ts';

export class NetworkController {
  readonly #context: Context;
  readonly #firewall: Firewall;

  constructor(context: Context, firewall: Firewall) {
    this.#context = context;
    this.#firewall = firewall;
  }

  async reconcile(id: string): Promise<void> {
    const network = this.#context.world.networks.get(id);
    if (!network) return;
    if (network.removing) await this.#remove(network);
    else await this.#ensure(network);
  }

  async #ensure(network: Network): Promise<void> {
    const { drivers, tracker } = this.#context;
    const wasReady = tracker.isReady('network', network.id);
    const result = await drivers.get(network.spec.driver).createNetwork(driverNetwork(network));
    fault('network.driver');
    if (result.routed) this.#firewall.route(network.spec);
    if (result.routed) {
      await this.#firewall.ensure(network.id, {
        ifname: result.ifname,
        internal: network.spec.internal,
        masquerade: network.spec.options.masquerade !== 'false',
        subnets: network.spec.subnets,
      });
    }
    fault('network.policy');
    // Before it is ready, so that whoever made it is told; from then on the audit looks.
    if (result.ifname && !wasReady)
      await reportBlockers(tracker, network.id, this.#firewall.foreignDrops()(result.ifname));
    if (wasReady) await tracker.repaired('network', network.id, result.changed ?? []);
    await tracker.ready(network, { ifname: result.ifname, ifindex: result.ifindex, mtu: result.mtu });
  }

  async #remove(network: Network): Promise<void> {
    const { world, drivers, desired, tracker } = this.#context;
    // Its endpoints go first; the last one's end triggers this again.
    if (world.endpointsOfNetwork(network.id).length > 0) return;
    await drivers.get(network.spec.driver).deleteNetwork(network.id);
    await this.#firewall.remove(network.id);
    fault('network.removed');
    await desired.networks.forget(network);
    tracker.forget('network', network.id);
  }
}
