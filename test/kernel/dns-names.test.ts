/** Owned names by real clients, and what hostile packets do to the daemon: nothing. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Namespace } from '../../src/contracts/kernel.ts';
import type { RunningNameServer } from '../../src/dns/server.ts';
import { DnsPlace, dig, inside, question, RawClient, streamAsk, view, within } from './dns-place.ts';

const place = new DnsPlace();
let server: RunningNameServer;
let namespace: Namespace;
let port: number;

beforeAll(() => {
  server = place.server();
  namespace = place.namespace();
  server.setView(
    view({
      view: 1,
      records: [
        { name: 'api-1', a: ['10.9.0.2'], aaaa: ['fd00:9::2'] },
        { name: 'api-1.web', a: ['10.9.0.2'], aaaa: ['fd00:9::2'] },
        { name: 'four', a: ['10.9.0.4'] },
        { name: 'six', aaaa: ['fd00:9::6'] },
        { name: 'shop', a: ['10.9.0.10', '10.9.0.11'] },
        { name: '_http._tcp.shop', srv: [{ priority: 1, weight: 2, port: 8080, target: 'shop' }] },
        { name: 'big', a: Array.from({ length: 300 }, (_, i) => `10.9.${1 + (i >> 8)}.${i & 255}`) },
        {
          name: '_all._tcp.big',
          srv: Array.from({ length: 12 }, (_, i) => ({
            priority: 0,
            weight: 1,
            port: 80 + i,
            target: `host-${i}.web`,
          })),
        },
        ...Array.from({ length: 12 }, (_, i) => ({
          name: `host-${i}.web`,
          a: [`10.9.8.${i}`],
          aaaa: [`fd00:9::8:${i}`],
        })),
      ],
      reverse: new Map([
        ['10.9.0.2', 'api-1.web'],
        ['fd00:9:0:0:0:0:0:2', 'api-1.web'],
      ]),
      subnets: ['10.9.0.0/20', 'fd00:9::/64'],
    }),
  );
  port = server.ensureSandbox({ id: 'box', namespace, view: 1 });
});
afterAll(() => place.close());

const OWN = { status: 'NOERROR', flags: expect.stringMatching(/^qr aa rd ra$/) as string };

describe.each([[['+notcp']], [['+tcp']], [['+noedns']], [['+dnssec']], [['+tcp', '+noedns']]])('by dig %j', (words) => {
  const ask = (...more: string[]) => dig(namespace, port, ...words, ...more);

  test.each([
    [['api-1'], ['api-1. 5 IN A 10.9.0.2']],
    [['API-1.wEb'], ['API-1.wEb. 5 IN A 10.9.0.2']],
    [['api-1', 'AAAA'], ['api-1. 5 IN AAAA fd00:9::2']],
    [['api-1', 'ANY', '+notcp'], ['api-1. 5 IN A 10.9.0.2']],
    [['_http._tcp.shop', 'SRV'], ['_http._tcp.shop. 5 IN SRV 1 2 8080 shop.']],
    [['-x', '10.9.0.2'], ['2.0.9.10.in-addr.arpa. 5 IN PTR api-1.web.']],
    [['-x', 'fd00:9::2'], [`2.${'0.'.repeat(23)}9.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR api-1.web.`]],
  ])('%j', async (asked, answers) => {
    expect(await ask(...asked)).toMatchObject({ ...OWN, answers });
  });

  test.each([
    ['four', 'AAAA'],
    ['six', 'A'],
    ['api-1', 'MX'],
    ['api-1', 'TYPE65'],
    ['api-1', 'TYPE61234'],
    ['api-1', 'SOA'],
    ['_tcp.shop', 'SRV'],
    ['9.9.10.in-addr.arpa', 'PTR'],
  ])('%s %s: NODATA with SOA', async (...asked) => {
    expect(await ask(...asked)).toMatchObject({ ...OWN, answers: [], authority: true });
  });

  test.each([
    ['-x', '10.9.15.255'],
    ['-x', 'fd00:9::3'],
    ['nobody', 'A'],
    ['www.example.test', 'AAAA'],
    ['.', 'NS'],
    ['x.2.0.9.10.in-addr.arpa', 'PTR'],
  ])('%s %s: NXDOMAIN with SOA', async (...asked) => {
    expect(await ask(...asked)).toMatchObject({ ...OWN, status: 'NXDOMAIN', answers: [], authority: true });
  });
});

describe('by other clients', () => {
  test('kdig reads every answer without a complaint', async () => {
    for (const [name, type] of [
      ['api-1', 'A'],
      ['_http._tcp.shop', 'SRV'],
      ['four', 'AAAA'],
      ['_all._tcp.big', 'SRV'],
    ] as const)
      for (const words of [[], ['+tcp'], ['+edns']] as const) {
        const ran = await inside(namespace, [
          'kdig',
          '@127.0.0.11',
          '-p',
          String(port),
          '+retry=0',
          ...words,
          name,
          type,
        ]);
        expect(ran.stdout).toContain('NOERROR');
        expect(ran.stdout + ran.stderr).not.toMatch(/WARNING|malformed/i);
      }
  });

  test('musl’s habit: A and AAAA at once from one socket', async () => {
    using client = new RawClient(namespace, port);
    client.send(question('four', 1, { id: 1 }));
    client.send(question('four', 28, { id: 2 }));
    const [a, b] = [await client.receive(), await client.receive()];
    expect([a!.readUInt16BE(0), a![3]! & 15, a!.readUInt16BE(6)]).toEqual([1, 0, 1]);
    expect([b!.readUInt16BE(0), b![3]! & 15, b!.readUInt16BE(6)]).toEqual([2, 0, 0]);
  });

  test('systemd-resolved’s habit: an EDNS version that nobody has is BADVERS', async () => {
    using client = new RawClient(namespace, port);
    const asked = question('api-1', 1, { payload: 1232 });
    asked[asked.length - 5] = 1;
    const answer = await client.ask(asked);
    expect([answer![3]! & 15, answer![answer!.length - 6], answer!.readUInt16BE(10)]).toEqual([0, 1, 1]);
  });

  test('what does not fit: glue goes first, then TC; EDNS fits more, TCP everything', async () => {
    const srv = async (...words: string[]) => dig(namespace, port, '+ignore', ...words, '_all._tcp.big', 'SRV');
    // 12 records of 30-odd octets fit 512 without their 24 addresses.
    const plain = await srv('+noedns');
    expect([plain.answers.length, plain.flags]).toEqual([12, expect.not.stringContaining('tc')]);
    expect(plain.text).not.toContain('ADDITIONAL SECTION');
    expect((await srv('+tcp')).text).toContain('fd00:9::8:11');
    const cut = await dig(namespace, port, '+ignore', '+noedns', 'big');
    expect([cut.flags, cut.answers.length]).toEqual([expect.stringContaining('tc'), 30]);
    const edns = await dig(namespace, port, '+ignore', '+bufsize=4096', 'big');
    expect([edns.flags, edns.answers.length]).toEqual([expect.stringContaining('tc'), 75]);
    expect((await dig(namespace, port, 'big')).answers.length).toBe(300);
  });
});

describe('hostile packets', () => {
  const works = async (): Promise<void> => {
    using client = new RawClient(namespace, port);
    const answer = await client.ask(question('api-1', 1));
    expect(answer?.readUInt16BE(6)).toBe(1);
  };
  const answers = async (message: Buffer): Promise<number | null> => {
    using client = new RawClient(namespace, port);
    const answer = await client.ask(message, within(100));
    return answer ? answer[3]! & 15 : null;
  };

  test('source port 0 is dropped', async () => {
    const asked = question('api-1', 1).toString('hex');
    const { stdout } = await inside(namespace, [
      '/usr/bin/python3',
      '-c',
      `import socket
q = bytes.fromhex('${asked}')
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for i in range(100): r.sendto((0).to_bytes(2, 'big') + (${port}).to_bytes(2, 'big') + (8 + len(q)).to_bytes(2, 'big') + b'\\0\\0' + q, ('127.0.0.11', 0))
print('sent')`,
    ]);
    expect(stdout.trim()).toBe('sent');
    await works();
  });

  test('answers sent as questions are dropped, so that two servers never talk for ever', async () => {
    const asked = question('api-1', 1);
    asked[2] = 0x81;
    expect(await answers(asked)).toBeNull();
    // Even from the server's own address and port.
    await inside(namespace, [
      '/usr/bin/python3',
      '-c',
      `import socket
q = bytes.fromhex('${question('api-1', 1).toString('hex')}')
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP); r.bind(('127.0.0.11', 0))
r.sendto((${port}).to_bytes(2, 'big') * 2 + (8 + len(q)).to_bytes(2, 'big') + b'\\0\\0' + q, ('127.0.0.11', 0))`,
    ]);
    await works();
  });

  test.each([
    ['three octets', Buffer.of(1, 2, 3), null],
    ['another opcode', Buffer.concat([Buffer.of(0, 1, 0x29), question('api-1', 1).subarray(3)]), 4],
    ['no question', Buffer.from('123401000000000000000000', 'hex'), 1],
    ['65,535 questions', Buffer.from('12340100ffff000000000000', 'hex'), 1],
    [
      'counts without records',
      Buffer.concat([Buffer.from('12340100ffffffffffffffff', 'hex'), question('api-1', 1).subarray(12)]),
      1,
    ],
    ['a pointer to itself', Buffer.from('123401000001000000000000c00c00010001', 'hex'), 1],
    ['a label past the end', Buffer.from('1234010000010000000000003f6162', 'hex'), 1],
    [
      'a name without an end',
      Buffer.concat([Buffer.from('123401000001000000000000', 'hex'), Buffer.alloc(4000, 1)]),
      1,
    ],
    ['octets after the question', Buffer.concat([question('api-1', 1), Buffer.alloc(100)]), 1],
    ['5,000 octets', Buffer.concat([question('api-1', 1), Buffer.alloc(5000)]), null],
  ])('%s', async (_name, message, code) => {
    expect(await answers(message)).toBe(code);
    await works();
  });

  test('random octets and mutated questions over UDP and TCP; memory stays bounded', async () => {
    const seeds = [
      question('api-1', 1),
      question('_http._tcp.shop', 33, { payload: 4096 }),
      question('2.0.9.10.in-addr.arpa', 12),
    ];
    const mutated = fc
      .tuple(fc.constantFrom(...seeds), fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 8 }), fc.nat(4000))
      .map(([seed, changes, more]) => {
        const out = Buffer.concat([seed, Buffer.alloc(more % 7 === 0 ? more : 0)]);
        for (const [at, value] of changes) out[at % out.length] = value;
        return out;
      });
    const packets = fc.array(
      fc.oneof(
        mutated,
        fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      ),
      {
        minLength: 20,
        maxLength: 60,
      },
    );
    const before = process.memoryUsage().rss;
    await fc.assert(
      fc.asyncProperty(packets, async (list) => {
        using client = new RawClient(namespace, port);
        for (const packet of list) client.send(packet);
        await streamAsk(namespace, port, list[0]!, 50);
        await works();
      }),
      { numRuns: 40 },
    );
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20);
    expect(server.load.streams).toBeLessThan(5);
  });
});
