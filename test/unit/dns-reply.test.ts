import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { emptyQuestion, type Question, screen } from '../../src/dns/guard.ts';
import { failure, type Reply, ReplyCache, readReply, writeReply } from '../../src/dns/reply.ts';
import { encodeQuery, parseServer, probeQuery } from '../../src/dns/upstream.ts';
import { encodeName, recordSpans, u16, u32 } from '../../src/dns/wire.ts';

const head = (name: string, type = 1): Buffer =>
  Buffer.concat([
    Buffer.from('123401000001000000000000', 'hex'),
    encodeName(name)!,
    Buffer.of(type >> 8, type & 255, 0, 1),
  ]);

const record = (type: number, ttl: number, data: Buffer, owner = Buffer.of(0xc0, 0x0c)): Buffer => {
  const fixed = Buffer.alloc(10);
  fixed.writeUInt16BE(type, 0);
  fixed.writeUInt16BE(1, 2);
  fixed.writeUInt32BE(ttl, 4);
  fixed.writeUInt16BE(data.length, 8);
  return Buffer.concat([owner, fixed, data]);
};
const a = (ttl: number): Buffer => record(1, ttl, Buffer.of(192, 0, 2, 1));
const soa = (ttl: number, minimum: number): Buffer => {
  const data = Buffer.alloc(22);
  data.writeUInt32BE(minimum, 18);
  return record(6, ttl, data, Buffer.of(0));
};
const OPT = Buffer.from('0000290200000000000000', 'hex');

function message(
  query: Buffer,
  { flags = 0x8180, answers = [] as Buffer[], authorities = [] as Buffer[], additionals = [OPT] as Buffer[] } = {},
): Buffer {
  const out = Buffer.concat([query, ...answers, ...authorities, ...additionals]);
  out.writeUInt16BE(flags, 2);
  out.writeUInt16BE(answers.length, 6);
  out.writeUInt16BE(authorities.length, 8);
  out.writeUInt16BE(additionals.length, 10);
  return out;
}

const QUERY = head('www.example');
const read = (bytes: Buffer): Reply => {
  const reading = readReply(bytes, QUERY, QUERY.length);
  if (typeof reading === 'string') throw new Error(reading);
  return reading;
};
const changed = (bytes: Buffer, at: number, value: number): Buffer => {
  bytes[at] = value;
  return bytes;
};

describe('reading', () => {
  test.each([
    ['another id', changed(message(QUERY), 0, 0), 'stray'],
    ['a question', message(QUERY, { flags: 0x0100 }), 'stray'],
    ['another name', changed(message(QUERY), 14, 0x78), 'stray'],
    ['another type', message(Buffer.concat([QUERY.subarray(0, -4), Buffer.of(0, 2, 0, 1)])), 'stray'],
    ['too short', message(QUERY).subarray(0, 20), 'stray'],
    ['cut', message(QUERY, { flags: 0x8380 }), 'truncated'],
    ['fewer records than counted', changed(message(QUERY), 7, 3), 'bad'],
    ['octets behind', Buffer.concat([message(QUERY), Buffer.of(1)]), 'bad'],
    ['a pointer past the end in an owner', message(QUERY, { answers: [Buffer.of(0xc0)], additionals: [] }), 'bad'],
    ['an extended response code', changed(message(QUERY), QUERY.length + 5, 1), 'bad'],
  ])('%s', (_name, bytes, expected) => {
    expect(readReply(bytes, QUERY, QUERY.length)).toBe(expected);
  });

  test('another case is accepted, OPT and what follows it is not passed on', () => {
    const bytes = message(QUERY, { answers: [a(60)], additionals: [a(5), OPT, a(6)] });
    bytes[13] = 0x57;
    const reply = read(bytes);
    expect([reply.answers, reply.authorities, reply.additionals, reply.ends.length]).toEqual([1, 0, 1, 2]);
    expect(reply.bytes.length).toBe(QUERY.length + 32);
  });

  test('a bare header with an error code is an answer', () => {
    const bare = Buffer.from('123481810000000000000000', 'hex');
    expect(read(bare)).toMatchObject({ rcode: 1, answers: 0, lifetimeS: 0 });
    bare[3] = 0x80;
    expect(readReply(bare, QUERY, QUERY.length)).toBe('stray');
  });

  test.each([
    ['the shortest TTL', { answers: [a(60), a(30)] }, 30],
    ['an hour at most', { answers: [a(100_000)] }, 3600],
    ['a TTL with its top bit is 0', { answers: [a(0x8000_0000)] }, 0],
    ['nothing known', {}, 0],
    ['NXDOMAIN: the SOA’s minimum', { flags: 0x8183, authorities: [soa(3600, 20)] }, 20],
    ['NXDOMAIN: a minute at most', { flags: 0x8183, authorities: [soa(3600, 3600)] }, 60],
    [
      'a CNAME to nothing',
      { answers: [record(5, 300, Buffer.from(encodeName('x')!))], authorities: [soa(10, 3600)] },
      10,
    ],
    ['SERVFAIL', { flags: 0x8182, answers: [a(60)] }, 0],
    ['an additional record does not count', { answers: [a(60)], additionals: [a(1), OPT] }, 60],
  ])('lifetime: %s', (_name, parts, seconds) => {
    expect(read(message(QUERY, parts)).lifetimeS).toBe(seconds);
  });
});

describe('writing', () => {
  const write = (reply: Reply, { edns = false, dnssecOk = false, limit = 512, ageS = 0, ad = false } = {}): Buffer => {
    const out = Buffer.alloc(65_535);
    out.set(head('WWW.Example'));
    if (ad) out[3] = 0x20;
    const question: Question = { ...emptyQuestion(), end: QUERY.length, edns, dnssecOk };
    return out.subarray(0, writeReply(reply, ageS, out, question, limit));
  };

  test('the client’s id and case, TTLs less the age, OPT only for who has EDNS', () => {
    const reply = read(message(QUERY, { answers: [a(60), a(5)] }));
    const out = write(reply, { ageS: 10 });
    expect(out.subarray(12, QUERY.length).equals(head('WWW.Example').subarray(12))).toBe(true);
    const spans = recordSpans(out, QUERY.length, out.length)!;
    expect(spans.map(({ ttlAt }) => u32(out, ttlAt))).toEqual([50, 0]);
    expect(u16(write(reply, { edns: true }), 10)).toBe(1);
  });

  test('AD is for those who ask for it', () => {
    const reply = read(message(QUERY, { flags: 0x81a0, answers: [a(60)] }));
    expect([
      write(reply)[3]! & 0x20,
      write(reply, { ad: true })[3]! & 0x20,
      write(reply, { dnssecOk: true })[3]! & 0x20,
    ]).toEqual([0, 0x20, 0x20]);
  });

  test('too long: additional records go first, then TC and as many answers as fit', () => {
    const many = Array.from({ length: 25 }, () => a(60));
    const glue = read(message(QUERY, { answers: many, additionals: [a(1), a(1), a(1), a(1), a(1), a(1), OPT] }));
    const first = write(glue);
    expect([first[2]! & 2, u16(first, 6), u16(first, 10)]).toEqual([0, 25, 0]);
    const long = read(message(QUERY, { answers: [...many, ...many], authorities: [soa(1, 1)] }));
    for (const edns of [false, true]) {
      const out = write(long, { edns });
      expect(out[2]! & 2).toBe(2);
      expect(out.length).toBeLessThanOrEqual(512);
      expect(recordSpans(out, QUERY.length, out.length)!.length).toBe(u16(out, 6) + (edns ? 1 : 0));
    }
  });

  test('a failure of ours', () => {
    expect(
      write(failure(QUERY, QUERY.length, 2), { edns: true })
        .subarray(2, 12)
        .toString('hex'),
    ).toBe('81820001000000000001');
  });

  test('any octets: read without a throw, and what is read can be written', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 400 }),
        fc.nat(5),
        fc.nat(5),
        fc.nat(5),
        fc.integer({ min: 300, max: 1232 }),
        (tail, answers, authorities, additionals, limit) => {
          const bytes = Buffer.concat([QUERY, tail]);
          for (const [at, value] of [
            [2, 0x81],
            [3, 0x80],
            [7, answers],
            [9, authorities],
            [11, additionals],
          ] as const)
            bytes[at] = value;
          const reading = readReply(bytes, QUERY, QUERY.length);
          if (typeof reading === 'string') return;
          const out = write(reading, { limit, edns: true });
          expect(out.length).toBeLessThanOrEqual(limit);
          expect(recordSpans(out, QUERY.length, out.length)).not.toBeNull();
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('the cache', () => {
  const reply = read(message(QUERY, { answers: [a(60)] }));

  test('keeps for the lifetime and tells the age', () => {
    const cache = new ReplyCache(1 << 20);
    cache.put('k', reply, 5000, 1000);
    expect(cache.get('k', 3500)).toEqual({ reply, ageS: 2 });
    expect(cache.get('k', 6000)).toBeUndefined();
    expect([cache.size, cache.bytes]).toEqual([0, 0]);
    cache.put('k', reply, 0, 0);
    expect(cache.size).toBe(0);
  });

  test('is bounded in octets; what was used last stays', () => {
    const cache = new ReplyCache(10_000);
    for (let i = 0; i < 1000; i++) {
      cache.put(`k${i}`, reply, 60_000, 0);
      cache.get('k0', 1);
    }
    expect(cache.bytes).toBeLessThanOrEqual(10_000);
    expect(cache.size).toBeGreaterThan(10);
    expect([cache.get('k0', 1), cache.get('k999', 1), cache.get('k1', 1)].map(Boolean)).toEqual([true, true, false]);
    cache.clear();
    expect([cache.size, cache.bytes]).toEqual([0, 0]);
  });
});

describe('queries', () => {
  test('a fresh id, RD, the client’s CD and AD, one OPT of ours', () => {
    const client = head('WWW.example');
    client[3] = 0xff;
    const query = { head: client, dnssecOk: true, stream: false };
    const out = encodeQuery(query, 0xbeef, true);
    expect(out.subarray(0, 12).toString('hex')).toBe('beef01300001000000000001');
    expect(out.subarray(client.length).toString('hex')).toBe('00002904d0000080000000');
    expect(encodeQuery(query, 1, false).length).toBe(client.length);
  });

  test('a probe passes the guards', () => {
    const bytes = encodeQuery(probeQuery('ab.cd', 13), 1, true);
    const question = emptyQuestion();
    expect(screen(bytes, bytes.length, 1, question)).toBe('ok');
    expect(question).toMatchObject({ name: 'ab.cd', type: 13 });
  });

  test.each([
    ['192.0.2.1', '192.0.2.1', 53],
    ['192.0.2.1:5353', '192.0.2.1', 5353],
    ['2001:db8::1', '2001:db8::1', 53],
    ['[2001:db8::1]:54', '2001:db8::1', 54],
    ['[2001:db8::1]', '2001:db8::1', 53],
    ['fe80::1%eth0', 'fe80::1%eth0', 53],
  ])('server %s', (text, address, port) => {
    expect(parseServer(text)).toEqual({ address, port, text });
  });

  test.each(['', 'dns.example', '192.0.2.1:0', '192.0.2.1:65536', '192.0.2', '[::1', '::1:x', '192.0.2.1:'])(
    'no server: %s',
    (text) => {
      expect(() => parseServer(text)).toThrow(expect.objectContaining({ code: 'config.invalid' }));
    },
  );
});
