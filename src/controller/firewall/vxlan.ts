/**
 * The guard of the VXLAN port. Who can send UDP to it can put frames into any network of the host: so packets to it are taken from the
 * registered tunnel end points of other nodes, on the underlay's interface, and from nobody else; from a sandbox never, not even towards
 * another host. It stands before the first VXLAN device does, in a table of its own that is there before any other rule of ours.
 *
 * By the device on which hosts test each other's checksums (../offload) come SYNs to one port, which are refused here, before anybody's rules for what
 * comes in and with a checksum made in software, and the refusals of others; nothing else comes in by it, and nothing from elsewhere, sandboxes
 * among it, goes to its address or out by it.
 *
 * Between registered end points nothing is tracked: a tunnel's source port follows the connection inside, so that each of those would cost
 * every host one of its own.
 */
import type { Underlay } from '../../contracts/driver.ts';
import type { Nft } from '../../contracts/kernel.ts';
import { isSluiceError } from '../../errors.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import { probeName, vxlanTable } from '../../model/mark.ts';
import { tableDifferences } from '../../model/nft/difference.ts';
import { digestTable } from '../../model/nft/digest.ts';
import { PROBE_PORT, probePrefix } from '../offload/plan.ts';

export interface VxlanGuard {
  readonly underlay: Pick<Underlay, 'address' | 'port' | 'ifname'>;
  /** Of the other nodes. */
  readonly vteps: readonly string[];
  /** Interfaces by which sandboxes reach the host. */
  readonly bridges: readonly string[];
}

/** nft text that replaces the table, from whatever was there before. Pure. */
export function renderGuard(
  instance: string,
  { underlay: { address, port, ifname }, vteps, bridges }: VxlanGuard,
): string {
  const table = `inet ${vxlanTable(instance)}`;
  const set = (name: string, type: string, elements: readonly string[]): string =>
    `  set ${name} { type ${type}; flags constant;${elements.length > 0 ? ` elements = { ${elements.join(', ')} };` : ''} }\n`;
  const sorted = [...new Set(vteps)].sort();
  // An address on lo is reached by any interface of the underlay; sandboxes are refused before.
  const on = ifname === 'lo' ? '' : `iifname "${ifname}" `;
  const [probe, prefix] = [`"${probeName(instance)}"`, `${probePrefix(port)}/64`];
  // Every packet of every tunnel: first, unless the rule about sandboxes must come before.
  const [ip, registered] = address.includes(':') ? ['ip6', '@vteps6'] : ['ip', '@vteps4'];
  const fast = `udp dport ${port} ${on}${ip} daddr ${address} ${ip} saddr ${registered} notrack accept`;
  return `table ${table}
delete table ${table}
table ${table} {
${set(
  'sandboxes',
  'ifname',
  [...bridges].sort().map((name) => `"${name}"`),
)}${set(
  'vteps4',
  'ipv4_addr',
  sorted.filter((address) => !address.includes(':')),
)}${set(
  'vteps6',
  'ipv6_addr',
  sorted.filter((address) => address.includes(':')),
)}
  chain probe {
    ip6 daddr ${prefix} iifname != { ${probe}, "lo" } counter drop comment "probe address from elsewhere"
    iifname != ${probe} accept
    ip6 saddr ${prefix} ip6 daddr ${prefix} tcp dport ${PROBE_PORT} tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset
    ip6 saddr ${prefix} ip6 daddr ${prefix} tcp sport ${PROBE_PORT} tcp flags & rst == rst counter accept
    counter drop comment "anything else by the probe"
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    ${on ? `${fast}\n    ` : ''}udp dport != ${port} goto probe
    meta l4proto != udp goto probe
    iifname @sandboxes counter drop comment "VXLAN from a sandbox"
    ${on ? '' : `${fast}\n    `}fib daddr type != { local, broadcast, multicast } goto probe
    ${on}ip saddr @vteps4 accept
    ${on}ip6 saddr @vteps6 accept
    counter drop comment "VXLAN from a stranger"
  }
  chain output {
    type filter hook output priority raw; policy accept;
    udp dport ${port} ${ip} saddr ${address} ${ip} daddr ${registered} notrack
  }
}
`;
}

export class Guard {
  readonly #nft: Nft;
  readonly #instance: string;
  #wanted: VxlanGuard | undefined;
  #written: { readonly text: string; readonly digest: string } | undefined;

  constructor(nft: Nft, instance: string) {
    this.#nft = nft;
    this.#instance = instance;
  }

  /** Whether the table is there, perhaps from an earlier life. */
  get stands(): boolean {
    return this.#nft.tables().includes(`inet ${vxlanTable(this.#instance)}`);
  }

  /** From now on it is like this; written at once. */
  ensure(guard: VxlanGuard): string[] {
    this.#wanted = guard;
    return this.audit();
  }

  /** No network of this host spans hosts any more. */
  remove(): void {
    if (!this.stands) return;
    this.#wanted = undefined;
    this.#written = undefined;
    try {
      this.#nft.apply(`delete table inet ${vxlanTable(this.#instance)}`);
    } catch (error) {
      if (!isSluiceError(error, 'kernel.notfound')) throw error;
    }
  }

  /** What `audit` would put right; null: nobody listens on the port, no table is wanted. */
  compare(): Difference[] | null {
    const table = `inet ${vxlanTable(this.#instance)}`;
    const present = this.#nft.list(`table ${table}`);
    if (!this.#wanted) return present ? [{ what: `nft table ${table}`, have: 'there' }] : null;
    const current = this.#written?.text === renderGuard(this.#instance, this.#wanted);
    if (current) return tableDifferences(table, this.#written!.digest, present);
    return [{ what: `nft table ${table}`, want: 'as the nodes are now', have: 'not written yet' }];
  }

  /** Writes the table where it is not as it must be; what was amiss, in words. */
  audit(): string[] {
    if (!this.#wanted) return [];
    const table = `inet ${vxlanTable(this.#instance)}`;
    const text = renderGuard(this.#instance, this.#wanted);
    const same = this.#written?.text === text;
    const present = same ? this.#nft.list(`table ${table}`) : null;
    if (same && present && digestTable(present) === this.#written?.digest) return [];
    this.#nft.apply(text);
    this.#written = { text, digest: digestTable(this.#nft.list(`table ${table}`) ?? []) };
    return same ? [`nft table ${table} had been ${present ? 'changed' : 'removed'} and was written anew`] : [];
  }
}
