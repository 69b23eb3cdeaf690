/** Networks: the driver's part, the firewall's part, and what stands in their way. */
import type { NetworkDriver, NetworkResult, Underlay } from '../contracts/driver.ts';
import { SluiceError } from '../errors.ts';
import { fault } from '../fault.ts';
import { familyOf, overlaps, parseCidr } from '../model/ip.ts';
import { bridgeOf, NETWORK_SLOTS_MAX } from '../model/mark.ts';
import { mtuBudget, type Network } from '../model/network.ts';
import { reportBlockers, reportUnderlay } from './audit.ts';
import { type Context, driverNetwork } from './context.ts';
import type { Firewall } from './firewall/firewall.ts';
import { chooseSlot, ensurePath, removePath } from './firewall/path.ts';
import type { OffloadController } from './offload/offload.ts';
import type { TunnelDetail } from './peer/peer.ts';
import { reportVni } from './peer/vni.ts';
import { reportNameless } from './service/nameless.ts';

/** Options that, when false, leave all to the bridge. */
const OFF = [
  ['shortcut', '-o shortcut=false'],
  ['icc', '-o icc=false: the bridge keeps its ports apart'],
] as const;

const offBy = ({ spec }: Network): string | undefined => OFF.find(([key]) => spec.options[key] === 'false')?.[1];

const RT_TABLE_MAIN = 254;

export class NetworkController {
  readonly #context: Context;
  readonly #firewall: Firewall;
  readonly #underlay: () => Underlay;
  readonly #onTunnel: (networkId: string) => void;
  readonly #offload: OffloadController | undefined;

  /** `onTunnel`: a network that spans hosts has been set up here, anew, or taken down. */
  constructor(
    context: Context,
    firewall: Firewall,
    {
      underlay,
      onTunnel,
      offload,
    }: { underlay: () => Underlay; onTunnel: (networkId: string) => void; offload?: OffloadController },
  ) {
    this.#context = context;
    this.#firewall = firewall;
    this.#underlay = underlay;
    this.#onTunnel = onTunnel;
    this.#offload = offload;
  }

  async reconcile(id: string): Promise<void> {
    const network = this.#context.world.networks.get(id);
    if (!network) return;
    if (network.removing) return this.#remove(network);
    await reportNameless(this.#context, network);
    await reportVni(this.#context, network);
    await this.#ensure(network);
  }

  async #ensure(network: Network): Promise<void> {
    const { drivers, tracker, kernel } = this.#context;
    const driver = drivers.get(network.spec.driver);
    const isGlobal = network.spec.scope === 'global';
    if (isGlobal && !this.#takesPart(network)) {
      await this.#stayOut(network, driver);
      // An endpoint may have come while the devices went.
      if (!this.#takesPart(network)) return;
    }
    const before = tracker.detail<TunnelDetail>('network', network.id);
    const wasReady = tracker.isReady('network', network.id) && (!isGlobal || before.ifindex !== undefined);
    // Before the first device that listens on the port.
    if (isGlobal) await this.#guard();
    const result = await driver.createNetwork({
      ...driverNetwork(network),
      mtu: networkMtu(this.#context.world, this.#underlay, network, driver),
    });
    fault('network.driver');
    if (result.routed) this.#firewall.route(network.spec);
    const slot = isGlobal ? this.#slot(network, result) : undefined;
    const path = { slot: slot ?? 0, link: result.ifindex ?? 0, subnets: network.spec.subnets };
    const changed = [...(result.changed ?? []), ...(slot ? ensurePath(kernel.host.netlink, path) : [])];
    if (isGlobal) changed.push(...((await this.#offload?.settle(network.id, result.tunnel)) ?? []));
    if (result.routed) {
      await this.#firewall.ensure(network.id, {
        ifname: result.ifname,
        internal: network.spec.internal,
        masquerade: network.spec.options.masquerade !== 'false',
        subnets: network.spec.subnets,
        tunnelled: result.tunnel !== undefined,
        bridged: offBy(network) !== undefined,
        slot,
      });
    }
    fault('network.policy');
    // Before it is ready, so that whoever made it is told; from then on the audit looks.
    if (result.ifname && !wasReady)
      await reportBlockers(tracker, network.id, this.#firewall.foreignDrops()(result.ifname));
    if (wasReady) await tracker.repaired('network', network.id, changed);
    if (isGlobal) await this.#reportUnderlay(network, wasReady);
    const { ifname, ifindex, mtu, tunnel } = result;
    const shortcut = tunnel ? await this.#shortcut(network, tunnel.ifindex) : undefined;
    await tracker.ready(network, { ifname, ifindex, mtu, tunnel, slot, shortcut });
    if (isGlobal && !sameTunnel(before, result)) this.#onTunnel(network.id);
  }

  /** A host has a global network's devices while it has an endpoint on it, and not before. */
  #takesPart(network: Network): boolean {
    return this.#context.world.takesPart(network.id);
  }

  /** Frames between its endpoints go past the bridge unless somebody may want to see them there. */
  async #shortcut(network: Network, tunnel: number): Promise<string> {
    const { dataplane, desired } = this.#context;
    const { id } = network;
    const watcher = this.#firewall.watcherOf(id);
    const off = offBy(network) ?? (watcher && `chain ${watcher} sees bridged frames`);
    const number = await desired.numbers.allocate('attachment', id);
    dataplane.ensureSegment({ id, number, tunnel, direct: off === undefined });
    return off === undefined ? 'on' : `off: ${off}`;
  }

  /**
   * A way of its own, where a subnet is also something else's on this host. It stays, in the status, since what is marked goes on over a restart.
   * A network that goes without gets one later only when another without one comes to share a subnet: what goes out of it then ends in the middle.
   */
  #slot(network: Network, { ifindex }: NetworkResult): number | undefined {
    const { tracker, world, kernel } = this.#context;
    const detailOf = (id: string): TunnelDetail => tracker.detail<TunnelDetail>('network', id);
    const known = detailOf(network.id);
    if (known.slot !== undefined) return known.slot;
    const isNew = known.ifindex === undefined || known.ifindex !== ifindex;
    const others = [...world.networks.values()].filter(
      ({ id, spec }) =>
        id !== network.id &&
        (spec.scope !== 'global' || world.takesPart(id)) &&
        (isNew || detailOf(id).slot === undefined),
    );
    const routes = isNew ? kernel.host.netlink.routes(RT_TABLE_MAIN) : [];
    const taken = [
      ...others.flatMap(({ spec }) => spec.subnets.map(({ cidr }) => cidr)),
      ...routes.flatMap(({ dst, ifindex: link }) => (link === ifindex || dst.endsWith('/0') ? [] : [dst])),
    ].map((cidr) => parseCidr(cidr));
    if (!network.spec.subnets.some(({ cidr }) => taken.some((other) => overlaps(parseCidr(cidr), other))))
      return undefined;
    const ours = new Set([...world.networks.keys()].flatMap((id) => detailOf(id).slot ?? []));
    const slot = chooseSlot(kernel.host.netlink, ours);
    if (slot !== null) return slot;
    throw new SluiceError('network.underlay', `network ${network.name}: this host takes part in too many networks`, {
      network: network.id,
      max: NETWORK_SLOTS_MAX,
    });
  }

  async #stayOut(network: Network, driver: NetworkDriver): Promise<void> {
    const { tracker, kernel, dataplane } = this.#context;
    const { ifindex, slot } = tracker.detail<TunnelDetail>('network', network.id);
    dataplane.removeSegment(network.id);
    if (ifindex !== undefined) {
      await driver.deleteNetwork(network.id);
      await this.#firewall.remove(network.id);
      if (slot !== undefined) removePath(kernel.host.netlink, slot);
    }
    await this.#offload?.settle(network.id, undefined);
    await this.#guard();
    // Before it is ready, so that whoever made it is told; from then on the audit looks.
    const wasReady = tracker.isReady('network', network.id);
    if (!wasReady) await reportBlockers(tracker, network.id, this.#firewall.foreignDrops()(bridgeOf(network.id)));
    await this.#reportUnderlay(network, wasReady);
    await tracker.readyAside(network, {});
    if (ifindex !== undefined) this.#onTunnel(network.id);
  }

  /** Keeps strangers and sandboxes from the VXLAN port, for as long as something listens on it. */
  async #guard(): Promise<void> {
    const { world, node } = this.#context;
    if (world.joined().length === 0) {
      await this.#offload?.remove();
      // Somebody may have come meanwhile.
      if (world.joined().length === 0) this.#firewall.guardVxlan(null);
      return;
    }
    const vteps = [...world.nodes.values()].flatMap(({ name, spec }) =>
      name !== node && spec.vtep !== undefined ? [spec.vtep] : [],
    );
    const underlay = this.#underlay();
    this.#firewall.guardVxlan({ underlay, vteps });
    await this.#offload?.ensure(underlay, vteps);
  }

  /** Everybody's rules are gone through only for a network that is new here: that costs more than all the rest. */
  async #reportUnderlay(network: Network, wasReady: boolean): Promise<void> {
    const { world, tracker, node } = this.#context;
    const names = world.joined().map((id) => world.networks.get(id)?.name);
    await tracker.condition(
      'node',
      node,
      'Unencrypted',
      names.length > 0,
      names.length > 0 ? `networks cross hosts unencrypted: ${names.join(', ')}` : '',
    );
    if (!wasReady) await reportUnderlay(tracker, network.id, this.#firewall.underlayDrops());
  }

  async #remove(network: Network): Promise<void> {
    const { world, drivers, desired, tracker, kernel, dataplane } = this.#context;
    // Its endpoints go first; the last one's end triggers this again.
    if (world.endpointsOfNetwork(network.id).length > 0) return;
    dataplane.removeSegment(network.id);
    await drivers.get(network.spec.driver).deleteNetwork(network.id);
    await this.#firewall.remove(network.id);
    if (network.spec.scope === 'global') {
      const { slot } = tracker.detail<TunnelDetail>('network', network.id);
      if (slot !== undefined) removePath(kernel.host.netlink, slot);
      await this.#guard();
      this.#onTunnel(network.id);
      await desired.numbers.release('attachment', network.id);
    }
    fault('network.removed');
    await desired.networks.forget(network);
    tracker.forget('network', network.id);
  }
}

/** What every host can take: of packets that one host's links let pass and another's do not, nobody would hear. */
export function networkMtu(
  { nodes }: Pick<Context['world'], 'nodes'>,
  underlay: () => Underlay,
  { spec }: Network,
  driver: NetworkDriver,
): number | undefined {
  if (spec.scope !== 'global' || spec.mtu !== undefined) return spec.mtu;
  const { address, mtu } = underlay();
  const { ipv4, ipv6 } = driver.capabilities().overhead;
  const others = [...nodes.values()].flatMap((node) => node.spec.mtu ?? []);
  return mtuBudget(undefined, Math.min(mtu, ...others), familyOf(address) === 4 ? ipv4 : ipv6);
}

const sameTunnel = (before: TunnelDetail, { ifindex, mtu, tunnel }: NetworkResult): boolean =>
  before.ifindex === ifindex && before.mtu === mtu && JSON.stringify(before.tunnel) === JSON.stringify(tunnel);
