import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Namespace } from '../../src/contracts/kernel.ts';
import type { RunningNameServer } from '../../src/dns/server.ts';
import { DnsPlace, dig, inside, question, RawClient, streamAsk, view, within } from './dns-place.ts';
import { addressRecord, answerTo, type Script, soaRecord, Unbound, Upstream } from './dns-upstream.ts';

const place = new DnsPlace();
const opened: { close(): unknown }[] = [];
afterAll(async () => {
  for (const one of opened) await one.close();
  await place.close();
});

async function upstream(script: Script): Promise<Upstream> {
  const started = await Upstream.start(script);
  opened.push(started);
  return started;
}

const rcode = (answer: Buffer | null): number | null => (answer ? answer[3]! & 15 : null);
const count = (answer: Buffer | null): number | null => (answer ? answer.readUInt16BE(6) : null);
const lastOctet = (answer: Buffer | null, edns = false): number | undefined => answer?.at(edns ? -12 : -1);

/** A sandbox whose questions go to the given servers. */
function box(
  servers: readonly string[],
  id = 'box',
  server: RunningNameServer = place.server({ resolvers: servers }),
): { server: RunningNameServer; namespace: Namespace; port: number; client: RawClient } {
  const namespace = place.namespace();
  server.setView(
    view({ view: 1, records: [{ name: 'own', a: ['10.0.0.1'] }], subnets: ['10.0.0.0/24'], forward: true }),
  );
  const port = server.ensureSandbox({ id, namespace, view: 1 });
  const client = new RawClient(namespace, port);
  opened.unshift({ close: () => client[Symbol.dispose]() });
  return { server, namespace, port, client };
}

describe('through a real resolver', () => {
  let unbound: Unbound;
  let namespace: Namespace;
  let port: number;
  beforeAll(async () => {
    unbound = await Unbound.start([
      'www.example.test. 60 IN A 192.0.2.1',
      'www.example.test. 60 IN AAAA 2001:db8::1',
      'example.test. 60 IN MX 10 mail.example.test.',
      'example.test. 60 IN TXT "some text"',
      'example.test. 60 IN CAA 0 issue "ca.example"',
      'example.test. 60 IN TYPE65 \\# 3 000100',
      ...Array.from({ length: 120 }, (_, i) => `many.example.test. 60 IN A 192.0.2.${i}`),
      '1.2.0.192.in-addr.arpa. 60 IN PTR www.example.test.',
    ]);
    opened.push(unbound);
    ({ namespace, port } = box([unbound.text], 'real'));
  });

  test.each([
    ['www.example.test', 'A', 'www.example.test. 60 IN A 192.0.2.1'],
    ['WWW.example.TEST', 'AAAA', 'WWW.example.TEST. 60 IN AAAA 2001:db8::1'],
    ['example.test', 'MX', 'example.test. 60 IN MX 10 mail.example.test.'],
    ['example.test', 'TXT', 'example.test. 60 IN TXT "some text"'],
    ['example.test', 'CAA', 'example.test. 60 IN CAA 0 issue "ca.example"'],
    ['example.test', 'TYPE65', /HTTPS|TYPE65/],
    ['1.2.0.192.in-addr.arpa', 'PTR', '1.2.0.192.in-addr.arpa. 60 IN PTR www.example.test.'],
  ])('%s %s by dig and kdig, over UDP and TCP, with and without EDNS', async (name, type, line) => {
    for (const words of [['+notcp'], ['+tcp'], ['+noedns'], ['+dnssec']]) {
      const { status, answers, flags } = await dig(namespace, port, ...words, name, type);
      expect([status, answers.length]).toEqual(['NOERROR', 1]);
      expect(answers[0]!.replace(/^(\S+) \d+/, '$1 60')).toMatch(line);
      expect(flags).toMatch(/^qr rd ra/);
    }
    const { stdout } = await inside(namespace, ['kdig', `@127.0.0.11`, '-p', String(port), '+retry=0', name, type]);
    expect(stdout).toContain('NOERROR');
  });

  test('a large answer is cut over UDP, whole over TCP, and clients find their way', async () => {
    const cut = await dig(namespace, port, '+ignore', '+noedns', 'many.example.test');
    expect(cut.flags).toContain('tc');
    expect(cut.answers.length).toBeGreaterThan(10);
    expect((await dig(namespace, port, 'many.example.test')).answers.length).toBe(120);
  });

  test('NXDOMAIN and NODATA come through with their SOA', async () => {
    expect(await dig(namespace, port, 'none.example.test')).toMatchObject({ status: 'NXDOMAIN', authority: true });
    expect(await dig(namespace, port, 'www.example.test', 'MX')).toMatchObject({
      status: 'NOERROR',
      answers: [],
      authority: true,
    });
  });
});

describe('what is asked', () => {
  test('each question has a fresh id and source port, our EDNS, the client’s case, and no option of the client’s', async () => {
    const server = await upstream((seen) => [answerTo(seen, { records: [addressRecord(7, 0)] })]);
    const { client } = box([server.text]);
    for (let i = 0; i < 12; i++) {
      const plain = i % 2 === 0;
      const answer = await client.ask(question('WwW.example', 1, { id: 5, payload: plain ? undefined : 4096 }));
      expect([rcode(answer), lastOctet(answer, !plain), answer!.readUInt16BE(0)]).toEqual([0, 7, 5]);
      expect(answer!.toString('latin1', 13, 16)).toBe('WwW');
      expect(answer!.readUInt16BE(10)).toBe(plain ? 0 : 1);
    }
    expect(new Set(server.seen.map(({ id }) => id)).size).toBeGreaterThan(8);
    expect(new Set(server.seen.map(({ port }) => port)).size).toBeGreaterThan(8);
    for (const { name, edns, message } of server.seen) {
      expect([name, edns]).toEqual(['WwW.example', true]);
      expect(message.readUInt16BE(message.length - 8)).toBe(1232);
    }
  });

  test('owned names, their other types and our reverse zones are never asked', async () => {
    const server = await upstream((seen) => [answerTo(seen)]);
    const { client } = box([server.text]);
    for (const [name, type] of [
      ['own', 1],
      ['OWN', 28],
      ['own', 16],
      ['own', 65],
      ['own', 255],
      ['_x._tcp.own', 33],
      ['9.0.0.10.in-addr.arpa', 12],
      ['x.9.0.0.10.in-addr.arpa', 12],
      ['0.0.10.in-addr.arpa', 2],
    ] as const)
      expect(await client.ask(question(name, type))).not.toBeNull();
    expect(server.seen).toEqual([]);
  });

  test('transfers, other classes and questions without recursion are refused, not asked', async () => {
    const server = await upstream((seen) => [answerTo(seen)]);
    const { client } = box([server.text]);
    expect(rcode(await client.ask(question('example', 252)))).toBe(4);
    expect(rcode(await client.ask(question('example', 251)))).toBe(4);
    const chaos = question('version.bind', 16);
    chaos[chaos.length - 1] = 3;
    expect(rcode(await client.ask(chaos))).toBe(5);
    expect(rcode(await client.ask(question('example', 1, { rd: false })))).toBe(5);
    expect(server.seen).toEqual([]);
  });

  test('a sandbox’s own servers replace the host’s', async () => {
    const host = await upstream((seen) => [answerTo(seen, { records: [addressRecord(1)] })]);
    const own = await upstream((seen) => [answerTo(seen, { records: [addressRecord(2)] })]);
    const { server, namespace, client } = box([host.text]);
    expect(lastOctet(await client.ask(question('a.example', 1)))).toBe(1);
    server.ensureSandbox({ id: 'box', namespace, view: 1, servers: [own.text] });
    expect(lastOctet(await client.ask(question('a.example', 1)))).toBe(2);
    expect(() => server.ensureSandbox({ id: 'box', namespace, view: 1, servers: ['dns.example'] })).toThrow(
      expect.objectContaining({ code: 'config.invalid' }),
    );
  });

  test('TCP questions are asked over TCP, and truncated answers once more over TCP', async () => {
    const server = await upstream((seen) =>
      seen.stream || seen.name !== 'big.example'
        ? [answerTo(seen, { records: [addressRecord(3, 0)] })]
        : [answerTo(seen, { flags: 0x8380 })],
    );
    const { client, namespace, port } = box([server.text]);
    expect(lastOctet(await client.ask(question('big.example', 1)))).toBe(3);
    expect(lastOctet(await streamAsk(namespace, port, question('small.example', 1)))).toBe(3);
    expect(server.seen.map(({ name, stream }) => `${name} ${stream}`)).toEqual([
      'big.example false',
      'big.example true',
      'small.example true',
    ]);
  });
});

describe('what comes back', () => {
  test('answers with another id, question or source are not taken', async () => {
    const wrong: ((seen: Parameters<Script>[0]) => Buffer)[] = [
      (seen) => {
        const answer = answerTo(seen, { records: [addressRecord(66)] });
        answer[0] = answer[0]! ^ 1;
        return answer;
      },
      (seen) => {
        const answer = answerTo(seen, { records: [addressRecord(66)] });
        answer[13] = answer[13]! ^ 1;
        return answer;
      },
      (seen) => {
        const answer = answerTo(seen, { records: [addressRecord(66)] });
        answer[2] = 1;
        return answer;
      },
      (seen) => answerTo(seen).subarray(0, 11),
    ];
    const server = await upstream((seen) => [
      ...wrong.map((make) => make(seen)),
      answerTo(seen, { records: [addressRecord(8)] }),
    ]);
    const { client } = box([server.text]);
    expect(lastOctet(await client.ask(question('a.example', 1)))).toBe(8);
  });

  test('kept for its TTL, which counts down; another type, DO or CD is another question', async () => {
    const server = await upstream((seen) => [
      answerTo(seen, { records: [addressRecord(server?.seen.length ?? 0, 30)] }),
    ]);
    const { client } = box([server.text]);
    const first = await client.ask(question('a.example', 1));
    expect(lastOctet(await client.ask(question('A.EXAMPLE', 1)))).toBe(lastOctet(first));
    await new Promise((resolve) => setTimeout(resolve, 1100));
    const later = await client.ask(question('a.example', 1, { payload: 1232 }));
    expect(later!.readUInt32BE(later!.length - 11 - 10)).toBe(29);
    expect(server.seen.length).toBe(1);
    await client.ask(question('a.example', 28));
    await client.ask(question('a.example', 1, { flags: 0x10 }));
    expect(server.seen.length).toBe(3);
  });

  test('NXDOMAIN is kept for the SOA’s minimum, what has no SOA not at all', async () => {
    const server = await upstream((seen) => [
      answerTo(seen, { flags: 0x8183, authority: seen.name === 'soa.example' ? [soaRecord(3600, 20)] : [] }),
    ]);
    const { client } = box([server.text]);
    for (let i = 0; i < 3; i++) expect(rcode(await client.ask(question('soa.example', 1)))).toBe(3);
    for (let i = 0; i < 3; i++) expect(rcode(await client.ask(question('bare.example', 1)))).toBe(3);
    expect(server.seen.map(({ name }) => name)).toEqual([
      'soa.example',
      'bare.example',
      'bare.example',
      'bare.example',
    ]);
  });

  test('a server that knows no EDNS is asked without it', async () => {
    const server = await upstream((seen) => [
      seen.edns ? answerTo(seen, { flags: 0x8181, opt: false }) : answerTo(seen, { records: [addressRecord(9)] }),
    ]);
    const { client } = box([server.text]);
    expect(lastOctet(await client.ask(question('a.example', 1)))).toBe(9);
  });

  test('questions at once for one name are one question', async () => {
    const server = await upstream(async (seen) => {
      await new Promise((resolve) => setTimeout(resolve, 150));
      return [answerTo(seen, { records: [addressRecord(4)] })];
    });
    const { client } = box([server.text]);
    for (let id = 0; id < 50; id++) client.send(question('a.example', 1, { id }));
    const ids = new Set<number>();
    for (let i = 0; i < 50; i++) ids.add((await client.receive())!.readUInt16BE(0));
    expect([ids.size, server.seen.length]).toEqual([50, 1]);
  });
});

describe('servers that fail', () => {
  const good: Script = (seen) => [answerTo(seen, { records: [addressRecord(5)] })];

  test('SERVFAIL and REFUSED lead to the next server; when all fail the last word is passed on and kept for a second', async () => {
    const bad = await upstream((seen) => [answerTo(seen, { flags: 0x8182 })]);
    const refusing = await upstream((seen) => [answerTo(seen, { flags: 0x8185 })]);
    const fine = await upstream(good);
    expect(lastOctet(await box([bad.text, refusing.text, fine.text]).client.ask(question('a.example', 1)))).toBe(5);
    const { client } = box([bad.text, refusing.text]);
    const before = bad.seen.length;
    expect(rcode(await client.ask(question('b.example', 1)))).toBe(5);
    expect(rcode(await client.ask(question('b.example', 1)))).toBe(5);
    expect(bad.seen.length - before).toBe(1);
  });

  test('a silent server costs two seconds once, then it is asked last', async () => {
    const silent = await upstream(() => []);
    const fine = await upstream(good);
    const { client } = box([silent.text, fine.text]);
    const begun = performance.now();
    expect(lastOctet(await client.ask(question('a.example', 1), within(4000)))).toBe(5);
    expect(performance.now() - begun).toBeGreaterThan(1900);
    const again = performance.now();
    expect(lastOctet(await client.ask(question('b.example', 1), within(4000)))).toBe(5);
    expect(performance.now() - again).toBeLessThan(within(1000));
    expect(silent.seen.length).toBe(1);
  });

  test('a server where nobody listens costs nothing', async () => {
    const gone = await upstream(good);
    gone.close();
    opened.splice(opened.indexOf(gone), 1);
    const fine = await upstream(good);
    const { client } = box([gone.text, fine.text]);
    const begun = performance.now();
    expect(lastOctet(await client.ask(question('a.example', 1)))).toBe(5);
    expect(performance.now() - begun).toBeLessThan(within(1000));
  });

  test(
    'when nobody answers, SERVFAIL comes after five seconds, and owned names are answered all the while',
    async () => {
      const silent = await upstream(() => []);
      const { client, server } = box([silent.text]);
      const begun = performance.now();
      // One sandbox may have 256 questions waiting; the others are told so at once.
      for (let id = 0; id < 300; id++) client.send(question(`n${id}.example`, 1, { id }));
      let refused = 0;
      for (let i = 0; i < 44; i++) if (rcode(await client.receive()) === 2) refused++;
      expect(refused).toBe(44);
      expect(server.load.waiting).toBe(256);
      expect(performance.now() - begun).toBeLessThan(within(3000));
      expect(count(await client.ask(question('own', 1)))).toBe(1);
      for (let i = 0; i < 256; i++) expect(rcode(await client.receive(within(9000)))).toBe(2);
      expect(performance.now() - begun).toBeGreaterThan(4900);
      expect(server.load).toMatchObject({ waiting: 0, asking: 0 });
      expect(silent.seen.length).toBe(3 * 256);
    },
    within(30_000),
  );
});

test(
  'a loop through a sandbox ends, is found out, and its server is left alone',
  async () => {
    const errors: unknown[] = [];
    const logger = { error: (fields: unknown) => errors.push(fields), warn() {}, info() {}, debug() {} } as never;
    let relay: RawClient | undefined;
    // An upstream that asks what it is asked at 127.0.0.11 of a sandbox.
    const looping = await upstream(async (seen) => {
      const answer = await relay!.ask(question(seen.name, seen.type, { id: seen.id }), within(4000));
      return answer ? [answer] : [];
    });
    const server = place.server({ resolvers: [looping.text], logger });
    const one = box([], 'client', server);
    relay = box([], 'relay', server).client;
    const begun = performance.now();
    expect(rcode(await one.client.ask(question('round.example', 1), within(9000)))).toBe(2);
    expect(performance.now() - begun).toBeLessThan(within(7000));
    // Asked three times in five seconds, each time once round.
    expect(looping.seen.filter(({ name }) => name === 'round.example').length).toBeLessThanOrEqual(3);
    await expect.poll(() => errors.length, { timeout: within(3000) }).toBe(1);
    expect(errors[0]).toMatchObject({ server: looping.text, sandbox: 'relay' });
    const before = looping.seen.length;
    expect(rcode(await one.client.ask(question('again.example', 1)))).toBe(2);
    expect(looping.seen.length).toBe(before);
  },
  within(20_000),
);

test(
  'the host’s resolv.conf is followed, whether it is rewritten, replaced or missing',
  async () => {
    const one = await upstream((seen) => [answerTo(seen, { records: [addressRecord(1, 0)] })]);
    const two = await upstream((seen) => [answerTo(seen, { records: [addressRecord(2, 0)] })]);
    const dir = mkdtempSync(join(tmpdir(), `sluice-dns-${process.pid}-`));
    opened.push({ close: () => rmSync(dir, { recursive: true }) });
    const path = join(dir, 'resolv.conf');
    writeFileSync(path, `nameserver ${one.text}\n`);
    const server = place.server({ hostFiles: { path, behindStub: join(dir, 'none') } });
    let changes = 0;
    server.onResolversChange(() => changes++);
    const { client } = box([], 'box', server);
    const ask = async (): Promise<number | undefined> => lastOctet(await client.ask(question('a.example', 1)));
    expect(await ask()).toBe(1);
    writeFileSync(`${path}.new`, `search lan\nnameserver ${two.text}\n`);
    renameSync(`${path}.new`, path);
    await expect.poll(ask, { timeout: within(4000) }).toBe(2);
    writeFileSync(path, `nameserver ${one.text}\n`);
    await expect.poll(ask, { timeout: within(4000) }).toBe(1);
    expect(changes).toBe(2);
  },
  within(15_000),
);
