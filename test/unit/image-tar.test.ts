import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { paxRecords, type TarEntry, TarReader } from '../../runtime/image/archive/tar-reader.ts';
import { tarEnd, tarHeader, tarPadding } from '../../runtime/image/archive/tar-writer.ts';
import { componentsOf, meaningOf } from '../../runtime/image/layer/path.ts';

interface Read extends TarEntry {
  readonly content: string;
}

/** Reads bytes in pieces of a size. */
function read(bytes: Buffer, piece = bytes.length): Read[] {
  const entries: Read[] = [];
  const parts: Buffer[] = [];
  let current: TarEntry | null = null;
  const reader = new TarReader({
    entry(entry) {
      current = entry;
    },
    data: (chunk) => void parts.push(Buffer.from(chunk)),
    close() {
      entries.push({ ...current!, content: Buffer.concat(parts.splice(0)).toString('latin1') });
    },
  });
  for (let at = 0; at < bytes.length; at += piece) reader.push(bytes.subarray(at, at + piece));
  reader.end();
  return entries;
}

/** A header with some bytes changed and its checksum right. */
function header(path: string, size: number, change: (block: Buffer) => void): Buffer {
  const block = tarHeader(path, size);
  change(block);
  block.fill(0x20, 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return block;
}
const member = (flag: string, data: Buffer): Buffer =>
  Buffer.concat([
    header('x', data.length, (block) => void block.write(flag, 156, 'latin1')),
    data,
    tarPadding(data.length),
  ]);
const record = (key: string, value: Buffer | string): Buffer => {
  const body = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value as string), Buffer.from('\n')]);
  let length = body.length;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
};

describe('a tar is read', () => {
  test('as it was written, whatever pieces it comes in', () => {
    const files = fc.array(
      fc.record({ path: fc.stringMatching(/^[a-z][a-z/]{0,50}[a-z]$/), data: fc.uint8Array({ maxLength: 1500 }) }),
      { minLength: 1, maxLength: 5 },
    );
    fc.assert(
      fc.property(files, fc.integer({ min: 1, max: 2000 }), (written, piece) => {
        const bytes = Buffer.concat([
          ...written.flatMap(({ path, data }) => [
            tarHeader(path, data.length),
            Buffer.from(data),
            tarPadding(data.length),
          ]),
          tarEnd(),
        ]);
        const found = read(bytes, piece).map(({ path, content, type }) => [path, content, type]);
        expect(found).toEqual(written.map(({ path, data }) => [path, Buffer.from(data).toString('latin1'), 'file']));
      }),
      { numRuns: 60 },
    );
  });

  test('numbers beyond octal, and pax records over the header', () => {
    expect(tarHeader('big', 2 ** 40).subarray(124, 136)[0]).toBe(0x80);
    const value = Buffer.from([1, 0, 0xff, 0x0a, 0x3d]);
    const pax = Buffer.concat([
      record('path', 'longer/'.repeat(30)),
      record('uid', '70000'),
      record('mtime', '1700000000.25'),
      record('SCHILY.xattr.security.capability', value),
      record('LIBARCHIVE.xattr.user.b', value.toString('base64')),
    ]);
    const [entry] = read(Buffer.concat([member('x', pax), tarHeader('short', 0), tarEnd()]), 100);
    expect(entry).toMatchObject({
      path: 'longer/'.repeat(30),
      type: 'directory',
      uid: 70_000,
      mtime: 1_700_000_000.25,
    });
    expect(entry!.xattrs.get('security.capability')).toEqual(value);
    expect(entry!.xattrs.get('user.b')).toEqual(value);
  });

  test('GNU long names and links', () => {
    const long = 'n'.repeat(300);
    const bytes = Buffer.concat([
      member('L', Buffer.from(`${long}\0`)),
      member('K', Buffer.from(`${long}-target\0`)),
      header('n', 0, (block) => void block.write('2', 156, 'latin1')),
      tarEnd(),
    ]);
    expect(read(bytes)).toEqual([expect.objectContaining({ path: long, link: `${long}-target`, type: 'symlink' })]);
  });

  test('an empty layer of two empty blocks is one', () => {
    expect(read(tarEnd())).toEqual([]);
  });

  const good = Buffer.concat([tarHeader('a', 700), Buffer.alloc(700, 'x'), tarPadding(700), tarEnd()]);
  test.each<[string, Buffer]>([
    ['nothing at all', Buffer.alloc(0)],
    ['cut in the data', good.subarray(0, 900)],
    ['cut in a header', good.subarray(0, 100)],
    ['text', Buffer.from('not a tar '.repeat(100))],
    ['a wrong checksum', Buffer.concat([Buffer.from('b'), good.subarray(1)])],
    ['an unknown type', Buffer.concat([member('Z', Buffer.alloc(0)), tarEnd()])],
    ['a sparse file', Buffer.concat([member('S', Buffer.alloc(0)), tarEnd()])],
    ['a malformed pax record', Buffer.concat([member('x', Buffer.from('99 a=b\n')), good])],
    ['a pax size that is no number', Buffer.concat([member('x', record('size', '-1x')), good])],
    ['a negative size', Buffer.concat([member('x', record('size', '-5')), good])],
    ['a description without its entry', Buffer.concat([member('x', record('uid', '1')), tarEnd()])],
    ['a description without end', header('x', 2 ** 31, (block) => void block.write('L', 156, 'latin1'))],
    ['an owner that means "leave it"', Buffer.concat([member('x', record('uid', '4294967295')), good])],
  ])('refuses %s', (_, bytes) => {
    expect(() => read(bytes)).toThrow(expect.objectContaining({ code: 'image.archive' }));
  });

  test('and survives any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.nat(600), fc.nat(255), (noise, at, byte) => {
        const flipped = Buffer.from(good);
        flipped[at] = byte;
        for (const bytes of [Buffer.from(noise), flipped]) {
          try {
            read(bytes);
          } catch (error) {
            expect(error).toMatchObject({ code: 'image.archive' });
          }
        }
      }),
    );
  });

  test('pax records keep bytes', () => {
    expect(paxRecords(Buffer.concat([record('a', 'b=c\nd'), record('e', '')]))).toEqual(
      new Map([
        ['a', Buffer.from('b=c\nd')],
        ['e', Buffer.alloc(0)],
      ]),
    );
  });
});

describe('names in a layer', () => {
  test.each([
    ['/etc/./x//y/', ['etc', 'x', 'y']],
    ['.', []],
    ['/', []],
    ['...', ['...']],
  ])('%s', (path, parts) => {
    expect(componentsOf(path)).toEqual(parts);
  });
  test.each(['..', '../x', 'a/../b', '/..', 'a/..', 'a\0b', 'x'.repeat(256), 'x/'.repeat(2000)])(
    'refuses %j',
    (path) => {
      expect(() => componentsOf(path)).toThrow(expect.objectContaining({ code: 'image.archive' }));
    },
  );
  test('whiteouts', () => {
    expect(meaningOf('.wh.x', 'a/.wh.x')).toEqual({ kind: 'whiteout', name: 'x' });
    expect(meaningOf('.wh..wh..opq', '.')).toEqual({ kind: 'opaque' });
    expect(meaningOf('.wh..wh.plnk', '.')).toEqual({ kind: 'ignored' });
    expect(meaningOf('.whx', '.')).toEqual({ kind: 'entry' });
    for (const name of ['.wh.', '.wh..', '.wh...']) expect(() => meaningOf(name, name)).toThrow(/no name/);
  });
});
