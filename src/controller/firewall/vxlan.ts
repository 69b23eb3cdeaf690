/**
 * The guard of the VXLAN port. Who can send UDP to it can put frames into any network of the host: so packets to it are taken from the
 * registered tunnel end points of other nodes, on the underlay's interface, and from nobody else; from a sandbox never, not even towards
 * another host. It stands before the first VXLAN device does, in a table of its own that is there before any other rule of ours.
 */
import type { Underlay } from '../../contracts/driver.ts';
import type { Nft } from '../../contracts/kernel.ts';
import { isSluiceError } from '../../errors.ts';
import { vxlanTable } from '../../model/mark.ts';
import { digestTable } from '../../model/nft/digest.ts';

export interface VxlanGuard {
  readonly underlay: Pick<Underlay, 'address' | 'port' | 'ifname'>;
  /** Of the other nodes. */
  readonly vteps: readonly string[];
  /** Interfaces by which sandboxes reach the host. */
  readonly bridges: readonly string[];
}

/** nft text that replaces the table, from whatever was there before. Pure. */
export function renderGuard(instance: string, { underlay: { port, ifname }, vteps, bridges }: VxlanGuard): string {
  const table = `inet ${vxlanTable(instance)}`;
  const set = (name: string, type: string, elements: readonly string[]): string =>
    `  set ${name} { type ${type};${elements.length > 0 ? ` elements = { ${elements.join(', ')} };` : ''} }\n`;
  const sorted = [...new Set(vteps)].sort();
  // An address on lo is reached by any interface of the underlay; sandboxes are refused before.
  const on = ifname === 'lo' ? '' : `iifname "${ifname}" `;
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
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    meta l4proto != udp accept
    udp dport != ${port} accept
    iifname @sandboxes counter drop comment "VXLAN from a sandbox"
    fib daddr type != { local, broadcast, multicast } accept
    ${on}ip saddr @vteps4 accept
    ${on}ip6 saddr @vteps6 accept
    counter drop comment "VXLAN from a stranger"
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
