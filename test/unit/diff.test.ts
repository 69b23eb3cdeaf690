import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { peerDifference } from '../../src/controller/diagnosis/network.ts';
import { publishDifferences } from '../../src/controller/publish/plan.ts';
import { serviceDifferences } from '../../src/controller/service/difference.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Difference } from '../../src/model/diagnosis/diff.ts';
import { tableDifferences } from '../../src/model/nft/difference.ts';
import { digestTable } from '../../src/model/nft/digest.ts';
import { CliWorld } from './cli-world.ts';

const words = (all: readonly Difference[]) => all.map(({ what, want, have }) => [what, want, have]);

describe('an nft table against what was written', () => {
  const rule = (chain: string, comment: string, ...expr: object[]) => ({ rule: { chain, comment, expr, handle: 7 } });
  const set = (...elem: unknown[]) => ({ set: { name: 'nat4', type: 'ipv4_addr', elem } });
  const chain = (name: string, policy = 'accept') => ({ chain: { name, policy, handle: 1 } });
  const whole = [
    chain('forward'),
    set('10.1.0.1', { prefix: { addr: '10.2.0.0', len: 24 } }),
    rule('forward', 'isolation', { drop: null }),
  ];
  const look = (present: Record<string, unknown>[] | null) =>
    words(tableDifferences('inet t', digestTable(whole), present));

  test('the same, whatever the order of elements and the handles', () => {
    expect(look([chain('forward'), set({ prefix: { addr: '10.2.0.0', len: 24 } }, '10.1.0.1'), whole[2]!])).toEqual([]);
  });
  test('the table itself, a rule, an element, a chain', () => {
    expect(look(null)).toEqual([['nft table inet t', 'there', undefined]]);
    expect(look([whole[0]!, whole[1]!])).toEqual([['a rule of chain forward ("isolation")', 'there', undefined]]);
    expect(look([whole[0]!, set('10.1.0.1', '10.9.0.1'), whole[2]!])).toEqual([
      ['10.2.0.0/24 in set nat4', 'there', undefined],
      ['10.9.0.1 in set nat4', undefined, 'there'],
    ]);
    expect(look([...whole, chain('theirs')])).toEqual([['chain theirs', undefined, 'there']]);
    expect(look([chain('forward', 'drop'), whole[1]!, whole[2]!])).toEqual([
      ['chain forward', 'as it was written', 'altered'],
    ]);
  });
  test('rules in another order', () => {
    const [a, b] = [rule('forward', 'a', { accept: null }), rule('forward', 'b', { drop: null })];
    expect(words(tableDifferences('inet t', digestTable([a, b]), [b, a]))).toEqual([
      ['the order of the rules', 'as they were written', 'another'],
    ]);
  });
});

test('a service against the maps: its VIP, in each view, and its backends', () => {
  const planned = {
    key: 'k',
    address: '10.1.0.9',
    port: 80,
    protocol: 'tcp' as const,
    backends: [{ key: 'b', address: '10.1.0.2', port: 8080 }],
  };
  const frontend = { view: 1, address: '10.1.0.9', port: 80, protocol: 'tcp' as const, set: 5 };
  const backends = new Map([[5, [{ number: 1, address: '10.1.0.2', port: 8080 }]]]);
  const look = (...more: Parameters<typeof serviceDifferences> extends [unknown, ...infer R] ? R : never) =>
    words(serviceDifferences(planned, ...more));
  expect(look(5, [1], { backends, frontends: [frontend] })).toEqual([]);
  expect(look(undefined, [1], { backends, frontends: [] })).toEqual([
    ['VIP 10.1.0.9:80/tcp', 'in the map of frontends', undefined],
  ]);
  expect(
    look(5, [1, 2], {
      backends: new Map([[5, [{ number: 2, address: '10.1.0.3', port: 8080 }]]]),
      frontends: [frontend],
    }),
  ).toEqual([
    ['VIP 10.1.0.9:80/tcp in view 2', 'there', undefined],
    ['backend 10.1.0.2:8080 of VIP 10.1.0.9:80/tcp', 'there', undefined],
    ['backend 10.1.0.3:8080 of VIP 10.1.0.9:80/tcp', undefined, 'there'],
  ]);
});

test('published ports: missing, surplus, leading elsewhere', () => {
  const port = (address: string, ...to: string[]) => ({
    address: '0.0.0.0',
    port: 8080,
    protocol: 'tcp' as const,
    from: 'any' as const,
    backends: to.map((backend) => ({ address: backend, port: 80, ifname: 'sl', subnet: '10.1.0.0/24' })),
    ...(address && { address }),
  });
  expect(publishDifferences([port('', '10.1.0.2')], [port('', '10.1.0.2')])).toEqual([]);
  expect(
    words(
      publishDifferences([port('', '10.1.0.2'), port('192.0.2.1')], [port('', '10.1.0.3'), port('::', '10.1.0.2')]),
    ),
  ).toEqual([
    ['published port 0.0.0.0:8080/tcp', 'leads to 10.1.0.2:80', 'leads to 10.1.0.3:80'],
    ['published port 192.0.2.1:8080/tcp', 'leads to nobody', undefined],
    ['published port [::]:8080/tcp', undefined, 'leads to 10.1.0.2:80'],
  ]);
});

test('an entry of a peer comes with the command that sets it', () => {
  const place = { bridge: 'sl1', device: 'sx1' };
  expect(peerDifference({ table: 'forwarding', key: 'M', want: 'V' }, place).command).toBe(
    'bridge fdb replace M dev sx1 dst V self static',
  );
  expect(peerDifference({ table: 'neighbour', key: 'IP', have: 'M' }, place)).toEqual({
    what: 'neighbour IP on sl1',
    want: undefined,
    have: 'M',
    command: 'ip neigh del IP dev sl1',
  });
});

describe('sluice diff', () => {
  let world: CliWorld;
  beforeEach(async () => {
    world = new CliWorld();
    await world.open();
  });
  afterEach(() => world.close());

  test('says that all is well, and how much that is', async () => {
    world.world.diff = async () => ({
      node: 'host-1',
      compared: { network: 3, endpoint: 1, service: 1, host: 1 },
      items: [],
      skipped: [],
    });
    expect(await world.must('diff')).toBe(
      'the kernel of host-1 is as it should be (3 networks, 1 endpoint, 1 service)\n',
    );
  });

  test('prints each difference with its command, and ends with 1', async () => {
    const asked: unknown[] = [];
    world.world.diff = async (query) => {
      asked.push(query);
      const differences = [
        { what: 'link sv1', want: 'up', have: 'down', command: 'ip link set sv1 up' },
        { what: 'address 10.1.0.1/24 of sl1', want: 'there' },
        { what: 'chain theirs', have: 'there' },
      ];
      const error = { code: 'driver.failed', message: 'no bridge' };
      const skipped = [{ kind: 'network' as const, name: 'ptp', reason: 'its driver is not one of the built-in ones' }];
      return {
        node: 'host-1',
        compared: { network: 1 },
        items: [{ kind: 'network', name: 'web', differences, error }],
        skipped,
      };
    };
    const { status, out } = await world.sluice('diff network web');
    expect(status).toBe(1);
    expect(out).toBe(
      [
        'network web',
        '  not programmed: no bridge (driver.failed)',
        '  link sv1: should be up, is down',
        '      ip link set sv1 up',
        '  address 10.1.0.1/24 of sl1: missing',
        '  chain theirs: should not be there',
        'network ptp not compared: its driver is not one of the built-in ones',
        '1 object differs on host-1 (1 network)',
        '',
      ].join('\n'),
    );
    expect(asked).toEqual([{ kind: 'network', name: 'web' }]);
    const json = await world.sluice('diff --format json');
    expect([json.status, JSON.parse(json.out).items[0].name]).toEqual([1, 'web']);
    expect(asked[1]).toEqual({});
  });

  test('ends with 2 where it cannot be told', async () => {
    world.world.diff = async () => {
      throw new SluiceError('object.notfound', 'this node has no network nowhere', {});
    };
    expect(await world.sluice('diff network nowhere')).toMatchObject({
      status: 2,
      err: expect.stringContaining('nowhere'),
    });
    expect(await world.sluice('diff planet')).toMatchObject({ status: 2 });
    expect((await world.world.api().request('/v1/diff?name=web')).status).toBe(400);
  });
});
