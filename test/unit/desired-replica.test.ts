/** Services that run their own backends, as desired state. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { PlacementSpec } from '../../src/model/service/placement.ts';
import { makeWorld, refused, type World } from './desired-world.ts';

describe.each(['memory', 'sqlite'] as const)('replicas, on %s', (kind) => {
  let world: World;
  let services: World['desired']['services'];
  beforeEach(async () => {
    world = await makeWorld(kind);
    services = world.desired.services;
    await world.desired.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
    world.images.put('shop:1');
    world.images.put('shop:2');
  });
  afterEach(async () => {
    await world.check();
    await world.close();
  });
  const web = (count: number, image = 'shop:1') => ({ network: 'web', replicas: { count, container: { image } } });

  test('are stored with the image they were asked with, and start again by themselves', async () => {
    const { object } = await services.put('shop', web(3));
    const image = await world.images.get('shop:1');
    expect(object.spec.replicas).toEqual({
      count: 3,
      container: { image: 'shop:1', restart: { name: 'always' } },
      imageId: image!.id,
      version: 1,
    });
    expect((await services.put('shop', web(3))).object.revision).toBe(object.revision);
  });

  test('a number is no new version, what runs is', async () => {
    await services.put('shop', web(3));
    expect((await services.change('shop', { count: 5 })).spec.replicas).toMatchObject({ count: 5, version: 1 });
    const renewed = await services.change('shop', { image: 'shop:2' });
    expect(renewed.spec.replicas).toMatchObject({ count: 5, version: 2, container: { image: 'shop:2' } });
    expect((await services.put('shop', web(2))).object.spec.replicas).toMatchObject({ count: 2, version: 3 });
    expect((await services.put('shop', { network: 'web' })).object.spec.replicas).toBeUndefined();
  });

  test('the name of an image that points elsewhere by now changes nothing', async () => {
    await services.put('shop', web(1));
    const { imageId } = (await services.get('shop')).spec.replicas!;
    world.images.put('shop:1', { user: 'web' });
    expect((await services.change('shop', { count: 2 })).spec.replicas).toMatchObject({ imageId, version: 1 });
  });

  test('where they may run is theirs, too, and no new version', async () => {
    await world.desired.networks.put('far', { driver: 'wide', subnets: [{ cidr: '10.40.0.0/24' }] });
    const placement: PlacementSpec = { constraints: ['node.labels.zone==a'], perNodeMax: 2 };
    const asked = (more: object) => ({ network: 'far', replicas: { ...web(4).replicas, ...more } });
    const { object } = await services.put('shop', asked({ placement }));
    expect(object).toMatchObject({ owner: null, spec: { replicas: { placement, version: 1 } } });
    expect((await services.change('shop', { count: 2 })).spec.replicas).toMatchObject({ placement, count: 2 });
    expect((await services.change('shop', { updateParallelism: 3 })).spec.replicas).toMatchObject({
      count: 2,
      version: 1,
      placement: { ...placement, updateParallelism: 3 },
    });
    const everywhere = await services.put('shop', asked({ placement: { mode: 'global' } }));
    expect(everywhere.object.spec.replicas).toMatchObject({ placement: { mode: 'global' }, version: 1 });
    expect((await refused(services.change('shop', { count: 3 }))).code).toBe('request.invalid');
    expect(await services.assignments('shop')).toEqual([]);
  });

  test('a backend that is given by hand stays beside them', async () => {
    await services.put('shop', { ...web(2), backends: [{ address: '10.20.0.9' }] });
    const { spec } = await services.update('shop', { addBackends: [{ address: '10.20.0.8' }] });
    expect(spec).toMatchObject({
      replicas: { count: 2 },
      backends: [{ address: '10.20.0.9' }, { address: '10.20.0.8' }],
    });
  });

  test('what cannot be is refused, and leaves nothing', async () => {
    const before = await world.keys();
    expect((await refused(services.put('shop', web(1, 'absent')))).code).toBe('image.notfound');
    expect((await refused(services.put('shop', web(-1)))).code).toBe('request.invalid');
    expect((await refused(services.put('shop', web(2_000)))).code).toBe('request.invalid');
    expect((await refused(services.put('s'.repeat(60), web(1)))).code).toBe('request.invalid');
    const twice = { type: 'tmpfs', target: '/x' } as const;
    const bad = { network: 'web', replicas: { count: 1, container: { image: 'shop:1', mounts: [twice, twice] } } };
    expect((await refused(services.put('shop', bad))).code).toBe('request.invalid');
    const placed = (placement: PlacementSpec) => ({
      network: 'web',
      replicas: { count: 1, container: { image: 'shop:1' }, placement },
    });
    const constraint = await refused(services.put('shop', placed({ constraints: ['zone==a'] })));
    expect(constraint).toMatchObject({ code: 'request.invalid', message: expect.stringContaining('"zone==a"') });
    const both = await refused(services.put('shop', placed({ mode: 'global', perNodeMax: 1 })));
    expect(both.code).toBe('request.invalid');
    expect(await world.keys()).toEqual(before);
    await services.put('plain', { network: 'web' });
    expect((await refused(services.change('plain', { count: 2 }))).code).toBe('service.noreplicas');
    expect((await refused(services.change('nosuch', { count: 2 }))).code).toBe('object.notfound');
  });
});
