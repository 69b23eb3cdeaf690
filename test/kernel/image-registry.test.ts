/** Pull and push against Debian's docker-registry, with skopeo and buildah at its other side. */
import { copyFileSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Image, ImageProgress } from '../../src/contracts/image.ts';
import { ImageBed, listing, streamOf, tarOf, tool, transfer } from './image-bed.ts';
import { openRegistry, PASSWORD, type Registry, USER } from './image-registry-bed.ts';

const NO_USERS = new Set<string>();
let bed: ImageBed;
let plain: Registry;

beforeAll(async () => {
  bed = new ImageBed('image-registry');
  plain = await openRegistry(bed.path('plain'));
});
afterAll(async () => {
  await plain.close();
  await bed.close();
});
afterEach(async () => {
  for (const { id } of await bed.store.list()) await bed.store.remove(id, { force: true, users: NO_USERS });
  expect([...bed.inside('blobs/sha256'), ...bed.inside('layers'), ...bed.inside('tmp')]).toEqual([]);
});

/** An image of a layer, uncompressed, under the name. */
const make = async (name: string, content: string | Buffer = 'content', more = {}): Promise<Image> =>
  bed.store.import(
    streamOf(await tarOf([{ name: 'file', content }])),
    name,
    transfer({ changes: { command: ['/x'] }, ...more } as never),
  );

const gone = async (image: Image): Promise<void> => {
  await bed.store.remove(image.id, { force: true, users: NO_USERS });
};

/** Everything that is said, by what it is about. */
function words(): { readonly all: ImageProgress[]; readonly onProgress: (progress: ImageProgress) => void } {
  const all: ImageProgress[] = [];
  return { all, onProgress: (progress) => void all.push(progress) };
}

describe('a registry in the clear, on loopback', () => {
  test('takes an image, gives it back the same, and skopeo agrees', async () => {
    const name = `${plain.host}/a/first:1`;
    const image = await make(name);
    const { digest } = await bed.store.push(name, transfer());
    expect((await bed.store.get(name))!.digests).toEqual([`${plain.host}/a/first@${digest}`]);
    const skopeo = (...flags: string[]) =>
      tool('skopeo', 'inspect', '--tls-verify=false', ...flags, `docker://${name}`);
    expect(await skopeo('--format', '{{.Digest}}')).toBe(digest);
    // What was kept uncompressed went, and stays, compressed.
    const seen = JSON.parse(await skopeo('--raw')) as { layers: { mediaType: string }[] };
    expect(seen.layers[0]!.mediaType).toBe('application/vnd.oci.image.layer.v1.tar+gzip');
    await gone(image);
    const { all, onProgress } = words();
    const pulled = await bed.store.pull(name, transfer({ onProgress }));
    expect(pulled).toMatchObject({
      id: image.id,
      names: [name],
      digests: [`${plain.host}/a/first@${digest}`],
      layers: image.layers,
    });
    expect(all.map(({ text }) => text)).toEqual(
      expect.arrayContaining(['waiting', 'downloading', 'unpacking', 'done']),
    );
    const root = await bed.store.mount(pulled.id, 'pulled');
    expect(readFileSync(`${root}/file`, 'utf8')).toBe('content');
    await bed.store.removeRoot('pulled');
    // By digest, without a name.
    await gone(pulled);
    const byDigest = await bed.store.pull(`${plain.host}/a/first@${digest}`, transfer());
    expect(byDigest).toMatchObject({ id: image.id, names: [] });
    expect((await bed.store.get(`${plain.host}/a/first@${digest}`))!.id).toBe(image.id);
  });

  test('is not asked for what is here, nor given what it has', async () => {
    const name = `${plain.host}/a/again:1`;
    await make(name);
    await bed.store.push(name, transfer());
    const texts = async (work: (progress: ReturnType<typeof words>['onProgress']) => Promise<unknown>) => {
      const { all, onProgress } = words();
      await work(onProgress);
      return new Set(all.filter(({ type }) => type === 'layer').map(({ text }) => text));
    };
    expect(await texts((onProgress) => bed.store.push(name, transfer({ onProgress })))).toEqual(new Set(['exists']));
    expect(await texts((onProgress) => bed.store.pull(name, transfer({ onProgress })))).toEqual(
      new Set(['waiting', 'exists']),
    );
  });

  test('mounts a blob from another of its repositories', async () => {
    const name = `${plain.host}/a/origin:1`;
    await make(name);
    await bed.store.push(name, transfer());
    const other = `${plain.host}/b/copy:1`;
    await bed.store.tag(name, other);
    const { all, onProgress } = words();
    await bed.store.push(other, transfer({ onProgress }));
    expect(all.filter(({ text }) => text === 'mounted')).toHaveLength(2);
    await tool('skopeo', 'copy', '--src-tls-verify=false', `docker://${other}`, `dir:${bed.path('mounted')}`);
  });

  test('pulls what buildah pushed: whiteouts, opaque directories, hard links, attributes', async () => {
    await bed.build(
      'base',
      'scratch',
      'mkdir -p $m/d/old $m/bin; echo 1 >$m/d/old/f; echo 2 >$m/gone; cp /bin/busybox $m/bin; ln $m/bin/busybox $m/bin/sh',
    );
    await bed.build(
      'over',
      'localhost/base',
      `rm -rf $m/d $m/gone; mkdir $m/d; echo n >$m/d/new; /usr/bin/python3 -IS -c "import os; os.setxattr('$m/d/new', 'user.a', b'1')"`,
    );
    const name = `${plain.host}/buildah/over:1`;
    await bed.buildah('push', '--quiet', '--tls-verify=false', 'localhost/over', `docker://${name}`);
    const container = await bed.buildah('from', '--pull-never', 'localhost/over');
    const expected = listing(await bed.buildah('mount', container)).slice(1);
    const image = await bed.store.pull(name, transfer());
    expect(listing(await bed.store.mount(image.id, 'over')).slice(1)).toEqual(expected);
    await bed.store.removeRoot('over');
    // And buildah runs on with what we push.
    const back = `${plain.host}/buildah/back:1`;
    await bed.store.tag(name, back);
    await bed.store.push(back, transfer());
    const id = await bed.buildah('pull', '--quiet', '--tls-verify=false', `docker://${back}`);
    expect(`sha256:${id.split('\n').at(-1)}`).toBe(image.id);
  });

  test('of several builds the one for this machine, or the one that is asked for', async () => {
    const put = async (platform: string): Promise<object> => {
      const name = `${plain.host}/multi/parts:${platform.replaceAll('/', '-')}`;
      await make(name, platform, { platform });
      const { digest } = await bed.store.push(name, transfer());
      const answer = await fetch(`http://${plain.host}/v2/multi/parts/manifests/${digest}`, {
        headers: { accept: 'application/vnd.oci.image.manifest.v1+json' },
      });
      const size = (await answer.arrayBuffer()).byteLength;
      const [os, architecture] = platform.split('/');
      return { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest, size, platform: { os, architecture } };
    };
    const host = process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64';
    const type = 'application/vnd.oci.image.index.v1+json';
    const manifests = [await put('linux/s390x'), await put(host), await put('linux/riscv64')];
    const index = JSON.stringify({ schemaVersion: 2, mediaType: type, manifests });
    const url = `http://${plain.host}/v2/multi/parts/manifests/all`;
    expect((await fetch(url, { method: 'PUT', body: index, headers: { 'content-type': type } })).status).toBe(201);
    const name = `${plain.host}/multi/parts:all`;
    const image = await bed.store.pull(name, transfer());
    expect(`${image.os}/${image.architecture}`).toBe(host);
    expect(image.digests).toHaveLength(2);
    const other = await bed.store.pull(name, transfer({ platform: 'linux/s390x' }));
    expect(other.architecture).toBe('s390x');
    const absent = bed.store.pull(name, transfer({ platform: 'linux/mips64le' }));
    await expect(absent).rejects.toMatchObject({
      code: 'image.platform',
      message: expect.stringMatching(/s390x.*mips64le/),
    });
    const wrong = bed.store.pull(`${plain.host}/multi/parts:linux-s390x`, transfer());
    await expect(wrong).rejects.toMatchObject({
      code: 'image.platform',
      message: expect.stringMatching(/s390x.*linux\/(?:amd|arm)64/),
    });
  });

  test('what is not there, and who does not answer', async () => {
    await expect(bed.store.pull(`${plain.host}/no/such:1`, transfer())).rejects.toMatchObject({
      code: 'image.notfound',
    });
    await expect(bed.store.pull('127.0.0.1:1/no/such:1', transfer())).rejects.toMatchObject({ code: 'image.registry' });
    await expect(bed.store.push(`${plain.host}/no/such:1`, transfer())).rejects.toMatchObject({
      code: 'image.notfound',
    });
    const image = await make(`${plain.host}/by/id:1`);
    await expect(bed.store.push(image.id, transfer())).rejects.toMatchObject({ code: 'image.reference' });
  });

  test('a pull that is called off leaves nothing', async () => {
    const name = `${plain.host}/big/one:1`;
    await make(name);
    await bed.store.push(name, transfer());
    await gone((await bed.store.get(name))!);
    const stop = new AbortController();
    const pull = bed.store.pull(name, { signal: stop.signal, onProgress: () => stop.abort(new Error('called off')) });
    await expect(pull).rejects.toThrow('called off');
  });

  test('many at once share one download', async () => {
    const name = `${plain.host}/many/one:1`;
    const image = await make(name, Buffer.alloc(3_000_000, 'abc'));
    await bed.store.push(name, transfer());
    await gone(image);
    const images = await Promise.all(Array.from({ length: 6 }, () => bed.store.pull(name, transfer())));
    expect(new Set(images.map(({ id }) => id))).toEqual(new Set([image.id]));
  });
});

describe('a registry that wants to know us', () => {
  test.each([
    ['basic', true],
    ['token', true],
    ['token', false],
  ] as const)('by %s, TLS: %s', async (login, tls) => {
    const registry = await openRegistry(bed.path(`${login}-${tls}`), { tls, login });
    try {
      const name = `${registry.host}/private/x:1`;
      const image = await make(name);
      await expect(bed.store.push(name, transfer())).rejects.toMatchObject({ code: 'image.denied' });
      await expect(bed.store.login(registry.host, USER, 'wrong')).rejects.toMatchObject({ code: 'image.denied' });
      await bed.store.login(registry.host, USER, PASSWORD);
      const file = `${bed.images}/auth.json`;
      expect(statSync(file).mode & 0o777).toBe(0o600);
      await bed.store.push(name, transfer());
      await gone(image);
      expect((await bed.store.pull(name, transfer())).id).toBe(image.id);
      // In Docker's own form: skopeo reads it.
      await tool('skopeo', 'inspect', '--tls-verify=false', '--authfile', file, `docker://${name}`);
      if (login === 'token') {
        const open = `${registry.host}/public/x:1`;
        await bed.store.tag(name, open);
        await bed.store.push(open, transfer());
      }
      await bed.store.logout(registry.host);
      expect(readFileSync(file, 'utf8')).not.toContain(registry.host);
      await expect(bed.store.pull(name, transfer())).rejects.toMatchObject({ code: 'image.denied' });
      if (login === 'token') await bed.store.pull(`${registry.host}/public/x:1`, transfer());
    } finally {
      await registry.close();
    }
  });
});

describe('certificates and mirrors', () => {
  let secure: Registry;
  // To URLs 127.1 is 127.0.0.1; to us it is a registry like any other, whose certificate counts.
  const named = (): string => `127.1:${secure.port}`;
  beforeAll(async () => {
    secure = await openRegistry(bed.path('secure'), { tls: true });
  });
  afterAll(() => secure.close());
  beforeEach(async () => {
    const name = `${secure.host}/lib/x:1`;
    const image = await make(name);
    await bed.store.push(name, transfer());
    await gone(image);
  });

  test('a certificate that nobody vouches for is refused, and plain HTTP is not tried', async () => {
    await expect(bed.store.pull(`${named()}/lib/x:1`, transfer())).rejects.toMatchObject({
      code: 'image.registry',
      message: expect.stringMatching(/self.signed/),
    });
    await expect(bed.store.pull(`127.1:${plain.port}/lib/x:1`, transfer())).rejects.toMatchObject({
      code: 'image.registry',
    });
  });

  test('unless its authority is trusted, or the registry is named as insecure', async () => {
    const certificates = bed.path('certs');
    mkdirSync(`${certificates}/${named()}`, { recursive: true });
    copyFileSync(secure.certificate, `${certificates}/${named()}/ca.crt`);
    for (const registries of [{ certificates }, { insecure: [named()] }]) {
      const other = new ImageBed('image-trust', { registries });
      expect((await other.store.pull(`${named()}/lib/x:1`, transfer())).names).toEqual([`${named()}/lib/x:1`]);
      await other.close();
    }
  });

  test('a mirror is asked first, and the registry when the mirror does not have it', async () => {
    const mirrors = { [plain.host]: ['http://127.0.0.1:1', `https://${secure.host}`] };
    const other = new ImageBed('image-mirror', { registries: { mirrors } });
    // Only the mirror has this …
    const image = await other.store.pull(`${plain.host}/lib/x:1`, transfer());
    expect(image.names).toEqual([`${plain.host}/lib/x:1`]);
    // … and only the registry this.
    const name = `${plain.host}/only/here:1`;
    await make(name);
    await bed.store.push(name, transfer());
    await other.store.pull(name, transfer());
    await other.close();
  });
});
