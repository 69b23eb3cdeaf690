/**
 * The level under the events: every few seconds everything is looked at again, whatever notifications said or failed to say.
 * One audit at a time; the loop breathes between batches of objects.
 */
import type { IpamDriver } from '../contracts/driver.ts';
import { repairs } from '../metrics.ts';
import { bridgeOf } from '../model/mark.ts';
import type { Context } from './context.ts';
import type { Firewall } from './firewall/firewall.ts';
import type { Blocker } from './firewall/forward.ts';
import type { Loop } from './loop.ts';
import type { PeerController } from './peer/peer.ts';
import type { NameController } from './service/name.ts';
import type { ReconciledKind, World } from './world.ts';

export interface AuditParts {
  readonly context: Context;
  readonly firewall: Firewall;
  readonly loops: Readonly<Record<ReconciledKind, Loop>>;
  readonly naming: Pick<NameController, 'review'>;
  readonly peers: { readonly loop: Loop; readonly controller: PeerController };
  readonly ipams: ReadonlyMap<string, IpamDriver & { collect?(live: ReadonlySet<string>): Promise<number> }>;
  readonly prune: () => Promise<string[]>;
}

/**
 * How often all owners of addresses in a cluster are listed, milliseconds: a little longer than a lease without one is spared, so that the
 * second look frees it, however long the first one took. And when that was last.
 */
const LIVE_MS = 31_000;
const asked = new WeakMap<World, number>();
/** Objects looked at before other work gets a turn. */
const BATCH = 25;

export async function audit({ context, firewall, loops, naming, peers, ipams, prune }: AuditParts): Promise<void> {
  const { world, tracker, dataplane, publisher, names, node, logger } = context;
  for (const repair of [...dataplane.audit(), ...publisher.audit()]) {
    logger.warn(repair, 'repaired');
    if (
      (repair.object === 'sandbox' && world.sandboxes.has(repair.id)) ||
      (repair.object === 'endpoint' && world.endpoints.has(repair.id)) ||
      (repair.object === 'network' && world.networks.has(repair.id))
    ) {
      await tracker.repaired(repair.object, repair.id, [repair.what]);
    } else {
      repairs.inc({ object: repair.object });
      await tracker.condition('node', node, 'Repaired', true, `found amiss and put right: ${repair.what}`, true);
    }
  }
  for (const { id, port } of names.audit()) {
    await tracker.repaired('sandbox', id, [`resolver sockets had been destroyed and were opened anew on port ${port}`]);
    loops.sandbox.trigger(id);
  }
  for (const id of naming.review()) await tracker.repaired('network', id, ['names were not as they should be']);
  await auditFirewall(context, firewall);
  await inBatches(world.networks.keys(), loops.network);
  for (const id of world.joined()) peers.controller.review(id);
  await inBatches(world.joined(), peers.loop);
  await inBatches(world.sandboxes.keys(), loops.sandbox);
  await inBatches(world.endpoints.keys(), loops.endpoint);
  await inBatches(world.services.keys(), loops.service);
  await inBatches(world.volumes.keys(), loops.volume);
  await inBatches(world.containers.keys(), loops.container);
  const removed = await prune();
  if (removed.length > 0) {
    logger.warn({ removed }, 'pruned');
    repairs.inc({ object: 'stray' }, removed.length);
  }
  const live = await liveOwners(context);
  if (live) for (const ipam of ipams.values()) await ipam.collect?.(live);
}

/**
 * Whoever may have addresses. In a cluster that takes lists of all objects: one node makes them for all, seldom. Null: not now, or not this one.
 */
export async function liveOwners({
  world,
  desired,
  clock,
  collects,
}: Pick<Context, 'world' | 'desired' | 'clock' | 'collects'>): Promise<Set<string> | null> {
  if (!world.isShared) return new Set([...world.networks.keys(), ...world.endpoints.keys(), ...world.services.keys()]);
  if (collects && !collects()) return null;
  const now = clock.monotonic();
  if (now - (asked.get(world) ?? Number.NEGATIVE_INFINITY) < LIVE_MS) return null;
  asked.set(world, now);
  const { networks, endpoints, services } = desired;
  const lists = await Promise.all([networks.list(), endpoints.list(), services.list()]);
  return new Set(lists.flat().map(({ id }) => id));
}

/** The table, and whoever else drops or sees what we forward. Returns the networks of which others see otherwise than before. */
export async function auditFirewall({ world, tracker, logger }: Context, firewall: Firewall): Promise<string[]> {
  const before = new Map(world.joined().map((id) => [id, firewall.watcherOf(id)]));
  const amiss = await firewall.sync();
  if (amiss.length > 0) logger.warn({ amiss }, 'repaired');
  const drops = firewall.foreignDrops();
  const global = [...world.networks.values()].filter(({ spec, removing }) => spec.scope === 'global' && !removing);
  const underlay = global.length > 0 ? firewall.underlayDrops() : [];
  for (const { id } of global) {
    await reportUnderlay(tracker, id, underlay);
    if (!firewall.interfaces.has(id)) await reportBlockers(tracker, id, drops(bridgeOf(id)));
  }
  for (const [id, { ifname }] of firewall.interfaces) {
    if (!world.networks.has(id)) continue;
    await tracker.repaired('network', id, amiss);
    if (ifname) await reportBlockers(tracker, id, drops(ifname));
  }
  return [...before].flatMap(([id, watcher]) => (firewall.watcherOf(id) === watcher ? [] : [id]));
}

export async function reportBlockers(
  tracker: Context['tracker'],
  networkId: string,
  blockers: readonly Blocker[],
): Promise<void> {
  const words = blockers.map(
    ({ table, chain, owner, fix }) =>
      `chain ${chain} of table ${table}${owner ? ` (${owner})` : ''} drops what this network forwards; to let it through: ${fix}`,
  );
  await tracker.condition('network', networkId, 'ForwardBlocked', words.length > 0, words.join('; '));
}

/** Chains of others that keep other nodes' packets from this host's VXLAN port. */
export async function reportUnderlay(
  tracker: Context['tracker'],
  networkId: string,
  blockers: readonly Blocker[],
): Promise<void> {
  const words = blockers.map(
    ({ table, chain, owner, fix }) =>
      `chain ${chain} of table ${table}${owner ? ` (${owner})` : ''} drops what other nodes send to this one; to let it in: ${fix}`,
  );
  await tracker.condition('network', networkId, 'UnderlayBlocked', words.length > 0, words.join('; '));
}

async function inBatches(ids: Iterable<string>, loop: Loop): Promise<void> {
  let n = 0;
  for (const id of [...ids]) {
    // What failed has its own time for the next attempt.
    if (loop.failing(id)) continue;
    loop.trigger(id);
    if (++n % BATCH === 0) await loop.idle();
  }
  await loop.idle();
}
