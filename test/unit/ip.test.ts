import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bitsOf,
  canonicalAddress,
  contains,
  familyOf,
  formatAddress,
  formatCidr,
  fromBytes,
  isMac,
  lastOf,
  linkLocalOf,
  macFromBytes,
  macToBytes,
  overlaps,
  parseAddress,
  parseCidr,
  sizeOf,
  toBytes,
  toBytes16,
  tryParse,
} from '../../src/model/ip.ts';

const family = fc.constantFrom(4 as const, 6 as const);
const address = family.chain((of) =>
  fc.bigInt({ min: 0n, max: (1n << BigInt(bitsOf(of))) - 1n }).map((value) => ({ family: of, value })),
);
const cidr = address.chain(({ family: of, value }) =>
  fc.integer({ min: 0, max: bitsOf(of) }).map((prefix) => parseCidr(`${formatAddress(of, value)}/${prefix}`)),
);
/** A second prefix near the first, so that the two overlap often. */
const pair = cidr.chain((a) =>
  fc.tuple(fc.integer({ min: 0, max: bitsOf(a.family) }), fc.bigInt({ min: -2n, max: 2n })).map(([prefix, step]) => {
    const limit = (1n << BigInt(bitsOf(a.family))) - 1n;
    const moved = a.base + step * sizeOf(a);
    const base = moved < 0n ? 0n : moved > limit ? limit : moved;
    return [a, parseCidr(`${formatAddress(a.family, base)}/${prefix}`)] as const;
  }),
);

describe('addresses', () => {
  test('text and number are one', () => {
    fc.assert(
      fc.property(address, ({ family: of, value }) => {
        const text = formatAddress(of, value);
        expect(familyOf(text)).toBe(of);
        expect(parseAddress(text)).toEqual({ family: of, value });
        expect(canonicalAddress(text)).toBe(text);
        expect(canonicalAddress(text.toUpperCase())).toBe(text);
      }),
    );
  });

  test('IPv6 text agrees with what the platform`s URL parser makes of it', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }), fc.nat(7), fc.nat(7), (value, from, length) => {
        // Runs of zeros are what the rules are about.
        const mask = ((1n << BigInt(16 * length)) - 1n) << BigInt(16 * Math.max(0, 8 - from - length));
        const sparse = value & ~mask;
        expect(`[${formatAddress(6, sparse)}]`).toBe(new URL(`http://[${formatAddress(6, sparse)}]/`).hostname);
      }),
    );
  });

  test.each([
    ['0:0:0:0:0:0:0:0', '::'],
    ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::ffff:10.0.0.1', '::ffff:a00:1'],
    ['fe80::', 'fe80::'],
  ])('%s is written %s', (text, canonical) => {
    expect(canonicalAddress(text)).toBe(canonical);
  });

  test.each([
    '',
    '1.2.3',
    '1.2.3.4.5',
    '01.2.3.4',
    '256.1.1.1',
    '1.2.3.4 ',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '12345::',
    'fe80::1%eth0',
    '::1.2.3',
    '1:2:3:4:5:6:7:8:9',
    '::1:2:3:4:5:6:7:8',
    'g::',
  ])('%j is no address', (text) => {
    expect(tryParse(text)).toBeNull();
    expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: 'request.invalid' }));
  });

  test('any text is an address or is refused, never anything else', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.ipV4(), fc.ipV6(), fc.stringMatching(/^[0-9a-f:.]{0,45}$/)), (text) => {
        const value = tryParse(text);
        if (value !== null) expect(value >= 0n && value < 1n << BigInt(bitsOf(familyOf(text)))).toBe(true);
      }),
    );
    fc.assert(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => tryParse(text) !== null));
  });

  test('bytes and text are one; a v4-mapped address is IPv4 again', () => {
    fc.assert(
      fc.property(address, ({ family: of, value }) => {
        const text = formatAddress(of, value);
        const mapped = of === 6 && value >> 32n === 0xffffn;
        const back = mapped ? formatAddress(4, value & 0xffffffffn) : text;
        expect(fromBytes(toBytes(text))).toBe(back);
        expect(fromBytes(toBytes16(text))).toBe(back);
        expect(toBytes(text)).toHaveLength(of === 4 ? 4 : 16);
        expect(toBytes16(text)).toHaveLength(16);
      }),
    );
    expect(Buffer.from(toBytes16('10.1.2.3')).toString('hex')).toBe('00000000000000000000ffff0a010203');
    expect(fromBytes(toBytes16('::ffff:10.1.2.3'))).toBe('10.1.2.3');
  });
});

describe('subnets', () => {
  test('a prefix is masked, canonical and contains exactly its range', () => {
    fc.assert(
      fc.property(cidr, (one) => {
        const text = formatCidr(one);
        expect(parseCidr(text, { strict: true })).toEqual(one);
        expect(lastOf(one) - one.base + 1n).toBe(sizeOf(one));
        expect(contains(one, formatAddress(one.family, one.base))).toBe(true);
        expect(contains(one, formatAddress(one.family, lastOf(one)))).toBe(true);
        const limit = (1n << BigInt(bitsOf(one.family))) - 1n;
        if (one.base > 0n) expect(contains(one, formatAddress(one.family, one.base - 1n))).toBe(false);
        if (lastOf(one) < limit) expect(contains(one, formatAddress(one.family, lastOf(one) + 1n))).toBe(false);
      }),
    );
  });

  test('two prefixes overlap when one holds the other`s base, and either way round', () => {
    fc.assert(
      fc.property(pair, ([a, b]) => {
        const either = contains(a, formatAddress(b.family, b.base)) || contains(b, formatAddress(a.family, a.base));
        expect(overlaps(a, b)).toBe(either);
        expect(overlaps(b, a)).toBe(either);
      }),
    );
    expect(overlaps(parseCidr('0.0.0.0/0'), parseCidr('::/0'))).toBe(false);
    expect(contains(parseCidr('::/0'), '10.0.0.1')).toBe(false);
  });

  test('host bits are an error where they must not be', () => {
    expect(formatCidr(parseCidr('10.1.2.3/24'))).toBe('10.1.2.0/24');
    expect(() => parseCidr('10.1.2.3/24', { strict: true })).toThrow(/the subnet is 10\.1\.2\.0\/24/);
    expect(() => parseCidr('fd00::1/64', { strict: true })).toThrow(/fd00::\/64/);
  });

  test.each([
    '10.0.0.0',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/8/8',
    '/24',
    'fd00::/129',
    '10.0.0/8',
    '10.0.0.0/1e1',
    '10.0.0.0/ 8',
  ])('%j is no subnet', (text) => {
    expect(() => parseCidr(text)).toThrow(expect.objectContaining({ code: 'request.invalid' }));
  });
});

describe('MAC addresses', () => {
  test('text and bytes are one, in lower case', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
        const text = macFromBytes(bytes);
        expect(isMac(text)).toBe(true);
        expect(text).toBe(text.toLowerCase());
        expect(macToBytes(text.toUpperCase())).toEqual(bytes);
      }),
    );
    for (const bad of ['', '02:42', '02-42-0a-00-00-01', '02:42:0a:00:00:01:02', '02:42:0a:00:00:0g'])
      expect(isMac(bad)).toBe(false);
  });

  test('the link-local address is the one that the kernel derives', () => {
    expect(linkLocalOf('02:42:0a:14:00:02')).toBe('fe80::42:aff:fe14:2');
    expect(linkLocalOf('00:00:00:00:00:00')).toBe('fe80::200:ff:fe00:0');
  });
});
