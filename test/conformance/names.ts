/** What every name server does for its sandboxes. Answers are read by dns2, not by the code under test. */
import { Packet } from 'dns2';
import { describe, expect, test } from 'vitest';
import type { Namespace } from '../../src/contracts/kernel.ts';
import type { NameRecord, NameServer, NameView } from '../../src/contracts/names.ts';

export interface NamesUnderTest {
  readonly server: NameServer;
  /** A fresh network namespace. */
  readonly namespace: () => Namespace;
  /** Sends a message to 127.0.0.11 at the port in the namespace; null when there is no answer. */
  readonly ask: (
    namespace: Namespace,
    port: number,
    message: Uint8Array,
    stream: boolean,
  ) => Promise<Uint8Array | null>;
  /** Destroys all sockets of the namespace, as root in it can. */
  readonly destroy: (namespace: Namespace) => Promise<void>;
  /** Lower-cased names that were asked upstream so far. */
  readonly forwarded: () => readonly string[];
  /** First and last port that the namespace gives to outgoing connections. */
  readonly ephemeral: readonly [number, number];
  close(): Promise<void>;
}

const TYPE = { A: 1, PTR: 12, MX: 15, AAAA: 28, SRV: 33, ANY: 255 } as const;

const RECORDS: readonly NameRecord[] = [
  { name: 'api-1', a: ['10.9.0.2'], aaaa: ['fd00:9::2'] },
  { name: 'four', a: ['10.9.0.4'] },
  { name: 'six', aaaa: ['fd00:9::6'] },
  { name: 'shop', a: ['10.9.0.10', '10.9.0.11', '10.9.0.12'] },
  { name: '_http._tcp.shop', srv: [{ priority: 0, weight: 1, port: 8080, target: 'shop' }] },
  { name: 'tasks.idle', a: [], aaaa: [], srv: [] },
];

const view = (parts: Partial<NameView> = {}): NameView => ({
  view: 1,
  records: RECORDS,
  reverse: new Map([
    ['10.9.0.2', 'api-1.web'],
    ['fd00:9::2', 'api-1.web'],
  ]),
  subnets: ['10.9.0.0/24', 'fd00:9::/64'],
  forward: true,
  ...parts,
});

export interface Told {
  readonly rcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly name: string;
  readonly values: readonly string[];
  readonly soa: boolean;
  readonly glue: readonly string[];
}

export function encodeQuestion(name: string, type: number, payload?: number): Buffer {
  const packet = new Packet({ id: 77, rd: 1 } as never);
  packet.questions.push({ name, type, class: 1 } as never);
  if (payload !== undefined) packet.additionals.push(Packet.Resource.EDNS([], { udpPayloadSize: payload }));
  return packet.toBuffer();
}

export function decodeAnswer(bytes: Uint8Array): Told {
  const packet = Packet.parse(Buffer.from(bytes));
  expect(packet.errors).toEqual([]);
  const header = packet.header as unknown as { qr: number; id: number; rcode: number; aa: number; tc: number };
  expect([header.qr, header.id]).toEqual([1, 77]);
  const value = (record: (typeof packet.answers)[number]): string =>
    record.address ?? record.domain ?? `${record.priority} ${record.weight} ${record.port} ${record.target}`;
  const isAddress = (record: (typeof packet.answers)[number]): boolean =>
    record.type === TYPE.A || record.type === TYPE.AAAA;
  return {
    rcode: header.rcode,
    authoritative: header.aa === 1,
    truncated: header.tc === 1,
    name: packet.questions[0]?.name ?? '',
    values: packet.answers.map(value),
    soa: packet.authorities.some((record) => record.type === 6),
    glue: packet.additionals.filter(isAddress).map(value),
  };
}

const NODATA = { rcode: 0, values: [], soa: true, authoritative: true };
const NXDOMAIN = { rcode: 3, values: [], soa: true, authoritative: true };

type Asker = (name: string, type: number, options?: { stream?: boolean; payload?: number }) => Promise<Told>;

/** A sandbox on view 1, and a client in it. */
function box(
  on: NamesUnderTest,
  id = 'one',
): { readonly namespace: Namespace; readonly port: number; readonly ask: Asker } {
  const namespace = on.namespace();
  const port = on.server.ensureSandbox({ id, namespace, view: 1 });
  return {
    namespace,
    port,
    ask: async (name, type, { stream = false, payload } = {}) => {
      const bytes = await on.ask(namespace, port, encodeQuestion(name, type, payload), stream);
      if (bytes === null) throw new Error(`no answer to ${name} ${type}`);
      return decodeAnswer(bytes);
    },
  };
}

/** The cases by name, so that a test can run them against a broken server and see which complain. */
export const NAMES_CASES: Readonly<Record<string, (on: NamesUnderTest) => Promise<void>>> = {
  async 'owned names answer A and AAAA, over UDP and TCP, in the case they were asked in'(on) {
    const { ask } = box(on);
    on.server.setView(view());
    for (const stream of [false, true]) {
      expect(await ask('Api-1', TYPE.A, { stream })).toMatchObject({
        rcode: 0,
        name: 'Api-1',
        values: ['10.9.0.2'],
        authoritative: true,
      });
      expect(await ask('api-1', TYPE.AAAA, { stream })).toMatchObject({ rcode: 0, values: ['fd00:9::2'] });
    }
  },

  async 'a name that exists in any type is NODATA with SOA in the others, and asked nowhere else'(on) {
    const { ask } = box(on);
    on.server.setView(view());
    for (const [name, type] of [
      ['four', TYPE.AAAA],
      ['six', TYPE.A],
      ['four', TYPE.MX],
      ['tasks.idle', TYPE.A],
      ['shop', TYPE.SRV],
      ['_tcp.shop', TYPE.A],
    ] as const)
      expect(await ask(name, type)).toMatchObject(NODATA);
    expect(await ask('_ldap._tcp.shop', TYPE.SRV)).toMatchObject(NXDOMAIN);
    expect(on.forwarded()).toEqual([]);
  },

  async 'several addresses take turns'(on) {
    const { ask } = box(on);
    on.server.setView(view());
    const firsts = new Set<string>();
    for (let i = 0; i < 3; i++) {
      const { values } = await ask('shop', TYPE.A);
      expect([...values].sort()).toEqual(['10.9.0.10', '10.9.0.11', '10.9.0.12']);
      firsts.add(values[0]!);
    }
    expect(firsts.size).toBe(3);
  },

  async 'SRV comes with the addresses of its target, ANY with one set'(on) {
    const { ask } = box(on);
    on.server.setView(view());
    const srv = await ask('_http._tcp.shop', TYPE.SRV);
    expect(srv.values).toEqual(['0 1 8080 shop']);
    expect([...srv.glue].sort()).toEqual(['10.9.0.10', '10.9.0.11', '10.9.0.12']);
    expect((await ask('api-1', TYPE.ANY)).values).toEqual(['10.9.0.2']);
    expect((await ask('six', TYPE.ANY)).values).toEqual(['fd00:9::6']);
  },

  async 'reverse zones of the subnets are ours: PTR, NXDOMAIN for the rest, nothing asked elsewhere'(on) {
    const { ask } = box(on);
    on.server.setView(view());
    expect((await ask('2.0.9.10.in-addr.arpa', TYPE.PTR)).values).toEqual(['api-1.web']);
    const six = `2.${'0.'.repeat(23)}9.0.0.0.0.0.d.f.ip6.arpa`;
    expect((await ask(six, TYPE.PTR)).values).toEqual(['api-1.web']);
    expect(await ask('3.0.9.10.in-addr.arpa', TYPE.PTR)).toMatchObject(NXDOMAIN);
    expect(await ask(`3${six.slice(1)}`, TYPE.PTR)).toMatchObject(NXDOMAIN);
    expect(await ask('2.0.9.10.in-addr.arpa', TYPE.A)).toMatchObject(NODATA);
    expect(on.forwarded()).toEqual([]);
  },

  async 'foreign names are asked upstream, unless every network is internal'(on) {
    const { ask } = box(on);
    on.server.setView(view({ forward: false }));
    expect(await ask('www.example.test', TYPE.A)).toMatchObject(NXDOMAIN);
    expect(await ask('lonely', TYPE.A)).toMatchObject(NXDOMAIN);
    expect(await ask('api-1', TYPE.A)).toMatchObject({ values: ['10.9.0.2'] });
    expect(on.forwarded()).toEqual([]);
    on.server.setView(view());
    await ask('WWW.example.test', TYPE.A);
    expect(on.forwarded()).toEqual(['www.example.test']);
  },

  async 'a view is replaced at once'(on) {
    const { ask } = box(on);
    on.server.setView(view({ forward: false }));
    expect((await ask('four', TYPE.A)).values).toEqual(['10.9.0.4']);
    on.server.setView(view({ records: [{ name: 'five', a: ['10.9.0.5'] }], forward: false }));
    expect(await ask('four', TYPE.A)).toMatchObject(NXDOMAIN);
    expect((await ask('five', TYPE.A)).values).toEqual(['10.9.0.5']);
  },

  async 'a view is changed at once, and nothing else of it'(on) {
    const { ask } = box(on);
    on.server.setView(view({ forward: false }));
    expect((await ask('four', TYPE.A)).values).toEqual(['10.9.0.4']);
    const change = (records: [string, NameRecord | undefined][]): void =>
      on.server.changeView({ view: 1, records: new Map(records), reverse: new Map() });
    change([
      ['four', { name: 'four', a: ['10.9.0.44'] }],
      ['five', { name: 'five', a: ['10.9.0.5'] }],
      ['six', undefined],
      ['never', undefined],
    ]);
    expect((await ask('four', TYPE.A)).values).toEqual(['10.9.0.44']);
    expect((await ask('five', TYPE.A)).values).toEqual(['10.9.0.5']);
    expect(await ask('six', TYPE.AAAA)).toMatchObject(NXDOMAIN);
    expect((await ask('api-1', TYPE.A)).values).toEqual(['10.9.0.2']);
    change([['six', { name: 'six', aaaa: ['fd00:9::66'] }]]);
    expect((await ask('six', TYPE.AAAA)).values).toEqual(['fd00:9::66']);
  },

  async 'a name that has labels in front exists as long as they do'(on) {
    const { ask } = box(on);
    const port = (name: string): NameRecord => ({ name, srv: [{ priority: 0, weight: 1, port: 1, target: 'shop' }] });
    const names = ['_a._tcp.bare', '_b._tcp.bare'];
    on.server.setView(view({ records: names.map(port) }));
    for (const name of names) {
      expect(await ask('_tcp.bare', TYPE.SRV)).toMatchObject(NODATA);
      expect(await ask('_c._tcp.bare', TYPE.SRV)).toMatchObject(NXDOMAIN);
      on.server.changeView({ view: 1, records: new Map([[name, undefined]]), reverse: new Map() });
      expect(on.forwarded()).toEqual([]);
    }
    await ask('_tcp.bare', TYPE.SRV);
    expect(on.forwarded()).toEqual(['_tcp.bare']);
  },

  async 'SRV comes with the addresses that its target has now'(on) {
    const { ask } = box(on);
    on.server.setView(view());
    expect((await ask('_http._tcp.shop', TYPE.SRV)).glue).toHaveLength(3);
    const shop = { name: 'shop', a: ['10.9.0.77'] };
    on.server.changeView({ view: 1, records: new Map([['shop', shop]]), reverse: new Map() });
    expect(await ask('_http._tcp.shop', TYPE.SRV)).toMatchObject({ values: ['0 1 8080 shop'], glue: ['10.9.0.77'] });
  },

  async 'addresses that come and go have names or none, asked before or not'(on) {
    const { ask } = box(on);
    const pointer = (last: number) => ask(`${last}.0.9.10.in-addr.arpa`, TYPE.PTR);
    const change = (reverse: [string, string | undefined][]): void =>
      on.server.changeView({ view: 1, records: new Map(), reverse: new Map(reverse) });
    on.server.setView(view());
    change([['10.9.0.3', 'early.web']]);
    expect((await pointer(3)).values).toEqual(['early.web']);
    expect((await pointer(2)).values).toEqual(['api-1.web']);
    change([
      ['10.9.0.2', undefined],
      ['10.9.0.3', 'other.web'],
      ['10.9.0.4', 'late.web'],
    ]);
    expect(await pointer(2)).toMatchObject(NXDOMAIN);
    expect((await pointer(3)).values).toEqual(['other.web']);
    expect((await pointer(4)).values).toEqual(['late.web']);
  },

  async 'a change makes no view'(on) {
    const { namespace, port } = box(on);
    on.server.changeView({
      view: 1,
      records: new Map([['four', { name: 'four', a: ['10.9.0.4'] }]]),
      reverse: new Map(),
    });
    expect(await on.ask(namespace, port, encodeQuestion('four', TYPE.A), false)).toBeNull();
  },

  async 'of two records of one name the first counts'(on) {
    const { ask } = box(on);
    on.server.setView(
      view({
        records: [
          { name: 'api', a: ['10.9.0.7'] },
          { name: 'api', a: ['10.9.0.8'] },
        ],
      }),
    );
    expect((await ask('api', TYPE.A)).values).toEqual(['10.9.0.7']);
  },

  async 'before its view is there a sandbox gets silence, never NXDOMAIN'(on) {
    const { namespace, port } = box(on);
    expect(await on.ask(namespace, port, encodeQuestion('api-1', TYPE.A), false)).toBeNull();
    on.server.setView(view());
    expect(await on.ask(namespace, port, encodeQuestion('api-1', TYPE.A), false)).not.toBeNull();
    on.server.removeView(1);
    expect(await on.ask(namespace, port, encodeQuestion('api-1', TYPE.A), false)).toBeNull();
  },

  async 'each sandbox sees its own view, known by its socket'(on) {
    const one = box(on, 'one');
    const two = box(on, 'two');
    on.server.setView(view());
    on.server.setView(view({ view: 2, records: [{ name: 'api-1', a: ['10.8.0.1'] }], forward: false }));
    on.server.ensureSandbox({ id: 'two', namespace: two.namespace, view: 2 });
    expect((await one.ask('api-1', TYPE.A)).values).toEqual(['10.9.0.2']);
    expect((await two.ask('api-1', TYPE.A)).values).toEqual(['10.8.0.1']);
    expect(await two.ask('shop', TYPE.A)).toMatchObject(NXDOMAIN);
  },

  async 'ensuring again keeps the port; an earlier life’s is taken when it is free'(on) {
    const { namespace, port } = box(on);
    expect(port < on.ephemeral[0] || port > on.ephemeral[1]).toBe(true);
    expect(on.server.ensureSandbox({ id: 'one', namespace, view: 1 })).toBe(port);
    on.server.removeSandbox('one');
    expect(on.server.ensureSandbox({ id: 'one', namespace, view: 1, port: 62_345 })).toBe(62_345);
    const other = on.server.ensureSandbox({ id: 'other', namespace, view: 1, port: 62_345 });
    expect(other).not.toBe(62_345);
  },

  async 'what is removed answers no more; removing what is absent succeeds'(on) {
    const { namespace, port } = box(on);
    on.server.setView(view());
    on.server.removeSandbox('one');
    on.server.removeSandbox('one');
    on.server.removeView(99);
    expect(await on.ask(namespace, port, encodeQuestion('api-1', TYPE.A), false)).toBeNull();
  },

  async 'destroyed sockets come back, and the audit tells of them once'(on) {
    const { namespace, port, ask } = box(on);
    on.server.setView(view());
    expect(on.server.audit()).toEqual([]);
    await on.destroy(namespace);
    expect(on.server.audit()).toEqual([{ id: 'one', port }]);
    expect(on.server.audit()).toEqual([]);
    for (const stream of [false, true]) expect((await ask('four', TYPE.A, { stream })).values).toEqual(['10.9.0.4']);
  },

  async 'what does not fit is cut and says so; EDNS and TCP carry more'(on) {
    const { ask } = box(on);
    const a = Array.from({ length: 200 }, (_, i) => `10.9.1.${i}`);
    on.server.setView(view({ records: [{ name: 'many', a }] }));
    const plain = await ask('many', TYPE.A);
    const edns = await ask('many', TYPE.A, { payload: 4096 });
    const stream = await ask('many', TYPE.A, { stream: true });
    expect([plain.truncated, edns.truncated, stream.truncated]).toEqual([true, true, false]);
    expect(plain.values.length).toBeGreaterThan(0);
    expect(edns.values.length).toBeGreaterThan(plain.values.length);
    expect(stream.values.length).toBe(200);
  },
};

/** Declares the suite for one implementation; `make` gives a fresh one for each case. */
export function namesConformance(name: string, make: () => Promise<NamesUnderTest>): void {
  describe(`names contract: ${name}`, () => {
    test.each(Object.keys(NAMES_CASES))('%s', async (which) => {
      const on = await make();
      try {
        await NAMES_CASES[which]!(on);
      } finally {
        await on.close();
      }
    });
  });
}
