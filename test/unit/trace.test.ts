/** The walk in words, from facts; and the command that prints it. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type HopFact,
  planTrace,
  type RemoteFact,
  type TraceFacts,
} from '../../src/controller/diagnosis/trace/plan.ts';
import { readSteps } from '../../src/controller/diagnosis/trace/target.ts';
import { parseTarget, type TraceStep } from '../../src/model/diagnosis/trace.ts';
import { CliWorld } from './cli-world.ts';

const MAC = '02:42:0a:32:00:09';
const ok = (step: TraceStep['step'], node = 'b'): TraceStep => ({
  step,
  node,
  subject: 'box',
  state: 'ok',
  reason: 'well',
});
const remote = (more: Partial<RemoteFact> = {}): RemoteFact => ({
  node: 'b',
  mac: MAC,
  vtep: '192.0.2.2',
  place: { bridge: 'sl1', device: 'sx1' },
  devices: [],
  peers: [],
  state: 'ready',
  echo: true,
  answer: { steps: [ok('tunnel'), ok('forwarding'), ok('sandbox'), ok('port')] },
  ...more,
});
const hop = (more: Partial<HopFact> = {}): HopFact => ({
  address: '10.50.0.9',
  port: 80,
  route: { dst: '10.50.0.0/20', ifname: 'eth0', direct: true },
  missing: [],
  end: { kind: 'there', sandbox: 'box', remote: remote() },
  ...more,
});
const there = (more: Partial<RemoteFact>): Partial<TraceFacts> => ({
  hops: [hop({ end: { kind: 'there', sandbox: 'box', remote: remote(more) } })],
});
const facts = (more: Partial<TraceFacts> = {}): TraceFacts => ({
  node: 'a',
  sandbox: 'client',
  enter: 'nsenter --net=/run/x ',
  to: 'box',
  name: { kind: 'found', addresses: ['10.50.0.9'] },
  source: [],
  networks: ['mesh'],
  hops: [hop()],
  ...more,
});
const first = (more: Partial<TraceFacts>): TraceStep | undefined =>
  planTrace(facts(more)).find(({ state }) => state === 'wrong');

test('a way on which nothing is wrong passes every step in order', () => {
  const service = {
    name: 'shop',
    vip: '10.50.15.2',
    ports: ['80/tcp'],
    served: true,
    backends: ['10.50.0.9:80'],
    differences: [],
  };
  const steps = planTrace(facts({ service }));
  expect(steps.map(({ step, node, state }) => `${step} ${node} ${state}`)).toEqual([
    'name a ok',
    'service a ok',
    'source a ok',
    'route a ok',
    'neighbour a ok',
    'forwarding a ok',
    'tunnel a ok',
    'host a ok',
    'answer b ok',
    'tunnel b ok',
    'forwarding b ok',
    'sandbox b ok',
    'port b ok',
  ]);
});

type Case = readonly [name: string, more: Partial<TraceFacts>, step: string, reason: RegExp, command?: RegExp];
const WRONG: readonly Case[] = [
  [
    'a name on another network',
    { name: { kind: 'hidden', what: 'sandbox', networks: ['web'] }, hops: [] },
    'name',
    /sandbox box is on web, and client is not/,
  ],
  [
    'a name that nobody has',
    { name: { kind: 'foreign', forwarded: false }, hops: [] },
    'name',
    /nothing here has that name/,
  ],
  [
    'an entry of the service',
    {
      service: {
        name: 'shop',
        vip: 'V',
        ports: [],
        served: true,
        backends: ['10.50.0.9:80'],
        differences: [{ what: 'backend 10.50.0.9:80', want: 'there', command: 'bpftool map' }],
      },
    },
    'service',
    /backend 10\.50\.0\.9:80 is missing/,
    /bpftool/,
  ],
  [
    'a service without backends',
    { service: { name: 'shop', vip: 'V', ports: [], served: true, backends: [], differences: [] } },
    'service',
    /no backend that serves/,
  ],
  [
    'a port that the service has not',
    { service: { name: 'shop', vip: 'V', ports: ['80/tcp'], served: false, backends: [], differences: [] } },
    'service',
    /no such port: it has 80\/tcp/,
  ],
  [
    "the source's interface",
    { source: [{ what: 'link eth0', want: 'up', have: 'down', command: 'ip link set eth0 up' }] },
    'source',
    /link eth0 should be up and is down/,
    /ip link set/,
  ],
  [
    'a route',
    {
      hops: [
        hop({
          route: { dst: '0.0.0.0/0', via: '10.50.0.1', ifname: 'eth0', direct: false },
          missing: [{ what: 'route 10.50.0.0/20 dev eth0', want: 'there', command: 'ip route replace' }],
        }),
      ],
    },
    'route',
    /route 10\.50\.0\.0\/20 dev eth0 is missing/,
    /ip route/,
  ],
  [
    'a network apart',
    { hops: [hop({ end: { kind: 'apart', sandbox: 'db', network: 'back' } })] },
    'route',
    /networks are isolated/,
    /network connect back client/,
  ],
  [
    'an address that nobody has',
    { hops: [hop({ end: { kind: 'nobody', network: 'mesh' } })] },
    'route',
    /no endpoint of network mesh/,
  ],
  [
    'no way out of an internal network',
    { hops: [hop({ route: null, end: { kind: 'outside', internal: true } })] },
    'route',
    /its networks are internal/,
  ],
  [
    "somebody else's firewall",
    { hops: [hop({ end: { kind: 'outside', internal: false, blocked: 'chain FORWARD drops' } })] },
    'host',
    /FORWARD/,
  ],
  [
    'a neighbour',
    there({ peers: [{ table: 'neighbour', key: '10.50.0.9', want: MAC }] }),
    'neighbour',
    /neighbour 10\.50\.0\.9 on sl1 is missing/,
    /ip neigh replace 10\.50\.0\.9 lladdr/,
  ],
  [
    'a forwarding entry',
    there({ peers: [{ table: 'forwarding', key: MAC, want: '192.0.2.2', have: '192.0.2.66' }] }),
    'forwarding',
    /should be towards 192\.0\.2\.2 and is towards 192\.0\.2\.66/,
    /bridge fdb replace/,
  ],
  [
    'the device, before what went with it',
    there({ place: null, devices: [{ what: 'vxlan sx1', want: 'there', command: 'ip link show sx1' }] }),
    'tunnel',
    /vxlan sx1 is missing/,
  ],
  [
    'a host that does not answer',
    there({ echo: false, state: 'lost' }),
    'host',
    /kernel of b does not answer at 192\.0\.2\.2; node b is lost/,
    /ping/,
  ],
  ['a host that there is no way to', there({ echo: undefined }), 'host', /no way to 192\.0\.2\.2/],
  [
    'what the other host finds',
    there({ answer: { steps: [ok('tunnel'), { ...ok('sandbox'), state: 'wrong', reason: 'link sv2 is down' }] } }),
    'sandbox',
    /link sv2 is down/,
  ],
];
test.each(WRONG.map((one) => ({ name: one[0], one })))(
  '$name is named first',
  ({ one: [, more, step, reason, command] }) => {
    const wrong = first(more);
    expect(wrong?.step).toBe(step);
    expect(wrong?.reason).toMatch(reason);
    if (command) expect(wrong?.command).toMatch(command);
  },
);

test('a daemon that is silent is no fault of the way: its kernel answers, and what follows is not known', () => {
  const steps = planTrace(
    facts(there({ state: 'unreachable', answer: { error: 'node b did not answer within 2 s' } })),
  );
  expect(steps.find(({ state }) => state === 'wrong')).toBeUndefined();
  expect(steps.slice(-3).map(({ step, state }) => `${step} ${state}`)).toEqual([
    'host ok',
    'answer unasked',
    'sandbox unasked',
  ]);
  expect(steps.at(-3)?.reason).toMatch(/gives no sign of life/);
});

test('of several ends each is walked, and the first that is wrong counts', () => {
  const bad = hop({ address: '10.50.0.10', end: { kind: 'there', sandbox: 'two', remote: remote({ echo: false }) } });
  expect(first({ hops: [hop(), bad] })).toMatchObject({ step: 'host' });
});

test('targets', () => {
  expect(parseTarget('shop:80')).toEqual({ host: 'shop', port: 80 });
  expect(parseTarget('10.1.0.2')).toEqual({ host: '10.1.0.2', port: undefined });
  expect(parseTarget('fd00::2')).toEqual({ host: 'fd00::2', port: undefined });
  expect(parseTarget('[fd00::2]:443')).toEqual({ host: 'fd00::2', port: 443 });
  for (const bad of ['', ':80', 'shop:0', 'shop:70000', 'shop:http', '[]:80']) expect(parseTarget(bad), bad).toBeNull();
});

test('what another node answers is read, or refused', () => {
  expect(readSteps({ steps: [ok('sandbox')] })).toEqual([ok('sandbox')]);
  for (const body of [
    null,
    {},
    { steps: 'x' },
    { steps: [{ ...ok('sandbox'), step: 'magic' }] },
    { steps: [{ ...ok('port'), reason: 7 }] },
  ])
    expect(() => readSteps(body)).toThrow(/does not understand/);
});

describe('sluice trace', () => {
  let world: CliWorld;
  beforeEach(async () => {
    world = new CliWorld();
    await world.open();
  });
  afterEach(() => world.close());

  test('prints the steps, and what is wrong first with its command; ends with 1', async () => {
    const wrong = {
      ...ok('route', 'a'),
      state: 'wrong',
      reason: 'route 10.1.0.0/24 is missing',
      command: 'ip route add',
    } as const;
    const unasked = { ...ok('port'), state: 'unasked', reason: 'nobody looked' } as const;
    world.world.trace = async ({ from, to }) => ({
      from,
      node: 'a',
      to,
      reachable: false,
      wrong,
      steps: [ok('name', 'a'), wrong, unasked],
    });
    const { status, out } = await world.sluice('trace client shop:80');
    expect(status).toBe(1);
    expect(out).toMatch(/^STATE +STEP +NODE +OF +WHAT\nok +name +a +box +well\nWRONG +route .*\nnot asked +port /);
    expect(out.endsWith('wrong first, at route on node a: route 10.1.0.0/24 is missing\n    ip route add\n')).toBe(
      true,
    );
  });

  test('ends with 0 where nothing is wrong, with 2 for words that are no target', async () => {
    expect(await world.sluice('trace client [fd00::9]:443')).toMatchObject({
      status: 0,
      out: expect.stringContaining('nothing is wrong between client and [fd00::9]:443'),
    });
    expect((await world.sluice('trace client shop:http')).status).toBe(2);
  });
});
