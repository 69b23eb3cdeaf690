import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Lease } from '../../src/contracts/driver.ts';
import { nextAddress, nextSubnet, usable } from '../../src/ipam/choose.ts';
import { createIpam } from '../../src/ipam/ipam.ts';
import { Occupancy } from '../../src/ipam/occupancy.ts';
import { type Cidr, formatCidr, overlaps, parseAddress, parseCidr } from '../../src/model/ip.ts';
import { leaseKey } from '../../src/model/keys.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { createManualClock } from '../clock.ts';

describe('occupancy is a set of addresses', () => {
  const step = fc.tuple(fc.constantFrom('add', 'add', 'delete'), fc.bigInt({ min: 0n, max: 24n }));
  /** The same near the end of IPv6. */
  const bases = fc.constantFrom(0n, (1n << 128n) - 25n);

  test('under any additions and deletions', () => {
    fc.assert(
      fc.property(bases, fc.array(step, { maxLength: 60 }), (base, steps) => {
        const model = new Set<bigint>();
        const taken = new Occupancy();
        for (const [what, offset] of steps) {
          const value = base + offset;
          if (what === 'add') {
            model.add(value);
            taken.add(value);
          } else {
            model.delete(value);
            taken.delete(value);
          }
        }
        const rebuilt = new Occupancy(model);
        const all = Array.from({ length: 25 }, (_, n) => base + BigInt(n));
        for (const from of all) {
          expect(taken.has(from)).toBe(model.has(from));
          const up = all.find((value) => value >= from && !model.has(value)) ?? null;
          const down = all.findLast((value) => value <= from && !model.has(value)) ?? null;
          for (const one of [taken, rebuilt]) {
            expect(one.lowestFree(from, base + 24n)).toBe(up);
            expect(one.highestFree(base, from)).toBe(down);
          }
        }
      }),
    );
  });
});

describe('the next address', () => {
  const cidrs = fc.constantFrom(
    '10.0.0.0/28',
    '10.0.0.16/30',
    '10.0.0.4/31',
    '10.0.0.9/32',
    'fd00::/124',
    'fd00::2/127',
  );

  test('is free, usable, in the range, behind the cursor if one is, and found while there is one', () => {
    fc.assert(
      fc.property(
        cidrs,
        fc.option(fc.integer({ min: 28, max: 32 })),
        fc.array(fc.nat(15), { maxLength: 16 }),
        fc.integer({ min: -1, max: 16 }),
        fc.boolean(),
        (text, rangePrefix, offsets, cursorOffset, fromTop) => {
          const cidr = parseCidr(text);
          const bits = cidr.family === 4 ? 32 : 128;
          const range: Cidr | undefined =
            rangePrefix === null ? undefined : { ...cidr, prefix: Math.max(cidr.prefix, bits - 32 + rangePrefix) };
          const values = offsets.map((offset) => cidr.base + BigInt(offset));
          const taken = new Occupancy(values);
          const cursor = cidr.base + BigInt(cursorOffset);
          const { low, high } = usable(cidr);
          const end = range ? range.base + (1n << BigInt(bits - range.prefix)) - 1n : high;
          const free: bigint[] = [];
          for (let value = low; value <= high && value <= end; value++) if (!values.includes(value)) free.push(value);
          const expected = fromTop ? free.at(-1) : (free.find((value) => value > cursor) ?? free[0]);
          expect(nextAddress({ cidr, range, taken, cursor, fromTop })).toBe(expected ?? null);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('the next automatic subnet', () => {
  test('is the first that overlaps nothing', () => {
    const base = { base: '10.0.16.0/20', size: 24 };
    const cidr = fc
      .tuple(fc.nat(40), fc.integer({ min: 18, max: 28 }))
      .map(([third, prefix]) => parseCidr(`10.0.${third}.${prefix > 24 ? 64 : 0}/${prefix}`));
    fc.assert(
      fc.property(fc.array(cidr, { maxLength: 12 }), (taken) => {
        const expected = Array.from({ length: 16 }, (_, n) => parseCidr(`10.0.${16 + n}.0/24`)).find(
          (subnet) => !taken.some((other) => overlaps(other, subnet)),
        );
        expect(nextSubnet([base], 4, taken)).toEqual(expected ?? null);
      }),
      { numRuns: 500 },
    );
  });

  test('counts from the address that is written, and goes on to the next base', () => {
    const bases = [
      { base: '172.17.0.0/12', size: 16 },
      { base: '192.168.0.0/16', size: 20 },
    ];
    const taken: Cidr[] = [];
    const given: string[] = [];
    for (let next = nextSubnet(bases, 4, taken); next; next = nextSubnet(bases, 4, taken)) {
      taken.push(next);
      given.push(formatCidr(next));
    }
    expect(given).toHaveLength(15 + 16);
    expect([given[0], given[14], given[15], given[30]]).toEqual([
      '172.17.0.0/16',
      '172.31.0.0/16',
      '192.168.0.0/20',
      '192.168.240.0/20',
    ]);
    // Not aligned as written: the first whole subnet behind it.
    expect(nextSubnet([{ base: '10.0.0.5/8', size: 24 }], 4, [])).toEqual(parseCidr('10.0.1.0/24'));
    expect(nextSubnet([{ base: 'fd00::/32', size: 64 }], 6, [parseCidr('fd00::/33')])).toEqual(
      parseCidr('fd00:0:8000::/64'),
    );
    expect(nextSubnet(bases, 6, [])).toBeNull();
  });
});

const setUp = () => {
  const clock = createManualClock();
  const store = createMemoryStore({ clock });
  const make = () => createIpam({ store, clock, pools: [] });
  return { store, make };
};
const request = (cidr: string) => ({
  space: 'local' as const,
  family: cidr.includes(':') ? (6 as const) : (4 as const),
  cidr,
  avoid: [],
  owner: 'net',
});

test('three daemons that lease and release as they like agree with a model', async () => {
  const step = fc.record({
    daemon: fc.nat(2),
    what: fc.constantFrom('any', 'any', 'vip', 'exact', 'release', 'together'),
    n: fc.nat(13),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('10.0.0.0/28', 'fd00::/124'),
      fc.array(step, { maxLength: 50 }),
      async (cidr, steps) => {
        const { make } = setUp();
        const daemons = [make(), make(), make()];
        const { id } = await daemons[0]!.requestPool(request(cidr));
        const room = cidr.includes(':') ? 15 : 14;
        const model = new Map<string, string>();
        const base = parseCidr(cidr).base;
        const check = ({ address, owner }: Lease): void => {
          expect(model.has(address) && model.get(address) !== owner).toBe(false);
          expect(parseAddress(address).value).toBeGreaterThan(base);
          model.set(address, owner);
        };
        let count = 0;
        for (const { daemon, what, n } of steps) {
          const ipam = daemons[daemon]!;
          const owner = `o${count++}`;
          const address = cidr.includes(':') ? `fd00::${(n + 1).toString(16)}` : `10.0.0.${n + 1}`;
          if (what === 'release') {
            const held = [...model][n];
            if (!held) continue;
            await ipam.releaseAddress(id, held[0], held[1]);
            model.delete(held[0]);
          } else if (what === 'exact') {
            const wasTaken = model.has(address);
            const lease = await ipam.requestAddress({ pool: id, owner, address }).catch((error) => error);
            if (wasTaken) expect(lease).toMatchObject({ code: 'address.inuse' });
            else check(lease);
          } else if (what === 'together') {
            const before = model.size;
            const outcomes = await Promise.allSettled(
              daemons.map((each, i) => each.requestAddress({ pool: id, owner: `${owner}.${i}` })),
            );
            for (const outcome of outcomes) if (outcome.status === 'fulfilled') check(outcome.value);
            expect(model.size).toBe(Math.min(room, before + 3));
          } else {
            const isFull = model.size === room;
            const purpose = what === 'vip' ? 'vip' : 'endpoint';
            const lease = await ipam.requestAddress({ pool: id, owner, purpose }).catch((error) => error);
            if (isFull) expect(lease).toMatchObject({ code: 'address.exhausted' });
            else check(lease);
          }
        }
        const leases = await daemons[1]!.leases(id);
        expect(new Map(leases.map(({ address, owner }) => [address, owner]))).toEqual(model);
      },
    ),
    { numRuns: 150 },
  );
});

test('after a restart the search goes on behind the address that was given last', async () => {
  const { make } = setUp();
  const ipam = make();
  const { id } = await ipam.requestPool(request('10.0.0.0/24'));
  for (let n = 0; n < 5; n++) await ipam.requestAddress({ pool: id, owner: `o${n}` });
  await ipam.requestAddress({ pool: id, owner: 'high', address: '10.0.0.200' });
  await ipam.requestAddress({ pool: id, owner: 'o6' });
  await ipam.releaseAddress(id, '10.0.0.2', 'o1');
  expect((await make().requestAddress({ pool: id, owner: 'o7' })).address).toBe('10.0.0.7');
});

test('60,000 leases: an allocation, also through holes and into the last free place, does not look at them all', {
  timeout: 60_000,
}, async () => {
  const { store, make } = setUp();
  const { id } = await make().requestPool(request('10.0.0.0/16'));
  const base = parseCidr('10.0.0.0/16').base;
  const text = (value: bigint) => [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 255n).join('.');
  const keyed = Array.from({ length: 60_000 }, (_, n) => {
    const address = text(base + BigInt(n + 1));
    const value: Lease = { pool: id, address, owner: `o${n}`, purpose: 'endpoint' };
    return { op: 'put', key: leaseKey(id, address), value } as const;
  });
  for (let from = 0; from < keyed.length; from += 5_000) await store.transact(keyed.slice(from, from + 5_000));
  const ipam = make();
  await ipam.requestAddress({ pool: id, owner: 'first' });
  for (let n = 0; n < 1_000; n++) await ipam.releaseAddress(id, text(base + BigInt(n * 50 + 1)), `o${n * 50}`);
  const started = performance.now();
  const given = new Set<string>();
  for (let n = 0; n < 6_400; n++) given.add((await ipam.requestAddress({ pool: id, owner: `n${n}` })).address);
  const ms = (performance.now() - started) / 6_400;
  expect(given.size).toBe(6_400);
  // It takes a tenth of this; looking at every lease took ten times as long.
  expect(ms).toBeLessThan(1);
});
