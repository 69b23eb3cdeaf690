/** Addresses across a fail-over: five nodes allocate and free throughout, the primary dies before it has replicated, and comes back. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { Lease } from '../../src/contracts/driver.ts';
import { isSluiceError } from '../../src/errors.ts';
import { type CollectingIpam, createIpam } from '../../src/ipam/ipam.ts';
import { hexId } from '../../src/model/id.ts';
import { openRedisStore, type RedisStore } from '../../src/store/redis/redis.ts';
import { Failover } from '../redis/failover.ts';

const NODES = 5;
/** Leases that a node holds at most: then it frees the oldest. */
const HELD_MAX = 12;
const GRACE_MS = 200;

let redis: Failover | undefined;
const stores: RedisStore[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  await redis?.remove();
});

test('the primary dies: no address is held twice, none is leaked', { timeout: 90_000 }, async () => {
  redis = await Failover.start();
  const url = redis.url('&replicas=1');
  const ipams: CollectingIpam[] = [];
  for (let n = 0; n < NODES; n++) {
    const store = await openRedisStore({ url, clock: systemClock });
    stores.push(store);
    ipams.push(createIpam({ store, clock: systemClock, pools: [], node: `n${n}`, graceMs: GRACE_MS }));
  }
  const [first] = ipams;
  const pool = await first!.requestPool({ cidr: '10.9.0.0/24', family: 4, space: 'global', avoid: [], owner: 'net' });

  /** Address → owner, of every lease that counts. */
  const held = new Map<string, string>();
  const doubled: string[] = [];
  const tally = { leased: 0, freed: 0, refused: 0, codes: new Set<string>() };
  const stop = new AbortController();
  const refusal = (error: unknown): void => {
    if (!isSluiceError(error, 'store.unavailable', 'store.conflict')) throw error;
    tally.refused++;
    tally.codes.add(error.code);
  };
  const allocate = async (n: number): Promise<void> => {
    const ipam = ipams[n]!;
    const own: { lease: Lease; owner: string }[] = [];
    while (!stop.signal.aborted) {
      const owner = hexId(systemClock.random(8));
      try {
        const lease = await ipam.requestAddress({ pool: pool.id, owner, purpose: 'endpoint' });
        const other = held.get(lease.address);
        if (other) doubled.push(`${lease.address}: ${other} and ${owner}`);
        held.set(lease.address, owner);
        own.push({ lease, owner });
        tally.leased++;
      } catch (error) {
        refusal(error);
        await sleep(20);
      }
      if (own.length <= HELD_MAX) continue;
      const { lease, owner: oldest } = own.shift()!;
      // From here on another may have it: whether the answer arrives or not.
      held.delete(lease.address);
      for (let done = false; !done; ) {
        try {
          await ipam.releaseAddress(pool.id, lease.address, oldest);
          tally.freed++;
          done = true;
        } catch (error) {
          refusal(error);
          await sleep(20);
        }
      }
    }
  };
  const allocators = Promise.all(Array.from({ length: NODES }, (_, n) => allocate(n)));

  await expect.poll(() => tally.leased, { timeout: 10_000 }).toBeGreaterThan(100);
  // It goes on for a moment.
  await redis.cut();
  const atCut = tally.leased;
  await sleep(300);
  await redis.kill();
  // Nothing counted meanwhile but what was under way.
  expect(tally.leased - atCut).toBeLessThanOrEqual(NODES);
  expect(tally.refused).toBeGreaterThan(0);
  // Back as a replica: addresses are given again.
  await redis.back();
  const atReturn = tally.leased;
  await expect.poll(() => tally.leased, { timeout: 30_000 }).toBeGreaterThan(atReturn + 100);
  stop.abort();
  await allocators;

  expect(doubled).toEqual([]);
  expect(tally.freed).toBeGreaterThan(50);
  // Every lease that counts is still there, under its owner; what else is there has no owner, and is collected.
  const leases = async (): Promise<Map<string, string>> =>
    new Map((await first!.leases(pool.id)).map(({ address, owner }) => [address, owner]));
  for (const [address, owner] of held) expect((await leases()).get(address)).toBe(owner);
  const live = new Set([...held.values(), 'net']);
  await first!.collect(live);
  await sleep(GRACE_MS * 2);
  await first!.collect(live);
  expect(await leases()).toEqual(held);
});
