import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { largest } from '../../src/cluster/passage.ts';
import type { Kernel } from '../../src/contracts/kernel.ts';
import { Echo } from '../../src/kernel/echo/echo.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';

describe('whether a kernel answers', () => {
  let lab: Lab;
  let kernel: Kernel;
  let echo: Echo;
  beforeAll(async () => {
    lab = await createLab({ name: 'echo', hosts: ['a', 'b'] });
    kernel = createKernel({ host: lab.host('a').netnsPath });
    echo = new Echo(systemClock);
  });
  afterAll(async () => {
    echo[Symbol.dispose]();
    kernel[Symbol.dispose]();
    expect(await lab.close()).toEqual([]);
  });
  /** Asked from host a. */
  const answers = (address: string, timeoutMs = 500, bytes?: number): Promise<boolean | undefined> => {
    let asked!: Promise<boolean | undefined>;
    kernel.host.run(() => {
      asked = echo.answers(address, timeoutMs, bytes);
    });
    return asked;
  };

  test('over IPv4 and IPv6, many at once', async () => {
    const { address, address6 } = lab.host('b');
    expect(await answers(address, 2_000)).toBe(true);
    expect(await answers(address6, 2_000)).toBe(true);
    const many = Array.from({ length: 100 }, (_, n) => answers(n % 2 ? address : address6, 2_000));
    expect((await Promise.all(many)).filter(Boolean)).toHaveLength(100);
  });

  test('whether a packet of a size gets through whole', async () => {
    const host = lab.host('b');
    const { address, address6 } = host;
    for (const to of [address, address6]) {
      expect(await answers(to, 2_000, 1500), to).toBe(true);
      // More than the link itself takes.
      expect(await answers(to, 200, 1501), to).toBe(false);
    }
    // As a switch does that takes less than both ends.
    await host.must(['nft', 'add table netdev narrow']);
    await host.must(['nft', 'add chain netdev narrow in { type filter hook ingress device eth0 priority 0; }']);
    await host.must(['nft', 'add rule netdev narrow in ip length > 1414 drop']);
    // Without the header.
    await host.must(['nft', 'add rule netdev narrow in ip6 length > 1374 drop']);
    for (const to of [address, address6])
      expect(await largest(1280, 1500, async (size) => (await answers(to, 400, size)) === true), to).toBe(1414);
    await host.must(['nft', 'delete table netdev narrow']);
    expect(await answers(address, 2_000, 1500)).toBe(true);
  });

  test('a host that cannot ask says nothing about the other', async () => {
    const { address, address6 } = lab.host('b');
    const a = lab.host('a');
    await a.must('ip route del default');
    expect(await answers('192.0.2.1', 200), 'no route').toBeUndefined();
    await a.must('ip route add default via 198.18.0.1');
    await a.must('ip link set eth0 down');
    expect(await answers(address, 200), 'its own link is down').toBeUndefined();
    expect(await answers(address6, 200), 'its own link is down').toBeUndefined();
    await a.must('ip link set eth0 up');
    await a.must('ip addr replace 2001:db8:18::11/64 dev eth0 nodad');
    await a.must('ip route replace default via 198.18.0.1');
    await expect.poll(() => answers(address, 200), { timeout: 10_000 }).toBe(true);
    await expect.poll(() => answers(address6, 200), { timeout: 10_000 }).toBe(true);
  });

  test('not where nobody is, or behind a host that is down', async () => {
    expect(await answers('198.18.0.99', 200)).toBe(false);
    expect(await answers('2001:db8:18::99', 200)).toBe(false);
    await lab.host('b').must('ip link set eth0 down');
    expect(await answers(lab.host('b').address, 200)).toBe(false);
    await lab.host('b').must('ip link set eth0 up');
    await expect.poll(() => answers(lab.host('b').address, 200), { timeout: 10_000 }).toBe(true);
  });

  test('though every ping of the host is heard by its raw sockets', async () => {
    const { address } = lab.host('b');
    const pinging = lab.host('a').exec(['ping', '-c', '20', '-i', '0.01', '-n', address]);
    expect(await answers('198.18.0.99', 200)).toBe(false);
    expect((await pinging).code).toBe(0);
  });
});
