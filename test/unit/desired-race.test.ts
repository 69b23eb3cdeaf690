/** What two writers at once, a crash and any sequence of requests leave: nothing half done, nothing without an owner. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import { isLasting, makeWorld, NODE, refused, type World } from './desired-world.ts';

let world: World;
beforeEach(async () => {
  world = await makeWorld();
  await world.desired.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }, { cidr: 'fd20::/64' }] });
});
afterEach(async () => {
  await world.check();
  await world.close();
});
const onWeb = { networks: [{ network: 'web' }] };

describe('between looking and writing, another daemon', () => {
  test('puts a sandbox on the network that is being removed: the network stays', async () => {
    world.before('network/', () => world.other.sandboxes.put('late', onWeb));
    expect(await refused(world.desired.networks.remove('web'))).toMatchObject({
      code: 'object.inuse',
      message: expect.stringContaining('late.web'),
    });
  });

  test('puts a service on the network that is being removed: the network stays', async () => {
    world.before('network/', () => world.other.services.put('late', { network: 'web' }));
    expect((await refused(world.desired.networks.remove('web'))).code).toBe('object.inuse');
  });

  test('connects a sandbox to it: the network stays', async () => {
    await world.desired.sandboxes.put('box', { networks: [] });
    world.before('network/', () => world.other.endpoints.connect('box', { network: 'web' }));
    expect((await refused(world.desired.networks.remove('web'))).code).toBe('object.inuse');
  });

  test('removes the network that a sandbox is put on: no sandbox, no address', async () => {
    world.before('sandbox/', () => world.other.networks.remove('web'));
    expect((await refused(world.desired.sandboxes.put('box', onWeb))).code).toBe('object.notfound');
    expect(await world.desired.sandboxes.list()).toEqual([]);
    expect(await world.keys('lease/')).toHaveLength(2);
  });

  test('removes the network that a service is put on: no service, no VIP', async () => {
    world.before('service/', () => world.other.networks.remove('web'));
    expect((await refused(world.desired.services.put('shop', { network: 'web' }))).code).toBe('object.notfound');
    expect(await world.keys('lease/')).toHaveLength(2);
  });

  test('takes away network and pool: the address request says so', async () => {
    world.before('lease/', async () => {
      await world.other.networks.forget(await world.other.networks.remove('web'));
    });
    expect((await refused(world.desired.sandboxes.put('box', onWeb))).code).toBe('object.notfound');
  });

  test('removes the sandbox that is connected: no endpoint', async () => {
    await world.desired.sandboxes.put('box', { networks: [] });
    world.before('endpoint/', () => world.other.sandboxes.remove('box'));
    expect((await refused(world.desired.endpoints.connect('box', { network: 'web' }))).code).toBe('object.notfound');
  });

  test('connects the sandbox that is being removed: its endpoint goes with it', async () => {
    await world.desired.sandboxes.put('box', { networks: [] });
    world.before('sandbox/', () => world.other.endpoints.connect('box', { network: 'web' }));
    await world.desired.sandboxes.remove('box');
    expect((await world.desired.endpoints.list()).map(({ removing }) => removing)).toEqual([true]);
  });

  test('makes a backend of the sandbox that is being removed: it is not removed', async () => {
    await world.desired.sandboxes.put('box', onWeb);
    await world.desired.services.put('shop', { network: 'web' });
    world.before('sandbox/', () => world.other.services.update('shop', { addBackends: [{ sandbox: 'box' }] }));
    expect((await refused(world.desired.sandboxes.remove('box'))).code).toBe('object.inuse');
    world.before('sandbox/', () =>
      world.other.services.put('late', { network: 'web', backends: [{ sandbox: 'box' }] }),
    );
    await world.desired.sandboxes.remove('box', { force: true });
    expect((await world.desired.services.get('late')).spec.backends).toEqual([]);
  });

  test('removes the sandbox that becomes a backend: it does not', async () => {
    await world.desired.sandboxes.put('box', onWeb);
    await world.desired.services.put('shop', { network: 'web' });
    world.before('service/', () => world.other.sandboxes.remove('box'));
    const work = world.desired.services.update('shop', { addBackends: [{ sandbox: 'box' }] });
    expect((await refused(work)).code).toBe('object.notfound');
    expect((await world.desired.services.get('shop')).spec.backends).toEqual([]);
  });

  test('takes the name: the same is answered, the other refused', async () => {
    world.before('sandbox/', () => world.other.sandboxes.put('box', onWeb));
    expect((await world.desired.sandboxes.put('box', onWeb)).created).toBe(false);
    world.before('service/', () => world.other.services.put('shop', { network: 'web' }));
    expect(
      (await world.desired.services.put('shop', { network: 'web', ips: ['10.20.0.9'] }).catch((e) => e)).code,
    ).toBe('object.exists');
    world.before('network/', () => world.other.networks.put('db', { internal: true }));
    expect((await refused(world.desired.networks.put('db', {}))).code).toBe('object.exists');
  });

  test('writes a status of what is forgotten: it does not stay', async () => {
    const network = await world.desired.networks.remove('web');
    const status = {
      kind: 'network',
      id: network.id,
      node: 'other',
      state: 'ready',
      observed: 1,
      conditions: [],
      detail: {},
    } as const;
    world.before('status/', () => world.desired.networks.forget(network));
    await world.desired.statuses.set(status);
    expect(await world.keys('status/')).toEqual([]);
    await world.desired.networks.put('web', {});
    const next = await world.desired.networks.remove('web');
    world.before('network/', () => world.other.statuses.set({ ...status, id: next.id }));
    await world.desired.networks.forget(next);
    expect(await world.keys('status/')).toEqual([]);
  });

  test('is always faster: after some attempts the conflict is told', async () => {
    await world.desired.sandboxes.put('box', onWeb);
    await world.desired.services.put('shop', { network: 'web' });
    let n = 0;
    const meddle = async (): Promise<void> => {
      world.before('service/', meddle);
      await world.other.services.update('shop', { addBackends: [{ address: `192.0.2.${++n}` }] });
    };
    world.before('service/', meddle);
    const work = world.desired.services.update('shop', { addBackends: [{ sandbox: 'box' }] });
    expect((await refused(work)).code).toBe('store.conflict');
    expect(n).toBe(16);
    world.before('never', async () => undefined);
  });
});

describe('a crash', () => {
  /** The process ends at that write: nothing of what it would do afterwards happens. */
  const dieAt = (keyPrefix: string, work: () => Promise<unknown>): Promise<void> =>
    new Promise((resolve) => {
      world.before(keyPrefix, () => {
        resolve();
        return new Promise(() => undefined);
      });
      work().then(
        () => resolve(),
        () => resolve(),
      );
    });
  const collect = async () => {
    const live = new Set(
      (await world.keys()).flatMap((key) => (/^(network|endpoint|service)\//.test(key) ? [key.split('/')[1]!] : [])),
    );
    await world.ipam.collect(live);
    world.clock.advance(1_000);
    await world.ipam.collect(live);
  };

  test.each([
    ['network/', () => world.desired.networks.put('db', { ipv6: true })],
    ['sandbox/', () => world.desired.sandboxes.put('box', onWeb)],
    ['service/', () => world.desired.services.put('shop', { network: 'web' })],
  ])('before %s is written leaves leases that the collection finds', async (prefix, work) => {
    await dieAt(prefix, work);
    expect((await world.keys('lease/')).length).toBeGreaterThan(2);
    await collect();
    expect(await world.keys('lease/')).toHaveLength(2);
    expect(await world.keys('pool/')).toHaveLength(2);
    // A later life does what this one could not.
    await world.other.networks.put('db', { ipv6: true });
    await world.other.sandboxes.put('box', onWeb);
    await world.other.services.put('shop', { network: 'web' });
  });

  test('between releasing and forgetting is made good by forgetting again, whoever has the subnet by then', async () => {
    await world.desired.sandboxes.put('box', onWeb);
    await world.desired.services.put('shop', { network: 'web' });
    const { sandboxes, endpoints, services, networks } = world.desired;
    await sandboxes.remove('box');
    const service = await services.remove('shop');
    const [endpoint] = await endpoints.list();
    await dieAt('endpoint/', () => endpoints.forget(endpoint!));
    await dieAt('service/', () => services.forget(service));
    await world.other.services.forget(service);
    await world.other.endpoints.forget(endpoint!);
    const network = await networks.remove('web');
    await dieAt('network/', () => networks.forget(network));
    const successor = await world.other.networks.put('next', { subnets: [{ cidr: '10.20.0.0/24' }] });
    await world.other.sandboxes.put('heir', { networks: [{ network: 'next', ip: '10.20.0.2' }] });
    await world.other.networks.forget(network);
    expect((await world.other.networks.list()).map(({ id }) => id)).toEqual([successor.object.id]);
    for (const sandbox of await world.other.sandboxes.list())
      if (sandbox.removing) await world.other.sandboxes.forget(sandbox);
    // Numbers are given back by who takes things apart, or looked for by the next life.
    const living = [...(await world.other.sandboxes.list()), ...(await world.other.endpoints.list())];
    await world.other.numbers.collect('attachment', (id) => living.some((one) => one.id === id));
  });
});

type Step = { readonly what: string; readonly n: number; readonly m: number; readonly force: boolean };

/** One request of many; refusals are as good an answer as any, as long as they are coded. */
async function act(on: World, { what, n, m, force }: Step): Promise<void> {
  const { networks, sandboxes, endpoints, services } = n % 2 ? on.desired : on.other;
  const [net, box, svc] = [`net${m % 3}`, `box${n % 4}`, `svc${n % 2}`];
  const work: Record<string, () => Promise<unknown>> = {
    network: () =>
      networks.put(net, m % 2 ? {} : { subnets: [{ cidr: `10.${m % 3}.0.0/28` }, { cidr: `fd0${m % 3}::/64` }] }),
    unnetwork: () => networks.remove(net),
    prune: () => networks.prune(),
    sandbox: () =>
      sandboxes.put(box, { networks: [{ network: net }, { network: `net${n % 3}` }].slice(0, 1 + (n % 2)) }),
    unsandbox: () => sandboxes.remove(box, { force }),
    connect: () => endpoints.connect(box, { network: net }),
    disconnect: () => endpoints.disconnect(box, net),
    service: () => services.put(svc, { network: net, backends: force ? [{ sandbox: box }] : [] }),
    update: () =>
      services.update(svc, {
        addBackends: [{ sandbox: box }],
        removeBackends: force ? [{ sandbox: `box${m % 4}` }] : [],
      }),
    unservice: () => services.remove(svc),
    settle: () => on.settle(),
  };
  try {
    await work[what]!();
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    expect(['internal', 'driver.failed']).not.toContain((error as SluiceError).code);
    expect((error as SluiceError).message).toMatch(/net\d|box\d|svc\d|subnet|10\.\d\.0\.0|fd0\d::/);
  }
}

const step = fc.record({
  what: fc.constantFrom(
    'network',
    'network',
    'unnetwork',
    'prune',
    'sandbox',
    'sandbox',
    'unsandbox',
    'connect',
    'disconnect',
    'service',
    'update',
    'update',
    'unservice',
    'settle',
  ),
  n: fc.nat(11),
  m: fc.nat(11),
  force: fc.boolean(),
});

describe.each(['memory', 'sqlite'] as const)('any requests at all, on %s', (kind) => {
  const runs = kind === 'memory' ? 150 : 25;

  test('one after another leave a state that is whole after each', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const on = await makeWorld(kind);
        for (const one of steps) {
          await act(on, one);
          await on.check();
        }
        await end(on);
      }),
      { numRuns: runs },
    );
  });

  test('several at a time leave a state that is whole when they are done', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(step, { minLength: 2, maxLength: 8 }), { maxLength: 8 }), async (rounds) => {
        const on = await makeWorld(kind);
        for (const round of rounds) {
          // What is being forgotten is nobody else's at the same time: controllers do one thing at a time to an object.
          await Promise.all(round.filter(({ what }) => what !== 'settle').map((one) => act(on, one)));
          if (round.some(({ what }) => what === 'settle')) await on.settle();
          await on.check();
        }
        await end(on);
      }),
      { numRuns: runs },
    );
  });
});

/** Everything taken away again: nothing is left of it. */
async function end(on: World): Promise<void> {
  const { networks, sandboxes, services } = on.desired;
  for (const { id } of await services.list()) await services.remove(id);
  for (const { id } of await sandboxes.list()) await sandboxes.remove(id);
  await on.settle();
  await networks.prune();
  await on.settle();
  expect((await on.keys()).filter((key) => !isLasting(key))).toEqual([]);
  await on.close();
}

test('the check itself complains', async () => {
  await world.desired.sandboxes.put('box', onWeb);
  const [lease] = await world.keys('lease/');
  const id = (await world.desired.sandboxes.get('box')).id;
  const wrongs = [
    { op: 'delete', key: lease! },
    { op: 'put', key: `${lease}9`, value: { pool: 'x', address: '10.9.9.9', owner: 'nobody', purpose: 'endpoint' } },
    { op: 'put', key: `name/sandbox/${NODE}/ghost`, value: { id: 'f'.repeat(64) } },
    { op: 'delete', key: `name/sandbox/${NODE}/box` },
    { op: 'delete', key: `sandbox/${id}` },
    { op: 'put', key: 'status/sandbox/none/x', value: {} },
  ] as const;
  for (const wrong of wrongs) {
    const before = await world.store.get(wrong.key);
    await world.store.transact([wrong]);
    await expect(world.check(), wrong.key).rejects.toThrow();
    await world.store.transact([
      before ? { op: 'put', key: wrong.key, value: before.value } : { op: 'delete', key: wrong.key },
    ]);
  }
});
