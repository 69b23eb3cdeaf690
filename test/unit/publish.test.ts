import { describe, expect, test } from 'vitest';
import { renderPublish, slotsOf, widest } from '../../src/balancer/nft/table.ts';
import { UsageError } from '../../src/cli/command/command.ts';
import { readPublish } from '../../src/cli/command/publish.ts';
import type { PublishedPort } from '../../src/contracts/publisher.ts';
import { type Defaults, isKeptIn, planPort, planWays } from '../../src/controller/publish/plan.ts';
import { portChooser, publishOf, publishRequests } from '../../src/desired/container/publish.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import type { PublishSpec } from '../../src/model/container.ts';
import { createFakeImages } from './image-fake.ts';

describe('--publish', () => {
  test.each([
    ['80', [{ target: 80 }]],
    ['8080:80', [{ published: 8080, target: 80 }]],
    ['8080:80/udp', [{ published: 8080, target: 80, protocol: 'udp' }]],
    ['127.0.0.1:8080:80', [{ address: '127.0.0.1', published: 8080, target: 80 }]],
    ['127.0.0.1::80', [{ address: '127.0.0.1', target: 80 }]],
    ['[::1]:8080:80', [{ address: '::1', published: 8080, target: 80 }]],
    ['[fd00::5]:8080:80/tcp', [{ address: 'fd00::5', published: 8080, target: 80, protocol: 'tcp' }]],
    [
      '8080-8081:80-81',
      [
        { published: 8080, target: 80 },
        { published: 8081, target: 81 },
      ],
    ],
    ['target=80', [{ target: 80 }]],
    [
      'published=8080,target=80,protocol=udp,mode=host,from=any',
      [{ published: 8080, target: 80, protocol: 'udp', mode: 'host', from: 'any' }],
    ],
    [
      'published=8080,target=80,address=10.0.0.1,from=10.0.0.0/8,from=fd00::/8',
      [{ address: '10.0.0.1', published: 8080, target: 80, from: ['10.0.0.0/8', 'fd00::/8'] }],
    ],
  ])('%s', (given, expected) => {
    expect(readPublish(given)).toEqual(expected);
  });

  test.each([
    '',
    '0:80',
    '8080:0',
    '70000:80',
    '8080:80/sctp',
    'localhost:8080:80',
    '1:2:3:4',
    'fd00::5:8080:80',
    '8080-8082:80',
    '90-80:90-80',
    'published=80',
    'target=80,mode=ingress',
    'target=80,from=any,from=10.0.0.0/8',
    'target=80,target=81',
    'target=80,colour=red',
    '80/tcp/udp',
  ])('refuses %s', (given) => {
    expect(() => readPublish(given)).toThrow(UsageError);
  });
});

describe('what a container publishes', () => {
  const never = (): number => {
    throw new Error('nothing is to be chosen');
  };

  test('addresses and prefixes are written in one way', () => {
    expect(
      publishOf('c', [{ address: 'FD00:0::5', published: 80, target: 80, from: ['fd00::1/8', '10.0.0.0/8'] }], never),
    ).toEqual([
      {
        address: 'fd00::5',
        published: 80,
        target: 80,
        protocol: 'tcp',
        mode: 'host',
        from: ['fd00::/8', '10.0.0.0/8'],
      },
    ]);
  });

  test.each([
    [
      [
        { published: 80, target: 80 },
        { published: 80, target: 81 },
      ],
    ],
    [
      [
        { published: 80, target: 80 },
        { address: 'fd00::5', published: 80, target: 81 },
      ],
    ],
    [
      [
        { address: '0.0.0.0', published: 80, target: 80 },
        { address: '10.0.0.1', published: 80, target: 81 },
      ],
    ],
    [[{ address: '10.0.0.1', published: 80, target: 80, from: ['fd00::/8'] }]],
    [[{ published: 80, target: 80, from: [] }]],
  ])('refused: %j', (requests) => {
    expect(() => publishOf('c', requests, never)).toThrow(expect.objectContaining({ code: 'request.invalid' }));
  });

  test('two families, two addresses and two protocols are different ports', () => {
    const all = publishOf(
      'c',
      [
        { address: '0.0.0.0', published: 80, target: 80 },
        { address: '::', published: 80, target: 80 },
        { address: '10.0.0.1', published: 81, target: 80 },
        { address: '10.0.0.2', published: 81, target: 80 },
        { published: 80, target: 80, protocol: 'udp' },
      ],
      never,
    );
    expect(all).toHaveLength(5);
  });

  test('with publishAll what the image exposes comes after what is named, in order', () => {
    const config = createFakeImages().put('web', { ports: ['443/tcp', '53/udp', '80', '53/tcp'] }).config;
    expect(publishRequests({ image: 'web', publish: [{ published: 8080, target: 80 }] }, { config })).toEqual([
      { published: 8080, target: 80 },
    ]);
    expect(
      publishRequests({ image: 'web', publish: [{ published: 8080, target: 80 }], publishAll: true }, { config }),
    ).toEqual([
      { published: 8080, target: 80 },
      { target: 53, protocol: 'tcp' },
      { target: 53, protocol: 'udp' },
      { target: 443, protocol: 'tcp' },
    ]);
  });

  test.each(['80/sctp', '0/tcp', '70000/tcp', '80-90/tcp'])(
    'an image that exposes %s is not published whole',
    (port) => {
      const { config } = createFakeImages().put('odd', { ports: [port] });
      expect(() => publishRequests({ image: 'odd', publishAll: true }, { config })).toThrow(
        expect.objectContaining({ code: 'request.invalid', message: expect.stringContaining(port) }),
      );
    },
  );

  test('chosen ports are free, on the host and in the store', () => {
    const { ports } = createFakeKernel();
    ports.foreign.set('tcp/49153', 'nginx (process 7)');
    const theirs: PublishSpec = { published: 49_152, target: 80, protocol: 'tcp', mode: 'host' };
    const draws = [0, 1, 2, 3].map((n) => n / 16_384);
    const choose = portChooser([theirs], [{ target: 80, published: 49_154 }, { target: 81 }], {
      ports,
      random: () => draws.shift() ?? 0,
    });
    expect(choose(1, 'tcp')).toBe(49_155);
    expect(() => choose(1, 'tcp')).toThrow(expect.objectContaining({ code: 'port.inuse' }));
    expect(ports.held).toEqual([]);
  });
});

const OPEN: Defaults = { closed: false, loopback6: true };

describe('on this host', () => {
  const way = (network: string, priority: number, address: string, subnet: string) => ({
    network,
    priority,
    address,
    ifname: `sl${network}`,
    subnet,
  });
  const ways = planWays([
    way('b', 0, '10.2.0.2', '10.2.0.0/24'),
    way('a', 0, '10.1.0.2', '10.1.0.0/24'),
    way('b', 0, 'fd02::2', 'fd02::/64'),
  ]);
  const spec: PublishSpec = { published: 8080, target: 80, protocol: 'tcp', mode: 'host' };
  const addresses = (given: Partial<PublishSpec>, defaults: Defaults = OPEN) =>
    planPort({ ...spec, ...given }, ways, defaults)?.map(({ address }) => address) ?? null;

  test('by the endpoint that has the default route, each family apart', () => {
    expect(ways.map(({ address }) => address)).toEqual(['10.1.0.2', 'fd02::2']);
    expect(planWays([way('a', 0, '10.1.0.2', ''), way('b', 1, '10.2.0.2', '')])[0]?.network).toBe('b');
    expect(planPort(spec, ways, OPEN)).toEqual([
      {
        address: '0.0.0.0',
        port: 8080,
        protocol: 'tcp',
        from: 'any',
        backends: [{ address: '10.1.0.2', port: 80, ifname: 'sla', subnet: '10.1.0.0/24' }],
      },
      {
        address: '::',
        port: 8080,
        protocol: 'tcp',
        from: 'any',
        backends: [{ address: 'fd02::2', port: 80, ifname: 'slb', subnet: 'fd02::/64' }],
      },
    ]);
  });

  test('where strangers are kept out, on the loopback, unless somebody said otherwise', () => {
    const closed = { ...OPEN, closed: true };
    expect(addresses({}, closed)).toEqual(['127.0.0.1', '::1']);
    expect(addresses({}, { ...closed, loopback6: false })).toEqual(['127.0.0.1']);
    expect(addresses({ from: 'any' }, closed)).toEqual(['0.0.0.0', '::']);
    expect(addresses({ from: ['10.0.0.0/8'] }, closed)).toEqual(['0.0.0.0', '::']);
    expect(addresses({ address: '10.9.9.9' }, closed)).toEqual(['10.9.9.9']);
    expect(addresses({}, { ...closed, ...{ address: '10.9.9.9' } })).toEqual(['10.9.9.9']);
    expect(isKeptIn(spec, closed)).toBe(true);
  });

  test('::1 leads to IPv6, else over TCP to IPv4, whoever else may come', () => {
    const [four] = ways;
    const own = (given: Partial<PublishSpec>, given2 = ways, defaults = OPEN) =>
      planPort({ ...spec, ...given }, given2, defaults)?.map(({ address, from, backends }) => [
        address,
        from,
        ...backends.map((backend) => backend.address),
      ]) ?? null;
    expect(own({ address: '::1' })).toEqual([['::1', 'any', 'fd02::2']]);
    expect(own({ address: '::1' }, [four!])).toEqual([['::1', 'any', '10.1.0.2']]);
    expect(own({ address: '::1', protocol: 'udp' }, [four!])).toBeNull();
    expect(own({ from: ['10.0.0.0/8'] }, [four!])).toEqual([
      ['0.0.0.0', ['10.0.0.0/8'], '10.1.0.2'],
      ['::1', 'any', '10.1.0.2'],
    ]);
    expect(own({ protocol: 'udp' }, [four!])).toEqual([['0.0.0.0', 'any', '10.1.0.2']]);
    expect(own({}, [four!], { ...OPEN, loopback6: false })).toEqual([['0.0.0.0', 'any', '10.1.0.2']]);
    expect(own({ address: '::' }, [four!])).toBeNull();
  });

  test('prefixes are those of the family; what cannot be reached is nothing', () => {
    const from = ['10.0.0.0/8', 'fd00::/8'];
    expect(planPort({ ...spec, from }, ways, OPEN)?.map((port) => port.from)).toEqual([['10.0.0.0/8'], ['fd00::/8']]);
    expect(planPort(spec, [], OPEN)).toBeNull();
    expect(planPort({ ...spec, address: 'fd00::1' }, ways.slice(0, 1), OPEN)).toBeNull();
  });
});

describe('a service on this host', () => {
  const backend = (n: number) => ({
    network: 'web',
    priority: 0,
    address: `10.1.0.${n}`,
    ifname: 'slweb',
    subnet: '10.1.0.0/24',
  });
  const spec: PublishSpec = { published: 8080, target: 80, protocol: 'tcp', mode: 'host' };

  test('leads to all of its backends, and stays published without any', () => {
    const [port] = planPort(spec, [backend(2), { ...backend(3), port: 8000 }], OPEN, [4])!;
    expect(port?.backends.map(({ address, port }) => [address, port])).toEqual([
      ['10.1.0.2', 80],
      ['10.1.0.3', 8000],
    ]);
    expect(planPort(spec, [], OPEN, [4, 6])?.map(({ address, backends }) => [address, backends])).toEqual([
      ['0.0.0.0', []],
      ['::', []],
    ]);
    expect(planPort(spec, [], OPEN)).toBeNull();
  });
});

describe('publish table', () => {
  test('leaves ::1 to the connect hook', () => {
    const backends = [{ address: '10.77.0.9', port: 80, ifname: 'br9', subnet: '10.77.9.0/24' }];
    const text = renderPublish('x', [{ address: '::1', port: 8080, protocol: 'tcp', from: 'any', backends }]);
    expect(text).not.toMatch(/8080|10\.77|br9/);
    expect(text).toContain('ip6 daddr ::1 return');
  });

  const port = (n: number): PublishedPort => ({
    address: '0.0.0.0',
    port: n,
    protocol: 'tcp',
    from: ['10.0.0.0/8', '10.1.0.0/16', '10.0.0.0/8'],
    backends: [
      { address: '10.77.0.2', port: 80, ifname: 'br0', subnet: '10.77.0.0/24' },
      { address: '10.77.0.3', port: 80, ifname: 'br0', subnet: '10.77.0.0/24' },
    ],
  });

  test('the number of rules does not depend on the number of ports', () => {
    const lines = (text: string) => text.split('\n').length;
    const many = Array.from({ length: 100 }, (_, n) => port(8000 + n));
    expect(lines(renderPublish('t', many))).toBe(lines(renderPublish('t', [port(8000)])));
    expect(renderPublish('t', many)).toBe(renderPublish('t', [...many].reverse()));
  });

  test('slots are shared out evenly; prefixes within others are left out', () => {
    const [{ backends }] = [port(8000)];
    expect(slotsOf(backends).filter(({ address }) => address === '10.77.0.3')).toHaveLength(8);
    expect(slotsOf([])).toEqual([]);
    expect(widest(['10.1.0.0/16', '10.0.0.0/8', '10.0.0.0/8', 'fd00::/8', '11.0.0.0/8'])).toEqual([
      '10.0.0.0/8',
      '11.0.0.0/8',
      'fd00::/8',
    ]);
  });
});
