import { beforeEach, describe, expect, test } from 'vitest';
import type { NameChange, NameView } from '../../src/contracts/names.ts';
import type { Context } from '../../src/controller/context.ts';
import { NameController } from '../../src/controller/service/name.ts';
import type { View, Views } from '../../src/controller/view.ts';
import { FakeNameServer } from '../../src/dns/fake.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { Network } from '../../src/model/network.ts';
import type { Service } from '../../src/model/service.ts';
import { createManualClock, type ManualClock } from '../clock.ts';

/** Counts what it is told. */
class Names extends FakeNameServer {
  readonly set: number[] = [];
  readonly changed: NameChange[] = [];
  override setView(view: NameView): void {
    this.set.push(view.view);
    super.setView(view);
  }
  override changeView(change: NameChange): void {
    this.changed.push(change);
    super.changeView(change);
  }
}

const VIEW: View = { number: 7, networks: ['web'] };
let clock: ManualClock;
let names: Names;
let endpoints: Map<string, Endpoint>;
let peers: Map<string, Endpoint>;
let services: Map<string, Service>;
let unready: Set<string>;
let lost: Set<string>;
let views: View[];
let warnings: string[];
let controller: NameController;

const endpoint = (id: string, address: string, spec: Partial<Endpoint['spec']> = {}, owner = 'here'): Endpoint =>
  ({
    id,
    name: `${id}.web`,
    owner,
    spec: { network: 'web', sandbox: `box-${id}`, addresses: [address], aliases: [], ...spec },
  }) as unknown as Endpoint;
const shop = (backends: string[]): Service =>
  ({
    id: 'shop',
    name: 'shop',
    spec: {
      network: 'web',
      vips: ['10.0.0.100'],
      ports: [],
      aliases: [],
      backends: backends.map((sandbox) => ({ sandbox })),
    },
  }) as unknown as Service;
const resolves = (name: string): readonly string[] | undefined => names.records().find((one) => one.name === name)?.a;

beforeEach(() => {
  clock = createManualClock();
  names = new Names();
  [unready, lost, views, warnings] = [new Set(), new Set(), [VIEW], []];
  endpoints = new Map([['a', endpoint('a', '10.0.0.1/24')]]);
  peers = new Map([['p', endpoint('p', '10.0.0.2/24', {}, 'there')]]);
  services = new Map([['shop', shop(['box-a', 'box-p'])]]);
  const network = { id: 'web', name: 'web', spec: { subnets: [{ cidr: '10.0.0.0/24' }], internal: false } };
  const pick = (of: Map<string, Endpoint>, sandbox: string) =>
    [...of.values()].filter(({ spec }) => spec.sandbox === sandbox);
  controller = new NameController({
    clock,
    names,
    logger: { info: () => undefined, warn: (_: unknown, words: string) => warnings.push(words) },
    tracker: { isReady: (_: string, id: string) => !unready.has(id) },
    world: {
      networks: new Map([['web', network as unknown as Network]]),
      sandboxes: new Map(),
      get endpoints() {
        return endpoints;
      },
      get services() {
        return services;
      },
      endpointsOfNetwork: () => [...endpoints.values()],
      endpointsOfSandbox: (sandbox: string) => pick(endpoints, sandbox),
      peersOfNetwork: () => peers,
      peerOfSandbox: (_: string, sandbox: string) => pick(peers, sandbox)[0],
      containerOfSandbox: () => undefined,
      serves: (owner: string) => !lost.has(owner),
    },
  } as unknown as Context);
  controller.views = { all: () => views, withNetwork: () => views } as unknown as Views;
});

describe('names of views', () => {
  beforeEach(() => controller.open());

  test('at first all of them', () => {
    expect(names.set).toEqual([7]);
    expect([resolves('a'), resolves('p.web'), resolves('shop')]).toEqual([['10.0.0.1'], ['10.0.0.2'], ['10.0.0.100']]);
    expect(resolves('tasks.shop')).toEqual(['10.0.0.1', '10.0.0.2']);
  });

  test('then what differs, in company, a moment later', async () => {
    for (let at = 0; at < 100; at++) endpoints.set(`n${at}`, endpoint(`n${at}`, `10.0.1.${at}/24`));
    for (const id of endpoints.keys()) controller.touch('web', [id]);
    expect(resolves('n5')).toBeUndefined();
    await clock.advance(10);
    expect(names.set).toEqual([7]);
    expect(names.changed).toHaveLength(1);
    expect(names.changed[0]!.records.size).toBe(200);
    expect(resolves('n5')).toEqual(['10.0.1.5']);
  });

  test('and nothing when nothing does', () => {
    endpoints.set('a', endpoint('a', '10.0.0.1/24', { serving: true }));
    controller.touch('web', ['a', 'shop']);
    controller.flush();
    expect([names.set, names.changed]).toEqual([[7], []]);
  });

  test('what goes, is not ready, or lies on a lost node is found no more, nor is it among tasks', () => {
    unready.add('a');
    controller.touch('web', ['a', 'shop']);
    controller.flush();
    expect([resolves('a'), resolves('p'), resolves('tasks.shop')]).toEqual([undefined, ['10.0.0.2'], ['10.0.0.2']]);
    lost.add('there');
    controller.touch('web');
    controller.flush();
    expect([resolves('p'), resolves('tasks.shop')]).toEqual([undefined, []]);
    unready.clear();
    services.delete('shop');
    controller.touch('web', ['a', 'shop']);
    controller.flush();
    expect([resolves('a'), resolves('shop'), resolves('tasks.shop')]).toEqual([['10.0.0.1'], undefined, undefined]);
  });

  test('a replica elsewhere is among the tasks while its node says that it serves', () => {
    const replica = { service: 'shop', slot: 1, version: 1 };
    const say = (serving: boolean): void => {
      peers.set('p', endpoint('p', '10.0.0.2/24', { replica, serving } as Partial<Endpoint['spec']>, 'there'));
      controller.touch('web', ['p', 'shop']);
      controller.flush();
    };
    say(false);
    expect([resolves('p'), resolves('tasks.shop')]).toEqual([['10.0.0.2'], ['10.0.0.1']]);
    say(true);
    expect(resolves('tasks.shop')).toEqual(['10.0.0.1', '10.0.0.2']);
  });

  test('a view that comes meanwhile has what is waiting, too', async () => {
    endpoints.set('b', endpoint('b', '10.0.0.9/24'));
    controller.touch('web', ['b']);
    const other = { number: 8, networks: ['web'] };
    views.push(other);
    await controller.fill(other);
    expect(names.records().filter(({ name }) => name === 'b')).toHaveLength(2);
    expect(controller.find(['web'], 'b')?.a).toEqual(['10.0.0.9']);
  });

  test('a review finds what nobody told of, says so, and is quiet when all is well', () => {
    expect(controller.review()).toEqual([]);
    endpoints.set('b', endpoint('b', '10.0.0.9/24'));
    endpoints.delete('a');
    expect(controller.review()).toEqual(['web']);
    expect([resolves('b'), resolves('a'), warnings]).toEqual([
      ['10.0.0.9'],
      undefined,
      ['names were not as they should be'],
    ]);
    expect(controller.review()).toEqual([]);
  });

  test('what was told of and is not published yet is no finding of a review', () => {
    endpoints.set('b', endpoint('b', '10.0.0.9/24'));
    controller.touch('web', ['b']);
    expect(controller.review()).toEqual([]);
    expect(resolves('b')).toEqual(['10.0.0.9']);
  });
});

test('before it is open nothing is published, and what was asked for then is made anew', () => {
  expect(controller.find(['web'], 'a')?.a).toEqual(['10.0.0.1']);
  endpoints.set('a', endpoint('a', '10.0.0.11/24'));
  controller.touch('web', ['a']);
  expect(names.set).toEqual([]);
  controller.open();
  expect(resolves('a')).toEqual(['10.0.0.11']);
});
