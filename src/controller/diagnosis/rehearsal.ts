/**
 * A namespace in which everything can be looked at and nothing is done: what would be changed is noted instead. Drivers and controllers bring the
 * kernel to its state by verbs that compare first; played through here they say what differs, so that nobody has to know twice how it must be.
 * A link that would have to be made is pretended: what would be done to it follows from its absence and is not noted.
 */
import type {
  BridgeOptions,
  Kernel,
  Link,
  LinkChange,
  Namespace,
  Netlink,
  VethOptions,
  VxlanOptions,
} from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import { canonicalAddress } from '../../model/ip.ts';
import { settingOf } from '../firewall/setting.ts';

const NUD_PERMANENT = 0x80;
const RT_TABLE_MAIN = 254;
/** What tells one port of a bridge from another, as `bridge link set` calls it. */
const PORT_FLAGS = {
  learning: 'learning',
  neighSuppress: 'neigh_suppress',
  isolated: 'isolated',
  hairpin: 'hairpin',
  unicastFlood: 'flood',
} as const;

/** Notes of one look at one object. */
export class Rehearsal {
  readonly differences: Difference[] = [];

  /** The kernel for a driver, its host's namespace rehearsed. What has no part in links is refused. */
  kernel(kernel: Kernel): Kernel {
    const host = this.namespace(kernel.host);
    const refuse = (what: string) => () => {
      throw new SluiceError('internal', `${what} has no rehearsal`);
    };
    return {
      host,
      namespaces: {
        host,
        ensure: refuse('to make a namespace'),
        open: (path) => kernel.namespaces.open(path),
        remove: refuse('to remove a namespace'),
        exists: (path) => kernel.namespaces.exists(path),
      },
      cgroups: kernel.cgroups,
      sockets: kernel.sockets,
      conntrack: { remove: refuse('to forget connections') },
      ports: { hold: refuse('to hold a port') },
      get features() {
        return kernel.features;
      },
      nft: refuse('nft'),
      monitor: refuse('a monitor'),
      ensureBpffs: refuse('to mount a bpffs'),
      peer: (fd) => kernel.peer(fd),
      [Symbol.dispose]: () => undefined,
    };
  }

  /** `enter`: what a person types before a command to be inside, `nsenter --net=/run/… `. */
  namespace(real: Namespace, enter = ''): Namespace {
    return {
      fd: real.fd,
      path: real.path,
      cookie: real.cookie,
      identity: real.identity,
      netlink: new RehearsedNetlink(real.netlink, this.differences, enter),
      run: (fn) => real.run(fn),
      getSysctl: (name) => real.getSysctl(name),
      setSysctl: (name, want) => {
        const have = settingOf(real, name);
        if (have !== null && have !== want)
          this.differences.push({ what: `setting ${name}`, want, have, command: `${enter}sysctl -w ${name}=${want}` });
      },
      [Symbol.dispose]: () => undefined,
    };
  }
}

class RehearsedNetlink implements Netlink {
  readonly #real: Netlink;
  readonly #differences: Difference[];
  readonly #enter: string;
  /** By name. Their ifindex is negative. */
  readonly #pretended = new Map<string, Link>();

  constructor(real: Netlink, differences: Difference[], enter: string) {
    [this.#real, this.#differences, this.#enter] = [real, differences, enter];
  }

  links = (): Link[] => this.#real.links();

  link = (which: string | number): Link | null => {
    const pretended = [...this.#pretended.values()].find(({ name, ifindex }) => which === name || which === ifindex);
    if (pretended) return pretended;
    return typeof which === 'number' && which <= 0 ? null : this.#real.link(which);
  };

  ensureBridge = (name: string, { mac, mtu, alias }: BridgeOptions): Link => {
    const link = this.#of(name, 'bridge') ?? this.#pretend(name, { kind: 'bridge', mac, mtu, alias, up: true });
    this.#settle(link, { alias, mtu, mac: mac.toLowerCase(), up: true });
    return link;
  };

  ensureVeth = (name: string, { mac, mtu, alias, group }: VethOptions): Link => {
    const link = this.#of(name, 'veth') ?? this.#pretend(name, { kind: 'veth', mac, mtu, alias });
    this.#settle(link, { alias, mtu, mac: mac?.toLowerCase(), group });
    return link;
  };

  ensureVxlan = (name: string, options: VxlanOptions): Link => {
    const { vni, port, mtu, alias, ttl = 0, df = 'unset' } = options;
    const mac = options.mac.toLowerCase();
    const local = canonicalAddress(options.local);
    const vxlan = { vni, port, local, learning: false, ttl, df };
    const link = this.#of(name, 'vxlan') ?? this.#pretend(name, { kind: 'vxlan', mac, mtu, alias, vxlan });
    for (const key of Object.keys(vxlan) as (keyof typeof vxlan)[])
      this.#compare(`${key} of ${name}`, vxlan[key], link.vxlan?.[key], `ip -d link show ${name}`);
    this.#settle(link, { alias, mtu, mac });
    return link;
  };

  setLink = (ifindex: number, change: LinkChange): void => {
    const link = this.link(ifindex);
    if (link) this.#settle(link, change);
  };

  removeLink = (ifindex: number): void => {
    const link = this.link(ifindex);
    if (link) this.#note({ what: `link ${link.name}`, have: 'there', command: `ip link del ${link.name}` });
  };

  removeLinks = async (links: readonly number[]): Promise<void> => {
    for (const link of links) this.removeLink(link);
  };

  txChecksum = (link: number): boolean => link > 0 && this.#real.txChecksum(link);

  setTxChecksum = (link: number, on: boolean): void => {
    if (link < 0) return;
    const state = (isOn: boolean): string => (isOn ? 'on' : 'off');
    const name = this.#nameOf(link);
    const command = `ethtool -K ${name} tx ${state(on)}`;
    this.#compare(`tx checksum offload of ${name}`, state(on), state(this.#real.txChecksum(link)), command);
  };

  addresses = (link?: number) => (link !== undefined && link < 0 ? [] : this.#real.addresses(link));

  ensureAddress = (link: number, cidr: string): void => {
    if (link < 0 || this.#real.addresses(link).some((address) => address.cidr === cidr)) return;
    const name = this.#nameOf(link);
    this.#note({ what: `address ${cidr} of ${name}`, want: 'there', command: `ip addr add ${cidr} dev ${name}` });
  };

  removeAddress = (link: number, cidr: string): void => {
    const name = this.#nameOf(link);
    this.#note({ what: `address ${cidr} of ${name}`, have: 'there', command: `ip addr del ${cidr} dev ${name}` });
  };

  routes = (table?: number) => this.#real.routes(table);

  ensureRoute: Netlink['ensureRoute'] = ({ dst, via, link, table = RT_TABLE_MAIN }) => {
    if (link !== undefined && link < 0) return;
    const there = this.#real
      .routes(table)
      .some((route) => route.dst === dst && route.via === via && (link === undefined || route.ifindex === link));
    if (!there) this.#note({ ...this.#route('replace', { dst, via, link, table }), want: 'there' });
  };

  removeRoute: Netlink['removeRoute'] = (route) =>
    this.#note({ ...this.#route('del', { table: RT_TABLE_MAIN, ...route }), have: 'there' });

  rules = () => this.#real.rules();

  ensureRule: Netlink['ensureRule'] = (rule) => {
    const { family, mark, mask, table, priority } = rule;
    const there = this.#real
      .rules()
      .some((other) => (Object.keys(rule) as (keyof typeof rule)[]).every((key) => other[key] === rule[key]));
    const words = `fwmark 0x${mark.toString(16)}/0x${mask.toString(16)} table ${table} priority ${priority}`;
    if (!there) this.#note({ what: `rule ${words}`, want: 'there', command: `ip -${family} rule add ${words}` });
    return !there;
  };

  removeRule: Netlink['removeRule'] = ({ family, table }) =>
    this.#note({ what: `rule for table ${table}`, have: 'there', command: `ip -${family} rule del table ${table}` });

  neighbours = (link?: number) => (link !== undefined && link < 0 ? [] : this.#real.neighbours(link));

  ensureNeighbours: Netlink['ensureNeighbours'] = (entries) => {
    for (const { link, ip, mac } of entries) {
      if (link < 0) continue;
      const name = this.#nameOf(link);
      const there = this.#real.neighbours(link).find((one) => one.ip === ip && (one.state & NUD_PERMANENT) !== 0);
      const command = `ip neigh replace ${ip} lladdr ${mac} nud permanent dev ${name}`;
      this.#compare(`neighbour ${ip} on ${name}`, mac, there?.mac, command);
    }
  };

  removeNeighbours: Netlink['removeNeighbours'] = (entries) => {
    for (const { link, ip } of entries) {
      const name = this.#nameOf(link);
      this.#note({ what: `neighbour ${ip} on ${name}`, have: 'there', command: `ip neigh del ${ip} dev ${name}` });
    }
  };

  fdb = (link?: number) => (link !== undefined && link < 0 ? [] : this.#real.fdb(link));

  ensureFdb: Netlink['ensureFdb'] = (entries) => {
    for (const { link, mac, dst, table } of entries) {
      if (link < 0) continue;
      const name = this.#nameOf(link);
      const there = this.#real
        .fdb(link)
        .some((entry) => entry.mac === mac && entry.table === table && entry.dst === dst && !entry.permanent);
      const command = `bridge fdb replace ${mac} dev ${name}${dst ? ` dst ${dst}` : ''} ${table} static`;
      if (!there) this.#note({ what: `forwarding entry ${mac} of ${name}`, want: 'there', command });
    }
  };

  removeFdb: Netlink['removeFdb'] = (entries) => {
    for (const { link, mac, table } of entries) {
      const name = this.#nameOf(link);
      const command = `bridge fdb del ${mac} dev ${name} ${table}`;
      this.#note({ what: `forwarding entry ${mac} of ${name}`, have: 'there', command });
    }
  };

  [Symbol.dispose](): void {
    // The real one is not ours to close.
  }

  #of(name: string, kind: string): Link | null {
    const link = this.link(name);
    if (!link || link.kind === kind) return link;
    throw new SluiceError('kernel.exists', `add ${kind} ${name}: a ${link.kind} of that name is there`, { link: name });
  }

  #pretend(name: string, link: Partial<Link>): Link {
    const nothing = { mac: '', mtu: 0, up: false, master: 0, peer: 0, alias: '', group: 0, kind: '' };
    const pretended: Link = { ...nothing, ...link, name, ifindex: -1 - this.#pretended.size };
    this.#pretended.set(name, pretended);
    this.#note({ what: `${pretended.kind} ${name}`, want: 'there', command: `ip link show ${name}` });
    return pretended;
  }

  #settle(link: Link, { up, name, mac, mtu, master, alias, group, port }: LinkChange): void {
    const { ifindex, name: its } = link;
    if (ifindex < 0) return;
    const state = (isUp: boolean): string => (isUp ? 'up' : 'down');
    const set = (words: string): string => `ip link set ${its} ${words}`;
    if (up !== undefined) this.#compare(`link ${its}`, state(up), state(link.up), set(state(up)));
    if (name !== undefined) this.#compare(`name of ${its}`, name, its, set(`name ${name}`));
    if (mac !== undefined) this.#compare(`MAC of ${its}`, mac, link.mac, set(`address ${mac}`));
    if (mtu !== undefined) this.#compare(`MTU of ${its}`, mtu, link.mtu, set(`mtu ${mtu}`));
    if (alias !== undefined) this.#compare(`alias of ${its}`, alias, link.alias, set(`alias ${alias}`));
    if (group !== undefined) this.#compare(`group of ${its}`, group, link.group, set(`group ${group}`));
    if (master !== undefined) {
      const [want, have] = [this.#nameOf(master), link.master === 0 ? undefined : this.#nameOf(link.master)];
      this.#compare(`bridge that ${its} is a port of`, want, have, set(`master ${want}`));
    }
    for (const [key, value] of Object.entries(port ?? {})) {
      const flag = PORT_FLAGS[key as keyof typeof PORT_FLAGS];
      const on = (isOn: boolean | undefined): string => (isOn ? 'on' : 'off');
      const have = link.port?.[key as keyof typeof PORT_FLAGS];
      this.#compare(`${flag} of port ${its}`, on(value), on(have), `bridge link set dev ${its} ${flag} ${on(value)}`);
    }
  }

  #compare(
    what: string,
    want: string | number | boolean,
    have: string | number | boolean | undefined,
    command: string,
  ) {
    if (want !== have)
      this.#note({ what, want: String(want), have: have === undefined ? have : String(have), command });
  }

  #note({ command, ...difference }: Difference): void {
    this.#differences.push({ ...difference, command: command && `${this.#enter}${command}` });
  }

  #route(verb: string, { dst, via, link, table }: { dst: string; via?: string; link?: number; table: number }) {
    const by = `${dst}${via ? ` via ${via}` : ''}${link === undefined ? '' : ` dev ${this.#nameOf(link)}`}`;
    const where = table === RT_TABLE_MAIN ? '' : ` table ${table}`;
    return { what: `route ${by}${where}`, command: `ip${dst.includes(':') ? ' -6' : ''} route ${verb} ${by}${where}` };
  }

  #nameOf(ifindex: number): string {
    return this.link(ifindex)?.name ?? `interface ${ifindex}`;
  }
}
