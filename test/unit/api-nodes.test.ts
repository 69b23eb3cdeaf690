import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { Registration } from '../../src/cluster/registration.ts';
import { createLogger } from '../../src/log.ts';
import { CliWorld } from './cli-world.ts';

describe('nodes by API and command line', () => {
  let world: CliWorld;
  const register = (node: string) =>
    new Registration({
      store: world.world.store,
      clock: systemClock,
      logger: createLogger('silent'),
      node,
      describe: () => ({ address: '192.0.2.1', vtep: '192.0.2.1', port: 4789, hostRoutes: [] }),
    });
  beforeEach(async () => {
    world = new CliWorld();
    await world.open();
    for (const node of ['host-1', 'host-2']) await register(node).refresh();
    world.world.sessions.set('host-2', { state: 'unreachable', epoch: 4, silentMs: 9_000, applied: 12 });
  });
  afterEach(() => world.close());

  test('are listed with what is known of their sessions', async () => {
    expect(await world.must('node ls --format {{.Name}}|{{.Address}}|{{.State}}|{{.Availability}}|{{.LastSeen}}')).toBe(
      'host-1|192.0.2.1|ready|active|now\nhost-2|192.0.2.1|unreachable|active|9 s ago\n',
    );
    expect(JSON.parse(await world.must('node inspect host-2'))).toMatchObject([
      { kind: 'node', name: 'host-2', session: { state: 'unreachable', epoch: 4, silentMs: 9_000, applied: 12 } },
    ]);
    expect(await world.must('status')).toMatch(/host-2 +unreachable +9 s ago +4 +12/);
  });

  test('are behind by what concerns them and they have not read', async () => {
    const { state, sessions } = world.world;
    const behind = async () => JSON.parse(await world.must('node inspect host-2'))[0].session.behind;
    const { revision } = (await state.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] })).object;
    sessions.set('host-2', { state: 'ready', silentMs: 0, applied: revision });
    // A sandbox of another node's does not concern it, a service of the cluster's does.
    await state.sandboxes.put('box', { networks: [{ network: 'web' }] });
    expect(await behind()).toBe(0);
    await register('host-3').refresh();
    expect(await behind()).toBe(1);
    expect(await world.must('status')).toMatch(new RegExp(`host-2 +ready +now +${revision} +1\n`));
    sessions.set('host-2', { state: 'ready', silentMs: 0, applied: revision + 1_000 });
    expect(await behind()).toBe(0);
  });

  test("a network shows its endpoints by node, and what is amiss in this node's kernel", async () => {
    const { state, reports, sessions } = world.world;
    const { object } = await state.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
    const box = (await state.sandboxes.put('box', { networks: [{ network: 'web', ip: '10.20.0.9' }] })).object;
    await register(box.owner!).refresh();
    sessions.set(box.owner!, { state: 'unreachable', silentMs: 9_000 });
    const differences = [{ table: 'forwarding', key: '02:42:0a:14:00:09', want: '192.0.2.1' }] as const;
    reports.set(object.id, { joined: true, differences });
    const [view] = JSON.parse(await world.must('network inspect --peers web'));
    expect(view).toMatchObject({ name: 'web', peers: { joined: true, differences } });
    expect(view.peers.items).toMatchObject([
      {
        node: box.owner,
        state: 'unreachable',
        vtep: '192.0.2.1',
        mac: '02:42:0a:14:00:09',
        addresses: ['10.20.0.9/24'],
      },
    ]);
    expect(JSON.parse(await world.must('network inspect web'))[0]).not.toHaveProperty('peers');
    expect(await world.sluice('network inspect --peers nothing')).toMatchObject({ status: 1 });
  });

  test('take labels and give them up again', async () => {
    await world.must('node label --add zone=a --add rack=7 host-1');
    await world.must('node label --add zone=b --rm rack host-1');
    expect(await world.must('node ls --format {{.Name}}:{{.Labels}}')).toBe('host-1:zone=b\nhost-2:\n');
    expect(await world.sluice('node label host-1')).toMatchObject({ status: 2 });
    expect(await world.sluice('node label --add a!b=1 host-1')).toMatchObject({ status: 1 });
  });

  test('keep labels and availability when they register anew', async () => {
    await world.must('node label --add zone=a host-1');
    await world.must('node drain host-1 host-2');
    expect(await register('host-1').refresh()).toBe(false);
    expect(await world.must('node ls --format {{.Availability}}')).toBe('drained\ndrained\n');
    await world.must('node undrain host-1');
    expect(await world.must('node ls --format {{.Availability}}:{{.Labels}}')).toBe('active:zone=a\ndrained:\n');
  });

  test('are removed when they are lost, with all that is theirs', async () => {
    const { state, sessions, store } = world.world;
    await state.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
    const { object } = await state.sandboxes.put('box', { networks: [{ network: 'web', ip: '10.20.0.9' }] });
    // As if the node of the test were that host.
    const { owner } = object;
    await register(owner!).refresh();
    const refused = await world.sluice(['node', 'rm', owner!]);
    expect(refused).toMatchObject({ status: 1, err: expect.stringContaining('object.inuse') });
    expect((await store.list('lease/')).items.length).toBeGreaterThan(0);
    sessions.set(owner!, { state: 'lost', silentMs: 60_000 });
    await world.must(['node', 'rm', owner!]);
    expect(await state.sandboxes.list()).toEqual([]);
    expect(await state.endpoints.list()).toEqual([]);
    const held = (await store.list<{ owner?: string }>('lease/')).items.filter(({ key }) => key.endsWith('/10.20.0.9'));
    expect(held).toEqual([]);
    expect(await world.must('node ls --format {{.Name}}')).toBe('host-1\nhost-2\n');
    // Its name is free again.
    expect(await register(owner!).refresh()).toBe(true);
  });
});
