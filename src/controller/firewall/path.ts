/**
 * A way of its own for a network that spans hosts, so that two of them may have one subnet on one host. What comes from a network's
 * bridge gets a conntrack zone and a mark, answers get the mark back from conntrack, and a routing rule takes the mark to a table that knows
 * this network's subnets alone. Plain masquerading would bring all answers to whichever network came first.
 */
import type { Netlink } from '../../contracts/kernel.ts';
import { familyOf } from '../../model/ip.ts';
import { markOf, NETWORK_MARK, NETWORK_SLOTS_MAX, tableOf } from '../../model/mark.ts';
import type { SubnetSpec } from '../../model/network.ts';

/** Before the main table's rule (32766), behind the local one's (0). */
const PRIORITY = 1_090;

const rulesOf = (slot: number) =>
  ([4, 6] as const).map((family) => ({
    family,
    mark: markOf(slot),
    mask: NETWORK_MARK.mask,
    table: tableOf(slot),
    priority: PRIORITY,
  }));

/** The lowest slot that neither one of ours nor somebody else's rule on this host has; null: all are taken. */
export function chooseSlot(netlink: Netlink, ours: ReadonlySet<number>): number | null {
  const foreign = new Set(netlink.rules().map(({ mark }) => (mark & NETWORK_MARK.mask) >>> NETWORK_MARK.shift));
  for (let slot = 1; slot <= NETWORK_SLOTS_MAX; slot++) if (!ours.has(slot) && !foreign.has(slot)) return slot;
  return null;
}

/** The rule and the routes of a network; what was missing, in words. */
export function ensurePath(
  netlink: Netlink,
  { slot, link, subnets }: { readonly slot: number; readonly link: number; readonly subnets: readonly SubnetSpec[] },
): string[] {
  const changed: string[] = [];
  const families = new Set(subnets.map(({ cidr }) => familyOf(cidr)));
  for (const rule of rulesOf(slot))
    if (families.has(rule.family) && netlink.ensureRule(rule)) changed.push(`rule for mark ${rule.mark} set`);
  const table = tableOf(slot);
  const present = new Set(netlink.routes(table).flatMap(({ dst, ifindex }) => (ifindex === link ? [dst] : [])));
  for (const { cidr } of subnets) {
    if (present.has(cidr)) continue;
    netlink.ensureRoute({ dst: cidr, link, table });
    changed.push(`route ${cidr} set in table ${table}`);
  }
  return changed;
}

/** The routes went with the bridge. */
export function removePath(netlink: Netlink, slot: number): void {
  for (const rule of rulesOf(slot)) netlink.removeRule(rule);
}
