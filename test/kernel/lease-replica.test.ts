/**
 * Addresses across a fail-over that loses what was answered: five nodes with copies of their own allocate and free throughout, no replica of Redis
 * acknowledges anything, and the primary dies with leases that nobody else has.
 */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Membership } from '../../src/cluster/membership.ts';
import { openReplica } from '../../src/cluster/replica/replica.ts';
import type { Lease } from '../../src/contracts/driver.ts';
import type { Op, Store } from '../../src/contracts/store.ts';
import { isSluiceError } from '../../src/errors.ts';
import { type CollectingIpam, createIpam } from '../../src/ipam/ipam.ts';
import { createLogger } from '../../src/log.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { hexId } from '../../src/model/id.ts';
import { leaseKey, networkTopic, nodeTopic, objectKey } from '../../src/model/keys.ts';
import type { Node } from '../../src/model/node.ts';
import { openRedisStore } from '../../src/store/redis/redis.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { makeFolder } from '../folder.ts';
import { Failover } from '../redis/failover.ts';

const NODES = 5;
/** Endpoints that a node has at most: then it removes the oldest. */
const HELD_MAX = 12;
const SESSION_MS = 3_000;
const GRACE_MS = 200;
const NETWORK = 'net';
const logger = createLogger(process.env.SLUICE_TEST_LOG ?? 'silent', {});

const folder = makeFolder('lease');
let redis: Failover | undefined;
const nodes: { store: Store; membership: Membership; ipam: CollectingIpam; name: string }[] = [];

afterEach(async () => {
  for (const { membership, store } of nodes.splice(0)) {
    await membership.stop();
    await store.close();
  }
  await redis?.remove();
  rmSync(folder, { recursive: true });
});

async function startNode(name: string, url: string): Promise<void> {
  const store = await openReplica({
    connect: (seen, onTerm) => openRedisStore({ url, clock: systemClock, seen, onTerm }),
    local: await openSqliteStore({ path: join(folder, `${name}.db`), clock: systemClock }),
    node: name,
    clock: systemClock,
    logger,
    lockMs: SESSION_MS,
  });
  const known = Array.from({ length: NODES }, (_, n) => ({ name: `n${n}`, spec: { address: '' } }) as Node);
  await store.transact([{ op: 'put', key: objectKey('node', name), value: { id: name, name, owner: null } }]);
  const membership = new Membership({
    store,
    clock: systemClock,
    logger,
    node: name,
    ttlMs: SESSION_MS,
    prober: { answers: async () => true },
    nodes: () => known,
    applied: () => 0,
    onStates: () => undefined,
  });
  membership.start();
  const ipam = createIpam({ store, clock: systemClock, pools: [], node: name, graceMs: GRACE_MS });
  nodes.push({ store, membership, ipam, name });
}

test('leases that the primary took with it are put back before any is given', { timeout: 120_000 }, async () => {
  redis = await Failover.start();
  for (let n = 0; n < NODES; n++) await startNode(`n${n}`, redis.url());
  const [first] = nodes;
  const network = { kind: 'network', id: NETWORK, name: NETWORK, owner: null, spec: { scope: 'global' } };
  await first!.store.transact([{ op: 'put', key: objectKey('network', NETWORK), value: network }]);
  const pool = await first!.ipam.requestPool({
    cidr: '10.9.0.0/24',
    family: 4,
    space: 'global',
    avoid: [],
    owner: NETWORK,
  });

  /** Address → owner, of every endpoint that was answered. */
  const held = new Map<string, string>();
  const doubled: string[] = [];
  const tally = { made: 0, removed: 0, refused: 0, codes: new Set<string>() };
  const stop = new AbortController();
  const refusal = (error: unknown): void => {
    if (!isSluiceError(error, 'store.unavailable', 'store.conflict', 'address.unsettled')) throw error;
    tally.refused++;
    tally.codes.add(error.code);
  };
  const persist = async (work: () => Promise<unknown>): Promise<void> => {
    for (;;) {
      try {
        await work();
        return;
      } catch (error) {
        refusal(error);
        await sleep(20);
      }
    }
  };
  const live = async ({ store, ipam, name }: (typeof nodes)[number]): Promise<void> => {
    const own: { lease: Lease; owner: string }[] = [];
    const topics = [nodeTopic(name), networkTopic(NETWORK)];
    const remove = async ({ lease, owner }: { lease: Lease; owner: string }): Promise<void> => {
      // As endpoints go: the address is free before the record is gone. From here on another may have it.
      held.delete(lease.address);
      await persist(() => ipam.releaseAddress(pool.id, lease.address, owner));
      await persist(() => store.transact([{ op: 'delete', key: objectKey('endpoint', owner) }], { topics }));
    };
    while (!stop.signal.aborted) {
      const owner = hexId(systemClock.random(8));
      let lease: Lease | undefined;
      try {
        lease = await ipam.requestAddress({ pool: pool.id, owner, purpose: 'endpoint' });
        const spec = { network: NETWORK, sandbox: owner, addresses: [`${lease.address}/24`] };
        const value = { kind: 'endpoint', id: owner, name: owner, owner: name, spec };
        const standing: Op = { op: 'check', key: leaseKey(pool.id, lease.address), expect: lease.revision! };
        await store.transact([standing, { op: 'put', key: objectKey('endpoint', owner), value, expect: 0 }], {
          topics,
        });
        const other = held.get(lease.address);
        if (other) doubled.push(`${lease.address}: ${other} and ${owner}`);
        held.set(lease.address, owner);
        own.push({ lease, owner });
        tally.made++;
      } catch (error) {
        refusal(error);
        // Nobody knows whether it was stored.
        if (lease) await remove({ lease, owner });
        await sleep(20);
      }
      if (own.length > HELD_MAX) await remove(own.shift()!);
    }
  };
  const lives = Promise.all(nodes.map(live));

  await expect.poll(() => tally.made, { timeout: 20_000 }).toBeGreaterThan(100);
  await redis.cut();
  const atCut = tally.made;
  await sleep(300);
  // Answered, and known to the primary alone.
  await expect.poll(() => tally.made, { timeout: 10_000 }).toBeGreaterThan(atCut + 10);
  const taken = new Map(held);
  await redis.kill();
  const known = new Set((await redis.replica.ask('HKEYS', '{sluice}data')) as string[]);
  expect([...taken].filter(([address]) => !known.has(leaseKey(pool.id, address))).length).toBeGreaterThan(0);
  const atKill = tally.made;
  await expect.poll(() => tally.made, { timeout: 30_000 }).toBeGreaterThan(atKill + 100);
  stop.abort();
  await lives;

  expect(doubled).toEqual([]);
  expect(tally.refused).toBeGreaterThan(0);
  expect(tally.removed + tally.made).toBeGreaterThan(200);
  // Every endpoint has its lease, and none is contested.
  const leases = async (): Promise<Map<string, string>> =>
    new Map((await first!.ipam.leases(pool.id)).map(({ address, owner }) => [address, owner]));
  const endpoints = (await first!.store.list<Endpoint>('endpoint/')).items.map(({ value }) => value);
  expect(endpoints.filter(({ spec }) => spec.contested)).toEqual([]);
  const there = await leases();
  for (const [address, owner] of held) {
    expect(there.get(address), address).toBe(owner);
    expect(endpoints.map(({ id }) => id)).toContain(owner);
  }
  // What is there beside has no owner, and is collected.
  const alive = new Set([...held.values(), NETWORK]);
  expect(endpoints.filter(({ id }) => !alive.has(id))).toEqual([]);
  await first!.ipam.collect(alive);
  await sleep(GRACE_MS * 2);
  await first!.ipam.collect(alive);
  expect(await leases()).toEqual(held);
});
