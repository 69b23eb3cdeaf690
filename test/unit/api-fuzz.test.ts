import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { formatCidr, parseCidr } from '../../src/model/ip.ts';
import { checker, operationsOf } from './api-check.ts';
import { World } from './api-world.ts';

let world: World;
let call: ReturnType<typeof checker>;
let operations: [string, string][];
beforeEach(async () => {
  world = new World();
  const app = world.api();
  call = checker(app);
  operations = [...operationsOf(app).keys()]
    .filter((name) => name !== 'GET /v1/watch')
    .map((name) => name.split(' ') as [string, string]);
  await call('PUT', '/v1/networks/web', { body: {} });
  await call('PUT', '/v1/sandboxes/box', { body: { networks: [{ network: 'web' }] } });
});
afterEach(() => world.life.abort());

const names = fc.oneof(
  fc.constantFrom('web', 'box', 'prune', '..', '%', '%00', '%2e%2e', 'a%2Fb', '__proto__', 'constructor', '*', ':name'),
  fc.string({ unit: 'binary', maxLength: 80 }).map(encodeURIComponent),
  fc.stringMatching(/^[0-9a-f]{1,64}$/),
);
const queries = fc.oneof(
  fc.constantFrom(
    '',
    '?',
    '?wait=0',
    '?wait=1ms',
    '?wait=',
    '?force=true',
    '?wait=1e9s',
    '?__proto__=1',
    '?%',
    '?a=1&a=2',
    '?kind=network',
  ),
  fc.string({ maxLength: 40 }).map((text) => `?${encodeURIComponent(text)}`),
);
/** Bodies that look like ours in part: the right keys with right, wrong and absurd values. */
const scalars = fc.oneof(
  fc.constantFrom(
    'web',
    'box',
    '10.0.0.0/24',
    '10.0.0.2',
    'fd00::/64',
    'fd00::2',
    '02:42:0a:00:00:02',
    'tcp',
    '/proc/1/ns/net',
    80,
    true,
  ),
  fc.jsonValue({ maxDepth: 1 }),
  fc.double(),
  fc.string({ unit: 'binary', maxLength: 20 }),
);
const keys = fc.constantFrom(
  ...[
    'driver',
    'ipam',
    'subnets',
    'cidr',
    'gateway',
    'range',
    'aux',
    'ipv4',
    'ipv6',
    'internal',
    'mtu',
    'options',
    'labels',
  ],
  ...[
    'networks',
    'network',
    'attach',
    'hostname',
    'sysctls',
    'dns',
    'servers',
    'search',
    'ip',
    'ip6',
    'mac',
    'aliases',
  ],
  ...[
    'allow',
    'ifname',
    'gwPriority',
    'ips',
    'ports',
    'name',
    'port',
    'target',
    'protocol',
    'backends',
    'sandbox',
    'address',
  ],
  ...['add', 'remove', '__proto__', 'constructor', 'toString'],
);
const { body } = fc.letrec((tie) => ({
  body: fc.dictionary(keys, tie('value'), { maxKeys: 5 }),
  value: fc.oneof({ maxDepth: 3 }, scalars, tie('body'), fc.array(tie('value'), { maxLength: 3 })),
}));
const sent = fc.oneof(
  body.map((value) => ({ raw: JSON.stringify(value) })),
  fc.jsonValue().map((value) => ({ raw: JSON.stringify(value) })),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => ({ raw: new Uint8Array(bytes) })),
  fc.constant({ raw: `${'['.repeat(100_000)}` }),
);
const types = fc.constantFrom(
  'application/json',
  'application/json; charset=utf-8',
  'text/plain',
  'application/problem+json',
  'x',
);

test('no request makes an internal error; every refusal is coded and documented', { timeout: 60_000 }, async () => {
  const request = fc.record({ which: fc.nat(), first: names, second: names, query: queries, sent, type: types });
  await fc.assert(
    fc.asyncProperty(request, async ({ which, first, second, query, sent, type }) => {
      const [method, template] = operations[which % operations.length]!;
      const path = template.replace(/\{[^}]+\}/, () => first).replace(/\{[^}]+\}/, () => second) + query;
      const takesBody = method === 'PUT' || method === 'POST';
      const answer = await call(method, path, takesBody ? { raw: sent.raw, headers: { 'content-type': type } } : {});
      expect(answer.body.code).not.toBe('internal');
      expect(answer.status).not.toBe(500);
    }),
    { numRuns: 1500 },
  );
});

test('any path and method at all', { timeout: 60_000 }, async () => {
  const path = fc.array(fc.oneof(fc.constantFrom('v1', 'networks', 'services', 'metrics'), names), { maxLength: 6 });
  const method = fc.constantFrom('GET', 'PUT', 'POST', 'DELETE', 'PATCH', 'OPTIONS', 'QUERY', 'FOO');
  await fc.assert(
    fc.asyncProperty(method, path, async (method, words) => {
      const answer = await call(method, `/${words.join('/')}`);
      expect(answer.body.code).not.toBe('internal');
    }),
    { numRuns: 500 },
  );
});

test('what is accepted reaches the desired state as it was sent', { timeout: 60_000 }, async () => {
  const subnets = fc
    .tuple(fc.integer({ min: 1, max: 255 }), fc.nat(0xffff))
    .map(([n, m]) => [{ cidr: `10.${n}.0.0/24` }, { cidr: `fd77:0:0:${m.toString(16)}::/64` }]);
  const labels = fc.dictionary(fc.stringMatching(/^[a-z.]{1,20}$/), fc.string({ maxLength: 30 }), { maxKeys: 4 });
  const request = fc.record({ subnets, internal: fc.boolean(), options: labels, labels }, { requiredKeys: [] });
  await fc.assert(
    fc.asyncProperty(request, async (body) => {
      const { status, body: answer } = await call('PUT', '/v1/networks/fuzz', { body });
      expect(status).toBe(201);
      expect(answer.spec.internal).toBe(body.internal ?? false);
      expect(answer.spec.options).toEqual(body.options ?? {});
      expect(answer.labels).toEqual(body.labels ?? {});
      if (body.subnets)
        expect(answer.spec.subnets).toMatchObject([
          body.subnets[0]!,
          { cidr: formatCidr(parseCidr(body.subnets[1]!.cidr)) },
        ]);
      expect((await call('PUT', '/v1/networks/fuzz', { body })).status).toBe(200);
      expect((await call('DELETE', '/v1/networks/fuzz?wait=5s')).status).toBe(200);
    }),
    { numRuns: 150 },
  );
});
