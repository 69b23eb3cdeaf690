/**
 * Keeps our nft tables as `policy.ts` draws them, turns routing on, and looks who else drops what we forward. The table is
 * rewritten only when what should be differs from what was written, or the kernel's copy from what was read back then; both are
 * remembered in the run directory, so that a restart rewrites nothing that is right.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Underlay } from '../../contracts/driver.ts';
import type { Nft } from '../../contracts/kernel.ts';
import { isSluiceError } from '../../errors.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import { policyTable, vxlanTable } from '../../model/mark.ts';
import type { NetworkSpec } from '../../model/network.ts';
import { tableDifferences } from '../../model/nft/difference.ts';
import { digestTable } from '../../model/nft/digest.ts';
import type { Context } from '../context.ts';
import { syncDockerUser } from './docker.ts';
import { asksForState, type Blocker, findBlockers, seesFrames } from './forward.ts';
import { ADMIN_RULESET, ADMIN_TABLE, type PolicyNetwork, renderPolicy } from './policy.ts';
import { settingOf } from './setting.ts';
import { Guard, type VxlanGuard } from './vxlan.ts';

type Ruleset = readonly Record<string, unknown>[];

interface Written {
  readonly text: string;
  readonly digest: string;
}

const RT_TABLE_MAIN = 254;
const RTN_UNICAST = 1;

/** Ports of our bridges: veths and tunnels (src/kernel/port, plugins/overlay). */
const isPort = (name: string): boolean => /^s[vx][0-9a-f]{12}$/.test(name);
const isOurs = (table: string): boolean => table.startsWith('sluice-');

export class Firewall {
  readonly #context: Context;
  readonly #nft: Nft;
  readonly #networks = new Map<string, PolicyNetwork>();
  readonly #file: string;
  readonly #guard: Guard;
  /** By network that spans hosts: the chain of somebody else's that sees what stays within it. */
  #watchers: ReadonlyMap<string, string> = new Map();
  #vxlan: Omit<VxlanGuard, 'bridges'> | null = null;
  /** Nothing is written before every network known at start has reported: a half table would cut the others off. */
  #open = false;

  #rulesAtStart: Ruleset | undefined;
  readonly #manageDockerUser: boolean;
  readonly #underlay: () => Underlay;

  constructor(
    context: Context,
    { underlay, manageDockerUser = false }: { readonly underlay: () => Underlay; readonly manageDockerUser?: boolean },
  ) {
    this.#context = context;
    this.#underlay = underlay;
    this.#manageDockerUser = manageDockerUser;
    this.#nft = context.kernel.nft();
    this.#guard = new Guard(this.#nft, context.instance);
    this.#file = join(context.runDir, 'policy.json');
  }

  /** All networks that were there at start have been seen once. */
  async open(): Promise<void> {
    this.#open = true;
    this.#rulesAtStart = undefined;
    // What an earlier life with another setting left.
    syncDockerUser(this.#nft, this.#context.instance, this.#manageDockerUser);
    await this.sync();
  }

  async ensure(networkId: string, network: PolicyNetwork): Promise<void> {
    const known = this.#networks.get(networkId);
    this.#networks.set(networkId, network);
    if (JSON.stringify(known) === JSON.stringify(network)) return;
    if (this.#open) await this.sync();
    if (this.#open || !network.tunnelled) return;
    // A filter of somebody's is not gone past for the while until everything is known.
    this.#rulesAtStart ??= this.#rules();
    this.#watchers = this.#judged(this.#rulesAtStart).watchers;
  }

  async remove(networkId: string): Promise<void> {
    if (this.#networks.delete(networkId)) await this.sync();
  }

  /**
   * Who may send to the VXLAN port, before there is a device that listens on it; null: nobody listens. At start the table of an earlier life
   * stands until all networks are known.
   */
  guardVxlan(guard: Omit<VxlanGuard, 'bridges'> | null): void {
    this.#vxlan = guard;
    if (!this.#open && this.#guard.stands) return;
    this.#syncGuard();
  }

  /** Makes the host a router for the families of a network, once. */
  route(spec: Pick<NetworkSpec, 'ipv4' | 'ipv6'>): void {
    const { host } = this.#context.kernel;
    if (spec.ipv4 && host.getSysctl('net.ipv4.ip_forward') !== '1') host.setSysctl('net.ipv4.ip_forward', '1');
    if (spec.ipv6 && host.getSysctl('net.ipv6.conf.all.forwarding') !== '1') {
      // A router ignores router advertisements: interfaces that lived by them would lose their default route.
      for (const { name } of host.netlink.links()) {
        if (host.getSysctl(`net.ipv6.conf.${name}.accept_ra`) === '1')
          host.setSysctl(`net.ipv6.conf.${name}.accept_ra`, '2');
      }
      host.setSysctl('net.ipv6.conf.all.forwarding', '1');
    }
  }

  /** Writes the table when it must; returns what was found amiss. */
  async sync(): Promise<string[]> {
    if (!this.#open) return [];
    const { instance } = this.#context;
    const docker = this.#manageDockerUser ? syncDockerUser(this.#nft, instance, true) : [];
    return [...docker, ...this.#syncGuard(), ...this.#syncPolicy()];
  }

  #syncGuard(): string[] {
    if (!this.#vxlan) {
      this.#guard.remove();
      return [];
    }
    const bridges = [...this.#networks.values()].flatMap(({ ifname }) => (ifname ? [ifname] : []));
    return this.#guard.ensure({ ...this.#vxlan, bridges });
  }

  #syncPolicy(): string[] {
    const { instance } = this.#context;
    const table = `inet ${policyTable(instance)}`;
    if (!this.#nft.tables().includes(`inet ${ADMIN_TABLE}`)) this.#nft.apply(ADMIN_RULESET);
    const { networks, watchers } = this.#judged();
    this.#watchers = watchers;
    const text = renderPolicy(instance, networks);
    const written = this.#read();
    const present = this.#nft.list(`table ${table}`);
    if (written?.text === text && present && digestTable(present) === written.digest) return [];
    this.#nft.apply(text);
    const digest = digestTable(this.#nft.list(`table ${table}`) ?? []);
    writeFileSync(this.#file, JSON.stringify({ text, digest } satisfies Written));
    if (!written || written.text !== text) return [];
    return [
      present
        ? `nft table ${table} had been changed and was written anew`
        : `nft table ${table} had been removed and was written anew`,
    ];
  }

  /** Somebody else's chain that may drop, change or log what stays within a network that spans hosts; as of the last `sync`. */
  watcherOf(networkId: string): string | undefined {
    return this.#watchers.get(networkId);
  }

  /** The networks; of those that span hosts whether somebody else's rules want what stays within them tracked, or see it at all. */
  #judged(rules?: Ruleset): { readonly networks: PolicyNetwork[]; readonly watchers: ReadonlyMap<string, string> } {
    const watchers = new Map<string, string>();
    if (![...this.#networks.values()].some(({ tunnelled }) => tunnelled))
      return { networks: [...this.#networks.values()], watchers };
    const ruleset = rules ?? this.#rules();
    const bridged = this.#bridged();
    const networks = [...this.#networks].map(([id, network]) => {
      const { ifname, slot, subnets } = network;
      if (!network.tunnelled || ifname === undefined) return network;
      const path = { ifname, subnets: subnets.map(({ cidr }) => cidr), devices: isPort, bridged };
      const watcher = seesFrames(ruleset, path, isOurs);
      if (watcher) watchers.set(id, watcher);
      const isPast = !watcher && !network.bridged && slot === undefined;
      return { ...network, tracked: isPast || asksForState(ruleset, ifname, isOurs) };
    });
    return { networks, watchers };
  }

  #rules(): Ruleset {
    return this.#nft.list('ruleset') ?? [];
  }

  /** Families whose hooks bridged frames are taken through on this host: none where nobody has loaded `br_netfilter`. */
  #bridged(): ('ip' | 'ip6')[] {
    const { host } = this.#context.kernel;
    const has = (tool: string): boolean => settingOf(host, `net.bridge.bridge-nf-call-${tool}`) === '1';
    return [...(has('iptables') ? (['ip'] as const) : []), ...(has('ip6tables') ? (['ip6'] as const) : [])];
  }

  /** What `sync` would put right, by table. Changes nothing. */
  compare(): { readonly table: string; readonly differences: readonly Difference[] }[] {
    const { instance } = this.#context;
    const table = `inet ${policyTable(instance)}`;
    const written = this.#read();
    const current = written?.text === renderPolicy(instance, this.#judged().networks);
    const differences = current
      ? tableDifferences(table, written.digest, this.#nft.list(`table ${table}`))
      : [{ what: `nft table ${table}`, want: 'as the networks are now', have: 'not written yet' }];
    const guard = this.#guard.compare();
    return [{ table, differences }, ...(guard ? [{ table: `inet ${vxlanTable(instance)}`, differences: guard }] : [])];
  }

  /** Looks at everybody's rules once; the answer says which chains of others drop what comes in by an interface. */
  foreignDrops(): (ifname: string) => Blocker[] {
    const ruleset = this.#nft.list('ruleset') ?? [];
    return (ifname) => findBlockers(ruleset, { hook: 'forward', ifname }, isOurs);
  }

  /** Chains of others that keep the packets of other nodes from the VXLAN port. */
  underlayDrops(): Blocker[] {
    let underlay: Underlay;
    try {
      underlay = this.#underlay();
    } catch (error) {
      // Without an underlay nothing is kept from it; the networks say what is wrong themselves.
      if (isSluiceError(error, 'network.underlay')) return [];
      throw error;
    }
    const { ifname, port } = underlay;
    return findBlockers(this.#nft.list('ruleset') ?? [], { hook: 'input', ifname, udpPort: port }, isOurs);
  }

  /** Chains of others that keep strangers from this host, except where they let them in. */
  keepsOut(): Blocker[] {
    const { netlink } = this.#context.kernel.host;
    const uplink = netlink
      .routes(RT_TABLE_MAIN)
      .find(({ dst, type }) => /^(0\.0\.0\.0|::)\/0$/.test(dst) && type === RTN_UNICAST);
    // Whatever there is without a default route, it is none of the interfaces that rules name.
    const ifname = (uplink && netlink.link(uplink.ifindex)?.name) ?? 'uplink';
    return findBlockers(this.#nft.list('ruleset') ?? [], { hook: 'input', ifname }, isOurs);
  }

  /** Interfaces by network id, of the networks that the host routes. */
  get interfaces(): ReadonlyMap<string, PolicyNetwork> {
    return this.#networks;
  }

  close(): void {
    this.#nft[Symbol.dispose]();
  }

  #read(): Written | null {
    try {
      return JSON.parse(readFileSync(this.#file, 'utf8')) as Written;
    } catch {
      // Absent or torn by a crash: the table is written anew, which harms nothing.
      return null;
    }
  }
}
