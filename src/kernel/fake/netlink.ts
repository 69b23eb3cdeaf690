/** The fake's `Netlink`: the kernel's rules about links, addresses, routes, neighbours and forwarding entries, over the records of a space. */
import type {
  Address,
  FdbEntry,
  Link,
  LinkChange,
  MarkRule,
  Neighbour,
  Netlink,
  Route,
} from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import { canonicalAddress, familyOf, formatCidr, parseCidr } from '../../model/ip.ts';
import { kernelError } from '../libc.ts';
import { type FakeLink, isV6, type Space } from './space.ts';

const EEXIST = 17;
const ENODEV = 19;
const EINVAL = 22;
const EOPNOTSUPP = 95;
const ENETDOWN = 100;
const ENETUNREACH = 101;
const TABLE_MAIN = 254;
const METRIC6 = 1024;
const NUD_PERMANENT = 0x80;
const IFA_PERMANENT = 0x80;
const IFA_NODAD = 0x02;
const IFA_DEPRECATED = 0x20;
const ZERO_MAC = '00:00:00:00:00:00';

/** With its prefix length kept and its host bits too. */
function canonicalCidr(cidr: string): string {
  const { prefix } = parseCidr(cidr);
  return `${canonicalAddress(cidr.split('/')[0]!)}/${prefix}`;
}

const copy = ({ other: _, txChecksumOff: __, ...link }: FakeLink): Link => ({
  ...link,
  port: link.port && { ...link.port },
});

export class FakeNetlink implements Netlink {
  readonly #space: Space;

  constructor(space: Space) {
    this.#space = space;
  }

  links(): Link[] {
    this.#space.world.attempt('links');
    return [...this.#space.links.values()].map(copy);
  }

  link(which: string | number): Link | null {
    this.#space.world.attempt('link');
    const found = typeof which === 'number' ? this.#space.links.get(which) : this.#space.byName(which);
    return found ? copy(found) : null;
  }

  ensureBridge: Netlink['ensureBridge'] = (name, { mac, mtu, alias }) => {
    this.#space.world.attempt('ensureBridge');
    const link = this.#existing(name, 'bridge') ?? this.#space.insert({ name, kind: 'bridge', mac, mtu });
    this.setLink(link.ifindex, { mac, mtu, alias, up: true });
    return copy(link);
  };

  ensureVeth: Netlink['ensureVeth'] = (name, { mac, mtu, alias, group, peer }) => {
    this.#space.world.attempt('ensureVeth');
    const found = this.#existing(name, 'veth');
    if (found) {
      this.setLink(found.ifindex, { mac, mtu, alias, group });
      return copy(found);
    }
    const target =
      peer.netnsFd === undefined ? this.#space : this.#space.world.spaceOf(peer.netnsFd, `add veth ${name}`);
    if (target.byName(peer.name) || (target === this.#space && peer.name === name))
      throw kernelError(EEXIST, `add veth ${name}`, `peer ${peer.name} exists`);
    const far = target.insert({ name: peer.name, kind: 'veth', mac: peer.mac.toLowerCase(), mtu: peer.mtu });
    const near = this.#space.insert({ name, kind: 'veth', mac: mac ?? this.#space.world.nextMac(), mtu });
    near.other = { space: target, link: far };
    far.other = { space: this.#space, link: near };
    near.peer = far.ifindex;
    far.peer = near.ifindex;
    this.setLink(near.ifindex, { mac, alias, group });
    return copy(near);
  };

  ensureVxlan: Netlink['ensureVxlan'] = (name, options) => {
    this.#space.world.attempt('ensureVxlan');
    const { vni, port, mac, mtu, alias, ttl = 0, df = 'unset' } = options;
    const vxlan = { vni, port, local: canonicalAddress(options.local), learning: false, ttl, df };
    let link = this.#existing(name, 'vxlan');
    if (link && JSON.stringify(link.vxlan) !== JSON.stringify(vxlan)) {
      if (link.alias !== '' && link.alias !== alias)
        throw new SluiceError('kernel.exists', `add vxlan ${name}: another owner's has that name`, { link: name });
      this.#space.remove(link);
      link = undefined;
    }
    const rival = [...this.#space.links.values()].find(
      (other) => other !== link && other.vxlan?.vni === vni && other.vxlan.port === port,
    );
    if (rival) throw kernelError(EEXIST, `add vxlan ${name}`, 'A VXLAN device with the specified VNI already exists');
    link ??= this.#space.insert({ name, kind: 'vxlan', mac, mtu });
    link.vxlan = vxlan;
    this.setLink(link.ifindex, { mac, mtu, alias });
    return copy(link);
  };

  setLink(index: number, change: LinkChange): void {
    this.#space.world.attempt('setLink');
    const what = `change link ${index}`;
    const link = this.#must(index, what);
    const { name, master } = change;
    if (name !== undefined && this.#space.byName(name) && name !== link.name)
      throw kernelError(EEXIST, what, `a link named ${name} exists`);
    if (master && this.#must(master, what).kind !== 'bridge')
      throw kernelError(EOPNOTSUPP, what, `link ${master} takes no ports`);
    if (change.port && !(master || link.master)) throw kernelError(EOPNOTSUPP, what, 'it is no port of a bridge');
    const before = JSON.stringify(copy(link));
    if (name !== undefined) link.name = name;
    if (change.mac !== undefined) link.mac = change.mac.toLowerCase();
    if (change.mtu !== undefined) link.mtu = change.mtu;
    if (change.alias !== undefined) link.alias = change.alias;
    if (change.group !== undefined) link.group = change.group;
    if (master !== undefined && master !== link.master) {
      this.#space.freePort(link);
      link.master = master;
      if (master)
        link.port = { learning: true, neighSuppress: false, isolated: false, hairpin: false, unicastFlood: true };
    }
    if (change.port && link.port) {
      const { forwarding: _, ...flags } = change.port;
      link.port = { ...link.port, ...defined(flags) };
    }
    if (change.netnsFd !== undefined) this.#move(link, change.netnsFd, what);
    else if (change.up !== undefined) this.#space.setUp(link, change.up);
    // A change to what is so already is told to nobody.
    if (JSON.stringify(copy(link)) !== before) this.#space.emit('link', index);
  }

  removeLink(index: number): void {
    this.#space.world.attempt('removeLink');
    const link = this.#space.links.get(index);
    if (!link) return;
    if (link.kind === 'loopback') throw kernelError(EOPNOTSUPP, `delete link ${index}`);
    this.#space.remove(link);
  }

  async removeLinks(links: readonly number[]): Promise<void> {
    for (const link of links) this.removeLink(link);
  }

  txChecksum(link: number): boolean {
    this.#space.world.attempt('txChecksum');
    return !this.#must(link, `look up tx checksum offload of link ${link}`).txChecksumOff;
  }

  setTxChecksum(link: number, on: boolean): void {
    this.#space.world.attempt('setTxChecksum');
    const what = `switch tx checksum offload of link ${link} ${on ? 'on' : 'off'}`;
    const found = this.#must(link, what);
    if (found.kind === 'loopback') throw kernelError(EOPNOTSUPP, what);
    if (found.txChecksumOff === (on ? undefined : true)) return;
    found.txChecksumOff = on ? undefined : true;
    this.#space.emit('link', link);
  }

  addresses(link?: number): Address[] {
    this.#space.world.attempt('addresses');
    return this.#space.addresses.filter(({ ifindex }) => link === undefined || ifindex === link);
  }

  ensureAddress: Netlink['ensureAddress'] = (link, cidr, options = {}) => {
    this.#space.world.attempt('ensureAddress');
    this.#must(link, `set address ${cidr} on link ${link}`);
    const address = {
      ifindex: link,
      cidr: canonicalCidr(cidr),
      scope: 0,
      flags:
        IFA_PERMANENT |
        (options.nodad && isV6(cidr) ? IFA_NODAD : 0) |
        (options.deprecated && isV6(cidr) ? IFA_DEPRECATED : 0),
    };
    if (this.#space.addresses.some((one) => one.ifindex === link && one.cidr === address.cidr)) return;
    this.#space.addresses.push(address);
    this.#space.connect(address);
    this.#space.emit('address', link);
  };

  removeAddress(link: number, cidr: string): void {
    this.#space.world.attempt('removeAddress');
    const text = canonicalCidr(cidr);
    const found = this.#space.addresses.find((one) => one.ifindex === link && one.cidr === text);
    if (!found) return;
    this.#space.addresses = this.#space.addresses.filter((one) => one !== found);
    this.#space.disconnect(found);
    this.#space.emit('address', link, true);
  }

  routes(table?: number): Route[] {
    this.#space.world.attempt('routes');
    return this.#space.routes.filter((route) => table === undefined || route.table === table);
  }

  ensureRoute: Netlink['ensureRoute'] = (wanted) => {
    this.#space.world.attempt('ensureRoute');
    const what = `set route ${wanted.dst}${wanted.via ? ` via ${wanted.via}` : ''}`;
    const via = wanted.via && canonicalAddress(wanted.via);
    if (wanted.link) this.#must(wanted.link, what);
    const reach = via && !wanted.onlink ? this.#space.onLink(via, wanted.link) : wanted.link;
    if (reach === undefined) throw kernelError(via ? ENETUNREACH : ENODEV, what, 'Nexthop has invalid gateway');
    if (!this.#space.links.get(reach)?.up) throw kernelError(ENETDOWN, what, 'Nexthop device is not up');
    const dst = formatCidr(parseCidr(wanted.dst));
    const route: Route = {
      dst,
      via,
      ifindex: reach,
      table: wanted.table ?? TABLE_MAIN,
      metric: wanted.metric ?? (isV6(dst) ? METRIC6 : 0),
      type: 1,
      protocol: 4,
    };
    const same = (one: Route): boolean => one.dst === dst && one.table === route.table && one.metric === route.metric;
    if (this.#space.routes.some((one) => same(one) && one.via === via && one.ifindex === reach)) return;
    this.#space.routes = [...this.#space.routes.filter((one) => !same(one)), route];
    this.#space.emit('route', reach);
  };

  removeRoute: Netlink['removeRoute'] = ({ dst, via, link, table = TABLE_MAIN, metric }) => {
    this.#space.world.attempt('removeRoute');
    const text = formatCidr(parseCidr(dst));
    const found = this.#space.routes.find(
      (one) =>
        one.dst === text &&
        one.table === table &&
        (via === undefined || one.via === canonicalAddress(via)) &&
        (link === undefined || one.ifindex === link) &&
        (metric === undefined || one.metric === metric),
    );
    if (!found) return;
    this.#space.routes = this.#space.routes.filter((one) => one !== found);
    this.#space.emit('route', found.ifindex, true);
  };

  rules(): MarkRule[] {
    this.#space.world.attempt('rules');
    return this.#space.rules.map((rule) => ({ ...rule }));
  }

  ensureRule(rule: MarkRule): boolean {
    this.#space.world.attempt('ensureRule');
    if (this.#space.rules.some((there) => sameRule(there, rule))) return false;
    this.#space.rules.push({ ...rule });
    return true;
  }

  removeRule(rule: MarkRule): void {
    this.#space.world.attempt('removeRule');
    this.#space.rules = this.#space.rules.filter((there) => !sameRule(there, rule));
  }

  neighbours(link?: number): Neighbour[] {
    this.#space.world.attempt('neighbours');
    return this.#space.neighbours.filter(({ ifindex }) => link === undefined || ifindex === link);
  }

  ensureNeighbours: Netlink['ensureNeighbours'] = (entries) => {
    this.#space.world.attempt('ensureNeighbours');
    inTurn(entries, ({ link, ip, mac }) => {
      this.#must(link, `set neighbour ${ip} on link ${link}`);
      this.#dropNeighbour(link, ip);
      this.#space.neighbours.push({
        ifindex: link,
        ip: canonicalAddress(ip),
        mac: mac.toLowerCase(),
        state: NUD_PERMANENT,
      });
      this.#space.emit('neighbour', link);
    });
  };

  removeNeighbours: Netlink['removeNeighbours'] = (entries) => {
    this.#space.world.attempt('removeNeighbours');
    for (const { link, ip } of entries) if (this.#dropNeighbour(link, ip)) this.#space.emit('neighbour', link, true);
  };

  fdb(link?: number): FdbEntry[] {
    this.#space.world.attempt('fdb');
    const own = [...this.#space.links.values()]
      .filter(({ master }) => master !== 0)
      .map(({ ifindex, mac }): FdbEntry => ({ ifindex, mac, table: 'master', permanent: true }));
    return [...own, ...this.#space.fdb].filter(({ ifindex }) => link === undefined || ifindex === link);
  }

  ensureFdb: Netlink['ensureFdb'] = (entries) => {
    this.#space.world.attempt('ensureFdb');
    inTurn(entries, ({ link, mac, dst, table }) => {
      const what = `set forwarding entry ${mac} ${table} on link ${link}`;
      const { master, kind } = this.#must(link, what);
      if (table === 'master' && master === 0) throw kernelError(EOPNOTSUPP, what, 'it is no port of a bridge');
      if (table === 'self' && kind === 'vxlan' && dst === undefined) throw kernelError(EINVAL, what, 'no destination');
      const entry = {
        ifindex: link,
        mac: mac.toLowerCase(),
        dst: dst && canonicalAddress(dst),
        table,
        permanent: table === 'self',
      };
      // A bridge has one entry a MAC, whatever the port; a device one a MAC, but for the list under the all-zero one.
      const replaced = (one: FdbEntry): boolean =>
        one.mac === entry.mac &&
        one.table === table &&
        (table === 'master' ? this.#space.links.get(one.ifindex)?.master === master : one.ifindex === link) &&
        (entry.mac !== ZERO_MAC || one.dst === entry.dst);
      this.#space.fdb = [...this.#space.fdb.filter((one) => !replaced(one)), entry];
    });
  };

  removeFdb: Netlink['removeFdb'] = (entries) => {
    this.#space.world.attempt('removeFdb');
    for (const { link, mac, dst, table } of entries) {
      const gone = (one: FdbEntry): boolean =>
        one.ifindex === link &&
        one.mac === mac.toLowerCase() &&
        one.table === table &&
        (dst === undefined || one.dst === canonicalAddress(dst));
      this.#space.fdb = this.#space.fdb.filter((one) => !gone(one));
    }
  };

  [Symbol.dispose](): void {
    // Nothing is held: the next call is as good as the first.
  }

  #must(index: number, what: string): FakeLink {
    const link = this.#space.links.get(index);
    if (!link) throw kernelError(ENODEV, what);
    return link;
  }

  #existing(name: string, kind: string): FakeLink | undefined {
    const found = this.#space.byName(name);
    if (found && found.kind !== kind)
      throw kernelError(EEXIST, `add ${kind} ${name}`, `a ${found.kind} of that name exists`);
    return found;
  }

  #move(link: FakeLink, netnsFd: number, what: string): void {
    const target = this.#space.world.spaceOf(netnsFd, what);
    if (target === this.#space) return;
    if (target.byName(link.name)) throw kernelError(EEXIST, what, `a link named ${link.name} exists there`);
    this.#space.detach(link);
    target.attach(link);
  }

  #dropNeighbour(link: number, ip: string): boolean {
    const text = canonicalAddress(ip);
    const before = this.#space.neighbours.length;
    this.#space.neighbours = this.#space.neighbours.filter(
      (one) => one.ifindex !== link || one.ip !== text || familyOf(one.ip) !== familyOf(text),
    );
    return this.#space.neighbours.length < before;
  }
}

const sameRule = (a: MarkRule, b: MarkRule): boolean =>
  (['family', 'mark', 'mask', 'table', 'priority'] as const).every((key) => a[key] === b[key]);

/** All of them, whatever becomes of one; then the first refusal is thrown. */
function inTurn<T>(entries: readonly T[], fn: (entry: T) => void): void {
  const refused: unknown[] = [];
  for (const entry of entries) {
    try {
      fn(entry);
    } catch (error) {
      refused.push(error);
    }
  }
  if (refused.length > 0) throw refused[0];
}

function defined<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>;
}
