import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createKernel } from '../../src/kernel/kernel.ts';
import { libc } from '../../src/kernel/libc.ts';
import { inNewNetns, withNetns } from '../../src/kernel/netns.ts';
import { inside, KernelBed, mountsBelow, script, until } from './kernel-bed.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

const here = (): string => readlinkSync('/proc/thread-self/ns/net');
const descriptors = (): number => readdirSync('/proc/self/fd').length;
const MAC = '02:42:0a:01:00:01';

describe('visits', () => {
  test('come back to where they were, one inside another', () => {
    using a = bed.namespace('a');
    using b = bed.namespace('b');
    const [home, inA, inB] = [here(), a.run(here), b.run(here)];
    expect(new Set([home, inA, inB]).size).toBe(3);
    const seen = a.run(() => {
      const before = here();
      const nested = b.run(here);
      // The first use of a client opens its socket, which is a visit of its own.
      b.netlink.links();
      const after = here();
      expect(() => b.run(() => Promise.resolve())).toThrow(TypeError);
      return [before, nested, after, here()];
    });
    expect(seen).toEqual([inA, inB, inA, inA]);
    expect(here()).toBe(home);
  });

  test('come back after an error, and out of a namespace without a name', () => {
    using a = bed.namespace('a');
    const home = here();
    expect(() =>
      a.run(() => {
        throw new Error('inside');
      }),
    ).toThrow('inside');
    expect(here()).toBe(home);
    const [alone, back] = inNewNetns(() => {
      const there = here();
      a.run(here);
      return [there, here()];
    });
    expect(alone).not.toBe(home);
    expect(back).toBe(alone);
    expect(here()).toBe(home);
  });

  test('are refused by a descriptor that is no network namespace, and nothing is run', () => {
    const fd = openSync('/proc/self/ns/mnt', 'r');
    let ran = false;
    expect(() =>
      withNetns(fd, () => {
        ran = true;
      }),
    ).toThrow(expect.objectContaining({ details: expect.objectContaining({ name: 'EINVAL' }) }));
    expect(ran).toBe(false);
    closeSync(fd);
  });

  test('leave all threads of the process at home', () => {
    const home = here();
    for (const task of readdirSync('/proc/self/task'))
      expect(readlinkSync(`/proc/self/task/${task}/ns/net`), task).toBe(home);
  });

  test('end the process when there is no way back', async () => {
    const path = bed.path();
    bed.kernel.namespaces.ensure(path)[Symbol.dispose]();
    const { signal, stdout, stderr } = await script(`
      import { closeSync, existsSync, openSync, readdirSync, readlinkSync } from 'node:fs';
      const { withNetns } = await import('./src/kernel/netns.ts');
      const fd = openSync('${path}', 'r');
      const home = readlinkSync('/proc/self/ns/net');
      withNetns(fd, () => {
        // The listing's own descriptor is in it, and closed by now.
        const open = readdirSync('/proc/self/fd').map((one) => '/proc/self/fd/' + one).filter((path) => existsSync(path));
        for (const path of open) if (readlinkSync(path) === home) closeSync(Number(path.slice('/proc/self/fd/'.length)));
      });
      console.log('went on');`);
    expect(signal).toBe('SIGABRT');
    expect(stdout).toBe('');
    expect(stderr).toContain('cannot return to the network namespace');
  });
});

describe('mounted namespaces', () => {
  test('are those that nsenter and ip see', () => {
    using a = bed.namespace('a');
    a.netlink.ensureBridge('br0', { mac: MAC, mtu: 1500, alias: '' });
    expect(inside(a, 'ip', '-br', 'link')).toMatch(/^br0 /m);
    expect(inside(a, 'readlink', '/proc/self/ns/net').trim()).toBe(a.run(here));
    expect(inside(a, 'ip', '-br', 'addr', 'show', 'lo')).toMatch(/127\.0\.0\.1\/8/);
  });

  test('take over a mount point that lost its mount', () => {
    const path = bed.path();
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, '');
    expect(bed.kernel.namespaces.exists(path)).toBe(false);
    using a = bed.kernel.namespaces.ensure(path);
    expect(bed.kernel.namespaces.exists(path)).toBe(true);
    expect(a.netlink.link('lo')?.up).toBe(true);
  });

  test('are not taken for what else may lie at a path', () => {
    const { namespaces } = bed.kernel;
    const file = bed.path('file');
    writeFileSync(file, '');
    const fifo = bed.path('fifo');
    execFileSync('mkfifo', [fifo]);
    for (const path of [file, fifo, '/proc/self/ns/mnt', '/proc/self/status', bed.dir]) {
      const began = performance.now();
      expect(() => namespaces.open(path), path).toThrow(/no network namespace/);
      expect(performance.now() - began).toBeLessThan(1_000);
    }
    expect(namespaces.exists(file)).toBe(false);
    expect(namespaces.exists('/proc/self/status')).toBe(false);
    expect(namespaces.exists('/proc/self/ns/net')).toBe(true);
    expect(() => namespaces.open(join(file, 'below'))).toThrow(/ENOTDIR/);
    rmSync(file);
    rmSync(fifo);
  });

  test('can be opened by a process`s path, and by one`s own', async () => {
    using a = bed.namespace('a');
    const child = spawn('nsenter', [`--net=${a.path}`, 'sleep', '60'], { stdio: 'ignore' });
    try {
      await until('it is inside', () => readlinkSync(`/proc/${child.pid}/ns/net`) === a.run(here));
      using same = bed.kernel.namespaces.open(`/proc/${child.pid}/ns/net`);
      expect([same.identity, same.cookie]).toEqual([a.identity, a.cookie]);
    } finally {
      child.kill();
    }
    using own = bed.kernel.namespaces.open('/proc/self/ns/net');
    expect(own.identity).toBe(bed.kernel.host.identity);
    expect(own.cookie).toBe(bed.kernel.host.cookie);
  });

  test('end when they are removed, though another mount namespace has a copy', async () => {
    const near = bed.namespace('near');
    const path = bed.path('far');
    const far = bed.kernel.namespaces.ensure(path);
    near.netlink.ensureVeth('v0', {
      mtu: 1500,
      alias: '',
      peer: { name: 'p0', mac: MAC, mtu: 1500, netnsFd: far.fd },
    });
    const other = spawn('unshare', ['--mount', '--propagation', 'slave', 'sleep', '60'], { stdio: 'ignore' });
    const seesIt = () => readFileSync(`/proc/${other.pid}/mountinfo`, 'utf8').includes(path);
    try {
      await until('it has mounts of its own', () => {
        const link = (pid: string | number) => readlinkSync(`/proc/${pid}/ns/mnt`);
        return link(other.pid!) !== link('self') && seesIt();
      });
      far[Symbol.dispose]();
      bed.kernel.namespaces.remove(path);
      expect(seesIt()).toBe(false);
      await until('the namespace ended', () => near.netlink.link('v0') === null);
    } finally {
      other.kill();
      near[Symbol.dispose]();
    }
  });

  test('of several makers at once share one directory mount', async () => {
    const dir = join(bed.dir, 'shared');
    const makers = Array.from({ length: 4 }, (_, i) =>
      script(`
        const { createKernel } = await import('./src/kernel/kernel.ts');
        const kernel = createKernel();
        for (let n = 0; n < 5; n++) kernel.namespaces.ensure('${dir}/${i}-' + n)[Symbol.dispose]();
        console.log('done');`),
    );
    for (const { stdout, stderr } of await Promise.all(makers)) expect(stdout, stderr).toBe('done\n');
    const points = mountsBelow(dir);
    expect(points.filter((point) => point === dir)).toHaveLength(1);
    expect(points.filter((point) => point !== dir)).toHaveLength(20);
    for (const name of readdirSync(dir)) {
      expect(bed.kernel.namespaces.exists(join(dir, name))).toBe(true);
      bed.kernel.namespaces.remove(join(dir, name));
    }
    libc.umount2(dir, 2);
    rmSync(dir, { recursive: true });
  });

  test('of a maker that was killed half-way are finished by the next', async () => {
    const path = bed.path();
    const { signal } = await script(`
      const { createKernel } = await import('./src/kernel/kernel.ts');
      const space = createKernel().namespaces.ensure('${path}');
      space.netlink.setLink(1, { up: false });
      process.kill(process.pid, 'SIGKILL');`);
    expect(signal).toBe('SIGKILL');
    using again = bed.kernel.namespaces.ensure(path);
    expect(again.netlink.link('lo')?.up).toBe(true);
  });
});

describe('descriptors', () => {
  test('are one a namespace, and few sockets for all of them', () => {
    const kernel = createKernel();
    const before = descriptors();
    const spaces = Array.from({ length: 150 }, () => kernel.namespaces.ensure(bed.path()));
    for (const space of spaces) space.netlink.links();
    for (const space of spaces) expect(space.cookie).toBeGreaterThan(0n);
    const open = descriptors() - before;
    expect(open).toBeGreaterThanOrEqual(150);
    expect(open).toBeLessThanOrEqual(150 + 64);
    for (const space of spaces) {
      space[Symbol.dispose]();
      kernel.namespaces.remove(space.path);
    }
    kernel[Symbol.dispose]();
    expect(descriptors()).toBeLessThan(before);
  });

  test('of what is closed are never used again', () => {
    const a = bed.namespace('a');
    const { netlink } = a;
    netlink.links();
    a[Symbol.dispose]();
    for (const use of [() => netlink.links(), () => a.cookie, () => a.setSysctl('net.ipv4.ip_forward', '1')])
      expect(use).toThrow(/it was closed/);
  });

  test('are given back when something cannot be opened', () => {
    const before = descriptors();
    for (let i = 0; i < 10; i++) expect(() => bed.kernel.namespaces.open('/proc/self/ns/mnt')).toThrow();
    expect(descriptors()).toBe(before);
  });
});
