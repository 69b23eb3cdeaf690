/** What every IPAM driver does. Collection of what has no owner is the default driver's own, and asked of it where it is there. */
import { describe, expect, test } from 'vitest';
import type { IpamDriver, Lease, PoolRequest } from '../../src/contracts/driver.ts';
import { contains, parseAddress, parseCidr } from '../../src/model/ip.ts';

export interface IpamUnderTest {
  /** Fresh, with the automatic pools of `BASES`. */
  readonly ipam: IpamDriver & { collect?(live: ReadonlySet<string>): Promise<number> };
  /** Another daemon's driver on the same state. */
  readonly other: IpamDriver;
  /** Lets `ms` pass. */
  advance(ms: number): Promise<void>;
  /** Time between the two sights of something without an owner. */
  readonly graceMs: number;
  close(): Promise<void>;
}

/** Room for four IPv4 subnets, two of each base, and many of IPv6. */
export const BASES = [
  { base: '10.1.0.0/15', size: 16 },
  { base: '10.8.4.0/23', size: 24 },
  { base: 'fd77::/48', size: 64 },
] as const;

const NET = 'a'.repeat(64);
const NET_B = 'b'.repeat(64);
const owner = (n: number): string => n.toString(16).padStart(64, '0');

const pool = (cidr: string, by = NET, avoid: readonly string[] = []): PoolRequest => ({
  space: 'local',
  family: cidr.includes(':') ? 6 : 4,
  cidr,
  avoid,
  owner: by,
});
const automatic = (by: string, family: 4 | 6 = 4, avoid: readonly string[] = []): PoolRequest => ({
  space: 'local',
  family,
  avoid,
  owner: by,
});

async function refusal(work: Promise<unknown>): Promise<{ code?: string; message?: string; details?: unknown }> {
  try {
    await work;
  } catch (error) {
    return error as { code?: string };
  }
  throw new Error('was not refused');
}

/** As many addresses as asked for, one after another. */
async function take(ipam: IpamDriver, poolId: string, count: number, from = 1): Promise<string[]> {
  const addresses: string[] = [];
  for (let n = from; n < from + count; n++)
    addresses.push((await ipam.requestAddress({ pool: poolId, owner: owner(n) })).address);
  return addresses;
}

const sorted = (leases: readonly Lease[]): string[] => leases.map(({ address }) => address).sort();

/** The cases by name, so that a test can run them against a broken driver and see which complain. */
export const IPAM_CASES: Readonly<Record<string, (on: IpamUnderTest) => Promise<void>>> = {
  async 'automatic pools avoid each other, routes of the host, and explicit pools'({ ipam }) {
    expect((await ipam.requestPool(automatic('n1', 4, ['10.1.7.0/24']))).cidr).toBe('10.8.4.0/24');
    expect((await ipam.requestPool(automatic('n2'))).cidr).toBe('10.1.0.0/16');
    await ipam.requestPool(pool('10.8.5.128/25'));
    expect(await refusal(ipam.requestPool(automatic('n3')))).toMatchObject({ code: 'pool.exhausted' });
    expect((await ipam.requestPool(automatic('n3', 6, ['fd77::/63', 'fd77:0:0:3::1/128']))).cidr).toBe(
      'fd77:0:0:2::/64',
    );
    expect((await ipam.requestPool(automatic('n4', 6))).cidr).toBe('fd77::/64');
    expect((await ipam.pools()).map(({ owner }) => owner).sort()).toEqual([NET, 'n1', 'n2', 'n3', 'n4'].sort());
  },

  async 'a default route is no reason to avoid anything but what it covers'({ ipam }) {
    expect(await refusal(ipam.requestPool(automatic('n1', 4, ['0.0.0.0/0'])))).toMatchObject({
      code: 'pool.exhausted',
    });
    expect((await ipam.requestPool(automatic('n1', 4, ['::/0', '192.168.0.0/16']))).cidr).toBe('10.1.0.0/16');
  },

  async 'an explicit pool that overlaps another is refused, naming it'({ ipam }) {
    await ipam.requestPool(pool('10.20.0.0/24'));
    await ipam.requestPool(pool('fd20::/64'));
    for (const cidr of ['10.20.0.0/24', '10.20.0.128/25', '10.16.0.0/12', 'fd20::/48', 'fd20::1:0/112']) {
      const error = await refusal(ipam.requestPool(pool(cidr, NET_B)));
      expect(error).toMatchObject({ code: 'network.overlap', message: expect.stringContaining(cidr) });
      expect(error.message).toMatch(/10\.20\.0\.0\/24|fd20::\/64/);
    }
    expect((await ipam.requestPool(pool('10.20.1.0/24', NET_B))).cidr).toBe('10.20.1.0/24');
    expect(await refusal(ipam.requestPool(pool('10.30.0.0/24', NET_B, ['10.30.0.0/16'])))).toMatchObject({
      code: 'network.overlap',
      message: expect.stringContaining('10.30.0.0/16'),
    });
  },

  async 'an explicit pool has no bits outside its prefix'({ ipam }) {
    for (const cidr of ['10.20.0.1/24', 'fd20::1/64', '10.20.0.0/33', '10.20.0.0', 'nonsense/8'])
      expect(await refusal(ipam.requestPool(pool(cidr)))).toMatchObject({ code: 'request.invalid' });
    expect(await ipam.pools()).toEqual([]);
  },

  async 'the same owner gets the same pool again, another never'({ ipam, other }) {
    const explicit = await ipam.requestPool(pool('10.20.0.0/24'));
    expect(await ipam.requestPool(pool('10.20.0.0/24'))).toEqual(explicit);
    expect(await other.requestPool(pool('10.20.0.0/24'))).toEqual(explicit);
    const first = await ipam.requestPool(automatic(NET_B));
    expect(await other.requestPool(automatic(NET_B))).toEqual(first);
    expect(first.id).not.toBe(explicit.id);
    expect(await ipam.pools()).toHaveLength(2);
  },

  async 'a released pool is free for others, with all its addresses; a late second release harms nobody'({
    ipam,
    other,
  }) {
    const first = await ipam.requestPool(pool('10.20.0.0/24'));
    await take(ipam, first.id, 3);
    await ipam.releasePool(first.id);
    expect(await ipam.leases(first.id)).toEqual([]);
    await ipam.releasePool(first.id);
    const second = await other.requestPool(pool('10.20.0.0/24', NET_B));
    const lease = await other.requestAddress({ pool: second.id, owner: owner(9), address: '10.20.0.1' });
    await ipam.releasePool(first.id);
    expect(await ipam.pools()).toEqual([{ ...second, owner: NET_B }]);
    expect(await other.leases(second.id)).toEqual([lease]);
  },

  async 'no address comes from a pool that is gone'({ ipam, other }) {
    expect(await refusal(ipam.requestAddress({ pool: 'none', owner: owner(1) }))).toMatchObject({
      code: 'object.notfound',
    });
    for (const cidr of ['10.20.0.0/24', 'fd20::/64']) {
      const { id } = await ipam.requestPool(pool(cidr));
      await take(ipam, id, 2);
      await other.releasePool(id);
      expect(await refusal(ipam.requestAddress({ pool: id, owner: owner(3) }))).toMatchObject({
        code: 'object.notfound',
      });
      // Given again to the same owner it starts anew.
      expect((await other.requestPool(pool(cidr))).id).toBe(id);
      expect((await ipam.requestAddress({ pool: id, owner: owner(4) })).owner).toBe(owner(4));
      await ipam.releasePool(id);
    }
  },

  async 'of concurrent requests for pools that overlap one is granted'({ ipam, other }) {
    const cidrs = ['10.20.0.0/24', '10.20.0.0/23', '10.20.0.128/25', '10.0.0.0/8'];
    const outcomes = await Promise.allSettled(
      cidrs.map((cidr, n) => (n % 2 ? ipam : other).requestPool(pool(cidr, owner(n)))),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'network.overlap' });
    const many = await Promise.all(
      Array.from({ length: 24 }, (_, n) => (n % 2 ? ipam : other).requestPool(automatic(owner(100 + n), 6))),
    );
    expect(new Set(many.map(({ cidr }) => cidr)).size).toBe(24);
  },

  async 'addresses are given in order and remembered'({ ipam, other }) {
    const { id } = await ipam.requestPool(pool('10.20.0.0/24'));
    const lease = await ipam.requestAddress({ pool: id, owner: owner(1), purpose: 'gateway' });
    expect(lease).toMatchObject({ pool: id, address: '10.20.0.1', owner: owner(1), purpose: 'gateway' });
    expect(await take(ipam, id, 3, 2)).toEqual(['10.20.0.2', '10.20.0.3', '10.20.0.4']);
    expect(sorted(await other.leases(id))).toEqual(['10.20.0.1', '10.20.0.2', '10.20.0.3', '10.20.0.4']);
    const six = await ipam.requestPool(pool('fd20:0:0:1::/64'));
    expect(await take(ipam, six.id, 2)).toEqual(['fd20:0:0:1::1', 'fd20:0:0:1::2']);
  },

  async 'an address that was just freed rests while there are others'({ ipam }) {
    const { id } = await ipam.requestPool(pool('10.20.0.0/29'));
    const [a, b] = await take(ipam, id, 2);
    await ipam.releaseAddress(id, a!, owner(1));
    await ipam.releaseAddress(id, b!, owner(2));
    expect(await take(ipam, id, 4)).toEqual(['10.20.0.3', '10.20.0.4', '10.20.0.5', '10.20.0.6']);
    expect(await take(ipam, id, 2, 9)).toEqual([a, b]);
  },

  async 'network and broadcast addresses are never given, small subnets are used whole'({ ipam }) {
    const expected: [string, string[]][] = [
      ['10.20.0.0/30', ['10.20.0.1', '10.20.0.2']],
      ['10.20.0.4/31', ['10.20.0.4', '10.20.0.5']],
      ['10.20.0.6/32', ['10.20.0.6']],
      ['fd20::/126', ['fd20::1', 'fd20::2', 'fd20::3']],
      ['fd20::4/127', ['fd20::4', 'fd20::5']],
      ['fd20::6/128', ['fd20::6']],
    ];
    for (const [cidr, addresses] of expected) {
      const { id } = await ipam.requestPool(pool(cidr, cidr));
      expect(await take(ipam, id, addresses.length)).toEqual(addresses);
      const error = await refusal(ipam.requestAddress({ pool: id, owner: owner(99) }));
      expect(error).toMatchObject({ code: 'address.exhausted', message: expect.stringContaining(cidr) });
    }
    const { id } = await ipam.requestPool(pool('10.21.0.0/24'));
    for (const address of ['10.21.0.0', '10.21.0.255', '10.22.0.1', 'fd20::1'])
      expect(await refusal(ipam.requestAddress({ pool: id, owner: owner(1), address }))).toMatchObject({
        code: 'address.outside',
        message: expect.stringContaining(address),
      });
    const six = await ipam.requestPool(pool('fd21::/64'));
    expect(await refusal(ipam.requestAddress({ pool: six.id, owner: owner(1), address: 'fd21::' }))).toMatchObject({
      code: 'address.outside',
    });
    const top = 'fd21::ffff:ffff:ffff:ffff';
    expect((await ipam.requestAddress({ pool: six.id, owner: owner(1), address: top })).address).toBe(top);
  },

  async 'an exact address is given once; to its owner again; by any spelling'({ ipam, other }) {
    const { id } = await ipam.requestPool(pool('fd20::/64'));
    const lease = await ipam.requestAddress({ pool: id, owner: owner(1), address: 'FD20:0::0:00aB' });
    expect(lease.address).toBe('fd20::ab');
    expect(await other.requestAddress({ pool: id, owner: owner(1), address: 'fd20::ab' })).toEqual(lease);
    expect(await refusal(other.requestAddress({ pool: id, owner: owner(2), address: 'fd20::ab' }))).toMatchObject({
      code: 'address.inuse',
      message: expect.stringContaining('fd20::ab'),
      details: { owner: owner(1) },
    });
    expect(await ipam.leases(id)).toEqual([lease]);
  },

  async 'only its owner releases an address, and twice is fine'({ ipam, other }) {
    const { id } = await ipam.requestPool(pool('10.20.0.0/24'));
    const { address } = await ipam.requestAddress({ pool: id, owner: owner(1) });
    await other.releaseAddress(id, address, owner(2));
    expect(await ipam.leases(id)).toHaveLength(1);
    await other.releaseAddress(id, address, owner(1));
    await ipam.releaseAddress(id, address, owner(1));
    await ipam.releaseAddress(id, '10.20.0.77', owner(1));
    expect(await ipam.leases(id)).toEqual([]);
    expect((await ipam.requestAddress({ pool: id, owner: owner(2), address })).owner).toBe(owner(2));
    await other.releaseAddress(id, address, owner(1));
    expect(await ipam.leases(id)).toHaveLength(1);
  },

  async 'automatic addresses stay in the range, exact ones need not'({ ipam }) {
    const { id } = await ipam.requestPool(pool('10.20.0.0/24'));
    const range = '10.20.0.128/30';
    const taken: string[] = [];
    for (let n = 1; n <= 4; n++) taken.push((await ipam.requestAddress({ pool: id, owner: owner(n), range })).address);
    expect(taken).toEqual(['10.20.0.128', '10.20.0.129', '10.20.0.130', '10.20.0.131']);
    expect(await refusal(ipam.requestAddress({ pool: id, owner: owner(5), range }))).toMatchObject({
      code: 'address.exhausted',
      message: expect.stringContaining(range),
    });
    expect((await ipam.requestAddress({ pool: id, owner: owner(6), range, address: '10.20.0.9' })).address).toBe(
      '10.20.0.9',
    );
    // The last address of the subnet is no broadcast address in the middle, and stays one at the end.
    const end: string[] = [];
    for (let n = 7; n <= 9; n++)
      end.push((await ipam.requestAddress({ pool: id, owner: owner(n), range: '10.20.0.252/30' })).address);
    expect(end).toEqual(['10.20.0.252', '10.20.0.253', '10.20.0.254']);
  },

  async 'VIPs come from the upper end'({ ipam }) {
    const { id } = await ipam.requestPool(pool('10.20.0.0/24'));
    await take(ipam, id, 2);
    const vips: string[] = [];
    for (let n = 0; n < 3; n++)
      vips.push((await ipam.requestAddress({ pool: id, owner: owner(50 + n), purpose: 'vip' })).address);
    expect(vips).toEqual(['10.20.0.254', '10.20.0.253', '10.20.0.252']);
    expect(await take(ipam, id, 1, 9)).toEqual(['10.20.0.3']);
    const six = await ipam.requestPool(pool('fd20::/64'));
    const vip = await ipam.requestAddress({ pool: six.id, owner: owner(1), purpose: 'vip' });
    expect(vip).toMatchObject({ address: 'fd20::ffff:ffff:ffff:ffff', purpose: 'vip' });
  },

  async 'several daemons on one pool give no address twice and leave none out'({ ipam, other }) {
    const { id } = await ipam.requestPool(pool('10.20.0.0/25'));
    await Promise.all([take(ipam, id, 1), take(other, id, 1, 2)]);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 200 }, (_, n) =>
        (n % 2 ? ipam : other).requestAddress({ pool: id, owner: owner(1_000 + n) }),
      ),
    );
    const given = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value.address] : []));
    for (const outcome of outcomes)
      if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'address.exhausted' });
    expect(given).toHaveLength(124);
    expect(new Set(given).size).toBe(124);
    expect(await ipam.leases(id)).toHaveLength(126);
    // What one releases the other finds, although it saw the pool full.
    await ipam.releaseAddress(
      id,
      given[7]!,
      (await ipam.leases(id)).find(({ address }) => address === given[7])!.owner,
    );
    expect((await other.requestAddress({ pool: id, owner: owner(9_999) })).address).toBe(given[7]);
  },

  async 'one exact address for many at once goes to one'({ ipam, other }) {
    const { id } = await ipam.requestPool(pool('fd20::/64'));
    const outcomes = await Promise.allSettled(
      Array.from({ length: 20 }, (_, n) =>
        (n % 2 ? ipam : other).requestAddress({ pool: id, owner: owner(n), address: 'fd20::7' }),
      ),
    );
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(await ipam.leases(id)).toHaveLength(1);
  },

  async 'everything survives JSON, and lies in its pool'({ ipam }) {
    const four = await ipam.requestPool(automatic(NET));
    const six = await ipam.requestPool(automatic(NET, 6));
    for (const { id, cidr } of [four, six]) {
      const lease = await ipam.requestAddress({ pool: id, owner: owner(1) });
      expect(JSON.parse(JSON.stringify(lease))).toEqual(lease);
      expect(contains(parseCidr(cidr), lease.address)).toBe(true);
      expect(parseAddress(lease.address).value).toBeTypeOf('bigint');
    }
    expect(JSON.parse(JSON.stringify(await ipam.pools()))).toEqual(await ipam.pools());
  },

  async 'what has no owner is freed at the second sight, and nothing else is'({ ipam, advance, graceMs }) {
    if (!ipam.collect) return;
    const { id } = await ipam.requestPool(pool('10.20.0.0/24', NET));
    const stray = await ipam.requestPool(pool('10.21.0.0/24', NET_B));
    await take(ipam, id, 3);
    await take(ipam, stray.id, 2, 1);
    const live = new Set([NET, owner(1)]);
    expect(await ipam.collect(live)).toBe(0);
    await advance(graceMs - 1);
    // One whose owner turned up meanwhile, and one that is new: neither has been seen twice.
    await ipam.requestAddress({ pool: id, owner: owner(4) });
    expect(await ipam.collect(new Set([...live, owner(2)]))).toBe(0);
    await advance(1);
    const freed = await ipam.collect(live);
    expect(sorted(await ipam.leases(id))).toEqual(['10.20.0.1', '10.20.0.2', '10.20.0.4']);
    expect((await ipam.pools()).map(({ cidr }) => cidr)).toEqual(['10.20.0.0/24']);
    expect(await ipam.leases(stray.id)).toEqual([]);
    expect(freed).toBeGreaterThanOrEqual(2);
    await advance(graceMs);
    await ipam.collect(live);
    expect(sorted(await ipam.leases(id))).toEqual(['10.20.0.1']);
  },

  async 'an address that went to another meanwhile is not freed for the first one’s sake'({
    ipam,
    other,
    advance,
    graceMs,
  }) {
    if (!ipam.collect) return;
    const { id } = await ipam.requestPool(pool('10.20.0.0/24', NET));
    await ipam.requestAddress({ pool: id, owner: owner(1), address: '10.20.0.9' });
    await ipam.collect(new Set([NET]));
    await other.releaseAddress(id, '10.20.0.9', owner(1));
    await other.requestAddress({ pool: id, owner: owner(2), address: '10.20.0.9' });
    await advance(graceMs);
    // Its owner is not stored yet: this is the first sight of it.
    await ipam.collect(new Set([NET]));
    expect(await ipam.leases(id)).toMatchObject([{ owner: owner(2) }]);
  },
};

/** Declares the suite for one driver; `make` gives a fresh one for each case. */
export function ipamConformance(name: string, make: () => Promise<IpamUnderTest>): void {
  describe(`ipam contract: ${name}`, () => {
    test.each(Object.keys(IPAM_CASES))('%s', async (which) => {
      const on = await make();
      try {
        await IPAM_CASES[which]!(on);
      } finally {
        await on.close();
      }
    });
  });
}
