/** The pure and the sleepless parts of src/kernel. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import { findCgroup2 } from '../../src/kernel/cgroup.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { errnoName, errnoOf, fsError, kernelError } from '../../src/kernel/libc.ts';
import { type Poll, pollReadable } from '../../src/kernel/poll.ts';
import { sysctlPath } from '../../src/kernel/sysctl.ts';

describe('cgroup v2 in mountinfo', () => {
  const pure = '30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot';
  const hybrid = [
    '30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755',
    '31 30 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu',
    '39 30 0:36 / /sys/fs/cgroup/systemd rw,relatime shared:11 master:2 - cgroup cgroup rw,name=systemd',
    '40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw',
  ].join('\n');
  test.each([
    ['pure', pure, '/sys/fs/cgroup'],
    ['hybrid', hybrid, '/sys/fs/cgroup/unified'],
    ['in a cgroup namespace', pure.replace(' / /sys', ' /../../x /sys'), '/sys/fs/cgroup'],
    ['with a blank in its path', pure.replace('/sys/fs/cgroup', '/mnt/c\\040group\\134'), '/mnt/c group\\'],
    ['without optional fields', pure.replace(' shared:9', ''), '/sys/fs/cgroup'],
    [
      'beside a bind mount of a part',
      `${pure.replace(' / ', ' /part ').replace('/sys/fs/cgroup', '/part')}\n${pure}`,
      '/sys/fs/cgroup',
    ],
    ['v1 alone', hybrid.split('\n').slice(0, 3).join('\n'), null],
    ['a path that only looks like it', pure.replace('- cgroup2 cgroup2', '- tmpfs cgroup2'), null],
    ['nothing', '', null],
    ['garbage', 'a b c\n - \n-', null],
  ])('%s', (_name, text, point) => {
    expect(findCgroup2(text)).toBe(point);
  });
});

describe('sysctl names', () => {
  test.each([
    ['net.ipv4.ip_forward', '/proc/sys/net/ipv4/ip_forward'],
    ['net.ipv6.conf.eth0.accept_ra', '/proc/sys/net/ipv6/conf/eth0/accept_ra'],
    ['net.ipv4.conf.eth0.100.forwarding', '/proc/sys/net/ipv4/conf/eth0.100/forwarding'],
    ['net.ipv4.neigh.default.gc_thresh1', '/proc/sys/net/ipv4/neigh/default/gc_thresh1'],
    ['net.bridge.bridge-nf-call-iptables', '/proc/sys/net/bridge/bridge-nf-call-iptables'],
  ])('%s', (name, path) => {
    expect(sysctlPath(name)).toBe(path);
  });
  test.each(['', 'net', 'kernel.pid_max', 'net..x', 'net.ipv4/x', 'net.ipv4.conf.../x', '../net.x', 'net.\0'])(
    '%j is refused',
    (name) => {
      expect(() => sysctlPath(name)).toThrow(expect.objectContaining({ code: 'request.invalid' }));
    },
  );
});

describe('errors', () => {
  test('an errno has a name, a code and the kernel`s words', () => {
    expect(errnoName(17)).toBe('EEXIST');
    expect(errnoName(524)).toBe('ENOTSUPP');
    expect(errnoName(4095)).toBe('errno 4095');
    const codes = [1, 13, 17, 2, 19, 3, 95, 93, 22, 12].map((errno) => kernelError(errno, 'x').code);
    expect(codes).toEqual([
      'kernel.denied',
      'kernel.denied',
      'kernel.exists',
      'kernel.notfound',
      'kernel.notfound',
      'kernel.notfound',
      'kernel.missing',
      'kernel.missing',
      'kernel.failed',
      'kernel.failed',
    ]);
    const error = kernelError(22, 'set route', 'Nexthop has invalid gateway');
    expect(error.message).toBe('set route: Nexthop has invalid gateway (EINVAL)');
    expect(errnoOf(error)).toBe(22);
    expect([errnoOf(new Error('x')), errnoOf(new SluiceError('internal', 'x'))]).toEqual([0, 0]);
    expect(fsError(error, 'y')).toBe(error);
    expect(fsError(Object.assign(new Error('x'), { errno: -2 }), 'read it')).toMatchObject({
      code: 'kernel.notfound',
      message: 'read it: ENOENT',
    });
  });
});

describe('polling', () => {
  /** libuv's handle as koffi shows it, moved by hand. */
  function handPoll() {
    const state = { starts: 0, closed: false, fire: (_status: number): void => undefined };
    const poll: Poll = (_fd, _options, callback) => {
      state.fire = callback;
      return {
        start: (_again, next) => {
          state.starts++;
          state.fire = next;
        },
        close: () => {
          state.closed = true;
        },
      };
    };
    return { state, poll };
  }

  test('the reader is called outside the callback, once a turn, and not after the end', async () => {
    const { state, poll } = handPoll();
    let calls = 0;
    const watch = pollReadable(7, () => calls++, poll);
    for (let i = 0; i < 3; i++) state.fire(0);
    expect(calls).toBe(0);
    await sleep(1);
    expect(calls).toBe(1);
    state.fire(0);
    watch[Symbol.dispose]();
    await sleep(1);
    expect([calls, state.closed]).toEqual([1, true]);
  });

  test('an error on the descriptor starts the handle again', async () => {
    const { state, poll } = handPoll();
    let calls = 0;
    using _ = pollReadable(7, () => calls++, poll);
    state.fire(-9);
    await sleep(1);
    expect([calls, state.starts]).toEqual([1, 1]);
  });
});

describe('the fake', () => {
  test('fails on demand, as often as asked, and does nothing then', () => {
    using kernel = createFakeKernel();
    const bridge = () => kernel.host.netlink.ensureBridge('br0', { mac: '02:00:00:00:00:01', mtu: 1500, alias: '' });
    kernel.fail('ensureBridge', new SluiceError('kernel.denied', 'no'), 2);
    expect(bridge).toThrow(expect.objectContaining({ code: 'kernel.denied' }));
    expect(bridge).toThrow(expect.objectContaining({ code: 'kernel.denied' }));
    expect(kernel.host.netlink.link('br0')).toBeNull();
    expect(bridge().name).toBe('br0');
    kernel.fail('nft.apply');
    expect(() => kernel.nft().apply('add table inet x')).toThrow(/made to fail/);
    expect(kernel.nft().tables()).toEqual([]);
  });

  test('loses notifications on demand and says so', async () => {
    using kernel = createFakeKernel();
    let events = 0;
    let losses = 0;
    const monitor = kernel.monitor(
      kernel.host,
      ['link'],
      () => events++,
      () => losses++,
    );
    kernel.lose();
    kernel.host.netlink.setLink(1, { alias: 'x' });
    await sleep(5);
    expect([events, losses, monitor.losses]).toEqual([0, 1, 1]);
    kernel.host.netlink.setLink(1, { alias: 'y' });
    await sleep(5);
    expect([events, losses]).toEqual([1, 1]);
  });

  test('takes its turns from the clock', () => {
    const due: (() => void)[] = [];
    const clock = {
      now: () => 0,
      monotonic: () => 0,
      after: (_ms: number, fn: () => void) => {
        due.push(fn);
        return { cancel: () => undefined };
      },
      sleep: async () => undefined,
      turn: async () => undefined,
      random: (n: number) => new Uint8Array(n),
    };
    using kernel = createFakeKernel({ clock });
    let events = 0;
    kernel.monitor(
      kernel.host,
      ['link'],
      () => events++,
      () => undefined,
    );
    kernel.host.netlink.setLink(1, { alias: 'x' });
    expect(events).toBe(0);
    for (const fn of due) fn();
    expect(events).toBe(1);
  });

  test('prints the same for the same', async () => {
    const world = (names: string[]) => {
      const kernel = createFakeKernel();
      for (const name of names) kernel.namespaces.ensure(`/run/${name}`);
      kernel.host.netlink.ensureBridge('br0', { mac: '02:00:00:00:00:01', mtu: 1500, alias: 'mark' });
      kernel.host.setSysctl('net.ipv4.ip_forward', '1');
      kernel.cgroups.ensure('/sys/fs/cgroup/a');
      kernel.cgroups.enter(12, '/sys/fs/cgroup/a');
      kernel.nft().apply('table inet t {\n chain c { accept; }\n}');
      return kernel.dump();
    };
    expect(world(['a', 'b'])).toBe(world(['b', 'a']));
    expect(world(['a'])).toContain('host link name=br0 kind=bridge mac=02:00:00:00:00:01 mtu=1500 ifindex=2 up=true');
    expect(world(['a'])).toContain('cgroup /sys/fs/cgroup/a 12');
  });

  test('has processes and sockets that a test puts there', async () => {
    using kernel = createFakeKernel({ features: { tcx: false } });
    expect(kernel.features.tcx).toBe(false);
    kernel.cgroups.ensure('/sys/fs/cgroup/a/b');
    kernel.cgroups.enter(12, '/sys/fs/cgroup/a/b');
    expect(kernel.cgroups.processes('/sys/fs/cgroup/a')).toEqual([12]);
    await expect(kernel.cgroups.remove('/sys/fs/cgroup/a')).rejects.toMatchObject({ code: 'object.inuse' });
    await kernel.cgroups.remove('/sys/fs/cgroup/a', { kill: true });
    expect(kernel.cgroups.processes('/sys/fs/cgroup/a')).toEqual([]);
    const socket = {
      family: 4 as const,
      protocol: 'tcp' as const,
      state: 1,
      local: '10.0.0.1',
      localPort: 1,
      remote: '10.0.0.2',
      remotePort: 2,
      cookie: 5n,
      storage: new Uint8Array(4),
      inode: 1,
      uid: 0,
    };
    kernel.sockets.add(kernel.host, socket);
    const list = (remotePort: number, storageFd?: number) =>
      kernel.sockets.list(kernel.host, { protocol: 'tcp', remote: '10.0.0.2', remotePort, storageFd });
    expect([list(2, 3)[0]?.storage?.length, list(2)[0]?.storage, list(3)]).toEqual([4, undefined, []]);
    expect(kernel.sockets.destroy(kernel.host, socket)).toBe(true);
    expect(kernel.sockets.destroy(kernel.host, socket)).toBe(false);
  });
});
