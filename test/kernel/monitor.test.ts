import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { LinkEvent, Namespace } from '../../src/contracts/kernel.ts';
import { check, lastErrno, libc } from '../../src/kernel/libc.ts';
import { openMonitor } from '../../src/kernel/netlink/monitor.ts';
import { pollReadable, sweepPoll } from '../../src/kernel/poll.ts';
import { closeFd, socketAddress, udpSocketIn } from '../../src/kernel/socket-in.ts';
import { inside, KernelBed, script, until } from './kernel-bed.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

const MAC = '02:42:0a:01:00:01';
let space: Namespace;
beforeEach(() => {
  space?.[Symbol.dispose]();
  space = bed.namespace();
});
afterAll(() => space?.[Symbol.dispose]());

const neighbours = (count: number) =>
  Array.from({ length: count }, (_, i) => ({ link: 2, ip: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`, mac: MAC }));

describe('a monitor', () => {
  test('tells what other programs change', async () => {
    const seen: LinkEvent[] = [];
    using _ = bed.kernel.monitor(
      space,
      ['link', 'address', 'route', 'neighbour', 'nft'],
      (event) => seen.push(event),
      () => undefined,
    );
    const told = (type: LinkEvent['type'], removed: boolean) => () =>
      seen.some((event) => event.type === type && event.removed === removed && (type === 'nft' || event.ifindex === 2));
    inside(space, 'ip', 'link', 'add', 'br0', 'up', 'type', 'bridge');
    await until('link', told('link', false));
    inside(space, 'ip', 'addr', 'add', '10.0.0.1/24', 'dev', 'br0');
    inside(space, 'ip', 'addr', 'add', 'fd00::1/64', 'dev', 'br0');
    await until('address', told('address', false));
    await until('route', told('route', false));
    inside(space, 'ip', 'addr', 'del', '10.0.0.1/24', 'dev', 'br0');
    await until('address gone', told('address', true));
    inside(space, 'nft', 'add', 'table', 'inet', 'x');
    await until('nft', told('nft', false));
    inside(space, 'ip', 'link', 'del', 'br0');
    await until('link gone', told('link', true));
  });

  test('that was overrun says so, and goes on', async () => {
    space.netlink.ensureBridge('br0', { mac: MAC, mtu: 1500, alias: '' });
    let events = 0;
    let losses = 0;
    using monitor = openMonitor(
      space,
      ['neighbour'],
      () => events++,
      () => losses++,
      { rcvbuf: 16_384 },
    );
    // In one synchronous stretch: nobody reads meanwhile.
    space.netlink.ensureNeighbours(neighbours(2_000));
    expect(losses).toBe(0);
    await until('the loss is told', () => losses > 0);
    expect(monitor.losses).toBeGreaterThan(0);
    expect(events).toBeGreaterThan(0);
    expect(events + monitor.losses).toBeGreaterThanOrEqual(2_000);
    const [told, before] = [losses, events];
    space.netlink.removeNeighbours(neighbours(10));
    await until('it goes on', () => events >= before + 10);
    expect(losses).toBe(told);
  });

  test('with its usual room keeps up with the creation of 100 links', async () => {
    let events = 0;
    using monitor = bed.kernel.monitor(
      space,
      ['link', 'address', 'nft'],
      () => events++,
      () => undefined,
    );
    for (let i = 0; i < 100; i++)
      space.netlink.ensureVeth(`v${i}`, { mtu: 1500, alias: 'm', peer: { name: `p${i}`, mac: MAC, mtu: 1500 } });
    await until('all are told', () => events >= 200);
    expect(monitor.losses).toBe(0);
  });

  test('counts an nft transaction of thousands of elements as few events', async () => {
    let events = 0;
    using _ = bed.kernel.monitor(
      space,
      ['nft'],
      () => events++,
      () => undefined,
    );
    using nft = bed.kernel.nft(space);
    const elements = Array.from({ length: 3_000 }, (_, i) => 1 + i).join(', ');
    nft.apply(`table inet x {\n set s { type inet_service; elements = { ${elements} } }\n}`);
    await until('it is told', () => events > 0);
    expect(events).toBeLessThan(600);
  });

  test('can be closed from its own callback, twice', async () => {
    let events = 0;
    const monitor = bed.kernel.monitor(
      space,
      ['neighbour'],
      () => {
        events++;
        monitor[Symbol.dispose]();
        monitor[Symbol.dispose]();
      },
      () => undefined,
    );
    space.netlink.ensureBridge('br0', { mac: MAC, mtu: 1500, alias: '' });
    space.netlink.ensureNeighbours(neighbours(50));
    await until('it is told', () => events > 0);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(events).toBe(1);
  });

  test('whose consumer throws does not wedge the process', async () => {
    const { stdout, stderr } = await script(`
      const { createKernel } = await import('./src/kernel/kernel.ts');
      using kernel = createKernel({ host: '${space.path}' });
      let [events, thrown] = [0, 0];
      process.on('uncaughtException', () => thrown++);
      const monitor = kernel.monitor(kernel.host, ['link'], () => { events++; throw new Error('consumer'); }, () => {});
      for (let i = 0; i < 3; i++) {
        kernel.host.netlink.setLink(1, { alias: 'x' + i });
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
      monitor[Symbol.dispose]();
      console.log(events, thrown);`);
    expect(stdout, stderr).toBe('3 3\n');
  });
});

describe('polling without libuv', () => {
  test('finds what is readable, what failed, and ends', async () => {
    const a = udpSocketIn(space, '127.0.0.1', 5001);
    const b = udpSocketIn(space, '127.0.0.1', 5002);
    const reads = { a: 0, b: 0 };
    const drain = (fd: number): number => {
      let count = 0;
      while (Number(libc.recv(fd, Buffer.alloc(16), 16, 0x40)) >= 0) count++;
      return count;
    };
    const watchA = pollReadable(a, () => (reads.a += drain(a)), sweepPoll);
    const watchB = pollReadable(b, () => (reads.b += drain(b)), sweepPoll);
    const send = (port: number): void => {
      const to = socketAddress('127.0.0.1', port);
      check(Number(libc.sendto(a, Buffer.from('x'), 1, 0, to, to.length)), 'sendto');
    };
    send(5001);
    send(5002);
    send(5002);
    await until('both were read', () => reads.a === 1 && reads.b === 2);
    watchA[Symbol.dispose]();
    send(5001);
    send(5002);
    await until('the other was read', () => reads.b === 3);
    expect(reads.a).toBe(1);
    watchB[Symbol.dispose]();

    let told = 0;
    const gone = udpSocketIn(space, '127.0.0.1', 5003);
    using _ = pollReadable(gone, () => told++, sweepPoll);
    closeFd(gone);
    await until('a closed descriptor is told', () => told > 0);
    closeFd(a);
    closeFd(b);
    expect(lastErrno()).toBeDefined();
  });
});
