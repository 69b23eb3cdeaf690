/** What every form of published ports does, whatever it is made of. */
import { expect, test } from 'vitest';
import type { PublishedPort, Publisher } from '../../src/contracts/publisher.ts';

export interface PublisherUnderTest {
  readonly publisher: Publisher;
  /** The daemon ends and comes back. */
  restart(): void;
  /** Somebody takes away what is in the kernel. */
  damage(): void;
  /** Whether the kernel has anything of it. */
  stands(): boolean;
  close(): void;
}

const port = (number: number, changes: Partial<PublishedPort> = {}): PublishedPort => ({
  address: '0.0.0.0',
  port: number,
  protocol: 'tcp',
  from: 'any',
  backends: [{ address: '10.77.0.2', port: 80, ifname: 'lo', subnet: '10.77.0.0/24' }],
  ...changes,
});
const V6 = port(8080, {
  address: '::',
  backends: [{ address: 'fd77::2', port: 80, ifname: 'lo', subnet: 'fd77::/64' }],
});

const owners = ({ publisher }: PublisherUnderTest): string[] => [...publisher.published().keys()].sort();
const refusal = (fn: () => void): unknown => {
  try {
    fn();
    return null;
  } catch (error) {
    return error;
  }
};

export const PUBLISHER_CASES: Readonly<Record<string, (under: PublisherUnderTest) => void>> = {
  'is known by its owner, replaced whole, and gone when removed'(under) {
    const { publisher } = under;
    publisher.ensure('a', [port(8080), V6]);
    publisher.ensure('b', [port(8081, { from: ['10.0.0.0/8', '10.1.0.0/16', '192.168.7.0/24'], protocol: 'udp' })]);
    expect(publisher.published().get('a')).toEqual([port(8080), V6]);
    publisher.ensure('a', [port(8082)]);
    expect(publisher.published().get('a')).toEqual([port(8082)]);
    expect(publisher.audit()).toEqual([]);
    publisher.remove('a');
    publisher.remove('a');
    expect(owners(under)).toEqual(['b']);
    publisher.ensure('b', []);
    expect(owners(under)).toEqual([]);
    expect(under.stands()).toBe(false);
  },
  'one port has one owner, and who came second changes nothing'(under) {
    const { publisher } = under;
    publisher.ensure('a', [port(8080)]);
    for (const address of ['0.0.0.0', '127.0.0.1'])
      expect(refusal(() => publisher.ensure('b', [port(9000), port(8080, { address })]))).toMatchObject({
        code: 'port.inuse',
        details: { owner: 'a', port: 8080 },
      });
    expect(owners(under)).toEqual(['a']);
    publisher.ensure('b', [port(8080, { protocol: 'udp' }), V6]);
    publisher.ensure('c', [port(9000, { address: '127.0.0.1' })]);
    publisher.ensure('d', [port(9000, { address: '10.0.0.1' })]);
    expect(owners(under)).toEqual(['a', 'b', 'c', 'd']);
    expect(publisher.audit()).toEqual([]);
  },
  'goes on over a restart; what nobody wants goes when that is known'(under) {
    under.publisher.ensure('a', [port(8080)]);
    under.publisher.ensure('b', [port(8081)]);
    under.restart();
    expect(owners(under)).toEqual(['a', 'b']);
    expect(under.stands()).toBe(true);
    expect(under.publisher.audit()).toEqual([]);
    expect(under.publisher.prune(new Set(['a']))).toBe(1);
    expect(under.publisher.prune(new Set(['a']))).toBe(0);
    expect(owners(under)).toEqual(['a']);
  },
  'what was taken away is put back, and said'(under) {
    under.publisher.ensure('a', [port(8080)]);
    expect(under.publisher.compare()).toEqual([]);
    under.damage();
    // To look is not to mend.
    const found = under.publisher.compare();
    expect(found.length).toBeGreaterThan(0);
    expect(under.publisher.compare()).toEqual(found);
    expect(under.publisher.audit()).toEqual([expect.objectContaining({ object: 'published' })]);
    expect(under.publisher.audit()).toEqual([]);
    expect(under.publisher.compare()).toEqual([]);
    expect(under.stands()).toBe(true);
  },
  'off leaves nothing'(under) {
    under.publisher.ensure('a', [port(8080), V6]);
    under.publisher.off();
    expect(owners(under)).toEqual([]);
    expect(under.stands()).toBe(false);
    under.restart();
    expect(owners(under)).toEqual([]);
  },
  'takes as many backends as it says'(under) {
    const { form, backendsMax } = under.publisher.capabilities();
    expect(form).toBe('nft');
    const backends = Array.from({ length: backendsMax }, (_, n) => ({
      address: `10.77.0.${n + 2}`,
      port: 80,
      ifname: 'lo',
      subnet: '10.77.0.0/24',
    }));
    under.publisher.ensure('a', [port(8080, { backends })]);
    expect(under.publisher.audit()).toEqual([]);
  },
};

export function publisherConformance(open: () => PublisherUnderTest): void {
  for (const [title, run] of Object.entries(PUBLISHER_CASES))
    test(title, () => {
      const under = open();
      try {
        run(under);
      } finally {
        under.close();
      }
    });
}
