/** Containers and volumes in the desired state, on both stores. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ContainerDetail } from '../../src/model/container.ts';
import { nameKey } from '../../src/model/keys.ts';
import { makeWorld, NODE, type World } from './desired-world.ts';

describe.each(['memory', 'sqlite'] as const)('on %s', (kind) => {
  let world: World;
  beforeEach(async () => {
    world = await makeWorld(kind);
    await world.desired.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
    world.images.put('busybox', { volumes: ['/data/'], labels: { from: 'image' } });
  });
  afterEach(async () => {
    await world.check();
    await world.close();
  });
  const web = { image: 'busybox', networks: [{ network: 'web' }] };
  const say = async (ref: string, detail: Partial<ContainerDetail>, state: 'ready' | 'error' = 'ready') => {
    const { id, revision, spec } = await world.desired.containers.get(ref);
    await world.desired.statuses.set({
      kind: 'container',
      id,
      node: NODE,
      state,
      observed: revision,
      conditions: [],
      detail: { generation: spec.generation, restarts: 0, ...detail },
    });
  };

  test('is made with its sandbox, its endpoint and its volumes, and again without a change', async () => {
    const { containers, sandboxes, endpoints, volumes } = world.desired;
    const { object, created } = await containers.put('box', { ...web, labels: { own: 'yes' } });
    expect(created).toBe(true);
    expect(object).toMatchObject({ owner: NODE, labels: { from: 'image', own: 'yes' } });
    expect(object.spec).toMatchObject({ image: 'busybox', wanted: 'created', generation: 1, stopTimeoutMs: 10_000 });
    const sandbox = await sandboxes.get('box');
    expect(object.spec.sandbox).toBe(sandbox.id);
    expect((await endpoints.list({ sandbox: 'box' })).map(({ name }) => name)).toEqual(['box.web']);
    const [volume] = await volumes.list();
    expect(volume!.spec).toEqual({ driver: 'local', anonymous: true });
    expect(object.spec.mounts).toEqual([
      { type: 'volume', source: volume!.name, target: '/data', readOnly: false, options: {} },
    ]);
    const again = await containers.put('box', { ...web, labels: { own: 'yes' } });
    expect(again).toMatchObject({ created: false, object: { id: object.id, revision: object.revision } });
    await expect(containers.put('box', { ...web, env: ['A=1'] })).rejects.toMatchObject({ code: 'object.exists' });
    await expect(containers.put('box', web, { create: true })).rejects.toMatchObject({ code: 'object.exists' });
  });

  test('publishes what its image exposes on ports that are chosen once', async () => {
    const { containers } = world.desired;
    world.images.put('open', { ports: ['80/tcp', '53/udp'] });
    const request = { ...web, image: 'open', publish: [{ target: 80, published: 8080 }], publishAll: true };
    const { object } = await containers.put('box', request);
    expect(object.spec.publish).toMatchObject([
      { target: 80, published: 8080, protocol: 'tcp' },
      { target: 53, protocol: 'udp' },
    ]);
    expect(object.spec.publish[1]!.published).toBeGreaterThanOrEqual(49_152);
    expect(await containers.put('box', request)).toMatchObject({ created: false, object: { id: object.id } });
    await expect(containers.put('box', { ...request, publishAll: false })).rejects.toMatchObject({
      code: 'object.exists',
    });
  });

  test('leaves nothing when it cannot be', async () => {
    const { containers, sandboxes } = world.desired;
    const before = await world.keys();
    await expect(containers.put('box', { ...web, image: 'absent' })).rejects.toMatchObject({ code: 'image.notfound' });
    await expect(containers.put('box', { ...web, mounts: [{ type: 'tmpfs', target: '/proc' }] })).rejects.toMatchObject(
      {
        code: 'request.invalid',
      },
    );
    await expect(
      containers.put('box', { ...web, autoRemove: true, restart: { name: 'always' } }),
    ).rejects.toMatchObject({ code: 'request.invalid' });
    expect(await world.keys()).toEqual(before);
    await sandboxes.put('taken', { networks: [{ network: 'web' }] });
    await expect(containers.put('taken', web)).rejects.toMatchObject({ code: 'object.exists' });
  });

  test('its sandbox goes with it and not before', async () => {
    const { containers, sandboxes } = world.desired;
    await containers.put('box', web);
    await expect(sandboxes.remove('box', { force: true })).rejects.toMatchObject({ code: 'object.inuse' });
    await containers.remove('box');
    expect(await sandboxes.list()).toMatchObject([{ removing: true }]);
    // The name is free at once.
    await containers.put('box', web);
    await world.settle();
    expect((await containers.list()).length).toBe(1);
  });

  test('one that runs is not removed without force, and takes its own volumes with it when asked', async () => {
    const { containers, volumes } = world.desired;
    await containers.put('box', { ...web, start: true, mounts: [{ type: 'volume', source: 'kept', target: '/kept' }] });
    await say('box', { phase: 'running' });
    await expect(containers.remove('box')).rejects.toMatchObject({ code: 'container.running' });
    await expect(volumes.remove('kept')).rejects.toMatchObject({ code: 'object.inuse' });
    await containers.remove('box', { force: true, volumes: true });
    await world.settle();
    await world.settle();
    expect((await volumes.list()).map(({ name }) => name)).toEqual(['kept']);
    await volumes.remove('kept');
    await world.settle();
    expect(await volumes.list()).toEqual([]);
  });

  test('start, stop and restart write what is wanted, and count lives', async () => {
    const { containers } = world.desired;
    const wanted = async () => {
      const { spec } = await containers.get('box');
      return `${spec.wanted} ${spec.generation}`;
    };
    await containers.put('box', web);
    await containers.start('box');
    expect(await wanted()).toBe('running 1');
    await containers.start('box');
    expect(await wanted()).toBe('running 1');
    await say('box', { phase: 'running' });
    await containers.start('box');
    expect(await wanted()).toBe('running 1');
    expect((await containers.stop('box', { timeoutMs: 500 })).spec).toMatchObject({
      wanted: 'stopped',
      stopWithinMs: 500,
    });
    await containers.start('box');
    expect(await wanted()).toBe('running 2');
    await say('box', { phase: 'exited', exitCode: 0 });
    await containers.start('box');
    expect(await wanted()).toBe('running 3');
    await say('box', { phase: 'exited', exitCode: 127 }, 'error');
    await containers.start('box');
    expect(await wanted()).toBe('running 4');
    await containers.restart('box');
    expect(await wanted()).toBe('running 5');
  });

  test('another name is another name everywhere', async () => {
    const { containers, sandboxes, endpoints } = world.desired;
    await containers.put('box', web);
    await containers.put('other', { image: 'busybox', networks: [{ network: 'web' }] });
    await expect(containers.rename('box', 'other')).rejects.toMatchObject({ code: 'object.exists' });
    await containers.rename('box', 'crate');
    expect((await sandboxes.get('crate')).name).toBe('crate');
    expect((await endpoints.list({ sandbox: 'crate' })).map(({ name }) => name)).toEqual(['crate.web']);
    await expect(containers.get('box')).rejects.toMatchObject({ code: 'object.notfound' });
    expect(await world.keys(nameKey('container', NODE, ''))).toEqual([
      nameKey('container', NODE, 'crate'),
      nameKey('container', NODE, 'other'),
    ]);
    await containers.put('box', web);
  });

  test('volumes: by name once, pruned when nobody mounts them', async () => {
    const { containers, volumes } = world.desired;
    expect(await volumes.put('pages', { labels: { a: '1' } })).toMatchObject({ created: true });
    expect(await volumes.put('pages', { labels: { a: '1' } })).toMatchObject({ created: false });
    await expect(volumes.put('pages', {})).rejects.toMatchObject({ code: 'object.exists' });
    await containers.put('box', { ...web, mounts: [{ type: 'volume', source: 'pages', target: '/www' }] });
    await containers.remove('box');
    expect(await volumes.prune()).toEqual([]);
    await world.settle();
    expect((await volumes.prune()).map(({ spec }) => spec.anonymous)).toEqual([true]);
    expect((await volumes.prune({ all: true })).map(({ name }) => name)).toEqual(['pages']);
    await world.settle();
    expect(await volumes.list()).toEqual([]);
  });

  test('a volume that goes while a container begins to use it stays, or the container is not made', async () => {
    const { containers, volumes } = world.desired;
    await volumes.put('pages', {});
    world.before('volume/', () =>
      world.other.containers.put('box', { ...web, mounts: [{ type: 'volume', source: 'pages', target: '/www' }] }),
    );
    await expect(volumes.remove('pages')).rejects.toMatchObject({ code: 'object.inuse' });
    await expect(containers.get('box')).resolves.toMatchObject({ name: 'box' });
  });
});
