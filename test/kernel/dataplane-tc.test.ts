/** The guard and the DNS hand-over on real interfaces, once with lo hardened by tcx links and once by clsact filters alone. */
import { execFileSync } from 'node:child_process';
import { unlinkSync } from 'node:fs';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { trampoline } from '../../src/balancer/attachments.ts';
import type { Dataplane } from '../../src/contracts/dataplane.ts';
import type { Namespace } from '../../src/contracts/kernel.ts';
import {
  ATTACH,
  closeFd,
  linkCreate,
  linkInfo,
  loadClassifier,
  objectGet,
  objectPin,
  programInfo,
} from '../../src/kernel/bpf/bpf.ts';
import { tcAttach, tcDetach, tcQuery } from '../../src/kernel/bpf/tc.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { needs } from '../needs.ts';
import { Bed, type BedSandbox } from './dataplane-bed.ts';
import { arp, ETHERTYPE, ethernet, ipv4, ipv6, OTHER_MAC } from './dataplane-frame.ts';

const DNS_PORT = 25_353;
const { tcx } = createKernel().features;

describe.each(['tcx', 'clsact'] as const)('%s', (mode) => {
  let bed: Bed;
  let plane: Dataplane;
  let a: BedSandbox;
  let b: BedSandbox;

  beforeAll(async () => {
    if (mode === 'tcx' && !tcx) return;
    process.env.SLUICE_TC = mode === 'clsact' ? 'clsact' : '';
    bed = new Bed();
    plane = await bed.start();
    a = bed.sandbox(10, 1, DNS_PORT);
    b = bed.sandbox(11, 1);
    for (const sandbox of [a, b]) {
      plane.ensureSandbox(sandbox);
      plane.ensureEndpoint(sandbox.endpoint);
    }
    // The first audit hardens.
    expect(plane.audit()).toEqual([]);
  });
  afterAll(() => bed?.close());
  beforeEach((context) => needs(context, 'tcx', mode === 'clsact' || tcx));

  const stagesFd = (): number => objectGet(bed.pin('maps', 'stages'))!;
  const drops = (sandbox: BedSandbox) => plane.endpointCounters(sandbox.endpoint.id).drops;
  const tc = (namespace: Namespace, ...argv: string[]): string =>
    execFileSync('nsenter', [`--net=${namespace.path}`, 'tc', ...argv], { encoding: 'utf8' });
  const ping = (from: BedSandbox, to: string): Promise<string> =>
    bed.python(
      from.namespace,
      `import subprocess; say('reached' if subprocess.run(['busybox','ping','-c1','-W1','${to}'],capture_output=True).returncode == 0 else 'lost')`,
    );
  /** Puts frames on the wire as a container with CAP_NET_RAW would. */
  const inject = (from: BedSandbox, ...frames: Buffer[]): Promise<null> =>
    bed.python(
      from.namespace,
      `
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0))
for frame in ${JSON.stringify(frames.map((frame) => frame.toString('hex')))}: s.send(bytes.fromhex(frame))
say(None)`,
    );

  test('says which way it attaches', () => {
    expect(plane.capabilities()).toMatchObject({ form: 'ebpf', tc: mode });
  });

  test('the program on lo is a link where there are links, a filter elsewhere, never both', () => {
    const number = (kind: 'links' | 'progs') => bed.pinned(kind).filter((name) => name.startsWith('lo-')).length;
    expect([number('links'), number('progs')]).toEqual(mode === 'tcx' ? [2, 0] : [0, 2]);
    const filters = tc(a.namespace, 'filter', 'show', 'dev', 'lo', 'egress');
    if (mode === 'tcx') expect(filters).not.toContain('bpf');
    else expect(filters).toContain('bpf');
  });

  const hardened = mode === 'tcx' ? test : undefined;
  hardened?.('hardening that was cut short after the link is completed', () => {
    const name = bed.pinned('links').find((one) => one.startsWith('lo-'))!;
    const program = loadClassifier('left', trampoline(0, stagesFd(), 'dns'));
    objectPin(program, bed.pin('progs', name));
    closeFd(program);
    expect(plane.audit()).toEqual([]);
    expect(bed.pinned('progs').filter((one) => one.startsWith('lo-'))).toEqual([]);
    expect(bed.pinned('links')).toContain(name);
  });

  describe('the guard', () => {
    test('honest traffic passes, IPv4 and IPv6', async () => {
      expect(await ping(a, b.ipv4)).toBe('reached');
      expect(await ping(a, b.ipv6)).toBe('reached');
      expect(await ping(a, '10.77.0.1')).toBe('reached');
      expect(Object.values(drops(a)).every((count) => count === 0)).toBe(true);
    });

    test('what is not its own is dropped and counted by reason', async () => {
      const from = a.mac;
      await inject(
        a,
        ethernet(ETHERTYPE.ipv4, ipv4({ source: b.ipv4 }), from),
        ethernet(ETHERTYPE.ipv4, ipv4({ source: a.ipv4 }), OTHER_MAC),
        ethernet(ETHERTYPE.ipv6, ipv6({ source: b.ipv6 }), from),
        ethernet(ETHERTYPE.arp, arp({ operation: 2, senderMac: from, sender: b.ipv4, target: '10.77.0.1' }), from),
        ethernet(ETHERTYPE.vlan, Buffer.concat([Buffer.from([0, 9, 8, 0]), ipv4({ source: a.ipv4 })]), from),
        ethernet(0x88cc, Buffer.alloc(46), from),
        ethernet(ETHERTYPE.ipv4, Buffer.alloc(12, 0x45), from),
        ethernet(ETHERTYPE.ipv6, Buffer.alloc(30, 0x60), from),
      );
      // From `b`'s own MAC as the wire sees it: one of a's frames bore it.
      expect(drops(a)).toEqual({
        'source-mac': 1,
        'source-ip': 2,
        arp: 1,
        ndp: 0,
        vlan: 1,
        ethertype: 1,
        malformed: 2,
      });
      expect(drops(b)).toMatchObject({ 'source-mac': 0, 'source-ip': 0 });
    });

    test('addresses and flags change in place', async () => {
      const frame = ethernet(ETHERTYPE.ipv4, ipv4({ source: '192.0.2.1', destination: b.ipv4 }), a.mac);
      const count = () => drops(a)['source-ip'];
      const before = count()!;
      await inject(a, frame);
      expect(count()).toBe(before + 1);
      plane.ensureEndpoint({ ...a.endpoint, allow: ['192.0.2.0/24'] });
      await inject(a, frame);
      expect(count()).toBe(before + 1);
      plane.ensureEndpoint({ ...a.endpoint, spoof: true });
      await inject(a, ethernet(ETHERTYPE.ipv4, ipv4({ source: '198.51.100.1' }), OTHER_MAC));
      expect(drops(a)['source-mac']).toBe(1);
      plane.ensureEndpoint(a.endpoint);
      await inject(a, frame);
      expect(count()).toBe(before + 2);
    });
  });

  describe('the hand-over of DNS', () => {
    const daemon = `
import threading
def udp():
    s = socket.socket(socket.AF_INET, UDP); s.bind(('127.0.0.11', ${DNS_PORT})); ready.release()
    while True:
        data, peer = s.recvfrom(4096); s.sendto(b'daemon ' + data, peer)
def tcp():
    s = socket.socket(socket.AF_INET, TCP); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('127.0.0.11', ${DNS_PORT})); s.listen(8); ready.release()
    while True:
        c, _ = s.accept(); c.sendall(b'daemon ' + c.recv(64)); c.close()
ready = threading.Semaphore(0)
for f in (udp, tcp): threading.Thread(target=f, daemon=True).start()
ready.acquire(); ready.acquire()
`;

    test('UDP and TCP reach the daemon`s port and answers come from 53, dual-stack sockets included', async () => {
      const answers = await bed.python<unknown[]>(
        a.namespace,
        `${daemon}
out = []
for address in ('127.0.0.11', '::ffff:127.0.0.11'):
    s = sock(UDP, address); s.sendto(b'q', (address, 53)); data, peer = s.recvfrom(64); out.append([data.decode(), peer[0], peer[1]])
    s = sock(UDP, address); s.connect((address, 53)); s.send(b'q'); out.append([s.recv(64).decode()])
    s = sock(TCP, address); s.connect((address, 53)); s.send(b'q'); out.append([s.recv(64).decode(), s.getpeername()[1]])
s = sock(UDP, '127.0.0.11'); s.sendto(b'x' * 3000, ('127.0.0.11', 53)); out.append([len(s.recv(8192))])
say(out)`,
      );
      expect(answers).toEqual([
        ['daemon q', '127.0.0.11', 53],
        ['daemon q'],
        ['daemon q', 53],
        ['daemon q', '::ffff:127.0.0.11', 53],
        ['daemon q'],
        ['daemon q', 53],
        [3007],
      ]);
    });

    test('a whole checksum stays whole, and none stays none', async () => {
      const answers = await bed.python<string[]>(
        a.namespace,
        `${daemon}
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
out = []
s = sock(UDP, '127.0.0.1'); s.bind(('127.0.0.1', 40053)); raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 17)
for summed in (True, False):
    datagram = struct.pack('!HHHH', 40053, 53, 10, 0) + b'ok'
    pseudo = socket.inet_aton('127.0.0.1') + socket.inet_aton('127.0.0.11') + struct.pack('!BBH', 0, 17, 10)
    if summed: datagram = datagram[:6] + struct.pack('!H', checksum(pseudo + datagram)) + b'ok'
    raw.sendto(datagram, ('127.0.0.11', 0)); out.append(s.recv(64).decode())
wrong = struct.pack('!HHHH', 40053, 53, 10, 0x1234) + b'ok'
raw.sendto(wrong, ('127.0.0.11', 0)); s.settimeout(0.3); out.append(outcome(lambda: s.recv(64).decode()))
say(out)`,
      );
      expect(answers).toEqual(['daemon ok', 'daemon ok', 'timeout']);
    });

    test('nobody on the daemon`s port: refused at once, as port 53', async () => {
      const [udp, tcp] = await bed.python<string[]>(
        a.namespace,
        `
def connected():
    s = sock(UDP, '127.0.0.11'); s.connect(('127.0.0.11', 53)); s.send(b'q'); return s.recv(64).decode()
say([outcome(connected), ask(TCP, '127.0.0.11', 53)])`,
      );
      expect([udp, tcp]).toEqual(['ECONNREFUSED', 'ECONNREFUSED']);
    });

    hardened?.('what a container does to its own lo does not end it', async () => {
      tc(a.namespace, 'qdisc', 'del', 'dev', 'lo', 'clsact');
      expect(
        await bed.python(
          a.namespace,
          `${daemon}
s = sock(UDP, '127.0.0.11'); s.sendto(b'q', ('127.0.0.11', 53)); say(s.recv(64).decode())`,
        ),
      ).toBe('daemon q');
    });

    test('a container`s own port 53 keeps working, on 0.0.0.0 and on 127.0.0.1', async () => {
      const answers = await bed.python<string[]>(
        a.namespace,
        `${daemon}
out = []
for address in ('0.0.0.0', '127.0.0.1'):
    own = sock(UDP, '0.0.0.0'); own.bind((address, 53))
    s = sock(UDP, '127.0.0.1'); s.sendto(b'q', ('127.0.0.1', 53)); data, peer = own.recvfrom(64); own.sendto(b'own ' + data, peer); data, peer = s.recvfrom(64)
    out += [data.decode(), peer[1]]
    s = sock(UDP, '127.0.0.11'); s.sendto(b'q', ('127.0.0.11', 53)); out.append(s.recv(64).decode())
    own.close()
say(out)`,
      );
      expect(answers).toEqual(['own q', 53, 'daemon q', 'own q', 53, 'daemon q']);
    });

    test('without a port nothing is handed over; the port can change', async () => {
      const own = `
own = sock(UDP, '0.0.0.0'); own.bind(('0.0.0.0', 53))
s = sock(UDP, '127.0.0.11'); s.sendto(b'q', ('127.0.0.11', 53)); own.settimeout(0.5); say(outcome(lambda: own.recvfrom(64)[0].decode()))`;
      expect(await bed.python(b.namespace, own)).toBe('q');
      expect(await bed.python(a.namespace, own)).toBe('timeout');
      plane.ensureSandbox({ ...a, dnsPort: 0 });
      expect(await bed.python(a.namespace, own)).toBe('q');
      plane.ensureSandbox(a);
    });
  });

  describe('repair', () => {
    const spoof = async (): Promise<boolean> => {
      const before = drops(a)['source-ip'];
      await inject(a, ethernet(ETHERTYPE.ipv4, ipv4({ source: b.ipv4 }), a.mac));
      return drops(a)['source-ip'] === before! + 1;
    };

    test('an audit finds nothing where nothing is amiss', () => {
      expect(plane.audit()).toEqual([]);
    });

    test('an attachment that was removed is put back', async () => {
      for (const name of bed.pinned('links')) if (name.startsWith('lo-')) unlinkSync(bed.pin('links', name));
      tc(bed.kernel.host, 'qdisc', 'del', 'dev', a.link.name, 'clsact');
      if (mode === 'clsact') tc(a.namespace, 'qdisc', 'del', 'dev', 'lo', 'clsact');
      expect(await spoof()).toBe(false);
      const repairs = plane.audit();
      expect(repairs).toContainEqual(expect.objectContaining({ object: 'endpoint', id: a.endpoint.id }));
      expect(repairs).toContainEqual(expect.objectContaining({ object: 'sandbox', id: a.id }));
      expect(await spoof()).toBe(true);
      expect(plane.audit()).toEqual([]);
    });

    test('a foreign program on the interface is left alone, even where ours would stand', () => {
      const { host } = bed.kernel;
      const { ifindex, name } = b.link;
      const program = loadClassifier('foreign', trampoline(0, stagesFd(), 'dns'));
      const foreign = programInfo(program).id;
      plane.removeEndpoint(b.endpoint.id);
      if (mode === 'tcx') {
        const link = host.run(() => linkCreate(program, ifindex, ATTACH.tcxIngress));
        plane.ensureEndpoint(b.endpoint);
        plane.removeEndpoint(b.endpoint.id);
        expect(linkInfo(link)).toMatchObject({ ifindex, programId: foreign });
        closeFd(link);
      } else {
        plane.ensureEndpoint(b.endpoint);
        const show = (): string => tc(host, 'filter', 'show', 'dev', name, 'ingress');
        const priority = Number(/pref (\d+) bpf/.exec(show())![1]);
        plane.removeEndpoint(b.endpoint.id);
        expect(show()).not.toContain('bpf');
        const hook = { ifindex, direction: 'ingress', priority } as const;
        host.run(() => tcAttach(hook, program));
        plane.ensureEndpoint(b.endpoint);
        expect(show()).toContain(`pref ${priority + 1} bpf`);
        expect(plane.audit()).toEqual([]);
        plane.removeEndpoint(b.endpoint.id);
        expect(host.run(() => tcQuery(hook))).toBe(foreign);
        expect(show()).not.toContain(`pref ${priority + 1} bpf`);
        host.run(() => tcDetach(hook));
      }
      closeFd(program);
      plane.ensureEndpoint(b.endpoint);
    });

    test('a veth made anew is guarded under the same endpoint', async () => {
      const { netlink } = bed.kernel.host;
      const old = bed.sandbox(30);
      plane.ensureSandbox(old);
      plane.ensureEndpoint(old.endpoint);
      netlink.removeLink(old.link.ifindex);
      plane.audit();
      const fresh = bed.sandbox(30);
      plane.ensureEndpoint(fresh.endpoint);
      expect(plane.audit()).toEqual([]);
      await inject(fresh, ethernet(ETHERTYPE.ipv4, ipv4({ source: a.ipv4 }), fresh.mac));
      expect(drops(fresh)['source-ip']).toBe(1);
      plane.removeEndpoint(fresh.endpoint.id);
      plane.removeSandbox(fresh.id);
    });

    test('an endpoint that is removed is neither guarded nor remembered', async () => {
      const gone = bed.sandbox(31);
      plane.ensureSandbox(gone);
      plane.ensureEndpoint(gone.endpoint);
      plane.removeEndpoint(gone.endpoint.id);
      plane.removeEndpoint(gone.endpoint.id);
      plane.removeSandbox(gone.id);
      expect(await ping(gone, b.ipv4)).toBe('reached');
      expect(plane.endpointCounters(gone.endpoint.id).drops['source-ip']).toBe(0);
      const pins = [...bed.pinned('links'), ...bed.pinned('progs')];
      expect(pins.filter((name) => name.includes('-31-') || name.includes('-1031-'))).toEqual([]);
    });

    test('the guard and the hand-over go on while nobody holds the data plane, and are taken up again', async () => {
      const pins = [...bed.pinned('links'), ...bed.pinned('progs')];
      plane.close();
      expect(await ping(a, b.ipv4)).toBe('reached');
      await inject(a, ethernet(ETHERTYPE.ipv4, ipv4({ source: b.ipv4 }), a.mac));
      const second = await bed.start();
      const before = second.endpointCounters(a.endpoint.id).drops['source-ip']!;
      expect(before).toBeGreaterThan(0);
      for (const sandbox of [a, b]) {
        second.ensureSandbox(sandbox);
        second.ensureEndpoint(sandbox.endpoint);
      }
      expect([...bed.pinned('links'), ...bed.pinned('progs')]).toEqual(pins);
      expect(second.audit()).toEqual([]);
      plane = second;
      expect(await spoof()).toBe(true);
    });
  });

  test('off leaves nothing', async () => {
    plane.off();
    expect(bed.pinned('links')).toEqual([]);
    expect(await ping(a, b.ipv4)).toBe('reached');
    const shown = tc(bed.kernel.host, 'filter', 'show', 'dev', a.link.name, 'ingress');
    expect(shown).not.toContain('bpf');
    plane.off();
  });
});
