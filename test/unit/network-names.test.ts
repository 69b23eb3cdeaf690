import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { NetworkNames } from '../../src/controller/service/network-names.ts';
import {
  type Called,
  callOfEndpoint,
  callOfService,
  changeOf,
  mergeViews,
  type NameDifference,
} from '../../src/controller/service/record.ts';
import { NameTable } from '../../src/dns/table.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { Service, ServiceSpec } from '../../src/model/service.ts';

const endpoint = (addresses: string[], aliases: string[] = []): Endpoint =>
  ({ spec: { addresses, aliases } }) as unknown as Endpoint;
const service = (name: string, spec: Partial<ServiceSpec>): Service =>
  ({ name, spec: { vips: [], ports: [], backends: [], aliases: [], ...spec } }) as unknown as Service;

const boxA = callOfEndpoint(endpoint(['10.0.0.3/24'], ['api']), 'box-a', 'web');
const boxB = callOfEndpoint(endpoint(['10.0.0.2/24', 'fd00::2/64'], ['API']), 'box-b', 'web');
const addressesOf = (sandbox: string): string[] => (sandbox === 's-a' ? ['10.0.0.3/24'] : []);

function named(called: Record<string, Called>): NetworkNames {
  const names = new NetworkNames();
  for (const [member, each] of Object.entries(called)) names.set(member, each);
  names.settle();
  return names;
}

describe('names of a network', () => {
  test('names, aliases answered together, NAME.NETWORK, reverse', () => {
    const { records, reverse } = named({ boxA, boxB });
    expect(records.get('box-a')?.a).toEqual(['10.0.0.3']);
    expect(records.get('box-b.web')?.aaaa).toEqual(['fd00::2']);
    expect(records.get('api')?.a).toEqual(['10.0.0.2', '10.0.0.3']);
    expect(reverse.get('10.0.0.3')).toBe('box-a.web');
  });

  test('a service has its VIPs, its tasks and SRV for named ports, and wins over a sandbox of its name', () => {
    const shop = service('box-a', {
      vips: ['10.0.0.100'],
      ports: [{ name: 'http', port: 80, target: 80, protocol: 'tcp' }],
      backends: [{ sandbox: 's-a' }, { sandbox: 's-gone' }],
    });
    const names = named({ boxA, boxB, shop: callOfService(shop, 'web', addressesOf) });
    expect(names.records.get('box-a')?.a).toEqual(['10.0.0.100']);
    expect(names.records.get('box-a.web')?.a).toEqual(['10.0.0.100']);
    expect(names.records.get('tasks.box-a')?.a).toEqual(['10.0.0.3']);
    expect(names.records.get('_http._tcp.box-a')?.srv).toEqual([{ priority: 0, weight: 1, port: 80, target: 'box-a' }]);
    expect(names.reverse.get('10.0.0.100')).toBe('box-a.web');
    names.set('shop', undefined);
    expect([...names.settle().records.keys()].sort()).toEqual([
      '_http._tcp.box-a',
      'box-a',
      'box-a.web',
      'tasks.box-a',
      'tasks.box-a.web',
    ]);
    expect(names.records.get('box-a')?.a).toEqual(['10.0.0.3']);
  });

  test('at a service’s alias sandboxes are found, too', () => {
    const shop = callOfService(service('shop', { vips: ['10.0.0.100'], aliases: ['api'] }), 'web', addressesOf);
    expect(named({ boxA, shop }).records.get('api')?.a).toEqual(['10.0.0.100', '10.0.0.3']);
  });

  test('what is called the same differs in nothing', () => {
    const names = named({ boxA, boxB });
    names.set('boxA', callOfEndpoint(endpoint(['10.0.0.3/24'], ['api']), 'box-a', 'web'));
    const { records, reverse } = names.settle();
    expect([records.size, reverse.size]).toEqual([0, 0]);
  });

  test('an address that went to another before its first owner is gone stays the other’s', () => {
    const names = named({ first: callOfEndpoint(endpoint(['10.0.0.9/24']), 'first', 'web') });
    names.set('second', callOfEndpoint(endpoint(['10.0.0.9/24']), 'second', 'web'));
    names.set('first', undefined);
    expect(names.settle().reverse).toEqual(new Map([['10.0.0.9', 'second.web']]));
  });
});

describe('a view of several networks', () => {
  const zoo = named({ other: callOfEndpoint(endpoint(['10.9.0.2/24']), 'box-a', 'zoo') });

  test('the first network owns a name that two have', () => {
    const { records, shadowed } = mergeViews([named({ boxA, boxB }), zoo]);
    expect(records.find(({ name }) => name === 'box-a')?.a).toEqual(['10.0.0.3']);
    expect(records.find(({ name }) => name === 'box-a.zoo')?.a).toEqual(['10.9.0.2']);
    expect(shadowed).toEqual(['box-a']);
  });

  test('what goes from the first network is found in the second', () => {
    const web = named({ boxA });
    web.set('boxA', undefined);
    const { records } = changeOf([web, zoo], web.settle());
    expect(records.get('box-a')?.a).toEqual(['10.9.0.2']);
    expect([records.has('box-a.web'), records.get('box-a.web')]).toEqual([true, undefined]);
  });
});

/** Members with few names and addresses, so that they meet. */
const words = fc.constantFrom('a', 'b', 'c');
const address = fc.constantFrom('10.0.0.1', '10.0.0.2', 'fd00::1');
const call = fc.oneof(
  fc.tuple(words, fc.uniqueArray(address), fc.uniqueArray(words)).map(
    ([name, addresses, aliases]) =>
      (network: string) =>
        callOfEndpoint(endpoint(addresses, aliases), name, network),
  ),
  fc.tuple(words, fc.uniqueArray(address), fc.uniqueArray(words), fc.boolean()).map(
    ([name, vips, aliases, port]) =>
      (network: string) =>
        callOfService(
          service(name, { vips, aliases, ports: port ? [{ name: 'p', port: 1, target: 1, protocol: 'tcp' }] : [] }),
          network,
          addressesOf,
        ),
  ),
);
const step = fc.record({
  network: fc.constantFrom('web', 'zoo'),
  member: fc.constantFrom('1', '2', '3', '4'),
  call: fc.option(call, { nil: undefined }),
});

test('change by change the same comes about as at once, in a network and in a view', () => {
  const plain = (names: NetworkNames) => ({
    records: Object.fromEntries([...names.records].sort()),
    // Which of several has an address is told by their order alone.
    addresses: [...names.reverse.keys()].sort(),
  });
  const served = (table: NameTable) =>
    ['a', 'b', 'c', 'a.web', 'tasks.a', '_tcp.a', '_p._tcp.b', '1.0.0.10.in-addr.arpa'].map((name) => {
      const entry = table.find(name);
      return entry && [1, 28, 33].map((type) => entry.set(type)?.bytes.toString() ?? null);
    });
  fc.assert(
    fc.property(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 8 }), (turns) => {
      const kept = { web: new NetworkNames(), zoo: new NetworkNames() };
      const now = { web: new Map<string, Called>(), zoo: new Map<string, Called>() };
      const settings = { view: 1, subnets: ['10.0.0.0/24'], forward: true };
      const table = new NameTable({ ...settings, records: [], reverse: new Map() });
      for (const turn of turns) {
        for (const one of turn) {
          const called = one.call?.(one.network);
          kept[one.network as 'web'].set(one.member, called);
          now[one.network as 'web'].delete(one.member);
          if (called) now[one.network as 'web'].set(one.member, called);
        }
        const differs: NameDifference[] = [kept.web.settle(), kept.zoo.settle()];
        for (const each of differs) table.change(changeOf([kept.web, kept.zoo], each));
      }
      const fresh = { web: named(Object.fromEntries(now.web)), zoo: named(Object.fromEntries(now.zoo)) };
      expect(plain(kept.web)).toEqual(plain(fresh.web));
      expect(plain(kept.zoo)).toEqual(plain(fresh.zoo));
      const { records, reverse } = mergeViews([kept.web, kept.zoo]);
      expect(served(table)).toEqual(served(new NameTable({ ...settings, records, reverse })));
    }),
    { numRuns: 300 },
  );
});
