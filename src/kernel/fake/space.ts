/** Links, addresses, routes, neighbours and forwarding entries of one fake namespace, as records; what may be done to them is in netlink.ts. */
import type { Address, FdbEntry, Link, LinkEvent, MarkRule, Neighbour, Route } from '../../contracts/kernel.ts';
import { contains, formatCidr, parseCidr } from '../../model/ip.ts';
import { NftRuleset } from './nft.ts';
import type { World } from './world.ts';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export interface FakeLink extends Mutable<Link> {
  /** The other end of a veth, wherever it is. */
  other?: { space: Space; link: FakeLink };
  /** Checksums are made before a packet leaves it. */
  txChecksumOff?: true;
}

const MTU_LOOPBACK = 65_536;
const TABLE_MAIN = 254;
const PROTOCOL_KERNEL = 2;
const UNICAST = 1;
/** IP6_RT_PRIO_ADDRCONF: metric of connected IPv6 routes. */
const METRIC_CONNECTED6 = 256;

export const isV6 = (text: string): boolean => text.includes(':');

export class Space {
  readonly world: World;
  readonly identity: string;
  readonly cookie: bigint;
  readonly links = new Map<number, FakeLink>();
  readonly sysctls = new Map<string, string>();
  readonly nft = new NftRuleset();
  addresses: Address[] = [];
  routes: Route[] = [];
  neighbours: Neighbour[] = [];
  rules: MarkRule[] = [];
  fdb: FdbEntry[] = [];
  #indices = 0;
  /** Descriptors and mounts. */
  #holders = 0;

  constructor(world: World, identity: string, cookie: bigint) {
    this.world = world;
    this.identity = identity;
    this.cookie = cookie;
    const lo = this.insert({ name: 'lo', kind: 'loopback', mac: '00:00:00:00:00:00', mtu: MTU_LOOPBACK });
    lo.up = true;
    for (const [cidr, flags] of [
      ['127.0.0.1/8', 0x80],
      ['::1/128', 0x80],
    ] as const)
      this.addresses.push({ ifindex: lo.ifindex, cidr, scope: 254, flags });
  }

  emit(type: LinkEvent['type'], ifindex: number, removed = false): void {
    this.world.emit(this, { type, ifindex, removed });
  }

  byName(name: string): FakeLink | undefined {
    return [...this.links.values()].find((link) => link.name === name);
  }

  insert(fields: Pick<Link, 'name' | 'kind' | 'mac' | 'mtu'>): FakeLink {
    const link: FakeLink = { ...fields, ifindex: ++this.#indices, up: false, master: 0, peer: 0, alias: '', group: 0 };
    this.links.set(link.ifindex, link);
    this.emit('link', link.ifindex);
    return link;
  }

  /** Out of here, and whatever hung on it here; the other end of a veth stays. */
  detach(link: FakeLink): void {
    this.setUp(link, false);
    this.addresses = this.addresses.filter(({ ifindex }) => ifindex !== link.ifindex);
    for (const port of this.links.values()) if (port.master === link.ifindex) this.freePort(port);
    this.freePort(link);
    this.fdb = this.fdb.filter(({ ifindex }) => ifindex !== link.ifindex);
    this.links.delete(link.ifindex);
    this.emit('link', link.ifindex, true);
  }

  /** Into here from another namespace; keeps its number when that is free. */
  attach(link: FakeLink): void {
    if (this.links.has(link.ifindex)) link.ifindex = ++this.#indices;
    this.#indices = Math.max(this.#indices, link.ifindex);
    this.links.set(link.ifindex, link);
    if (link.other) {
      link.other.link.other = { space: this, link };
      link.other.link.peer = link.ifindex;
    }
    this.emit('link', link.ifindex);
  }

  remove(link: FakeLink): void {
    const { other } = link;
    link.other = undefined;
    this.detach(link);
    if (!other) return;
    other.link.other = undefined;
    other.space.remove(other.link);
  }

  freePort(port: FakeLink): void {
    this.fdb = this.fdb.filter(({ ifindex, table }) => ifindex !== port.ifindex || table !== 'master');
    port.master = 0;
    port.port = undefined;
  }

  setUp(link: FakeLink, up: boolean): void {
    if (link.up === up) return;
    link.up = up;
    if (up) {
      for (const address of this.addresses) if (address.ifindex === link.ifindex) this.connect(address);
    } else {
      this.routes = this.routes.filter(({ ifindex }) => ifindex !== link.ifindex);
      this.neighbours = this.neighbours.filter(({ ifindex }) => ifindex !== link.ifindex);
      this.addresses = this.addresses.filter(({ ifindex, cidr }) => ifindex !== link.ifindex || !isV6(cidr));
    }
    this.emit('link', link.ifindex);
  }

  /** The route that an address brings once its link is up. */
  connect({ ifindex, cidr }: Address): void {
    const dst = connectedOf(cidr);
    if (!this.links.get(ifindex)?.up || this.links.get(ifindex)?.kind === 'loopback') return;
    if (dst === null || this.routes.some((route) => route.dst === dst && route.ifindex === ifindex)) return;
    const metric = isV6(cidr) ? METRIC_CONNECTED6 : 0;
    this.routes.push({ dst, ifindex, table: TABLE_MAIN, metric, type: UNICAST, protocol: PROTOCOL_KERNEL });
    this.emit('route', ifindex);
  }

  disconnect({ ifindex, cidr }: Address): void {
    const dst = connectedOf(cidr);
    if (this.addresses.some((other) => other.ifindex === ifindex && connectedOf(other.cidr) === dst)) return;
    this.routes = this.routes.filter(
      (route) => route.dst !== dst || route.ifindex !== ifindex || route.protocol !== PROTOCOL_KERNEL,
    );
  }

  /** The link by which a gateway can be reached without another gateway. */
  onLink(via: string, link?: number): number | undefined {
    return this.routes.find(
      (route) =>
        route.via === undefined &&
        contains(parseCidr(route.dst), via) &&
        (link === undefined || route.ifindex === link),
    )?.ifindex;
  }

  hold(): void {
    this.#holders++;
  }

  /** A namespace ends with its last descriptor and its last mount, and takes its links along. */
  release(): void {
    if (--this.#holders > 0) return;
    for (const link of [...this.links.values()]) if (this.links.has(link.ifindex)) this.remove(link);
  }
}

/** `10.0.0.1/24` → `10.0.0.0/24`; null for a host's own IPv4 address alone, which is in the local table. */
function connectedOf(cidr: string): string | null {
  const { prefix, family, base } = parseCidr(cidr);
  if (family === 4 && prefix === 32) return null;
  return formatCidr({ family, base, prefix });
}
