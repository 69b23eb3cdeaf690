import dgram from 'node:dgram';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import type { Namespace } from '../../src/contracts/kernel.ts';
import type { NameServer } from '../../src/contracts/names.ts';
import { FakeNameServer } from '../../src/dns/fake.ts';
import { DnsPlace, inside, RawClient, streamAsk } from '../kernel/dns-place.ts';
import { NAMES_CASES, type NamesUnderTest, namesConformance } from './names.ts';

/** An upstream that answers every question with 192.0.2.53 and remembers it. */
async function upstream(): Promise<{ text: string; names: string[]; close: () => void }> {
  const names: string[] = [];
  const socket = dgram.createSocket('udp4');
  socket.on('message', (message, from) => {
    const labels: string[] = [];
    let at = 12;
    for (let size = message[at]!; size > 0; at += size + 1, size = message[at]!)
      labels.push(message.toString('latin1', at + 1, at + 1 + size));
    names.push(labels.join('.').toLowerCase());
    const answer = Buffer.concat([message.subarray(0, at + 5), Buffer.from('c00c00010001000000000004c0000235', 'hex')]);
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer.writeUInt16BE(1, 6);
    answer.writeUInt16BE(0, 10);
    socket.send(answer, from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return { text: `127.0.0.1:${(socket.address() as AddressInfo).port}`, names, close: () => socket.close() };
}

const place = new DnsPlace();
afterAll(() => place.close());

async function real(): Promise<NamesUnderTest> {
  const outside = await upstream();
  const server = place.server({ resolvers: [outside.text] });
  return {
    server,
    namespace: () => place.namespace(),
    ask: async (namespace, port, message, stream) => {
      if (stream) return streamAsk(namespace, port, message);
      using client = new RawClient(namespace, port);
      return await client.ask(message, 500);
    },
    destroy: async (namespace) => {
      await inside(namespace, ['sh', '-c', 'ss -K -a -u; ss -K -a -t']);
    },
    forwarded: () => outside.names,
    ephemeral: [32_768, 60_999],
    close: async () => {
      await server.close();
      outside.close();
    },
  };
}

let spaces = 0;

function fake(wrap: (server: FakeNameServer) => Partial<NameServer> = () => ({})): NamesUnderTest {
  const inner = new FakeNameServer();
  const server: NameServer = Object.assign(Object.create(inner) as NameServer, bound(inner), wrap(inner));
  return {
    server,
    namespace: () => ({ identity: `fake:${spaces++}`, path: '/fake' }) as Namespace,
    ask: async (namespace, port, message, stream) => inner.ask(namespace, port, message, stream),
    destroy: async (namespace) => inner.destroySockets(namespace),
    forwarded: () => inner.forwarded,
    ephemeral: [32_768, 60_999],
    close: () => inner.close(),
  };
}

const bound = (server: FakeNameServer): NameServer => ({
  ensureSandbox: (sandbox) => server.ensureSandbox(sandbox),
  removeSandbox: (id) => server.removeSandbox(id),
  setView: (view) => server.setView(view),
  changeView: (change) => server.changeView(change),
  removeView: (view) => server.removeView(view),
  audit: () => server.audit(),
  close: () => server.close(),
});

namesConformance('the real one', real);
namesConformance('the fake', async () => fake());

describe('the suite fails on a broken server', () => {
  const broken: Record<string, { wrap: (server: FakeNameServer) => Partial<NameServer>; complains: string }> = {
    'says NXDOMAIN for a missing type': {
      wrap: (server) => ({
        setView: (view) =>
          server.setView({ ...view, records: view.records.filter(({ aaaa }) => aaaa), forward: false }),
      }),
      complains: 'a name that exists in any type',
    },
    'leaks from an internal network': {
      wrap: (server) => ({ setView: (view) => server.setView({ ...view, forward: true }) }),
      complains: 'foreign names are asked upstream',
    },
    'leaks reverse questions': {
      wrap: (server) => ({ setView: (view) => server.setView({ ...view, subnets: [] }) }),
      complains: 'reverse zones',
    },
    'keeps old names': {
      wrap: (server) => {
        const seen: Parameters<NameServer['setView']>[0]['records'][number][] = [];
        return {
          setView: (view) => {
            seen.push(...view.records);
            server.setView({ ...view, records: [...seen] });
          },
        };
      },
      complains: 'a view is replaced at once',
    },
    'changes nothing': { wrap: () => ({ changeView: () => undefined }), complains: 'a view is changed at once' },
    'keeps what is gone': {
      wrap: (server) => ({
        changeView: (change) =>
          server.changeView({ ...change, records: new Map([...change.records].filter(([, record]) => record)) }),
      }),
      complains: 'a view is changed at once',
    },
    'keeps the addresses that come with SRV': {
      wrap: (server) => ({
        changeView: (change) =>
          change.records.has('shop') && change.records.size === 1 ? undefined : server.changeView(change),
      }),
      complains: 'SRV comes with the addresses that its target has now',
    },
    'keeps the names of addresses': {
      wrap: (server) => ({ changeView: (change) => server.changeView({ ...change, reverse: new Map() }) }),
      complains: 'addresses that come and go',
    },
    'makes a view of a change': {
      wrap: (server) => ({
        changeView: (change) => {
          server.setView({ view: change.view, records: [], reverse: new Map(), subnets: [], forward: true });
          server.changeView(change);
        },
      }),
      complains: 'a change makes no view',
    },
    'does not forget a view': { wrap: () => ({ removeView: () => undefined }), complains: 'before its view is there' },
    'answers from an empty view at first': {
      wrap: (server) => ({
        ensureSandbox: (sandbox) => {
          server.setView({ view: sandbox.view, records: [], reverse: new Map(), subnets: [], forward: false });
          return server.ensureSandbox(sandbox);
        },
      }),
      complains: 'before its view is there',
    },
    'has one view for all': {
      wrap: (server) => ({ ensureSandbox: (sandbox) => server.ensureSandbox({ ...sandbox, view: 1 }) }),
      complains: 'each sandbox sees its own view',
    },
    'moves with each ensure': {
      wrap: (server) => {
        let next = 62_000;
        return {
          ensureSandbox: (sandbox) => {
            server.removeSandbox(sandbox.id);
            return server.ensureSandbox({ ...sandbox, port: next++ });
          },
        };
      },
      complains: 'ensuring again keeps the port',
    },
    'takes an ephemeral port': {
      wrap: (server) => ({ ensureSandbox: (sandbox) => server.ensureSandbox({ ...sandbox, port: 40_000 }) }),
      complains: 'ensuring again keeps the port',
    },
    'answers for the removed': { wrap: () => ({ removeSandbox: () => undefined }), complains: 'what is removed' },
    'does not look after its sockets': { wrap: () => ({ audit: () => [] }), complains: 'destroyed sockets come back' },
    'lets the last record win': {
      wrap: (server) => ({ setView: (view) => server.setView({ ...view, records: view.records.toReversed() }) }),
      complains: 'of two records of one name the first counts',
    },
    'knows no PTR': {
      wrap: (server) => ({ setView: (view) => server.setView({ ...view, reverse: new Map() }) }),
      complains: 'reverse zones',
    },
    'drops SRV': {
      wrap: (server) => ({
        setView: (view) => server.setView({ ...view, records: view.records.map(({ srv: _, ...rest }) => rest) }),
      }),
      complains: 'SRV comes with',
    },
    'gives one address only': {
      wrap: (server) => ({
        setView: (view) =>
          server.setView({ ...view, records: view.records.map((one) => ({ ...one, a: one.a?.slice(0, 1) })) }),
      }),
      complains: 'several addresses take turns',
    },
  };

  test.each(Object.keys(broken))('one that %s', async (which) => {
    const { wrap, complains } = broken[which]!;
    const failed: string[] = [];
    for (const [name, run] of Object.entries(NAMES_CASES)) {
      const on = fake(wrap);
      await run(on).catch(() => failed.push(name));
      await on.close();
    }
    expect(
      failed.some((name) => name.startsWith(complains)),
      `complained: ${failed.join('; ') || 'nobody'}`,
    ).toBe(true);
  });
});
