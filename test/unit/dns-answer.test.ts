import { Packet } from 'dns2';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { NameView } from '../../src/contracts/names.ts';
import { DROP, FORWARD, Responder } from '../../src/dns/answer.ts';
import { emptyQuestion, screen } from '../../src/dns/guard.ts';
import { ReverseZones, reverseName } from '../../src/dns/reverse.ts';
import { NameTable } from '../../src/dns/table.ts';
import { encodeName, recordSpans, skipName, u16 } from '../../src/dns/wire.ts';

const query = (name: string | Buffer, type = 1, { edns = 0, klass = 1, tail = Buffer.alloc(0) } = {}): Buffer => {
  const wire = typeof name === 'string' ? Buffer.from(encodeName(name)!) : name;
  const opt = edns > 0 ? Buffer.of(0, 0, 41, edns >> 8, edns & 255, 0, 0, 0, 0, 0, 0) : Buffer.alloc(0);
  const head = Buffer.from(`abcd0100000100000000000${edns > 0 ? 1 : 0}`, 'hex');
  return Buffer.concat([head, wire, Buffer.of(type >> 8, type & 255, klass >> 8, klass & 255), opt, tail]);
};

const table = (view: Partial<NameView>): NameTable =>
  new NameTable({ view: 1, records: [], reverse: new Map(), subnets: [], forward: true, ...view });

/** The answer to a message, in a buffer as large as a receive slot. */
function answer(
  names: NameTable | undefined,
  message: Buffer,
  { stream = false, port = 1 } = {},
): { size: number; bytes: Buffer; verdict: string } {
  const responder = new Responder();
  const buffer = Buffer.alloc(stream ? 65_535 : 4096);
  message.copy(buffer);
  const size = responder.answer(names, buffer, message.length, port, stream);
  return { size, bytes: buffer.subarray(0, Math.max(0, size)), verdict: responder.verdict };
}

describe('guards', () => {
  const verdict = (message: Buffer, port = 1): string => screen(message, message.length, port, emptyQuestion());
  const label = (size: number): Buffer => Buffer.concat([Buffer.of(size), Buffer.alloc(size, 0x61)]);
  const change = (at: number, value: number, message = query('a.b')): Buffer => {
    message[at] = value;
    return message;
  };

  test.each([
    ['a good question', query('a.b'), 'ok'],
    ['the root', query(''), 'ok'],
    ['EDNS', query('a', 1, { edns: 4096 }), 'ok'],
    ['11 octets', Buffer.alloc(11), 'short'],
    ['4,097 octets', Buffer.alloc(4097), 'long'],
    ['an answer', change(2, 0x80), 'response'],
    ['NOTIFY', change(2, 0x20), 'opcode'],
    ['no question', change(5, 0), 'count'],
    ['two questions', change(5, 2), 'count'],
    ['an answer section', change(7, 1), 'count'],
    ['an authority section', change(9, 1), 'count'],
    ['two additional records', change(11, 2, query('a', 1, { edns: 512 })), 'count'],
    ['63 octets in a label', query(Buffer.concat([label(63), Buffer.of(0)])), 'ok'],
    ['64 octets in a label', query(Buffer.concat([label(64), Buffer.of(0)])), 'name'],
    ['255 octets in a name', query(Buffer.concat([label(63), label(63), label(63), label(61), Buffer.of(0)])), 'ok'],
    ['256 octets in a name', query(Buffer.concat([label(63), label(63), label(63), label(62), Buffer.of(0)])), 'name'],
    ['a pointer', query(Buffer.of(0xc0, 0x0c)), 'name'],
    ['no type', query('a').subarray(0, -3), 'name'],
    ['CHAOS', query('a', 16, { klass: 3 }), 'class'],
    ['AXFR', query('a', 252), 'meta'],
    ['OPT as a type', query('a', 41), 'meta'],
    ['ANY', query('a', 255), 'ok'],
    ['an announced record that is missing', change(11, 1), 'additional'],
    ['TSIG', change(11, 1, query('a', 1, { tail: Buffer.from('0000fa00ff000000000000', 'hex') })), 'additional'],
    ['EDNS version 1', change(25, 1, query('a', 1, { edns: 512 })), 'version'],
    ['octets behind', query('a', 1, { tail: Buffer.of(0) }), 'trailing'],
    ['an EDNS option past the end', change(29, 9, query('a', 1, { edns: 512 })), 'additional'],
  ])('%s', (_name, message, expected) => {
    expect(verdict(message)).toBe(expected);
  });

  test('source port 0', () => {
    expect(verdict(query('a'), 0)).toBe('port');
  });

  test('names are folded, a dot within a label is told', () => {
    const question = emptyQuestion();
    const message = query('A-Z.wEb');
    screen(message, message.length, 1, question);
    expect(question).toMatchObject({ name: 'a-z.web', literal: false, type: 1, end: message.length });
    const dotted = query(Buffer.from('\x03a.b\x00', 'latin1'));
    screen(dotted, dotted.length, 1, question);
    expect(question).toMatchObject({ name: 'a.b', literal: true });
  });

  test('a client’s size of less than 512 counts as 512', () => {
    const question = emptyQuestion();
    const message = query('a', 1, { edns: 100 });
    screen(message, message.length, 1, question);
    expect(question.payload).toBe(512);
  });
});

describe('answers', () => {
  const names = table({
    records: [
      { name: 'api', a: ['10.0.0.1'] },
      { name: 'many', a: Array.from({ length: 64 }, (_, i) => `10.0.0.${i}`) },
      {
        name: 'bad.one',
        a: ['10.0.0.300', 'x', 'fd00::1', '10.0.0.3'],
        srv: [{ priority: 1, weight: 1, port: 1, target: 'a..b' }],
      },
    ],
  });

  test('octet for octet as it was asked, then the record', () => {
    const asked = query('aPi');
    expect(answer(names, asked).bytes.toString('hex')).toBe(
      `abcd85800001000100000000${asked.subarray(12).toString('hex')}c00c000100010000000500040a000001`,
    );
  });

  test('EDNS is answered with ours, DO and CD come back, nothing else does', () => {
    const asked = query('api', 1, { edns: 4096 });
    asked[3] = 0xff;
    asked[asked.length - 4] = 0xff;
    const { bytes } = answer(names, asked);
    expect(bytes[3]).toBe(0x90);
    expect(bytes.subarray(-11).toString('hex')).toBe('00002904d0000080000000');
  });

  test('a label with a dot in it is not the name that it reads like', () => {
    const dotted = query(Buffer.from('\x07bad.one\x00', 'latin1'));
    expect(answer(names, dotted).size).toBe(FORWARD);
    expect(answer(table({ forward: false }), dotted).bytes[3]! & 15).toBe(3);
  });

  test('what is no address or no name is left out, the rest stays', () => {
    expect(u16(answer(names, query('bad.one')).bytes, 6)).toBe(1);
    expect(u16(answer(names, query('bad.one', 33)).bytes, 6)).toBe(0);
    expect(
      table({ records: [{ name: `${'x'.repeat(64)}.a`, a: [] }], reverse: new Map([['nonsense', 'a']]) }).unfit,
    ).toEqual([`${'x'.repeat(64)}.a`, 'nonsense']);
  });

  test('each of 64 addresses comes first once; an answer that is cut turns too', () => {
    const firsts = Array.from({ length: 64 }, () => answer(names, query('many')).bytes);
    expect(new Set(firsts.map((bytes) => bytes[22 + 15])).size).toBe(64);
    for (const bytes of firsts) {
      expect([bytes[2]! & 2, u16(bytes, 6), bytes.length]).toEqual([2, 30, 22 + 30 * 16]);
      expect(recordSpans(bytes, 22, bytes.length)?.length).toBe(30);
    }
    expect(u16(answer(names, query('many'), { stream: true }).bytes, 6)).toBe(64);
  });

  test('without a view: silence; without recursion: refused', () => {
    expect(answer(undefined, query('api'))).toMatchObject({ size: DROP, verdict: 'view' });
    const asked = query('elsewhere');
    asked[2] = 0;
    expect(answer(names, asked).bytes[3]! & 15).toBe(5);
    expect(answer(names, query('elsewhere')).size).toBe(FORWARD);
  });

  test('whatever comes in, what goes out is a well-formed answer to it, no longer than may be', () => {
    const view = table({
      records: [
        { name: 'a', a: ['10.0.0.1', '10.0.0.2'], aaaa: ['fd00::1'] },
        { name: '_s._tcp.a', srv: [{ priority: 0, weight: 0, port: 1, target: 'a' }] },
      ],
      reverse: new Map([['10.0.0.1', 'a']]),
      subnets: ['10.0.0.0/12'],
      forward: false,
    });
    const nameArb = fc.constantFrom(
      'a',
      'A',
      '_s._tcp.a',
      '_x.a',
      'b',
      '',
      '1.0.0.10.in-addr.arpa',
      '9.0.0.10.in-addr.arpa',
      '0.10.in-addr.arpa',
    );
    const good = fc
      .tuple(nameArb, fc.constantFrom(1, 2, 12, 28, 33, 255, 65), fc.constantFrom(0, 512, 1232, 65_535))
      .map(([name, type, edns]) => query(name, type, { edns }));
    const mutated = fc
      .tuple(good, fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 5 }))
      .map(([message, changes]) => {
        for (const [at, value] of changes) if (at < message.length) message[at] = value;
        return message;
      });
    const random = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(good, mutated, random), fc.boolean(), (message, stream) => {
        const { size, bytes } = answer(view, message, { stream });
        if (size === DROP) return;
        expect(size).toBeGreaterThanOrEqual(12);
        expect(bytes[2]! & 0x80).toBe(0x80);
        expect(u16(bytes, 0)).toBe(u16(message, 0));
        if (!stream) expect(size).toBeLessThanOrEqual(1232);
        const packet = Packet.parse(Buffer.from(bytes));
        expect(packet.errors).toEqual([]);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('reverse zones', () => {
  const zones = new ReverseZones(['10.20.0.0/24', '172.20.0.0/14', '192.0.2.7/32', 'fd00:20::/64', '198.51.100.0/25']);
  test.each([
    ['5.0.20.10.in-addr.arpa', 1, true],
    ['0.20.10.in-addr.arpa', 0, false],
    ['20.10.in-addr.arpa', null, false],
    ['x.5.0.20.10.in-addr.arpa', 2, true],
    ['64/26.0.20.10.in-addr.arpa', 1, true],
    ['05.0.20.10.in-addr.arpa', 1, true],
    ['1.1.22.172.in-addr.arpa', 2, true],
    ['22.172.in-addr.arpa', 0, false],
    ['1.1.24.172.in-addr.arpa', null, false],
    ['172.in-addr.arpa', null, false],
    ['7.2.0.192.in-addr.arpa', 0, true],
    ['8.2.0.192.in-addr.arpa', null, false],
    ['127.100.51.198.in-addr.arpa', 0, true],
    ['128.100.51.198.in-addr.arpa', null, false],
    ['in-addr.arpa', null, false],
    [`1.${'0.'.repeat(15)}0.0.0.0.0.2.0.0.0.0.d.f.ip6.arpa`, 12, false],
    ['0.0.0.0.0.2.0.0.0.0.d.f.ip6.arpa', null, false],
  ])('%s', (name, before, absent) => {
    expect(zones.match(name)).toEqual(before === null ? null : { before, absent });
  });

  test('an IPv6 name and its zone', () => {
    const name = reverseName('fd00:20::1')!;
    expect(name).toBe(`1.${'0.'.repeat(23)}0.2.0.0.0.0.d.f.ip6.arpa`);
    expect(zones.match(name)).toEqual({ before: 16, absent: true });
    expect(reverseName('fd00:20:0:0:0:0:0:1')).toBe(name);
    expect(reverseName('fd00::zz')).toBeNull();
  });
});

test('names in wire form', () => {
  expect(Buffer.from(encodeName('a.bc')!).toString('hex')).toBe('0161026263' + '00');
  expect(encodeName('')).toEqual(Uint8Array.of(0));
  for (const bad of ['.', 'a..b', 'a.', `${'x'.repeat(64)}`, `${'a.'.repeat(127)}b`])
    expect(encodeName(bad)).toBeNull();
  expect(encodeName(`${'a.'.repeat(126)}b`)?.length).toBe(255);
  expect(skipName(Buffer.from('03616263c00cff', 'hex'), 0, 7)).toBe(6);
  expect(skipName(Buffer.from('0361', 'hex'), 0, 2)).toBe(-1);
  expect(skipName(Buffer.alloc(300, 1), 0, 300)).toBe(-1);
});
