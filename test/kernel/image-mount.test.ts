/** Roots of containers: overlays of layers, deep ones, with moved owners, over the daemon's death. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withUserNamespace } from '../../runtime/image/userns.ts';
import { systemClock } from '../../src/clock.ts';
import { mountByOptions, mountOverlay, takesParts } from '../../src/kernel/fs/overlay.ts';
import { ImageBed, streamOf, tarOf, transfer } from './image-bed.ts';
import { mountsBelow, SLOWNESS, until } from './kernel-bed.ts';

const bed = new ImageBed('image-mount');
afterAll(() => bed.close());

/** A docker archive of `depth` layers: each writes a file of its own, and `last` over that of the one below. */
async function stack(depth: number): Promise<Buffer> {
  const { sha256 } = await import('../../runtime/image/store/blobs.ts');
  const layers = await Promise.all(
    Array.from({ length: depth }, (_, index) =>
      tarOf([
        { name: `f${index}`, content: 'x' },
        { name: 'last', content: `${index}` },
      ]),
    ),
  );
  const config = {
    os: 'linux',
    architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
    rootfs: { type: 'layers', diff_ids: layers.map(sha256) },
  };
  const item = { Config: 'c.json', RepoTags: [`deep:${depth}`], Layers: layers.map((_, index) => `${index}.tar`) };
  return tarOf([
    ...layers.map((content, index) => ({ name: `${index}.tar`, content })),
    { name: 'c.json', content: JSON.stringify(config) },
    { name: 'manifest.json', content: JSON.stringify([item]) },
  ]);
}

describe('a root', () => {
  let id: string;
  beforeAll(async () => {
    const files = [
      { name: './', type: 'directory' as const, mode: 0o751, uid: 7, gid: 8 },
      { name: 'etc/conf', content: 'image', uid: 1000, gid: 1000 },
      { name: 'root-owned', content: 'r', mode: 0o600 },
    ];
    id = (await bed.store.import(streamOf(await tarOf(files)), 'small', transfer())).id;
  });

  test('has the owner and mode of the image’s own, and writes stay in it', async () => {
    const one = await bed.store.mount(id, 'one');
    const two = await bed.store.mount(id, 'two');
    const { mode, uid, gid } = statSync(one);
    expect([mode & 0o7777, uid, gid]).toEqual([0o751, 7, 8]);
    writeFileSync(join(one, 'etc/conf'), 'changed');
    rmSync(join(one, 'root-owned'));
    expect(readFileSync(join(two, 'etc/conf'), 'utf8')).toBe('image');
    expect(existsSync(join(two, 'root-owned'))).toBe(true);
    // Mounted already: kept.
    expect(await bed.store.mount(id, 'one')).toBe(one);
    expect(mountsBelow(one)).toHaveLength(1);
    await bed.store.unmount('one');
    await bed.store.unmount('one');
    expect(mountsBelow(one)).toEqual([]);
    await bed.store.mount(id, 'one');
    expect(readFileSync(join(one, 'etc/conf'), 'utf8')).toBe('changed');
    await bed.store.removeRoot('one');
    await bed.store.removeRoot('two');
    expect(await bed.store.roots()).toEqual([]);
    expect(bed.inside('tmp')).toEqual([]);
  });

  test('outlives the daemon', async () => {
    const root = await bed.store.mount(id, 'survivor');
    writeFileSync(join(root, 'kept'), 'x');
    await bed.store.close();
    bed.open();
    expect(await bed.store.mount(id, 'survivor')).toBe(root);
    expect(mountsBelow(root)).toHaveLength(1);
    expect(readFileSync(join(root, 'kept'), 'utf8')).toBe('x');
    await bed.store.removeRoot('survivor');
  });

  test('of a user namespace belongs to its ids', async () => {
    const root = await bed.store.mount(id, 'shifted', { shift: 100_000 });
    const owner = (name: string) => [statSync(join(root, name)).uid, statSync(join(root, name)).gid];
    expect(owner('etc/conf')).toEqual([101_000, 101_000]);
    expect(owner('root-owned')).toEqual([100_000, 100_000]);
    const look = 'cat root-owned; echo new >written; stat -c %u:%g written etc/conf';
    let said = '';
    chmodSync(bed.dir, 0o711);
    await withUserNamespace(systemClock, 100_000, (userns) => {
      const enter = [`--user=${userns}`, '--setuid', '0', '--setgid', '0', '--', 'sh', '-euc', `cd ${root}; ${look}`];
      said = execFileSync('nsenter', enter, { encoding: 'utf8' }).trim();
    });
    expect(said).toBe('r0:0\n1000:1000');
    expect(statSync(root).uid).toBe(100_007);
    expect(statSync(join(root, 'written')).uid).toBe(100_000);
    expect(mountsBelow(join(bed.images, 'roots/shifted'))).toEqual([root]);
    await expect(bed.store.mount(id, 'shifted')).rejects.toMatchObject({ code: 'image.inuse' });
    await bed.store.removeRoot('shifted');
  });

  test.each(['../x', 'a/b', '', '.x', 'x'.repeat(200)])('has no container named %j', async (name) => {
    await expect(bed.store.mount(id, name)).rejects.toMatchObject({ code: 'request.invalid' });
    await expect(bed.store.removeRoot(name)).rejects.toMatchObject({ code: 'request.invalid' });
  });

  test('is made once by many who ask at once', async () => {
    const roots = await Promise.all(Array.from({ length: 8 }, () => bed.store.mount(id, 'crowd')));
    expect(new Set(roots).size).toBe(1);
    expect(mountsBelow(roots[0]!)).toHaveLength(1);
    await bed.store.removeRoot('crowd');
  });
});

test('each layer is a parameter of its own since Linux 6.8', () => {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  expect(takesParts()).toBe(major > 6 || (major === 6 && minor >= 8));
});

test.each([127, 400])(
  'a stack of %i layers',
  async (depth) => {
    const [image] = await bed.store.load(streamOf(await stack(depth)), transfer());
    if (depth > 200 && !takesParts()) {
      await expect(bed.store.mount(image!.id, `deep-${depth}`)).rejects.toThrow(`fewer layers than ${depth}`);
      return;
    }
    const root = await bed.store.mount(image!.id, `deep-${depth}`);
    expect(readFileSync(join(root, 'last'), 'utf8')).toBe(`${depth - 1}`);
    expect(readdirSync(root)).toHaveLength(depth + 1);
    writeFileSync(join(root, 'f0'), 'changed');
    await bed.store.removeRoot(`deep-${depth}`);
  },
  60_000 * SLOWNESS,
);

describe('the way of kernels before 6.8', () => {
  const place = (name: string, depth: number) => {
    const at = (path: string): string => join(bed.path(name), path);
    const lower = Array.from({ length: depth }, (_, index) => at(`lower, with: odd=${index}`));
    for (const path of [...lower, at('upper'), at('work'), at('merged')]) mkdirSync(path, { recursive: true });
    for (const [index, path] of lower.entries()) writeFileSync(join(path, 'which'), `${index}`);
    return { lower, upper: at('upper'), work: at('work'), target: at('merged') };
  };
  test('stacks 127 layers, whatever their paths are', () => {
    const spec = place('old', 127);
    mountByOptions(spec);
    expect(readFileSync(join(spec.target, 'which'), 'utf8')).toBe('0');
    expect(mountsBelow(spec.target)).toEqual([spec.target]);
  });
  test('says so when there are too many', () => {
    expect(() => mountByOptions(place('older', 400))).toThrow(/fewer layers than 400/);
  });
  test('what the kernel says of a wrong overlay is told', () => {
    const spec = { ...place('wrong', 1), lower: [bed.path('absent')] };
    expect(() => mountOverlay(spec)).toThrow(expect.objectContaining({ code: 'kernel.notfound' }));
    expect(mountsBelow(spec.target)).toEqual([]);
  });
});

test(
  'kill -9 in the middle of a layer: the next life finds nothing half-unpacked',
  async () => {
    const dir = bed.path('killed');
    const script = `
    import { createImages } from './runtime/image/images.ts';
    import { systemClock } from './src/clock.ts';
    import { createLogger } from './src/log.ts';
    const store = createImages({ dir: ${JSON.stringify(join(dir, 'images'))}, clock: systemClock, logger: createLogger('silent') });
    await store.import(process.stdin, 'x', { signal: new AbortController().signal });`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      cwd: join(import.meta.dirname, '../..'),
      stdio: ['pipe', 'ignore', 'inherit'],
    });
    const exited = once(child, 'exit');
    const many = Array.from({ length: 20_000 }, (_, index) => ({
      name: `d${index % 100}/f${index}`,
      content: 'x'.repeat(500),
    }));
    child.stdin.end(await tarOf(many));
    const tmp = join(dir, 'images/tmp');
    const half = (): boolean => {
      const begun = existsSync(tmp) ? readdirSync(tmp).find((name) => name.startsWith('layer-')) : undefined;
      return begun !== undefined && existsSync(join(tmp, begun, 'diff/d99'));
    };
    await until('a layer is half unpacked', half, 15_000);
    child.kill('SIGKILL');
    await exited;
    expect(readdirSync(tmp)).not.toEqual([]);
    const next = new ImageBed('next-life', { dir });
    await until('what was left is swept', () => next.inside('tmp').length === 0, 5_000);
    expect(next.inside('layers')).toEqual([]);
    expect(await next.store.list()).toEqual([]);
    // The blob came in whole and nothing refers to it.
    await next.store.prune({ all: false, users: new Set() });
    expect(next.inside('blobs/sha256')).toEqual([]);
    await next.store.close();
  },
  60_000 * SLOWNESS,
);
