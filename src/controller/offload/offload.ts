/**
 * Whether what this host sends through VXLAN arrives with right checksums. A network card that is asked to finish the inner checksum of such a packet and
 * gets it wrong shows as connections that hang for a minute, while pings pass (flannel#1279, calico#3145, k3s#2013). So each host that takes part in a
 * network across hosts has a device of its own for a test (device.ts), and connects by it to the hosts with which it shares a network, whose kernels
 * refuse (firewall/vxlan.ts). The device makes checksums in software. Who refuses like that is asked with the offload on, and, when nothing is heard,
 * with it off again: who is heard then, twice over, is not reached with checksums of the card, and the offload goes off on the networks' devices.
 *
 * The answers have checksums made in software, whatever the other host's state: what is found is this host's way out alone. Who does not answer at all
 * (an older daemon, a way that is cut) is no finding. A finding lives as long as the device: over restarts of the daemon, not of the host.
 */
import type { Timer } from '../../clock.ts';
import type { NetworkResult, Underlay } from '../../contracts/driver.ts';
import type { RefusalProber } from '../../contracts/prober.ts';
import { SluiceError, toSluiceError } from '../../errors.ts';
import { familyOf } from '../../model/ip.ts';
import { PROBE_VNI } from '../../model/network.ts';
import type { Node } from '../../model/node.ts';
import type { Context } from '../context.ts';
import type { TunnelDetail } from '../peer/peer.ts';
import { troubleOf } from '../tracker.ts';
import { keepOff, ProbeDevice } from './device.ts';
import { describeSpoilt, judge, PROBE_PORT, probeAddress } from './plan.ts';

/** How often it is looked who is due, milliseconds. */
const LOOK_MS = 2_000;
/** Between two tests of a node that answers, or that did not for long. */
const EVERY_MS = 30_000;
/** Looks at a node that has not answered yet, before it is asked as seldom as others: its device may be a moment away. */
const EAGER = 15;
/** Of one attempt to connect: a second one of the kernel's own would come after a second. */
const ANSWER_MS = 500;
/** Attempts before it is said that nothing is heard: one may be lost by chance. */
const TRIES = 3;
/** How often it must be seen that the offload makes the difference. */
const ROUNDS = 2;
/** Nodes asked at once. */
const AT_ONCE = 16;

type Parts = Pick<Context, 'instance' | 'node' | 'kernel' | 'world' | 'tracker' | 'clock' | 'logger'>;

interface Place {
  readonly ifindex: number;
  readonly address: string;
  readonly port: number;
}

export class OffloadController {
  readonly #context: Parts;
  readonly #prober: RefusalProber;
  readonly #device: ProbeDevice;
  /** When each node is asked next (monotonic), and how often it has not answered. */
  readonly #due = new Map<string, { readonly at: number; readonly silent: number }>();
  #place: Place | undefined;
  /** What the device was last pointed at. */
  #wanted = '';
  #timer: Timer | undefined;
  #working: Promise<void> | undefined;
  #stopped = false;

  constructor(context: Parts, prober: RefusalProber) {
    [this.#context, this.#prober] = [context, prober];
    this.#device = new ProbeDevice(context.kernel.host, context.instance);
  }

  /** Keeps the device while this host takes part in a network across hosts and there are others; the networks do without it. */
  async ensure({ address, port }: Underlay, ends: readonly string[]): Promise<void> {
    // No packet of ours gets to the others.
    const vteps = [...new Set(ends)].filter((vtep) => familyOf(vtep) === familyOf(address)).sort();
    if (vteps.length === 0) return this.remove();
    const { tracker, node, kernel } = this.#context;
    try {
      this.#checkVni();
      const { ifindex, fresh, changed } = this.#device.ensure({ address, port }, vteps);
      if (!this.#working) keepOff(kernel.host.netlink, ifindex);
      const wanted = JSON.stringify([address, port, vteps]);
      const again = this.#wanted === wanted;
      this.#wanted = wanted;
      this.#place = { ifindex, address, port };
      if (fresh) await this.#forget();
      if (again) await tracker.repaired('node', node, changed);
    } catch (error) {
      await this.#untested(toSluiceError(error).message);
      return;
    }
    await tracker.condition('node', node, 'ChecksumUntested', false, '');
    if (!this.#timer && !this.#working && !this.finding) this.#next(0);
  }

  /** This host takes part in none any more. */
  async remove(): Promise<void> {
    const { tracker, node } = this.#context;
    this.#end();
    this.#device.remove();
    await this.#forget();
    await tracker.condition('node', node, 'ChecksumUntested', false, '');
  }

  /** What an earlier life left, said in words. */
  async prune(): Promise<string[]> {
    if (this.#context.world.joined().length > 0) return [];
    const removed = this.#device.remove();
    await this.remove();
    return removed ? [`device ${this.#device.name}, by which nobody is reached`] : [];
  }

  /** What the network's device is otherwise than what was found asks for, put right and said, in words. */
  async settle(networkId: string, tunnel: NetworkResult['tunnel']): Promise<string[]> {
    const { kernel, tracker } = this.#context;
    const { finding } = this;
    const name = finding && tunnel ? (kernel.host.netlink.link(tunnel.ifindex)?.name ?? '') : '';
    const off = finding !== undefined && tunnel !== undefined && keepOff(kernel.host.netlink, tunnel.ifindex);
    await tracker.condition('network', networkId, 'ChecksumOffload', name !== '', name && `${finding} (here: ${name})`);
    return off ? [`tx checksum offload of ${name} switched off`] : [];
  }

  /** What was found, in words. */
  get finding(): string | undefined {
    const { tracker, node } = this.#context;
    return troubleOf(tracker, 'node', node, 'ChecksumOffload');
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#end();
    await this.#working;
  }

  /** Asks whoever is due. */
  async test(): Promise<void> {
    const due = this.#dueNodes();
    if (due.length === 0) return;
    const vtepOf = new Map(due.map(({ name, spec }) => [name, spec.vtep!]));
    const answering = await this.#ask([...vtepOf.keys()], vtepOf);
    const now = this.#context.clock.monotonic();
    for (const name of vtepOf.keys()) {
      const silent = answering.has(name) ? 0 : (this.#due.get(name)?.silent ?? 0) + 1;
      this.#due.set(name, { at: now + (silent > 0 && silent < EAGER ? 0 : EVERY_MS), silent });
    }
    let spoilt = [...answering];
    for (let round = 0; round < ROUNDS && spoilt.length > 0; round++) spoilt = await this.#compare(spoilt, vtepOf);
    if (spoilt.length > 0 && this.#place) await this.#found(spoilt.map((name) => `${name} (${vtepOf.get(name)})`));
  }

  /** Those who are heard with checksums made in software alone. */
  async #compare(nodes: readonly string[], vtepOf: ReadonlyMap<string, string>): Promise<string[]> {
    const { kernel, logger } = this.#context;
    const { netlink } = kernel.host;
    const place = this.#place;
    if (!place) return [];
    let heard: ReadonlySet<string>;
    try {
      netlink.setTxChecksum(place.ifindex, true);
      heard = await this.#ask(nodes, vtepOf);
    } finally {
      // It may have gone meanwhile.
      if (netlink.link(place.ifindex)) keepOff(netlink, place.ifindex);
    }
    const lost = nodes.filter((node) => !heard.has(node));
    if (lost.length === 0) return [];
    const { spoilt, doubtful } = judge(nodes, heard, await this.#ask(lost, vtepOf));
    if (doubtful.length > 0)
      logger.info(
        { nodes: doubtful },
        'not heard through the overlay with tx checksum offload on, nor with it off again: nothing is switched off',
      );
    return spoilt;
  }

  /** Those who refuse. */
  async #ask(nodes: readonly string[], vtepOf: ReadonlyMap<string, string>): Promise<Set<string>> {
    const refusing = new Set<string>();
    const place = this.#place;
    for (let at = 0; place && at < nodes.length; at += AT_ONCE) {
      await Promise.all(
        nodes.slice(at, at + AT_ONCE).map(async (node) => {
          const [from, to] = [place.address, vtepOf.get(node)!].map((vtep) => probeAddress(vtep, place.port));
          for (let tries = 0; tries < TRIES && this.#place && !refusing.has(node); tries++)
            if (await this.#prober.refused(from!, to!, PROBE_PORT, ANSWER_MS)) refusing.add(node);
        }),
      );
    }
    // What was asked of a device that has gone says nothing.
    return this.#place?.ifindex === place?.ifindex ? refusing : new Set();
  }

  /** Nodes with which this one shares a network, and which are due. */
  #dueNodes(): Node[] {
    const { world, clock, node } = this.#context;
    const now = clock.monotonic();
    const owners = new Set<string | null>();
    for (const id of world.joined()) for (const { owner } of world.peersOfNetwork(id).values()) owners.add(owner);
    for (const name of [...this.#due.keys()]) if (!owners.has(name)) this.#due.delete(name);
    return [...world.nodes.values()].filter(
      ({ name, spec }) =>
        name !== node && spec.vtep !== undefined && owners.has(name) && (this.#due.get(name)?.at ?? 0) <= now,
    );
  }

  async #found(nodes: readonly string[]): Promise<void> {
    const { world, tracker, node, logger } = this.#context;
    const message = describeSpoilt(nodes, this.#device.name, "the VXLAN devices of this host's overlay networks");
    logger.warn({ nodes }, message);
    const told = tracker.condition('node', node, 'ChecksumOffload', true, message);
    // What is found is so as soon as it is said, wherever that is written to.
    const settled = world.joined().map((id) => this.settle(id, tracker.detail<TunnelDetail>('network', id).tunnel));
    await Promise.all([told, ...settled]);
  }

  /** What was found through an earlier device: it is tested anew, with the offload on. */
  async #forget(): Promise<void> {
    const { world, tracker, node, kernel } = this.#context;
    this.#due.clear();
    if (this.finding === undefined) return;
    await tracker.condition('node', node, 'ChecksumOffload', false, '');
    const { netlink } = kernel.host;
    for (const id of world.joined()) {
      const { tunnel } = tracker.detail<TunnelDetail>('network', id);
      if (tunnel && netlink.link(tunnel.ifindex)) netlink.setTxChecksum(tunnel.ifindex, true);
      await tracker.condition('network', id, 'ChecksumOffload', false, '');
    }
  }

  /** A network of the time before the VNI was kept back may have it. */
  #checkVni(): void {
    const { networks } = this.#context.world;
    const holder = [...networks.values()].find(({ spec }) => spec.vni === PROBE_VNI);
    if (!holder) return;
    this.#end();
    this.#device.remove();
    throw new SluiceError('network.vni', `VNI ${PROBE_VNI}, which is for the test, belongs to network ${holder.name}`);
  }

  async #untested(why: string): Promise<void> {
    const { tracker, node, logger } = this.#context;
    this.#end();
    const message = `whether checksums of VXLAN packets arrive as they were meant is not tested: ${why}`;
    if (troubleOf(tracker, 'node', node, 'ChecksumUntested') !== message) logger.warn(message);
    await tracker.condition('node', node, 'ChecksumUntested', true, message);
  }

  #end(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#place = undefined;
    this.#wanted = '';
  }

  #next(ms: number): void {
    if (this.#stopped || !this.#place) return;
    this.#timer = this.#context.clock.after(ms, () => {
      this.#timer = undefined;
      this.#working = this.test()
        .catch((error) =>
          this.#context.logger.warn({ err: toSluiceError(error).message }, 'checksums could not be tested'),
        )
        .finally(() => {
          this.#working = undefined;
          // While something is found, there is nothing to find.
          if (!this.finding) this.#next(LOOK_MS);
        });
    });
  }
}
