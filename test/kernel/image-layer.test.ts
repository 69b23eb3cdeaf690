/** Layers on disk: everything an archive may hold, and everything it may try. */
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { UnpackJob } from '../../runtime/image/layer/job.ts';
import { runJob } from '../../runtime/image/layer/work.ts';
import { sha256 } from '../../runtime/image/store/blobs.ts';
import { getXattr } from '../../src/kernel/fs/file.ts';
import { libc } from '../../src/kernel/libc.ts';
import { makeFolder } from '../folder.ts';
import { listing, type Member, smallDisk, tarOf, tool } from './image-bed.ts';

const dir = makeFolder('image-layer');
const at = (name: string): string => join(dir, name);
const limits = { layerBytesMax: 64 * 1024 * 1024, entriesMax: 1_000 };
const quiet = { signal: new AbortController().signal, onProgress: () => undefined };

beforeAll(() => mkdirSync(at('outside')));
beforeEach(() => {
  for (const name of ['tmp', 'layers']) {
    rmSync(at(name), { recursive: true, force: true });
    mkdirSync(at(name));
  }
  writeFileSync(at('outside/sentinel'), 'untouched');
});
afterAll(() => rmSync(dir, { recursive: true }));

function job(bytes: Buffer, more: Partial<UnpackJob> = {}): UnpackJob {
  writeFileSync(at('blob'), bytes);
  const place = { temporary: at('tmp'), layers: at('layers') };
  return { blob: at('blob'), blobDigest: sha256(bytes), diffId: null, kind: 'unpack', limits, ...place, ...more };
}

/** Unpacks; returns where. */
async function unpack(bytes: Buffer): Promise<string> {
  const { diffId } = await runJob(job(bytes), quiet);
  expect(readdirSync(at('tmp'))).toEqual([]);
  return join(at('layers'), diffId.slice(7), 'diff');
}

describe('a layer', () => {
  test('has all that GNU tar put into it: links, devices, owners, modes, times, attributes', async () => {
    const source = at('source');
    await tool(
      'sh',
      '-euc',
      `mkdir -p ${source}/d/deep ${source}/sticky; cd ${source}
       echo text >d/file; ln d/file d/hard; ln -s /etc/passwd d/absolute; ln -s ../d d/up; ln -s nowhere dangling
       mknod char c 1 3; mknod block b 7 300; mkfifo fifo; : >empty; head -c 300000 /dev/urandom >d/deep/large
       chmod 4755 d/file; chmod 1777 sticky; chmod 0000 empty; chown 1000:2000 d/deep/large; chown -h 5:6 dangling
       printf 'x' >"$(printf 'latin-\\351')"; chmod 2750 d
       touch -h -d '2001-02-03 04:05:06' d/file d/absolute dangling; touch -d '1999-01-01' d sticky .
       /usr/bin/python3 -IS -c "import os,struct; os.setxattr('d/deep/large', 'user.bytes', bytes(range(256)))
cap = struct.pack('<5I', 0x02000001, 1 << 10, 0, 0, 0); os.setxattr('d/deep/large', 'security.capability', cap)"`,
    );
    await tool('tar', '-C', source, '--xattrs', '--xattrs-include=*', '-cf', at('whole.tar'), '.');
    const bytes = readFileSync(at('whole.tar'));
    const expected = listing(source);
    expect(expected.length).toBe(15);
    for (const form of [bytes, gzipSync(bytes), zstdCompressSync(bytes)]) {
      rmSync(at('layers'), { recursive: true });
      mkdirSync(at('layers'));
      expect(listing(await unpack(form))).toEqual(expected);
    }
  });

  test('hides what a whiteout names, and all below an opaque directory', async () => {
    const diff = await unpack(
      await tarOf([
        { name: 'a/.wh.gone' },
        { name: 'b/', type: 'directory' },
        { name: 'b/.wh..wh..opq' },
        { name: 'b/.wh..wh.plnk' },
        { name: '.wh.top' },
        // Hidden below, and there again: as a file, and as a directory that shows nothing from below.
        { name: '.wh.again' },
        { name: 'again', content: 'new' },
        { name: '.wh.dir' },
        { name: 'dir/', type: 'directory' },
        { name: 'late/', type: 'directory' },
        { name: '.wh.late' },
      ]),
    );
    for (const name of ['a/gone', 'top']) {
      const { mode, rdev } = lstatSync(join(diff, name));
      expect([mode & 0o170000, rdev]).toEqual([0o020000, 0]);
    }
    for (const name of ['b', 'dir', 'late'])
      expect(getXattr(join(diff, name), 'trusted.overlay.opaque')?.toString()).toBe('y');
    expect(getXattr(join(diff, 'a'), 'trusted.overlay.opaque')).toBeNull();
    expect(readFileSync(join(diff, 'again'), 'utf8')).toBe('new');
    expect(readdirSync(join(diff, 'b'))).toEqual([]);
    expect(readdirSync(diff).sort()).toEqual(['a', 'again', 'b', 'dir', 'late', 'top']);
  });

  test('may not speak to overlayfs, nor name it in an attribute', async () => {
    const pax = { 'SCHILY.xattr.trusted.overlay.redirect': '/etc', 'SCHILY.xattr.trusted.overlay.opaque': 'y' };
    const diff = await unpack(await tarOf([{ name: 'd/', type: 'directory', pax }]));
    for (const name of ['redirect', 'opaque']) expect(getXattr(join(diff, 'd'), `trusted.overlay.${name}`)).toBeNull();
  });

  test('has the last of several entries of a name', async () => {
    const diff = await unpack(
      await tarOf([
        { name: 'file', content: 'one' },
        { name: 'file', content: 'second' },
        { name: 'kind/', type: 'directory' },
        { name: 'kind/below', content: 'x' },
        { name: 'kind', content: 'a file now' },
        { name: 'link', type: 'symlink', linkname: 'file' },
        { name: 'link/', type: 'directory' },
        { name: 'link/in', content: 'y' },
        { name: 'same', content: 'z' },
        { name: 'same', type: 'link', linkname: 'same' },
      ]),
    );
    expect(['file', 'kind', 'link/in', 'same'].map((name) => readFileSync(join(diff, name), 'utf8'))).toEqual([
      'second',
      'a file now',
      'y',
      'z',
    ]);
  });
});

type Hostile = readonly Member[];
const symlink = (name: string, linkname: string): Hostile[number] => ({ name, type: 'symlink', linkname });
const hard = (name: string, linkname: string): Hostile[number] => ({ name, type: 'link', linkname });
const outside = at('outside');

describe('a hostile archive is refused, and leaves nothing', () => {
  test.each<[string, Hostile]>([
    ['a name with ..', [{ name: '../escape', content: 'x' }]],
    ['a name with .. inside', [{ name: 'a/../../escape', content: 'x' }]],
    ['a directory ..', [{ name: '../', type: 'directory' }]],
    ['a file through an absolute link', [symlink('l', outside), { name: 'l/escape', content: 'x' }]],
    ['a file over a sentinel through a link', [symlink('l', outside), { name: 'l/sentinel', content: 'x' }]],
    ['a directory through a link', [symlink('l', outside), { name: 'l/escape/', type: 'directory' }]],
    ['a file through a relative link', [symlink('l', '../../../outside'), { name: 'l/escape', content: 'x' }]],
    ['a link through a link', [symlink('a', 'b'), symlink('b', outside), { name: 'a/escape', content: 'x' }]],
    [
      'a directory that becomes a link',
      [
        { name: 'd/', type: 'directory' },
        { name: 'd/in', content: 'x' },
        symlink('d', outside),
        { name: 'd/escape', content: 'x' },
      ],
    ],
    ['a whiteout through a link', [symlink('l', outside), { name: 'l/.wh.sentinel' }]],
    ['an opaque mark through a link', [symlink('l', outside), { name: 'l/.wh..wh..opq' }]],
    ['a whiteout of ..', [{ name: '.wh...' }]],
    ['a hard link outside', [hard('h', '../outside/sentinel')]],
    ['an absolute hard link', [hard('h', `${outside}/sentinel`)]],
    ['a hard link through a link', [symlink('l', outside), hard('h', 'l/sentinel')]],
    ['a hard link to a directory', [{ name: 'd/', type: 'directory' }, hard('h', 'd')]],
    ['a hard link to nothing', [hard('h', 'nothing')]],
    [
      'a device through a link',
      [symlink('l', outside), { name: 'l/escape', type: 'character-device', devmajor: 1, devminor: 3 }],
    ],
    [
      'a file in place of the root',
      [
        { name: './', content: '', type: 'file' },
        { name: '/', type: 'symlink', linkname: '/' },
      ],
    ],
    ['a name that is too long', [{ name: `${'n'.repeat(256)}`, content: 'x' }]],
  ])('%s', async (_, entries) => {
    await expect(unpack(await tarOf(entries))).rejects.toMatchObject({ code: 'image.archive' });
    expect(readFileSync(at('outside/sentinel'), 'utf8')).toBe('untouched');
    expect(readdirSync(at('outside'))).toEqual(['sentinel']);
    expect(existsSync(at('escape'))).toBe(false);
    expect([...readdirSync(at('tmp')), ...readdirSync(at('layers'))]).toEqual([]);
  });

  test('a link over a file, then written: the file outside stays', async () => {
    const diff = await unpack(await tarOf([symlink('l', `${outside}/sentinel`), { name: 'l', content: 'a file' }]));
    expect(readFileSync(join(diff, 'l'), 'utf8')).toBe('a file');
    expect(readFileSync(at('outside/sentinel'), 'utf8')).toBe('untouched');
  });

  test('bombs: too many bytes, too many entries', async () => {
    const bomb = gzipSync(Buffer.concat([await tarOf([]), Buffer.alloc(limits.layerBytesMax)]));
    expect(bomb.length).toBeLessThan(100_000);
    const many = await tarOf(Array.from({ length: limits.entriesMax + 1 }, (_, index) => ({ name: `f${index}` })));
    for (const bytes of [bomb, many]) {
      await expect(runJob(job(bytes), quiet)).rejects.toMatchObject({ code: 'image.limit' });
      expect([...readdirSync(at('tmp')), ...readdirSync(at('layers'))]).toEqual([]);
    }
  });

  test('corrupt and truncated data', async () => {
    const good = await tarOf([{ name: 'f', content: 'x'.repeat(100_000) }]);
    const packed = gzipSync(good);
    const flipped = Buffer.from(packed);
    flipped[packed.length >> 1]! ^= 0xff;
    const forms = [
      good.subarray(0, 50_000),
      packed.subarray(0, packed.length - 20),
      flipped,
      zstdCompressSync(good).subarray(0, 20),
    ];
    for (const bytes of forms) {
      await expect(runJob(job(bytes), quiet)).rejects.toMatchObject({ code: 'image.archive' });
      expect([...readdirSync(at('tmp')), ...readdirSync(at('layers'))]).toEqual([]);
    }
  });

  test('content of another digest', async () => {
    const bytes = await tarOf([{ name: 'f', content: 'x' }]);
    const wrong = `sha256:${'0'.repeat(64)}`;
    for (const kind of ['unpack', 'check'] as const)
      await expect(runJob(job(bytes, { diffId: wrong, kind }), quiet)).rejects.toMatchObject({ code: 'image.digest' });
    expect([...readdirSync(at('tmp')), ...readdirSync(at('layers'))]).toEqual([]);
  });
});

test('a full disk in the middle of a layer leaves nothing', async () => {
  const disk = at('disk');
  await smallDisk(disk, 2 * 1024 * 1024);
  try {
    for (const name of ['tmp', 'layers']) mkdirSync(join(disk, name));
    const place = { temporary: join(disk, 'tmp'), layers: join(disk, 'layers') };
    const small = { name: 'first', content: 'x'.repeat(100_000) };
    const large = await tarOf([small, { name: 'second', content: Buffer.alloc(8 * 1024 * 1024, 'y').toString() }]);
    await expect(runJob(job(large, place), quiet)).rejects.toMatchObject({ code: 'image.full' });
    expect([...readdirSync(place.temporary), ...readdirSync(place.layers)]).toEqual([]);
    // The room is there again.
    await runJob(job(await tarOf([small]), place), quiet);
    expect(readdirSync(place.layers)).toHaveLength(1);
  } finally {
    libc.umount2(disk, 2);
  }
});
