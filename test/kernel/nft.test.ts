import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Namespace, Nft } from '../../src/contracts/kernel.ts';
import { inside, KernelBed } from './kernel-bed.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

let space: Namespace;
let nft: Nft;
beforeEach(() => {
  nft?.[Symbol.dispose]();
  space?.[Symbol.dispose]();
  space = bed.namespace();
  nft = bed.kernel.nft(space);
});
afterAll(() => {
  nft?.[Symbol.dispose]();
  space?.[Symbol.dispose]();
});

const seen = (): string => inside(space, 'nft', 'list', 'ruleset');

describe('transactions', () => {
  test('are atomic: 5,000 elements and one wrong rule leave nothing', () => {
    const elements = Array.from({ length: 5_000 }, (_, i) => `10.0.${i >> 8}.${i & 255} . 80`).join(', ');
    const table = `table inet x {\n set s { type ipv4_addr . inet_service; elements = { ${elements} } }\n}\n`;
    expect(() => nft.apply(`${table}add rule inet x absent drop\n`)).toThrow(
      expect.objectContaining({ code: 'kernel.notfound' }),
    );
    expect(seen()).toBe('');
    nft.apply(table);
    const count = (): number => {
      const [set] = (nft.list('set inet x s') ?? []) as { set: { elem: unknown[] } }[];
      return set?.set.elem.length ?? 0;
    };
    expect(count()).toBe(5_000);
    expect(() => nft.apply('delete element inet x s { 10.0.0.1 . 80 }\nadd rule inet x absent drop')).toThrow();
    expect(count()).toBe(5_000);
    nft.apply('delete element inet x s { 10.0.0.1 . 80 }');
    expect(count()).toBe(4_999);
  });

  test('replace a table while others see it before or after, never without', () => {
    nft.apply('table inet x {\n chain c { type filter hook input priority 0; policy drop; }\n}');
    for (let i = 0; i < 50; i++) {
      nft.apply(
        `add table inet x\ndelete table inet x\ntable inet x {\n chain c { type filter hook input priority 0; policy drop; tcp dport ${i + 1} accept; }\n}`,
      );
      expect(nft.tables()).toEqual(['inet x']);
    }
    expect(seen()).toContain('tcp dport 50 accept');
    expect(seen()).not.toContain('tcp dport 49 accept');
  });

  test('leave the tables of others alone, and see what others do', () => {
    inside(space, 'nft', 'add', 'table', 'ip', 'foreign');
    nft.apply('add table inet ours');
    expect([...nft.tables()].sort()).toEqual(['inet ours', 'ip foreign']);
    inside(space, 'nft', 'delete', 'table', 'inet', 'ours');
    expect(nft.list('table inet ours')).toBeNull();
    nft.apply('delete table ip foreign');
    expect(seen()).toBe('');
  });
});

describe('errors', () => {
  test('carry nft`s own words and a code', () => {
    expect(() => nft.apply('add rule inet absent c drop')).toThrow(
      expect.objectContaining({
        code: 'kernel.notfound',
        message: expect.stringMatching(/^nft "add rule inet absent c drop": Error: .*No such file or directory/),
        details: { nft: expect.stringContaining('^') },
      }),
    );
    expect(() => nft.apply('table inet x { chain c {')).toThrow(/syntax error, unexpected end of file/);
    expect(() => nft.list('nonsense')).toThrow(/syntax error/);
    nft.apply('add table inet x');
    expect(() => nft.apply('create table inet x')).toThrow(expect.objectContaining({ code: 'kernel.exists' }));
    expect(nft.tables()).toEqual(['inet x']);
  });

  test('of a closed context are ours, not a crash', () => {
    const other = bed.kernel.nft(space);
    other[Symbol.dispose]();
    other[Symbol.dispose]();
    expect(() => other.tables()).toThrow(/was closed/);
  });
});

test('names of interfaces are those of the namespace', () => {
  const { ifindex } = space.netlink.ensureBridge('only-here', { mac: '02:00:00:00:00:01', mtu: 1500, alias: '' });
  nft.apply('table inet x {\n chain c { iif "only-here" accept; }\n}');
  expect(JSON.stringify(nft.list('chain inet x c'))).toContain('only-here');
  expect(ifindex).toBeGreaterThan(1);
});

test('2,000 small transactions keep no memory', () => {
  nft.apply('table inet x {\n map m { type ipv4_addr : ipv4_addr; }\n}');
  const turn = (i: number): void => {
    nft.apply(`add element inet x m { 10.0.0.${i & 255} : 10.1.0.1 }`);
    nft.apply(`delete element inet x m { 10.0.0.${i & 255} }`);
  };
  for (let i = 0; i < 200; i++) turn(i);
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 1_000; i++) turn(i);
  expect(process.memoryUsage().rss - before).toBeLessThan(32 << 20);
});
