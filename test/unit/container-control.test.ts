/** The controller of containers over a runtime in memory: lives, ends, pauses, health, what survives the daemon. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import type { ContainerRequest } from '../../src/model/container/request.ts';
import type { ContainerDetail } from '../../src/model/container.ts';
import { makeFolder } from '../folder.ts';
import { World } from './api-world.ts';
import { type ContainerBed, openContainerBed } from './container-bed.ts';

let world: World;
let bed: ContainerBed;
let folder: string;
beforeEach(async () => {
  world = new World();
  folder = makeFolder('container');
  bed = await openContainerBed(world, { folder });
  world.images.put('busybox');
  await world.state.networks.put('web', { subnets: [{ cidr: '10.20.0.0/24' }] });
});
afterEach(async () => {
  await bed.close();
  world.life.abort();
});

const detail = (id: string): Partial<ContainerDetail> => bed.tracker.detail<ContainerDetail>('container', id);
async function until(look: () => boolean | Promise<boolean>, what = 'what is waited for'): Promise<void> {
  const limit = performance.now() + 5_000;
  while (!(await look())) {
    if (performance.now() > limit) throw new Error(`${what} did not come: ${bed.runtime.calls.join(', ')}`);
    await sleep(2);
  }
}
const phase = (id: string, wanted: ContainerDetail['phase']): Promise<void> =>
  until(() => detail(id).phase === wanted, `phase ${wanted}`);
async function put(name: string, request: Partial<ContainerRequest> = {}): Promise<string> {
  const networks = [{ network: 'web' }];
  const { object } = await world.state.containers.put(name, { image: 'busybox', networks, start: true, ...request });
  return object.id;
}

describe('a life', () => {
  test('root, creation, start, in that order and once each; its files are there', async () => {
    const id = await put('box', { hostname: 'box', addHosts: ['gate:10.0.0.1'] });
    await phase(id, 'running');
    expect(bed.runtime.calls).toEqual(['create box', 'start box']);
    const plan = bed.runtime.plan(id)!;
    expect(plan).toMatchObject({ name: 'box', rootfs: `/nowhere/${id}`, spec: { hostname: 'box', generation: 1 } });
    expect(plan.cgroupPath).toBe(`/cgroup/${plan.spec.sandbox}`);
    expect(readFileSync(plan.files['/etc/hosts']!, 'utf8')).toContain('10.0.0.1\tgate\n10.20.0.');
    expect(readFileSync(plan.files['/etc/hostname']!, 'utf8')).toBe('box\n');
    expect(detail(id)).toMatchObject({ pid: 1000, generation: 1, restarts: 0 });
    expect(bed.placed).toEqual(['box']);
  });

  test('it waits for its endpoints, created and not started', async () => {
    world.fate = ({ kind }) => (kind === 'endpoint' ? 'nothing' : { state: 'ready' });
    const id = await put('box');
    await until(() => bed.runtime.calls.includes('create box'));
    await sleep(20);
    expect(bed.runtime.calls).toEqual(['create box']);
    const [endpoint] = await world.state.endpoints.list();
    await world.setStatus(endpoint!, 'ready');
    await phase(id, 'running');
    expect(bed.runtime.calls).toEqual(['create box', 'start box']);
  });

  test('its end is told with its status, and it stays', async () => {
    const id = await put('box');
    await phase(id, 'running');
    bed.runtime.exit(id, 7);
    await phase(id, 'exited');
    expect(detail(id)).toMatchObject({ exitCode: 7, restarts: 0 });
    expect(detail(id).pid).toBeUndefined();
    expect(bed.placed).toEqual(['box', 'box']);
    expect(bed.runtime.calls).toEqual(['create box', 'start box']);
  });

  test('one that goes with its process is gone, and its end is still known', async () => {
    const id = await put('box', { autoRemove: true });
    await phase(id, 'running');
    const waiting = bed.live.exit(id, 1, AbortSignal.timeout(5_000));
    bed.runtime.exit(id, 3);
    expect((await waiting).exitCode).toBe(3);
    await until(async () => (await world.state.containers.list()).length === 0);
    expect((await bed.live.exit(id, 1, AbortSignal.timeout(5_000))).exitCode).toBe(3);
    expect([...world.images.layers]).toEqual([]);
    await until(async () => (await world.state.sandboxes.list()).length === 0);
  });

  test.each([
    ['runtime.notfound', 127],
    ['runtime.notexecutable', 126],
    ['runtime.failed', 125],
  ] as const)('a start that fails with %s is not tried again', async (code, exitCode) => {
    bed.runtime.refuseStart(new SluiceError(code, 'no such program'));
    const id = await put('box');
    await phase(id, 'exited');
    expect(detail(id)).toMatchObject({ exitCode, failure: { code } });
    expect(bed.tracker.get('container', id)).toMatchObject({ state: 'error', error: { code } });
    await bed.controller.reconcile(id);
    expect(bed.runtime.calls).toEqual(['create box', 'start box']);
    await world.state.containers.start(id);
    await phase(id, 'running');
    expect(bed.tracker.get('container', id)).toMatchObject({ state: 'ready' });
  });
});

describe('stop', () => {
  test("the image's signal, then SIGKILL for one that does not heed it", async () => {
    world.images.put('server', { stopSignal: 'SIGINT' });
    const id = await put('box', { image: 'server' });
    await phase(id, 'running');
    bed.runtime.deaf.add('SIGINT');
    await world.state.containers.stop(id, { timeoutMs: 30 });
    await phase(id, 'exited');
    expect(bed.runtime.calls.slice(2)).toEqual(['kill box SIGINT', 'kill box SIGKILL']);
    expect(detail(id)).toMatchObject({ exitCode: 137 });
  });

  test('its own signal comes first; a stopped one is not started by its policy', async () => {
    const id = await put('box', { stopSignal: 'SIGTERM', restart: { name: 'always' } });
    await phase(id, 'running');
    await world.state.containers.stop(id);
    await phase(id, 'exited');
    await sleep(150);
    expect(bed.runtime.calls.slice(2)).toEqual(['kill box SIGTERM']);
    await world.state.containers.start(id);
    await phase(id, 'running');
    expect(detail(id).generation).toBe(2);
  });

  test('a restart ends one life and begins another', async () => {
    const id = await put('box');
    await phase(id, 'running');
    await world.state.containers.restart(id);
    await until(() => detail(id).generation === 2 && detail(id).phase === 'running');
    expect(bed.runtime.calls).toEqual(['create box', 'start box', 'kill box SIGTERM', 'create box', 'start box']);
  });
});

describe('restart policies', () => {
  test('always: after a pause that doubles', async () => {
    const id = await put('box', { restart: { name: 'always' } });
    const pauses: number[] = [];
    for (let n = 0; n < 3; n++) {
      await until(() => bed.runtime.calls.filter((call) => call === 'start box').length === n + 1);
      await phase(id, 'running');
      const at = performance.now();
      bed.runtime.exit(id, 0);
      await phase(id, 'restarting');
      await until(() => bed.runtime.calls.filter((call) => call === 'start box').length === n + 2);
      pauses.push(performance.now() - at);
    }
    expect(pauses[0]).toBeGreaterThan(95);
    expect(pauses[1]).toBeGreaterThan(195);
    expect(pauses[2]).toBeGreaterThan(395);
    await phase(id, 'running');
    expect(detail(id).restarts).toBe(3);
  });

  test('on-failure: as often as it says, and not after success', async () => {
    const id = await put('box', { restart: { name: 'on-failure', retriesMax: 1 } });
    await phase(id, 'running');
    bed.runtime.exit(id, 1);
    await phase(id, 'restarting');
    await phase(id, 'running');
    bed.runtime.exit(id, 1);
    await phase(id, 'exited');
    const well = await put('well', { restart: { name: 'on-failure' } });
    await phase(well, 'running');
    bed.runtime.exit(well, 0);
    await phase(well, 'exited');
    expect(bed.runtime.calls.filter((call) => call.startsWith('start'))).toEqual([
      'start box',
      'start box',
      'start well',
    ]);
  });
});

describe('removal', () => {
  test('by force: killed, its end told, everything of it gone', async () => {
    const id = await put('box');
    await phase(id, 'running');
    const waiting = bed.live.exit(id, 1, AbortSignal.timeout(5_000));
    await world.state.containers.remove(id, { force: true });
    expect((await waiting).exitCode).toBe(137);
    await until(async () => (await world.state.containers.list()).length === 0);
    expect(bed.runtime.calls.slice(2)).toEqual(['kill box SIGKILL', 'delete box']);
    expect(world.images.mounted.size + world.images.layers.size).toBe(0);
    expect(bed.tracker.get('container', id)).toBeUndefined();
  });

  test('what nobody wants is taken apart, what is wanted stays', async () => {
    const id = await put('box');
    await phase(id, 'running');
    await bed.runtime.create({ ...bed.runtime.plan(id)!, id: 'f'.repeat(64), name: 'stray' });
    await world.images.mount(world.images.put('busybox').id, 'e'.repeat(64));
    expect((await bed.controller.prune()).length).toBe(2);
    expect(await bed.controller.prune()).toEqual([]);
    expect((await bed.runtime.list()).map((state) => state.id)).toEqual([id]);
    expect([...world.images.layers]).toEqual([id]);
  });
});

describe('a daemon that comes back', () => {
  const again = async (meanwhile: () => void | Promise<void> = () => undefined): Promise<void> => {
    await bed.stop();
    await meanwhile();
    bed = await openContainerBed(world, { folder, runtime: bed.runtime });
  };

  test('finds what runs, and leaves it alone', async () => {
    const id = await put('box');
    await phase(id, 'running');
    await again();
    await sleep(30);
    expect(detail(id)).toMatchObject({ phase: 'running', pid: 1000 });
    expect(bed.runtime.calls).toEqual(['create box', 'start box']);
  });

  test('learns of what ended meanwhile, and does what the policy says', async () => {
    const once = await put('once');
    const ever = await put('ever', { restart: { name: 'unless-stopped' } });
    const stopped = await put('stopped', { restart: { name: 'unless-stopped' } });
    const always = await put('always', { restart: { name: 'always' } });
    for (const id of [once, ever, stopped, always]) await phase(id, 'running');
    for (const id of [stopped, always]) await world.state.containers.stop(id);
    for (const id of [stopped, always]) await phase(id, 'exited');
    await again(() => {
      bed.runtime.exit(once, 5);
      bed.runtime.exit(ever, 5);
    });
    await phase(once, 'exited');
    expect(detail(once).exitCode).toBe(5);
    await until(() => detail(ever).restarts === 1 && detail(ever).phase === 'running');
    await until(() => detail(always).phase === 'running');
    expect(detail(stopped).phase).toBe('exited');
  });

  test('after the host went down: what ran is started by its policy, the end of the others was not seen', async () => {
    const once = await put('once');
    const ever = await put('ever', { restart: { name: 'always' } });
    for (const id of [once, ever]) await phase(id, 'running');
    await again(async () => {
      await bed.runtime.delete(once);
      await bed.runtime.delete(ever);
    });
    await phase(once, 'exited');
    expect(detail(once).exitCode).toBe(255);
    await until(() => detail(ever).phase === 'running' && detail(ever).restarts === 1);
  });
});

describe('health', () => {
  const check = { test: ['CMD', 'true'], intervalMs: 10, timeoutMs: 1_000, retries: 2, startPeriodMs: 0 };
  test('the check of the image runs inside; its word is the place among backends', async () => {
    let well = true;
    bed.runtime.program = () => ({ exitCode: well ? 0 : 1 });
    world.images.put('checked', { health: check });
    const id = await put('box', { image: 'checked' });
    await phase(id, 'running');
    await until(() => detail(id).health === 'healthy');
    well = false;
    await until(() => detail(id).health === 'unhealthy');
    well = true;
    await until(() => detail(id).health === 'healthy');
    expect(bed.runtime.calls).toContain('exec box true');
    expect(bed.placed.length).toBeGreaterThanOrEqual(4);
    bed.runtime.exit(id, 0);
    await phase(id, 'exited');
    expect(detail(id).health).toBeUndefined();
    const calls = bed.runtime.calls.length;
    await sleep(40);
    expect(bed.runtime.calls.length).toBe(calls);
  });
});

describe('attach', () => {
  test('before the first instruction; a start that fails is why there is nothing to attach to', async () => {
    const { object } = await world.state.containers.put('box', { image: 'busybox', networks: [{ network: 'web' }] });
    await until(() => detail(object.id).phase === 'created');
    const attaching = bed.live.attach(object.id, 1);
    await world.state.containers.start(object.id);
    const streams = await attaching;
    await phase(object.id, 'running');
    bed.runtime.say(object.id, 'hello\n');
    bed.runtime.exit(object.id, 0);
    const heard: string[] = [];
    for await (const { data } of streams.output) heard.push(Buffer.from(data).toString());
    expect(heard).toEqual(['hello\n']);
    bed.runtime.refuseStart(new SluiceError('runtime.notfound', 'no such program'));
    await phase(object.id, 'exited');
    const failing = bed.live.attach(object.id, 2);
    failing.catch((error: unknown) => error);
    await world.state.containers.start(object.id);
    await expect(failing).rejects.toMatchObject({ code: 'runtime.notfound' });
    await expect(bed.live.attach(object.id)).rejects.toMatchObject({ code: 'container.stopped' });
  });
});

describe('volumes', () => {
  test('a directory each, filled at the first use, gone with the volume', async () => {
    const copied: string[] = [];
    bed.runtime.copyIn = async (_, rootfs, path, tar) => {
      for await (const bytes of tar) copied.push(`${path} ${Buffer.from(bytes)}`);
      mkdirSync(rootfs, { recursive: true });
      writeFileSync(join(rootfs, 'index.html'), 'from the image');
    };
    const mounts = [{ type: 'volume', source: 'pages', target: '/www' } as const];
    const id = await put('box', { mounts });
    await phase(id, 'running');
    const data = join(folder, 'volumes', 'pages', '_data');
    expect(bed.runtime.plan(id)!.volumes).toEqual({ pages: data });
    expect(readFileSync(join(data, 'index.html'), 'utf8')).toBe('from the image');
    writeFileSync(join(data, 'index.html'), 'own');
    const other = await put('other', { mounts });
    await phase(other, 'running');
    expect(copied.length).toBe(1);
    expect(readFileSync(join(data, 'index.html'), 'utf8')).toBe('own');
    for (const one of [id, other]) await world.state.containers.remove(one, { force: true });
    await until(async () => (await world.state.containers.list()).length === 0);
    await world.state.volumes.remove('pages');
    await until(() => !existsSync(join(folder, 'volumes', 'pages')));
    await until(async () => (await world.state.volumes.list()).length === 0);
  });
});
