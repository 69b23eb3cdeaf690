import { describe, expect, test } from 'vitest';
import { chooseName } from '../../src/controller/endpoint/inside.ts';
import { planRoutes } from '../../src/controller/endpoint/route.ts';
import { endpointOfKey, planService } from '../../src/controller/service/balance.ts';
import type { Endpoint, EndpointSpec } from '../../src/model/endpoint.ts';
import type { Service, ServiceSpec } from '../../src/model/service.ts';

const base = { revision: 1, schema: 1, owner: 'n', labels: {}, createdAt: '2026-01-01T00:00:00Z' };
const endpoint = (id: string, spec: Partial<EndpointSpec>): Endpoint => ({
  ...base,
  kind: 'endpoint',
  id,
  name: id,
  spec: {
    network: 'net',
    sandbox: `s-${id}`,
    addresses: [],
    mac: '02:42:0a:00:00:02',
    aliases: [],
    allow: [],
    gwPriority: 0,
    ...spec,
  },
});
const service = (spec: Partial<ServiceSpec>): Service => ({
  ...base,
  kind: 'service',
  id: 'svc',
  name: 'shop',
  spec: { network: 'net', vips: [], ports: [], backends: [], aliases: [], ...spec },
});
describe('service plan', () => {
  const a = endpoint('a', { addresses: ['10.0.0.2/24', 'fd00::2/64'] });
  const b = endpoint('b', { addresses: ['10.0.0.3/24'] });

  test('one set a VIP and port, each over backends of its own family', () => {
    const plan = planService(
      service({
        vips: ['10.0.0.100', 'fd00::100'],
        ports: [{ port: 80, target: 8080, protocol: 'tcp' }],
        backends: [{ sandbox: 's-b' }, { sandbox: 's-a' }, { address: '192.0.2.1', port: 9 }],
      }),
      [a, b],
    );
    expect(plan.map(({ key, address, port, protocol }) => ({ key, address, port, protocol }))).toEqual([
      { key: 'svc/80/tcp/4', address: '10.0.0.100', port: 80, protocol: 'tcp' },
      { key: 'svc/80/tcp/6', address: 'fd00::100', port: 80, protocol: 'tcp' },
    ]);
    expect(plan[0]?.backends.map(({ key }) => key)).toEqual(['-/192.0.2.1/9', 'a/10.0.0.2/8080', 'b/10.0.0.3/8080']);
    expect(plan[1]?.backends.map(({ key }) => key)).toEqual(['a/fd00::2/8080']);
  });

  test('without ports every port maps to the same one', () => {
    const [set] = planService(service({ vips: ['10.0.0.100'], backends: [{ sandbox: 's-a' }] }), [a]);
    expect(set).toMatchObject({
      key: 'svc/*/*/4',
      port: 0,
      protocol: undefined,
      backends: [{ address: '10.0.0.2', port: 0 }],
    });
  });

  test('a sandbox that is not there is no backend', () => {
    expect(planService(service({ vips: ['10.0.0.100'], backends: [{ sandbox: 'gone' }] }), [a])[0]?.backends).toEqual(
      [],
    );
  });

  test('keys tell endpoints from plain addresses', () => {
    expect([endpointOfKey('a/10.0.0.2/80'), endpointOfKey('-/10.0.0.2/80')]).toEqual(['a', null]);
  });
});

describe('routes and interface names', () => {
  const joined = (...gateways: string[]) => ({ ifprefix: 'eth', gateways, routes: [], neighbours: [] });

  test('the highest priority wins, then the first network by name; families apart', () => {
    const plan = planRoutes([
      { link: 1, network: 'zoo', priority: 0, joined: joined('10.1.0.1', 'fd01::1') },
      { link: 2, network: 'app', priority: 0, joined: joined('10.2.0.1') },
      { link: 3, network: 'int', priority: 9, joined: joined() },
    ]);
    expect(plan).toEqual([
      { dst: '0.0.0.0/0', via: '10.2.0.1', link: 2 },
      { dst: '::/0', via: 'fd01::1', link: 1 },
    ]);
  });

  test('the first free name, or the one asked for', () => {
    expect(chooseName(undefined, 'eth', (name) => ['lo', 'eth0', 'eth2'].includes(name))).toBe('eth1');
    expect(chooseName('wan', 'eth', () => false)).toBe('wan');
  });
});
