/** Pulls from a registry that stalls, truncates and lies: a coded error, nothing left, or the image after all. */
import { readdirSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { downloadBlob } from '../../runtime/image/registry/download.ts';
import { Http } from '../../runtime/image/registry/http.ts';
import { Session } from '../../runtime/image/registry/session.ts';
import { uploadBlob } from '../../runtime/image/registry/upload.ts';
import { Blobs, sha256 } from '../../runtime/image/store/blobs.ts';
import { systemClock } from '../../src/clock.ts';
import { ImageBed, tarOf, transfer } from './image-bed.ts';
import { BadRegistry, type Behaviour, openRegistry } from './image-registry-bed.ts';

const STALL_MS = 400;
const bed = new ImageBed('image-bad', { stallMs: STALL_MS });
const bad = new BadRegistry();
const elsewhere = new BadRegistry();
let layer: { digest: string; bytes: Buffer };
let name: string;
let digest: string;

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

beforeAll(async () => {
  await bad.open();
  await elsewhere.open();
  const bytes = await tarOf([{ name: 'f', content: Buffer.alloc(3 * 1024 * 1024, 'some content') }]);
  layer = { digest: sha256(bytes), bytes };
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
  const config = Buffer.from(
    JSON.stringify({ os: 'linux', architecture, rootfs: { type: 'layers', diff_ids: [layer.digest] } }),
  );
  const described = (of: Buffer, mediaType: string) => ({ mediaType, digest: sha256(of), size: of.length });
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MANIFEST,
      config: described(config, 'application/vnd.oci.image.config.v1+json'),
      layers: [described(bytes, 'application/vnd.oci.image.layer.v1.tar')],
    }),
  );
  digest = sha256(manifest);
  for (const of of [config, bytes]) bad.content.set(sha256(of), { type: 'application/octet-stream', bytes: of });
  for (const key of ['1', digest]) bad.content.set(key, { type: MANIFEST, bytes: manifest });
  name = `${bad.host}/x/y:1`;
});
afterEach(async () => {
  bad.behave = () => false;
  bad.seen.length = 0;
  for (const { id } of await bed.store.list()) await bed.store.remove(id, { force: true, users: new Set() });
  expect([...bed.inside('blobs/sha256'), ...bed.inside('layers'), ...bed.inside('tmp')]).toEqual([]);
});
afterAll(async () => {
  await bad.close();
  await elsewhere.close();
  await bed.close();
});

const isLayer = (url: string | undefined): boolean => url!.endsWith(layer.digest);
/** Only for the layer, and at most so many times. */
const forLayer =
  (behave: Behaviour, times = Number.POSITIVE_INFINITY): Behaviour =>
  (asked, answer) =>
    isLayer(asked.url) && times-- > 0 && behave(asked, answer);

const pull = (reference = name) => bed.store.pull(reference, transfer());
const part = () => layer.bytes.subarray(0, 2_000_000);
const ranges = () => bad.seen.filter(({ url }) => isLayer(url)).map(({ headers }) => headers.range);

describe('an image comes after all', () => {
  test('when the connection breaks in the middle: from there on', async () => {
    bad.behave = forLayer((_, answer) => {
      answer.writeHead(200, { 'content-length': layer.bytes.length });
      answer.write(part(), () => answer.destroy());
      return true;
    }, 1);
    expect((await pull()).layers).toEqual([layer.digest]);
    const [first, second] = ranges();
    expect([first, ranges().length]).toEqual([undefined, 2]);
    expect(second).toMatch(/^bytes=\d{6,}-$/);
  });

  test('when it ends too early, without saying so', async () => {
    bad.behave = forLayer((_, answer) => {
      answer.writeHead(200, { connection: 'close' });
      answer.end(part());
      return true;
    }, 1);
    await pull();
    expect(ranges()).toEqual([undefined, 'bytes=2000000-']);
  });

  test('when it stalls once', async () => {
    bad.behave = forLayer((_, answer) => {
      answer.writeHead(200, { 'content-length': layer.bytes.length });
      answer.write(part());
      return true;
    }, 1);
    await pull();
    expect(ranges()[1]).toMatch(/^bytes=\d+-$/);
  });

  test('from a registry that knows no ranges', async () => {
    let count = 0;
    bad.behave = forLayer((_, answer) => {
      answer.writeHead(200, { 'content-length': layer.bytes.length });
      if (count++ === 0) answer.write(part(), () => answer.destroy());
      else answer.end(layer.bytes);
      return true;
    });
    await pull();
    expect(count).toBe(2);
  });

  test('after 429 and 503', async () => {
    let left = 2;
    bad.behave = (_, answer) => {
      if (left === 0) return false;
      answer.writeHead(left-- === 2 ? 429 : 503, { 'retry-after': '0.1' }).end();
      return true;
    };
    await pull();
    expect(left).toBe(0);
  });

  test('by way of another host, which is told no secret of ours', async () => {
    elsewhere.content.set(layer.digest, { type: 'application/octet-stream', bytes: layer.bytes });
    bad.behave = (asked, answer) => {
      if (asked.headers.authorization === undefined) {
        answer.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end();
        return true;
      }
      if (!isLayer(asked.url)) return asked.url === '/v2/' && answer.writeHead(200).end() !== undefined;
      answer.writeHead(307, { location: `http://${elsewhere.host}/storage/${layer.digest}` }).end();
      return true;
    };
    await bed.store.login(bad.host, 'user', 'secret');
    await pull();
    await bed.store.logout(bad.host);
    expect(elsewhere.seen.map(({ headers }) => headers.authorization)).toEqual([undefined]);
  });
});

describe('it fails, and says why', () => {
  const head = (length = layer.bytes.length) => ({ 'content-length': length });
  test.each<[string, string, RegExp, Behaviour]>([
    [
      'a stall in the middle',
      'image.timeout',
      /nothing for 0.4 s/,
      forLayer((_, answer) => !!answer.writeHead(200, head()).write(part()) || true),
    ],
    ['no answer at all', 'image.timeout', /nothing for/, forLayer(() => true)],
    [
      'a manifest that stalls',
      'image.timeout',
      /nothing for/,
      (_, answer) => answer.writeHead(200, head(500)).write('{') || true,
    ],
    [
      'the same end every time',
      'image.registry',
      /after \d+ of \d+ bytes/,
      forLayer((asked, answer) => {
        if (asked.headers.range)
          answer.writeHead(206, { 'content-range': asked.headers.range.replace('=', ' ') }).end();
        else answer.writeHead(200, { connection: 'close' }).end(part());
        return true;
      }),
    ],
    [
      'a part from somewhere else',
      'image.registry',
      /from byte 2000000 and came from 7/,
      forLayer((asked, answer) => {
        if (asked.headers.range) answer.writeHead(206, { 'content-range': 'bytes 7-9/10' }).end('abc');
        else answer.writeHead(200, { connection: 'close' }).end(part());
        return true;
      }),
    ],
    [
      'a longer blob, announced',
      'image.digest',
      /bytes and not/,
      forLayer((_, answer) => answer.writeHead(200, head(layer.bytes.length + 1)).write('x') || true),
    ],
    [
      'a longer blob, not announced',
      'image.digest',
      /bytes and not/,
      forLayer((_, answer) => {
        answer.write(layer.bytes);
        answer.end('and more');
        return true;
      }),
    ],
    [
      'an endless blob',
      'image.digest',
      /bytes and not/,
      forLayer((_, answer) => {
        const more = (): void => void (answer.destroyed || answer.write(Buffer.alloc(1_000_000), more));
        more();
        return true;
      }),
    ],
    [
      'other bytes',
      'image.digest',
      /has the digest/,
      forLayer((_, answer) => !!answer.writeHead(200, head()).end(Buffer.alloc(layer.bytes.length))),
    ],
    [
      'a layer that is gone',
      'image.notfound',
      /no sha256/,
      forLayer((_, answer) => !!answer.writeHead(404).end('{"errors":[{"message":"no sha256"}]}')),
    ],
    [
      'a server that is broken',
      'image.registry',
      /HTTP 500: internal/,
      forLayer((_, answer) => !!answer.writeHead(500).end('internal')),
    ],
    [
      'a circle',
      'image.registry',
      /leads on/,
      (asked, answer) => !!answer.writeHead(302, { location: asked.url }).end(),
    ],
    [
      'a way to a file',
      'image.registry',
      /leads on/,
      (_, answer) => !!answer.writeHead(302, { location: 'file:///etc/passwd' }).end(),
    ],
    [
      'a manifest that has no end',
      'image.limit',
      /more than/,
      (_, answer) => {
        const more = (): void => void (answer.destroyed || answer.write(Buffer.alloc(1_000_000, ' '), more));
        more();
        return true;
      },
    ],
    [
      'a page instead of a manifest',
      'image.manifest',
      /not understood/,
      (_, answer) => !!answer.writeHead(200).end('<html>'),
    ],
    [
      'another manifest than it says',
      'image.digest',
      /has the digest/,
      (_, answer) => !!answer.writeHead(200, { 'docker-content-digest': `sha256:${'0'.repeat(64)}` }).end('{}'),
    ],
    [
      'a token from nowhere',
      'image.registry',
      /from nowhere/,
      (_, answer) => !!answer.writeHead(401, { 'www-authenticate': 'Bearer realm="/x"' }).end(),
    ],
    [
      'a login that it never takes',
      'image.denied',
      /sluice login/,
      (_, answer) => !!answer.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end(),
    ],
  ])(
    '%s: %s',
    async (_, code, message, behave) => {
      bad.behave = behave;
      await expect(pull()).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    },
    30_000,
  );

  test('a stall in one of several layers: nothing of the others stays, and a later pull has all', async () => {
    const first = await tarOf([{ name: 'first', content: 'of two' }]);
    const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64';
    const diffs = [sha256(first), layer.digest];
    const config = Buffer.from(
      JSON.stringify({ os: 'linux', architecture, rootfs: { type: 'layers', diff_ids: diffs } }),
    );
    const described = (of: Buffer, mediaType: string) => ({ mediaType, digest: sha256(of), size: of.length });
    const [layerType, configType] = ['layer.v1.tar', 'config.v1+json'].map((of) => `application/vnd.oci.image.${of}`);
    const layers = [first, layer.bytes].map((of) => described(of, layerType!));
    const manifest = { schemaVersion: 2, mediaType: MANIFEST, config: described(config, configType!), layers };
    for (const of of [config, first]) bad.content.set(sha256(of), { type: 'application/octet-stream', bytes: of });
    bad.content.set('2', { type: MANIFEST, bytes: Buffer.from(JSON.stringify(manifest)) });
    bad.behave = forLayer((_, answer) => !!answer.writeHead(200, head()).write(part()) || true);
    const begun = performance.now();
    await expect(pull(`${bad.host}/x/y:2`)).rejects.toMatchObject({ code: 'image.timeout' });
    // Each attempt has its limit, and there are five.
    expect(performance.now() - begun).toBeGreaterThan(STALL_MS * 5);
    expect([...bed.inside('blobs/sha256'), ...bed.inside('layers'), ...bed.inside('tmp')]).toEqual([]);
    expect(await bed.store.list()).toEqual([]);
    bad.behave = () => false;
    const image = await pull(`${bad.host}/x/y:2`);
    expect(image.layers).toEqual(diffs);
    const root = await bed.store.mount(image.id, 'both');
    expect(readdirSync(root).sort()).toEqual(['f', 'first']);
    await bed.store.removeRoot('both');
  }, 30_000);

  test('another manifest than was asked for by digest', async () => {
    bad.behave = (asked, answer) => asked.url!.includes('manifests') && !!answer.writeHead(200).end('{}');
    await expect(pull(`${bad.host}/x/y@${digest}`)).rejects.toMatchObject({ code: 'image.digest' });
  });
});

describe('an upload', () => {
  test('in chunks, resumed after a break', async () => {
    const registry = await openRegistry(bed.path('registry'));
    // Passes on to a real registry; the second chunk is cut off once.
    let cut = 1;
    bad.behave = (asked, answer) => {
      const breaks = asked.method === 'PATCH' && /^[1-9]/.test(asked.headers['content-range'] ?? '') && cut-- > 0;
      if (breaks) {
        asked.socket.destroy();
        return true;
      }
      const target = new URL(asked.url!, `http://${registry.host}`);
      void forward(asked, target).then(async (passed) => {
        const headers = Object.fromEntries(passed.headers);
        // The registry speaks of itself; the way leads by us.
        if (headers.location) headers.location = headers.location.replace(registry.host, bad.host);
        answer.writeHead(passed.status, headers);
        answer.end(Buffer.from(await passed.arrayBuffer()));
      });
      return true;
    };
    const forward = async (asked: (typeof bad.seen)[number], target: URL): Promise<Response> => {
      const chunks: Buffer[] = [];
      for await (const chunk of asked) chunks.push(chunk as Buffer);
      const { 'content-type': type, 'content-range': range } = asked.headers;
      const headers = { ...(type && { 'content-type': type }), ...(range && { 'content-range': range }) };
      const body = ['PATCH', 'PUT', 'POST'].includes(asked.method!) ? Buffer.concat(chunks) : undefined;
      return fetch(target, { method: asked.method, headers, body, redirect: 'manual' });
    };
    const http = new Http(systemClock, STALL_MS * 5);
    const blobs = new Blobs(`${bed.images}/blobs/sha256`, `${bed.images}/tmp`);
    try {
      const { digest, size } = await blobs.put(layer.bytes);
      const endpoint = { base: `http://${bad.host}`, unverified: true, authorities: [], mirror: false, account: '' };
      const credentials = { get: async () => null };
      const session = new Session({
        http,
        clock: systemClock,
        endpoint,
        credentials,
        repository: 'up/load',
        actions: 'pull,push',
      });
      const { signal } = transfer();
      const options = { signal, onProgress: () => undefined, neighbours: [], chunkBytes: 1_000_000 };
      expect(await uploadBlob(session, blobs, { digest, size }, options)).toBe('uploaded');
      expect(await uploadBlob(session, blobs, { digest, size }, options)).toBe('exists');
      expect(bad.seen.filter(({ method }) => method === 'PATCH').length).toBeGreaterThanOrEqual(5);
      // The registry compared it with its digest; so do we.
      await blobs.remove(digest);
      await downloadBlob(session, blobs, { digest, size }, options);
      expect((await blobs.read(digest, size)).equals(layer.bytes)).toBe(true);
      await blobs.remove(digest);
    } finally {
      http.close();
      await registry.close();
    }
  });
});
