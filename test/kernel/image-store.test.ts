/** The store with real images: made by buildah, carried by skopeo, in every form that tools write. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bodyOf } from '../../src/api/image/transfer.ts';
import { systemClock } from '../../src/clock.ts';
import type { Image } from '../../src/contracts/image.ts';
import {
  bytesOf,
  ImageBed,
  listing,
  type Member,
  smallDisk,
  streamOf,
  tarOf,
  tool,
  transfer,
  writeStream,
} from './image-bed.ts';
import { until } from './kernel-bed.ts';

const bed = new ImageBed('image-store');
/** Archives of the image `top` by who wrote them. */
const archives = new Map<string, string>();
/** What a container of `top` shows below its root, by buildah's own mount of it. */
let expected: string[];

const BASE = `mkdir -p $m/bin $m/opq/old $m/gone/in; cp /bin/busybox $m/bin/; ln $m/bin/busybox $m/bin/sh; ln -s busybox $m/bin/ls
  echo 1 >$m/opq/old/f; echo 2 >$m/gone/in/x; echo 3 >$m/file; chown 10:20 $m/file; mkdir -m 1777 $m/tmp; mknod $m/null c 1 3`;
const TOP = `rm -rf $m/opq; mkdir $m/opq; echo new >$m/opq/new; rm -rf $m/gone; rm $m/file; mkdir $m/file; echo 4 >$m/file/inside
  /usr/bin/python3 -IS -c "import os; os.setxattr('$m/opq/new', 'user.t', bytes([1, 0, 255]))"; chmod 4711 $m/bin/busybox`;

beforeAll(async () => {
  await bed.build('base', 'scratch', BASE);
  await bed.build(
    'top',
    'localhost/base',
    TOP,
    '--cmd',
    '["/bin/ls","/"]',
    '--env',
    'A=b',
    '--port',
    '80',
    '--label',
    'l=1',
  );
  const container = await bed.buildah('from', '--pull-never', 'localhost/top');
  const root = await bed.buildah('mount', container);
  expected = listing(root).slice(1);
  const write = async (name: string, target: string): Promise<void> => {
    await bed.buildah('push', '--quiet', 'localhost/top', target);
    archives.set(name, bed.path(`${name}.tar`));
  };
  await write('buildah-docker', `docker-archive:${bed.path('buildah-docker.tar')}:example.org/top:1`);
  await write('buildah-oci', `oci-archive:${bed.path('buildah-oci.tar')}:example.org/top:1`);
  const skopeo = async (name: string, target: string, ...flags: string[]): Promise<void> => {
    await tool('skopeo', 'copy', ...flags, `docker-archive:${archives.get('buildah-docker')}`, target);
    archives.set(name, bed.path(`${name}.tar`));
  };
  await skopeo('skopeo-docker', `docker-archive:${bed.path('skopeo-docker.tar')}:example.org/top:1`);
  await skopeo('skopeo-oci', `oci-archive:${bed.path('skopeo-oci.tar')}:example.org/top:1`);
  await skopeo(
    'skopeo-zstd',
    `oci:${bed.path('zstd')}:example.org/top:1`,
    '--dest-compress-format',
    'zstd',
    '--dest-compress',
  );
  await tool('tar', '-C', bed.path('zstd'), '-cf', bed.path('skopeo-zstd.tar'), '.');
  archives.set('docker-20', await dockerTwenty(bed.path('buildah-docker.tar')));
  archives.set('docker-26', await dockerTwentySix(bed.path('skopeo-oci.tar')));
}, 120_000);
afterAll(() => bed.close());

/** As `docker save` of Docker 20 lays an archive out: a folder a layer with `layer.tar`, `VERSION` and `json`, the list at the end. */
async function dockerTwenty(from: string): Promise<string> {
  const dir = bed.path('d20');
  mkdirSync(dir);
  await tool('tar', '-C', dir, '-xf', from);
  const [item] = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')) as { Config: string; Layers: string[] }[];
  const layers = item!.Layers.map((_, index) => `${String(index + 1).repeat(64)}`);
  const members: Member[] = layers.flatMap((id, index) => [
    { name: `${id}/`, type: 'directory' as const },
    { name: `${id}/VERSION`, content: '1.0' },
    { name: `${id}/json`, content: JSON.stringify({ id }) },
    { name: `${id}/layer.tar`, content: readFileSync(join(dir, item!.Layers[index]!)) },
  ]);
  const manifest = [
    { Config: item!.Config, RepoTags: ['example.org/top:1'], Layers: layers.map((id) => `${id}/layer.tar`) },
  ];
  members.push({ name: item!.Config, content: readFileSync(join(dir, item!.Config)) });
  members.push({ name: 'manifest.json', content: JSON.stringify(manifest) });
  members.push({ name: 'repositories', content: JSON.stringify({ 'example.org/top': { 1: layers.at(-1) } }) });
  writeFileSync(bed.path('docker-20.tar'), await tarOf(members));
  return bed.path('docker-20.tar');
}

/** As Docker 25 and later: an OCI layout whose annotations name the image, and `manifest.json` beside it. */
async function dockerTwentySix(from: string): Promise<string> {
  const dir = bed.path('d26');
  mkdirSync(dir);
  await tool('tar', '-C', dir, '-xf', from);
  const index = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8')) as {
    manifests: { digest: string; annotations: object }[];
  };
  const [descriptor] = index.manifests;
  descriptor!.annotations = {
    'io.containerd.image.name': 'example.org/top:1',
    'org.opencontainers.image.ref.name': '1',
  };
  writeFileSync(join(dir, 'index.json'), JSON.stringify(index));
  const path = (digest: string): string => `blobs/sha256/${digest.slice(7)}`;
  const { config, layers } = JSON.parse(readFileSync(join(dir, path(descriptor!.digest)), 'utf8')) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  const item = {
    Config: path(config.digest),
    RepoTags: ['example.org/top:1'],
    Layers: layers.map(({ digest }) => path(digest)),
  };
  writeFileSync(join(dir, 'manifest.json'), JSON.stringify([item]));
  await tool('tar', '-C', dir, '-cf', bed.path('docker-26.tar'), 'blobs', 'index.json', 'manifest.json', 'oci-layout');
  return bed.path('docker-26.tar');
}

const NAME = 'example.org/top:1';

async function emptied(): Promise<void> {
  const users = new Set<string>();
  for (const { id } of await bed.store.list()) await bed.store.remove(id, { force: true, users });
  expect([...bed.inside('blobs/sha256'), ...bed.inside('layers'), ...bed.inside('tmp')]).toEqual([]);
}

/** What a container of ours sees below its root. */
async function seen(image: Image): Promise<string[]> {
  const root = await bed.store.mount(image.id, 'look');
  try {
    return listing(root).slice(1);
  } finally {
    await bed.store.removeRoot('look');
  }
}

describe('an archive is loaded', () => {
  test.each(['buildah-docker', 'buildah-oci', 'skopeo-docker', 'skopeo-oci', 'skopeo-zstd', 'docker-20', 'docker-26'])(
    'as %s wrote it, plain, gzip and zstd',
    async (name) => {
      const plain = readFileSync(archives.get(name)!);
      let id: string | undefined;
      for (const bytes of [plain, gzipSync(plain), zstdCompressSync(plain)]) {
        const [image] = await bed.store.load(streamOf(bytes), transfer());
        expect(image!.names).toContain(NAME);
        expect(image).toMatchObject({
          os: 'linux',
          config: { command: ['/bin/ls', '/'], ports: ['80/tcp'], labels: { l: '1' } },
        });
        expect(image!.config.env).toContain('A=b');
        expect(await bed.store.get('example.org/top:1')).toEqual(image);
        id ??= image!.id;
        expect(image!.id).toBe(id);
        if (bytes === plain) expect(await seen(image!)).toEqual(expected);
        await emptied();
      }
    },
  );

  test('all give one image, and its layers are unpacked once', async () => {
    const ids = new Set<string>();
    for (const path of archives.values()) ids.add((await bed.store.load(streamOf(path), transfer()))[0]!.id);
    expect(ids.size).toBe(1);
    expect(bed.inside('layers')).toHaveLength(2);
    const [image] = await bed.store.list();
    expect(image!.size).toBeGreaterThan(1_900_000);
    const steps = await bed.store.history(image!.id);
    expect(steps.reduce((sum, { size }) => sum + size, 0)).toBe(image!.size);
  });
});

describe('what we write others read', () => {
  beforeAll(async () => {
    await bed.store.load(streamOf(archives.get('skopeo-oci')!), transfer());
  });

  test.each([
    ['skopeo, as a docker archive', 'skopeo', (path: string) => `docker-archive:${path}`],
    ['skopeo, as an OCI archive', 'skopeo', (path: string) => `oci-archive:${path}`],
    ['buildah, as a docker archive', 'buildah', (path: string) => `docker-archive:${path}`],
  ])('%s', async (_, who, source) => {
    const path = bed.path('saved.tar');
    await writeStream(bed.store.save([NAME], transfer().signal), path);
    const image = (await bed.store.get(NAME))!;
    if (who === 'skopeo') {
      const config = JSON.parse(await tool('skopeo', 'inspect', '--config', source(path))) as {
        rootfs: { diff_ids: string[] };
      };
      expect(config.rootfs.diff_ids).toEqual(image.layers);
      rmSync(bed.path('copied'), { recursive: true, force: true });
      // A copy reads, and compares, every layer.
      await tool('skopeo', 'copy', source(path), `dir:${bed.path('copied')}`);
    } else {
      const id = await bed.buildah('pull', '--quiet', source(path));
      expect(`sha256:${id.split('\n').at(-1)}`).toBe(image.id);
    }
    // And so do we.
    const before = bed.inside('blobs/sha256');
    const [again] = await bed.store.load(streamOf(path), transfer());
    expect(again!.id).toBe(image.id);
    expect(bed.inside('blobs/sha256')).toEqual(before);
  });

  test('skopeo reads the store itself, for it is an OCI layout', async () => {
    const config = JSON.parse(await tool('skopeo', 'inspect', '--config', `oci:${bed.images}:${NAME}`));
    expect((config as { config: { Cmd: string[] } }).config.Cmd).toEqual(['/bin/ls', '/']);
  });

  test('two images and three names in one archive', async () => {
    await bed.store.tag(NAME, 'second:2');
    const other = await bed.store.import(streamOf(await tarOf([{ name: 'f', content: 'x' }])), 'other', transfer());
    const bytes = await bytesOf(bed.store.save([NAME, 'second:2', other.id], transfer().signal));
    await emptied();
    const loaded = await bed.store.load(streamOf(bytes), transfer());
    expect(new Set(loaded.flatMap(({ names }) => names))).toEqual(
      new Set(['docker.io/library/second:2', NAME, 'docker.io/library/other:latest']),
    );
    expect(await bed.store.list()).toHaveLength(2);
  });
});

describe('import', () => {
  test.each(['plain', 'gzip', 'zstd'])('a %s tarball becomes an image of one layer', async (form) => {
    const plain = await tarOf([{ name: 'hello', content: 'world' }]);
    const bytes = { plain, gzip: gzipSync(plain), zstd: zstdCompressSync(plain) }[form]!;
    const changes = { command: ['/hello'], env: ['X=1'], volumes: ['/v'], ports: ['1/udp'], user: 'u' };
    const image = await bed.store.import(streamOf(bytes), `imported:${form}`, transfer({ changes } as never));
    expect(image).toMatchObject({ names: [`docker.io/library/imported:${form}`], config: changes, size: 5 });
    const root = await bed.store.mount(image.id, 'imported');
    expect(readFileSync(join(root, 'hello'), 'utf8')).toBe('world');
    await bed.store.removeRoot('imported');
    await tool('skopeo', 'inspect', `oci:${bed.images}:docker.io/library/imported:${form}`);
  });
  test('one that fails leaves nothing', async () => {
    const before = [...bed.inside('blobs/sha256'), ...bed.inside('layers')];
    const bytes = (await tarOf([{ name: 'f', content: 'x'.repeat(5000) }])).subarray(0, 2000);
    await expect(bed.store.import(streamOf(bytes), 'bad', transfer())).rejects.toMatchObject({ code: 'image.archive' });
    expect([...bed.inside('blobs/sha256'), ...bed.inside('layers')]).toEqual(before);
    expect(bed.inside('tmp')).toEqual([]);
  });
});

describe('names, users, removal', () => {
  let image: Image;
  const users = new Set<string>();
  beforeAll(async () => {
    await emptied();
    image = (await bed.store.load(streamOf(archives.get('docker-20')!), transfer()))[0]!;
  });

  test('an image is found by name, id and the beginning of its id', async () => {
    for (const text of [NAME, image.id, image.id.slice(7), image.id.slice(7, 19), image.id.slice(0, 20)])
      expect((await bed.store.get(text))?.id).toBe(image.id);
    for (const text of ['example.org/top', 'nothing', `sha256:${'0'.repeat(64)}`])
      expect(await bed.store.get(text)).toBeNull();
    await expect(bed.store.get('UPPER')).rejects.toMatchObject({ code: 'image.reference' });
    await expect(bed.store.history('nothing')).rejects.toMatchObject({ code: 'image.notfound' });
  });

  test('goes with its last name', async () => {
    await bed.store.tag(NAME, 'also:1');
    expect(await bed.store.remove('also:1', { users })).toEqual({
      untagged: ['docker.io/library/also:1'],
      deleted: [],
    });
    await bed.store.tag(NAME, 'also:1');
    await expect(bed.store.remove(image.id, { users })).rejects.toMatchObject({ code: 'image.inuse' });
    expect((await bed.store.remove(image.id, { users, force: true })).deleted).toEqual([image.id]);
    expect([...bed.inside('blobs/sha256'), ...bed.inside('layers')]).toEqual([]);
    await bed.store.load(streamOf(archives.get('docker-20')!), transfer());
  });

  test('not while a container was made from it, nor ever while it is mounted', async () => {
    const used = { users: new Set([image.id]) };
    await expect(bed.store.remove(NAME, used)).rejects.toMatchObject({ code: 'image.inuse' });
    const root = await bed.store.mount(image.id, 'box');
    await expect(bed.store.remove(NAME, { users })).rejects.toMatchObject({ code: 'image.inuse' });
    await expect(bed.store.remove(NAME, { users, force: true })).rejects.toMatchObject({ code: 'image.inuse' });
    writeFileSync(join(root, 'written'), 'kept');
    await bed.store.unmount('box');
    await expect(bed.store.remove(NAME, { users })).rejects.toMatchObject({ code: 'image.inuse' });
    // Forced, the name goes; what the container stands on stays.
    expect(await bed.store.remove(NAME, { users, force: true })).toMatchObject({ deleted: [] });
    expect(await bed.store.get(NAME)).toBeNull();
    expect(await bed.store.prune({ all: true, users })).toEqual({ deleted: [], bytes: 0 });
    expect(await bed.store.mount(image.id, 'box')).toBe(root);
    expect(readFileSync(join(root, 'written'), 'utf8')).toBe('kept');
    expect(await bed.store.roots()).toEqual(['box']);
    await bed.store.removeRoot('box');
    await bed.store.removeRoot('box');
    await bed.store.unmount('box');
    const { deleted, bytes } = await bed.store.prune({ all: false, users });
    expect(deleted).toEqual([image.id]);
    expect(bytes).toBeGreaterThan(2_000_000);
    await emptied();
  });

  test('a name that moves leaves an image without one, which prune takes', async () => {
    const one = await bed.store.import(streamOf(await tarOf([{ name: 'a' }])), 'moving', transfer());
    const two = await bed.store.import(streamOf(await tarOf([{ name: 'b' }])), 'moving', transfer());
    expect((await bed.store.get(one.id))?.names).toEqual([]);
    expect((await bed.store.prune({ all: false, users })).deleted).toEqual([one.id]);
    expect((await bed.store.prune({ all: true, users: new Set([two.id]) })).deleted).toEqual([]);
    expect((await bed.store.prune({ all: true, users })).deleted).toEqual([two.id]);
  });

  test('what is unpacked comes back from its blobs when it is lost', async () => {
    const [loaded] = await bed.store.load(streamOf(archives.get('docker-26')!), transfer());
    await bed.store.close();
    rmSync(join(bed.images, 'layers'), { recursive: true });
    bed.open();
    expect(await seen(loaded!)).toEqual(expected);
  });
});

describe('what is wrong is refused', () => {
  const json = (value: unknown): string => JSON.stringify(value);
  const item = (more: object) => ({
    name: 'manifest.json',
    content: json([{ Config: 'c.json', RepoTags: null, Layers: [], ...more }]),
  });
  const config = (more: object = {}): Member => ({
    name: 'c.json',
    content: json({ os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [] }, ...more }),
  });
  const zeros = `sha256:${'0'.repeat(64)}`;
  const layer = (ids: string[]) => config({ rootfs: { type: 'layers', diff_ids: ids } });
  const descriptor = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: zeros, size: 2 };
  const layout = { name: 'oci-layout', content: '{}' };

  test.each<[string, string, readonly Member[]]>([
    ['a plain file system', 'image.archive', [{ name: 'etc/passwd', content: 'x' }]],
    ['no image in it', 'image.archive', [{ name: 'manifest.json', content: '[]' }]],
    ['a list that is none', 'image.archive', [{ name: 'manifest.json', content: '{}' }]],
    ['JSON that is none', 'image.manifest', [{ name: 'manifest.json', content: '[' }]],
    ['a configuration that is missing', 'image.archive', [item({})]],
    ['a configuration outside', 'image.archive', [item({ Config: '../../etc/passwd' })]],
    ['a layer that is missing', 'image.archive', [item({ Layers: ['l.tar'] }), config()]],
    ['a layer too few', 'image.manifest', [item({}), layer([zeros])]],
    [
      'a layer of another digest',
      'image.digest',
      [item({ Layers: ['l'] }), layer([zeros]), { name: 'l', content: '\0'.repeat(1024) }],
    ],
    ['a link outside', 'image.archive', [item({}), { name: 'c.json', type: 'symlink', linkname: '/etc/passwd' }]],
    ['a link up and out', 'image.archive', [item({}), { name: 'c.json', type: 'symlink', linkname: '../x' }]],
    ['links in a circle', 'image.archive', [item({}), { name: 'c.json', type: 'symlink', linkname: 'c.json' }]],
    ['a name that is none', 'image.reference', [item({ RepoTags: ['../x'] }), config()]],
    ['another architecture', 'image.platform', [item({}), config({ architecture: 's390x' })]],
    ['another system', 'image.platform', [item({}), config({ os: 'windows' })]],
    [
      'a layout without its blobs',
      'image.archive',
      [layout, { name: 'index.json', content: json({ schemaVersion: 2, manifests: [descriptor] }) }],
    ],
    [
      'a blob of another digest',
      'image.digest',
      [
        layout,
        { name: 'index.json', content: json({ schemaVersion: 2, manifests: [descriptor] }) },
        { name: `blobs/sha256/${'0'.repeat(64)}`, content: '{}' },
      ],
    ],
  ])('%s: %s', async (_, code, members) => {
    const before = [...bed.inside('blobs/sha256'), ...bed.inside('layers')];
    await expect(bed.store.load(streamOf(await tarOf(members)), transfer())).rejects.toMatchObject({ code });
    expect([...bed.inside('blobs/sha256'), ...bed.inside('layers')]).toEqual(before);
    expect(bed.inside('tmp')).toEqual([]);
  });

  test('an image of another architecture is loaded when it is asked for', async () => {
    const [image] = await bed.store.load(streamOf(await tarOf([item({}), config({ architecture: 's390x' })])), {
      ...transfer(),
      platform: 'linux/s390x',
    });
    expect(image!.architecture).toBe('s390x');
    const root = await bed.store.mount(image!.id, 'nothing-in-it');
    expect(readdirSync(root)).toEqual([]);
    await bed.store.removeRoot('nothing-in-it');
  });

  test('a blob that claims a layer which is here already', async () => {
    const [top] = await bed.store.load(streamOf(archives.get('docker-20')!), transfer());
    const lie = { name: 'l', content: await tarOf([{ name: 'mine', content: 'x' }]) };
    const load = bed.store.load(
      streamOf(await tarOf([item({ Layers: ['l'] }), layer([top!.layers[0]!]), lie])),
      transfer(),
    );
    await expect(load).rejects.toMatchObject({ code: 'image.digest' });
  });

  test('a cut archive, and one whose sender goes away', async () => {
    const bytes = readFileSync(archives.get('skopeo-oci')!);
    const load = (source: AsyncIterable<Uint8Array>) => bed.store.load(source, transfer());
    await expect(load(streamOf(bytes.subarray(0, bytes.length >> 1)))).rejects.toMatchObject({ code: 'image.archive' });
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, 300_000);
      throw new Error('gone');
    }
    await expect(load(broken())).rejects.toThrow('gone');
    async function* still(): AsyncGenerator<Uint8Array> {
      yield bytes.subarray(0, 300_000);
      await new Promise(() => undefined);
    }
    // The API's own limit on what comes, a minute.
    const quick = { ...systemClock, after: (_: number, fn: () => void) => systemClock.after(200, fn) };
    await expect(load(bodyOf(still(), quick))).rejects.toMatchObject({ code: 'request.slow' });
    const stop = AbortSignal.abort(new Error('stopped'));
    await expect(bed.store.load(streamOf(bytes), { signal: stop })).rejects.toThrow('stopped');
    expect(bed.inside('tmp')).toEqual([]);
  });
});

test('a signal that is given when its work is long done stops nobody else', async () => {
  const stop = new AbortController();
  await bed.store.import(streamOf(await tarOf([{ name: 'first', content: 'x' }])), 'first', { signal: stop.signal });
  // As many as there are threads, so that one of them has the first one's.
  const many = await Promise.all(
    Array.from({ length: 8 }, async (_, index) => tarOf([{ name: 'large', content: Buffer.alloc(16_000_000, index) }])),
  );
  const imports = many.map((bytes, index) => bed.store.import(streamOf(bytes), `other:${index}`, transfer()));
  await until('a layer is being unpacked', () => bed.inside('tmp').some((name) => name.startsWith('layer-')));
  stop.abort(new Error('late'));
  expect(await Promise.all(imports)).toHaveLength(8);
});

test('a full disk fails with its code, leaves nothing, and what was there works', async () => {
  const disk = bed.path('disk');
  await smallDisk(disk, 6 * 1024 * 1024);
  const small = new ImageBed('image-full', { dir: disk });
  try {
    // The blob of two MiB and its layer fit once; another image does not.
    const [image] = await small.store.load(streamOf(archives.get('skopeo-oci')!), transfer());
    const before = [small.inside('blobs/sha256'), small.inside('layers')];
    const random = await tool('head', '-c', '6000000', '/dev/zero');
    const large = await tarOf([{ name: 'large', content: random }]);
    await expect(small.store.import(streamOf(large), 'large', transfer())).rejects.toMatchObject({
      code: 'image.full',
    });
    // As a blob it is tiny, and as a layer too large.
    await expect(small.store.import(streamOf(gzipSync(large)), 'large', transfer())).rejects.toMatchObject({
      code: 'image.full',
    });
    expect([small.inside('blobs/sha256'), small.inside('layers')]).toEqual(before);
    expect(small.inside('tmp')).toEqual([]);
    const root = await small.store.mount(image!.id, 'box');
    expect(existsSync(join(root, 'bin/busybox'))).toBe(true);
    expect(statSync(join(root, 'bin/busybox')).mode & 0o7777).toBe(0o4711);
  } finally {
    await small.store.removeRoot('box');
    await small.store.close();
    await tool('umount', disk);
  }
});
