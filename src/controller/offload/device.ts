/**
 * The device by which this host tests its checksums: one VXLAN device beside those of the networks, of a VNI that no network has, same UDP port and
 * address. What may come in by it, and who may send by it, says the guard of the VXLAN port. By hand, for each other node:
 *
 *     ip link add sxprobeINSTANCE address MAC mtu 1280 type vxlan id 16777215 dstport PORT local VTEP nolearning ttl 64
 *     ip addr add ADDRESS/64 dev sxprobeINSTANCE nodad preferred_lft 0; ethtool -K sxprobeINSTANCE tx off
 *     bridge fdb replace MAC dev sxprobeINSTANCE dst VTEP self static; ip neigh replace ADDRESS lladdr MAC nud permanent dev sxprobeINSTANCE
 */
import type { Underlay } from '../../contracts/driver.ts';
import type { Link, Namespace, Netlink } from '../../contracts/kernel.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import { probeMark, probeName } from '../../model/mark.ts';
import { PROBE_VNI } from '../../model/network.ts';
import { describeChanges, diffPeers, type PeerState, readPeers, ZERO_MAC } from '../peer/plan.ts';
import { PROBE_MTU, probeAddress, probeMac } from './plan.ts';

/** Of the outer packet, as of the networks' devices. */
const TTL = 64;
const IN6_ADDR_GEN_NONE = 1;

export interface Probe {
  readonly ifindex: number;
  /** It was not there before, or not like this. */
  readonly fresh: boolean;
  /** What was amiss, in words. */
  readonly changed: readonly string[];
}

/** Packets leave it with their checksums made. True: they did not before. */
export function keepOff(netlink: Pick<Netlink, 'txChecksum' | 'setTxChecksum'>, ifindex: number): boolean {
  try {
    if (!netlink.txChecksum(ifindex)) return false;
    netlink.setTxChecksum(ifindex, false);
    return true;
  } catch (error) {
    // A driver's device of another kind, which has no such choice.
    if (isSluiceError(error, 'kernel.missing')) return false;
    throw error;
  }
}

export class ProbeDevice {
  readonly name: string;
  readonly #alias: string;
  readonly #host: Namespace;

  constructor(host: Namespace, instance: string) {
    [this.#host, this.name, this.#alias] = [host, probeName(instance), probeMark(instance)];
  }

  /** As it must be towards those end points. `network.vni`: somebody else has the VNI. */
  ensure({ address: local, port }: Pick<Underlay, 'address' | 'port'>, vteps: readonly string[]): Probe {
    const { netlink } = this.#host;
    const found = netlink.link(this.name);
    if (found && found.alias !== '' && found.alias !== this.#alias)
      throw new SluiceError('kernel.exists', `link ${this.name} exists and is not ours (alias "${found.alias}")`);
    const link = this.#link(local, port);
    const fresh = link.ifindex !== found?.ifindex;
    const changed = fresh ? [`VXLAN device ${this.name} made`] : [];
    const cidr = `${probeAddress(local, port)}/64`;
    if (fresh) {
      this.#host.setSysctl(`net.ipv6.conf.${this.name}.accept_ra`, '0');
      // Whatever the host's default for new devices is.
      this.#host.setSysctl(`net.ipv6.conf.${this.name}.disable_ipv6`, '0');
    }
    if (!link.up) {
      // Before it is up, or it has a link-local address.
      netlink.setLink(link.ifindex, { addrGenMode: IN6_ADDR_GEN_NONE });
      netlink.setLink(link.ifindex, { up: true });
      if (!fresh) changed.push(`VXLAN device ${this.name} brought up`);
    }
    if (!netlink.addresses(link.ifindex).some((address) => address.cidr === cidr)) {
      // It must not become the source of anything else that the host sends.
      netlink.ensureAddress(link.ifindex, cidr, { nodad: true, deprecated: true });
      if (!fresh) changed.push(`address ${cidr} set on ${this.name}`);
    }
    return { ifindex: link.ifindex, fresh, changed: [...changed, ...this.#point(link.ifindex, port, vteps)] };
  }

  /** True: it was there. */
  remove(): boolean {
    const link = this.#host.netlink.link(this.name);
    if (link?.alias !== this.#alias) return false;
    this.#host.netlink.removeLink(link.ifindex);
    return true;
  }

  #link(local: string, port: number): Link {
    const { netlink } = this.#host;
    try {
      const mac = probeMac(local);
      return netlink.ensureVxlan(this.name, {
        ...{ vni: PROBE_VNI, port, local, mac },
        ...{ mtu: PROBE_MTU, alias: this.#alias, ttl: TTL },
      });
    } catch (error) {
      if (!isSluiceError(error, 'kernel.exists')) throw error;
      const other = netlink
        .links()
        .find(({ name, vxlan }) => vxlan?.vni === PROBE_VNI && vxlan.port === port && name !== this.name);
      const who = other
        ? `device ${other.name}${other.alias ? ` ("${other.alias}")` : ''} of this host has it`
        : 'a device that was made on this host and moved into another network namespace has it';
      throw new SluiceError(
        'network.vni',
        `VNI ${PROBE_VNI} on port ${port}, which is for the test, is taken: ${who}`,
        { vni: PROBE_VNI, port, device: other?.name },
        error,
      );
    }
  }

  /** Brings the tables by which it finds the others to exactly these; what was amiss. */
  #point(link: number, port: number, vteps: readonly string[]): string[] {
    const { netlink } = this.#host;
    const wanted: PeerState = {
      remote: new Map(vteps.map((vtep) => [probeMac(vtep), vtep])),
      neighbours: new Map(vteps.map((vtep) => [probeAddress(vtep, port), probeMac(vtep)])),
      behind: new Set(),
      flood: new Set(),
    };
    const changes = diffPeers(readPeers(netlink.fdb(link), netlink.neighbours(link)), wanted);
    const { remote, flood, neighbours } = changes;
    const self = { link, table: 'self' } as const;
    netlink.removeFdb([
      ...remote.remove.map((mac) => ({ ...self, mac })),
      ...flood.remove.map((dst) => ({ ...self, mac: ZERO_MAC, dst })),
    ]);
    netlink.removeNeighbours(neighbours.remove.map((ip) => ({ link, ip })));
    netlink.ensureFdb(remote.set.map(([mac, dst]) => ({ ...self, mac, dst })));
    netlink.ensureNeighbours(neighbours.set.map(([ip, mac]) => ({ link, ip, mac })));
    return describeChanges(changes);
  }
}
