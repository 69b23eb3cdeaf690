import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkBackends, checkFrontend, frontendName } from '../../src/balancer/input.ts';
import { address, array, hex, mac, port, struct, u8, u32, u64, zeros } from '../../src/balancer/maps/struct.ts';
import { planSlots } from '../../src/balancer/slots.ts';

const numbers = fc.uniqueArray(fc.integer({ min: 1, max: 12 }), { maxLength: 10 });

describe('planSlots', () => {
  /** What a reader may draw: every slot below the count, and whether its backend lives. */
  const sound = (slots: ReadonlyMap<number, number>, backends: ReadonlySet<number>, count: number): boolean =>
    Array.from({ length: count }, (_, index) => slots.get(index)).every(
      (number) => number !== undefined && backends.has(number),
    );

  test('no step of it ever lets a reader draw a slot that is empty or a backend that is gone', () => {
    fc.assert(
      fc.property(numbers, numbers, (before, after) => {
        const slots = new Map(before.entries());
        const backends = new Set(before);
        let count = before.length;
        const plan = planSlots(before, after);
        const step = (act: () => void): void => {
          act();
          expect(sound(slots, backends, count)).toBe(true);
        };
        for (const number of after) step(() => backends.add(number));
        for (const [index, number] of plan.order.entries()) step(() => slots.set(index, number));
        step(() => {
          count = plan.order.length;
        });
        for (const index of plan.deletes) step(() => slots.delete(index));
        for (const number of plan.gone) step(() => backends.delete(number));
        expect([...slots.values()].sort()).toEqual([...after].sort());
        expect([...backends].sort()).toEqual([...after].sort());
      }),
    );
  });

  test('backends that stay keep their slot, but for those that fill what is free from the end', () => {
    expect(planSlots([1, 2, 3, 4], [1, 2, 3, 4]).order).toEqual([1, 2, 3, 4]);
    expect(planSlots([1, 2, 3, 4], [1, 3, 4]).order).toEqual([1, 4, 3]);
    expect(planSlots([1, 2, 3, 4], [1, 5, 3, 4, 6]).order).toEqual([1, 5, 3, 4, 6]);
    expect(planSlots([1, 2, 3], [])).toEqual({ order: [], deletes: [0, 1, 2], gone: [1, 2, 3] });
    expect(planSlots([], [2, 1])).toEqual({ order: [2, 1], deletes: [], gone: [] });
  });

  test('what a life that was cut short left is mended: a missing slot, one backend in two', () => {
    expect(planSlots([0, 2, 3], [2, 3]).order).toEqual([3, 2]);
    expect(planSlots([1, 3, 3], [1, 3])).toEqual({ order: [1, 3], deletes: [2], gone: [] });
    expect(planSlots([3, 3], [1, 3])).toEqual({ order: [3, 1], deletes: [], gone: [] });
  });
});

describe('struct', () => {
  const inner = struct('inner', { number: u32, to: port, spare: zeros(2) });
  const outer = struct('outer', {
    mac,
    one: u8,
    spare: zeros(1),
    at: address,
    list: array(inner, 2),
    id: hex(4),
    big: u64,
  });

  test('lays fields out one after the other', () => {
    expect(outer.size).toBe(8 + 16 + 16 + 4 + 8);
    expect(outer.offsets).toEqual({ mac: 0, one: 6, spare: 7, at: 8, list: 24, id: 40, big: 44 });
  });

  test('reads back what it wrote, addresses as v4-mapped, ports in network order', () => {
    const value = {
      mac: '02:42:0a:00:00:01',
      one: 7,
      at: '10.0.0.1',
      list: [
        { number: 1, to: 80 },
        { number: 2, to: 443 },
      ],
      id: '00c0ffee',
      big: 1n << 40n,
    };
    const bytes = outer.encode(value);
    expect(outer.decode(bytes)).toEqual(value);
    expect(bytes.toString('hex', 8, 24)).toBe('00000000000000000000ffff0a000001');
    expect(bytes.toString('hex', 28, 30)).toBe('0050');
  });
});

describe('what may be asked', () => {
  test('a frontend with a port needs a protocol, and one without needs none', () => {
    expect(() => checkFrontend({ view: 1, address: '10.0.0.1', port: 80 })).toThrow(/port but no protocol/);
    expect(() => checkFrontend({ view: 1, address: '10.0.0.1', port: 0 })).not.toThrow();
  });

  test('a frontend`s name takes no notice of how its address is written', () => {
    expect(frontendName({ view: 1, address: 'FD00:0::1', port: 80, protocol: 'tcp' })).toBe('1/fd00::1/80/tcp');
    expect(frontendName({ view: 1, address: 'fd00::1', port: 0, protocol: 'tcp' })).toBe('1/fd00::1/*');
  });

  test('0 is no number, and all backends are looked at first', () => {
    expect(() => checkBackends(0, [])).toThrow(/stands for none/);
    expect(() => checkBackends(1, [{ number: 0, address: '10.0.0.1', port: 1 }])).toThrow(/stands for none/);
    expect(() => checkBackends(1, [{ number: 1, address: '10.0.0.256', port: 1 }])).toThrow(/not an IP address/);
  });
});
