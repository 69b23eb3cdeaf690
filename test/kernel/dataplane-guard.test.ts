/** What an endpoint may send: packet tables through BPF_PROG_TEST_RUN, no device involved. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { Identity } from '../../src/balancer/identity.ts';
import { DROP_REASONS, VERDICT_PASS } from '../../src/balancer/maps/layout.ts';
import { testRun } from '../../src/kernel/bpf/bpf.ts';
import { BpfObject } from '../../src/kernel/bpf/object.ts';
import { linkLocalOf } from '../../src/model/ip.ts';
import { idOf, objectDir } from './dataplane-bed.ts';
import {
  arp,
  authentication,
  ETHERTYPE,
  ethernet,
  extension,
  fragment,
  icmpv6,
  ipv4,
  ipv6,
  MAC,
  neighbour,
  OTHER_MAC,
  option,
  udp,
} from './dataplane-frame.ts';

const { ipv4: V4, ipv6: V6, arp: ARP } = ETHERTYPE;
const OWN4 = '10.77.0.10';
const OWN6 = 'fd77::10';
const LOCAL = linkLocalOf(MAC);
const TCP = 6;
const ICMPV6 = 58;
const TC_ACT_SHOT = 2;

execFileSync('sh', [join(import.meta.dirname, '../../src/bpf/build.sh')]);
const object = new BpfObject(join(objectDir, 'guard.o'));
object.load(new Map());
afterAll(() => object.close());
const identity = new Identity((name) => object.mapFd(name));
const program = object.programs().get('from_sandbox')!;

const endpoint = {
  id: idOf(1),
  number: 1,
  hostIfindex: 7,
  mac: MAC,
  addresses: [OWN4, OWN6],
  allow: [] as string[],
  spoof: false,
};
identity.ensureEndpoint(endpoint);
identity.ensureEndpoint({ ...endpoint, id: idOf(2), number: 2, allow: ['192.0.2.0/24', '2001:db8::/32'] });
identity.ensureEndpoint({ ...endpoint, id: idOf(3), number: 3, spoof: true });
const many = ['10.77.0.10', '10.77.0.11', '10.77.0.12', 'fd77::10', 'fd77::11', '10.77.0.13'];
identity.ensureEndpoint({ ...endpoint, id: idOf(4), number: 4, addresses: many });

/** Runs the guard as the attachment of that number; the drop's reason, or `pass`. */
function judge(frame: Buffer, number = 1): string {
  const context = Buffer.alloc(192);
  context.writeUInt32LE(number, 48);
  const before = identity.counters(idOf(number)).drops;
  const { verdict } = testRun(program, frame, context);
  const after = identity.counters(idOf(number)).drops;
  const counted = DROP_REASONS.filter((reason) => after[reason] !== before[reason]);
  if (verdict === VERDICT_PASS) {
    expect(counted).toEqual([]);
    return 'pass';
  }
  expect(verdict).toBe(TC_ACT_SHOT);
  return counted.join('+') || 'uncounted';
}

const table = (rows: readonly (readonly [what: string, frame: Buffer, verdict: string, number?: number])[]): void => {
  for (const [what, frame, verdict, number] of rows)
    test(`${what}: ${verdict}`, () => expect(judge(frame, number)).toBe(verdict));
};

describe('ethernet', () => {
  table([
    ['another source MAC', ethernet(V4, ipv4({ source: OWN4 }), OTHER_MAC), 'source-mac'],
    [
      'a VLAN tag',
      ethernet(ETHERTYPE.vlan, Buffer.concat([Buffer.from([0, 1, 8, 0]), ipv4({ source: OWN4 })])),
      'vlan',
    ],
    [
      'a provider`s tag',
      ethernet(ETHERTYPE.qinq, Buffer.concat([Buffer.from([0, 1, 8, 0]), ipv4({ source: OWN4 })])),
      'vlan',
    ],
    ['another ethertype', ethernet(0x88cc, Buffer.alloc(46)), 'ethertype'],
    ['802.3 with LLC, as spanning tree', ethernet(38, Buffer.alloc(46, 0x42)), 'ethertype'],
    ['an attachment that nobody knows', ethernet(V4, ipv4({ source: OWN4 })), 'uncounted', 99],
  ]);
});

describe('ipv4', () => {
  const dhcp = { source: '0.0.0.0', destination: '255.255.255.255' };
  table([
    ['its own address', ethernet(V4, ipv4({ source: OWN4 })), 'pass'],
    ['its own address, with options', ethernet(V4, ipv4({ source: OWN4, options: Buffer.alloc(8, 1) })), 'pass'],
    ['a later fragment of its own', ethernet(V4, ipv4({ source: OWN4, fragment: 100 })), 'pass'],
    ['a neighbour`s address', ethernet(V4, ipv4({ source: '10.77.0.11' })), 'source-ip'],
    ['loopback', ethernet(V4, ipv4({ source: '127.0.0.1' })), 'source-ip'],
    ['the broadcast address', ethernet(V4, ipv4({ source: '255.255.255.255' })), 'source-ip'],
    ['DHCP from nowhere', ethernet(V4, ipv4({ ...dhcp, payload: udp(68, 67) })), 'pass'],
    [
      'DHCP from nowhere, with IP options',
      ethernet(V4, ipv4({ ...dhcp, options: Buffer.alloc(4, 1), payload: udp(68, 67) })),
      'pass',
    ],
    ['a DHCP server`s answer', ethernet(V4, ipv4({ ...dhcp, payload: udp(67, 68) })), 'source-ip'],
    ['other UDP from nowhere', ethernet(V4, ipv4({ ...dhcp, payload: udp(68, 53) })), 'source-ip'],
    ['TCP from nowhere', ethernet(V4, ipv4({ ...dhcp, protocol: TCP, payload: udp(68, 67) })), 'source-ip'],
    [
      'a fragment that looks like DHCP',
      ethernet(V4, ipv4({ ...dhcp, fragment: 1, payload: udp(68, 67) })),
      'source-ip',
    ],
    [
      'the first fragment of DHCP',
      ethernet(V4, ipv4({ ...dhcp, fragment: 0x2000, payload: udp(68, 67) })),
      'source-ip',
    ],
    ['DHCP cut short', ethernet(V4, ipv4({ ...dhcp, payload: Buffer.from([0, 68]) })), 'malformed'],
    ['another version', ethernet(V4, ipv4({ source: OWN4, version: 6 })), 'malformed'],
    ['a header length below the least', ethernet(V4, ipv4({ source: OWN4, words: 4 })), 'malformed'],
    ['a CIDR that it is allowed', ethernet(V4, ipv4({ source: '192.0.2.77' })), 'pass', 2],
    ['outside of what it is allowed', ethernet(V4, ipv4({ source: '192.0.3.1' })), 'source-ip', 2],
    ['what another is allowed', ethernet(V4, ipv4({ source: '192.0.2.77' })), 'source-ip'],
    ['its sixth address', ethernet(V4, ipv4({ source: '10.77.0.13' })), 'pass', 4],
    ['its fifth address', ethernet(V6, ipv6({ source: 'fd77::11' })), 'pass', 4],
    ['beyond its sixth', ethernet(V4, ipv4({ source: '10.77.0.14' })), 'source-ip', 4],
  ]);
});

describe('arp', () => {
  table([
    ['a request of its own', ethernet(ARP, arp({ sender: OWN4, target: '10.77.0.1' })), 'pass'],
    ['a reply of its own', ethernet(ARP, arp({ operation: 2, sender: OWN4, target: '10.77.0.1' })), 'pass'],
    ['gratuitous, of its own', ethernet(ARP, arp({ sender: OWN4, target: OWN4 })), 'pass'],
    ['a probe for its own address', ethernet(ARP, arp({ sender: '0.0.0.0', target: OWN4 })), 'pass'],
    ['a probe for another`s', ethernet(ARP, arp({ sender: '0.0.0.0', target: '10.77.0.1' })), 'arp'],
    ['a claim of the gateway', ethernet(ARP, arp({ operation: 2, sender: '10.77.0.1', target: OWN4 })), 'arp'],
    ['another sender MAC', ethernet(ARP, arp({ senderMac: OTHER_MAC, sender: OWN4, target: '10.77.0.1' })), 'arp'],
    [
      'another source MAC on the wire',
      ethernet(ARP, arp({ sender: OWN4, target: '10.77.0.1' }), OTHER_MAC),
      'source-mac',
    ],
    ['other hardware', ethernet(ARP, arp({ hardware: 6, sender: OWN4, target: '10.77.0.1' })), 'malformed'],
    ['cut short', ethernet(ARP, arp({ sender: OWN4, target: OWN4 }).subarray(0, 20)), 'malformed'],
    ['a claim of what it is allowed', ethernet(ARP, arp({ sender: '192.0.2.5', target: '10.77.0.1' })), 'pass', 2],
  ]);
});

describe('ipv6', () => {
  const nd = (payload: Buffer, source = OWN6): Buffer => ethernet(V6, ipv6({ source, next: ICMPV6, payload }));
  table([
    ['its own address', ethernet(V6, ipv6({ source: OWN6 })), 'pass'],
    ['its own link-local address', ethernet(V6, ipv6({ source: LOCAL, next: TCP })), 'pass'],
    ['another`s link-local address', ethernet(V6, ipv6({ source: linkLocalOf(OTHER_MAC) })), 'source-ip'],
    ['a neighbour`s address', ethernet(V6, ipv6({ source: 'fd77::11' })), 'source-ip'],
    ['a v4-mapped source on the wire', ethernet(V6, ipv6({ source: '::ffff:10.77.0.11' })), 'source-ip'],
    ['UDP from nowhere', ethernet(V6, ipv6({ source: '::' })), 'source-ip'],
    ['what it is allowed', ethernet(V6, ipv6({ source: '2001:db8:5::1' })), 'pass', 2],
    ['another version', ethernet(V6, ipv6({ source: OWN6, version: 4 })), 'malformed'],
    ['a ping', nd(icmpv6(128)), 'pass'],
    ['a ping from nowhere', nd(icmpv6(128), '::'), 'source-ip'],
    ['ICMPv6 cut short', nd(Buffer.from([135, 0])), 'malformed'],
  ]);

  describe('neighbour discovery', () => {
    table([
      ['a solicitation of another', nd(neighbour(135, 'fd77::1', option(1, MAC))), 'pass'],
      ['… with another`s link-layer address', nd(neighbour(135, 'fd77::1', option(1, OTHER_MAC))), 'ndp'],
      ['an advertisement of itself', nd(neighbour(136, OWN6, option(2, MAC))), 'pass'],
      ['an advertisement of its link-local address', nd(neighbour(136, LOCAL, option(2, MAC)), LOCAL), 'pass'],
      ['an advertisement of the gateway', nd(neighbour(136, 'fd77::1', option(2, MAC))), 'ndp'],
      ['an advertisement with another`s link-layer address', nd(neighbour(136, OWN6, option(2, OTHER_MAC))), 'ndp'],
      ['… hidden behind a first, honest option', nd(neighbour(136, OWN6, option(2, MAC), option(2, OTHER_MAC))), 'ndp'],
      [
        '… hidden behind an unknown option',
        nd(neighbour(136, OWN6, option(14, OTHER_MAC), option(2, OTHER_MAC))),
        'ndp',
      ],
      ['an option of no length', nd(neighbour(136, OWN6, Buffer.alloc(8))), 'malformed'],
      ['an option cut short', nd(neighbour(136, OWN6, Buffer.from([2, 1, 2]))), 'malformed'],
      [
        'a link-layer option that lies of its length',
        nd(neighbour(136, OWN6, Buffer.concat([Buffer.from([2, 2, ...Buffer.alloc(14)])]))),
        'ndp',
      ],
      [
        'more options than anybody sends',
        nd(neighbour(136, OWN6, ...Array.from({ length: 9 }, () => option(14, MAC)))),
        'malformed',
      ],
      ['a solicitation cut short', nd(neighbour(135, OWN6).subarray(0, 12)), 'malformed'],
      ['duplicate detection of its own', nd(neighbour(135, OWN6), '::'), 'pass'],
      ['duplicate detection of its link-local address', nd(neighbour(135, LOCAL), '::'), 'pass'],
      ['duplicate detection of another`s', nd(neighbour(135, 'fd77::1'), '::'), 'ndp'],
      ['an advertisement from nowhere', nd(neighbour(136, OWN6), '::'), 'source-ip'],
      ['a router solicitation', nd(icmpv6(133, Buffer.concat([Buffer.alloc(4), option(1, MAC)]))), 'pass'],
      ['a router solicitation from nowhere', nd(icmpv6(133), '::'), 'pass'],
      ['… with a link-layer address', nd(icmpv6(133, Buffer.concat([Buffer.alloc(4), option(1, MAC)])), '::'), 'ndp'],
      [
        'a router solicitation with another`s link-layer address',
        nd(icmpv6(133, Buffer.concat([Buffer.alloc(4), option(1, OTHER_MAC)]))),
        'ndp',
      ],
      ['a router advertisement', nd(icmpv6(134, Buffer.alloc(12)), LOCAL), 'ndp'],
      ['a redirect', nd(icmpv6(137, Buffer.alloc(36)), LOCAL), 'ndp'],
      ['multicast listener reports from nowhere', nd(icmpv6(143, Buffer.alloc(4)), '::'), 'pass'],
      [
        '… with the router alert they carry',
        ethernet(V6, ipv6({ source: '::', next: 0, payload: extension(ICMPV6, 0, icmpv6(143)) })),
        'pass',
      ],
      ['a multicast query from nowhere', nd(icmpv6(130), '::'), 'source-ip'],
    ]);
  });

  describe('extension headers', () => {
    const advert = icmpv6(134, Buffer.alloc(12));
    const v6 = (next: number, payload: Buffer, source = OWN6): Buffer => ethernet(V6, ipv6({ source, next, payload }));
    const chain = (n: number, payload: Buffer): Buffer =>
      n === 0 ? payload : extension(n === 1 ? ICMPV6 : 60, 0, chain(n - 1, payload));
    table([
      ['a router advertisement behind hop-by-hop', v6(0, extension(ICMPV6, 1, advert)), 'ndp'],
      ['… behind destination options and routing', v6(60, extension(43, 0, extension(ICMPV6, 2, advert))), 'ndp'],
      ['… behind an authentication header', v6(51, authentication(ICMPV6, 4, advert)), 'ndp'],
      ['… behind seven', v6(60, chain(7, advert)), 'ndp'],
      ['… behind more than anybody chains', v6(60, chain(9, advert)), 'malformed'],
      ['… in an atomic fragment', v6(44, fragment(ICMPV6, 0, false, advert)), 'ndp'],
      ['neighbour discovery in a first fragment', v6(44, fragment(ICMPV6, 0, true, neighbour(135, 'fd77::1'))), 'ndp'],
      [
        'a first fragment that hides what it carries',
        v6(44, fragment(60, 0, true, Buffer.from([ICMPV6, 200, 0, 0, 0, 0, 0, 0]))),
        'malformed',
      ],
      ['a first fragment of UDP', v6(44, fragment(17, 0, true, udp(1, 2))), 'pass'],
      ['a later fragment', v6(44, fragment(ICMPV6, 1024, false, advert)), 'pass'],
      ['a later fragment from nowhere', v6(44, fragment(17, 1024, false, advert), '::'), 'source-ip'],
      ['a chain cut short', v6(60, Buffer.from([0])), 'malformed'],
      ['encrypted', v6(50, Buffer.alloc(24)), 'pass'],
      ['no next header', v6(59, Buffer.alloc(0)), 'pass'],
      ['UDP behind hop-by-hop, from nowhere', v6(0, extension(17, 0, udp(1, 2)), '::'), 'source-ip'],
    ]);
  });
});

describe('a router', () => {
  table([
    ['any source', ethernet(V4, ipv4({ source: '203.0.113.9' })), 'pass', 3],
    ['any MAC', ethernet(V4, ipv4({ source: OWN4 }), OTHER_MAC), 'pass', 3],
    ['any ARP', ethernet(ARP, arp({ sender: '10.77.0.1', target: OWN4 })), 'pass', 3],
    ['any ethertype', ethernet(0x88cc, Buffer.alloc(46)), 'pass', 3],
  ]);
});

test('what an endpoint is no longer allowed is dropped, and its own addresses move on', () => {
  const frame = ethernet(V4, ipv4({ source: '198.51.100.7' }));
  const changing = { ...endpoint, id: idOf(5), number: 5, allow: ['198.51.100.0/24', '203.0.113.0/24'] };
  identity.ensureEndpoint(changing);
  expect(judge(frame, 5)).toBe('pass');
  identity.ensureEndpoint({ ...changing, allow: ['203.0.113.0/24'] });
  expect(judge(frame, 5)).toBe('source-ip');
  identity.ensureEndpoint({ ...changing, addresses: ['198.51.100.7'], allow: [] });
  expect(judge(frame, 5)).toBe('pass');
  expect(judge(ethernet(V4, ipv4({ source: OWN4 })), 5)).toBe('source-ip');
  identity.removeEndpoint(changing.id);
  expect(judge(frame, 5)).toBe('uncounted');
});

test('no frame of random bytes does harm, and none with another MAC passes', () => {
  let seed = 1;
  const random = (): number => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    return seed >> 8;
  };
  const types = [V4, V6, ARP];
  for (let round = 0; round < 3000; round++) {
    // The kernel runs no frame shorter than its network header.
    const payload = Buffer.from(Array.from({ length: 40 + (random() % 100) }, () => random() & 255));
    if (round % 2) payload[0] = round % 4 === 1 ? 0x45 : 0x60;
    const frame = ethernet(types[round % 3]!, payload, round % 5 ? MAC : OTHER_MAC);
    const verdict = judge(frame);
    if (round % 5 === 0) expect(verdict).toBe('source-mac');
    else expect(['pass', ...DROP_REASONS]).toContain(verdict);
  }
});
