import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Kernel, Namespace, Netlink } from '../../src/contracts/kernel.ts';
import { createFakeKernel, type FakeKernel } from '../../src/kernel/fake.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { KernelBed } from '../kernel/kernel-bed.ts';
import { KERNEL_CASES, type KernelUnderTest, kernelConformance } from './kernel.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

let count = 0;

async function real(): Promise<KernelUnderTest> {
  const n = count++;
  const paths = new Map<string, string>();
  const path = (name: string): string => {
    if (!paths.has(name)) paths.set(name, bed.path(name));
    return paths.get(name)!;
  };
  const cgroup = join(bed.cgroup, String(n));
  bed.kernel.namespaces.ensure(path('host'))[Symbol.dispose]();
  const kernel = createKernel({ host: path('host') });
  return {
    kernel,
    path,
    cgroup,
    async close() {
      kernel[Symbol.dispose]();
      for (const used of paths.values()) bed.kernel.namespaces.remove(used);
      await bed.kernel.cgroups.remove(cgroup);
    },
  };
}

const fake = (kernel: Kernel): KernelUnderTest => ({
  kernel,
  path: (name) => `/run/netns/${name}`,
  cgroup: '/sys/fs/cgroup/test',
  close: async () => kernel[Symbol.dispose](),
});

kernelConformance('real', real);
kernelConformance('fake', async () => fake(createFakeKernel()));

/** The object with some of its methods replaced. Private fields want the real object as `this`. */
function altered<T extends object>(object: T, change: Partial<T>): T {
  return new Proxy(object, {
    get(target, key) {
      if (key in change) return change[key as keyof T];
      const value = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** A fake in which every namespace's netlink client is altered. */
function withNetlink(change: (netlink: Netlink, namespace: Namespace) => Partial<Netlink>): Kernel {
  const kernel = createFakeKernel();
  const wrap = (namespace: Namespace): Namespace =>
    altered(namespace, { netlink: altered(namespace.netlink, change(namespace.netlink, namespace)) });
  const host = wrap(kernel.host);
  return altered<Kernel>(kernel, {
    host,
    namespaces: altered(kernel.namespaces, {
      host,
      ensure: (path) => wrap(kernel.namespaces.ensure(path)),
      open: (path) => wrap(kernel.namespaces.open(path)),
    }),
  });
}

function broken(change: (kernel: FakeKernel) => Partial<Kernel>): Kernel {
  const kernel = createFakeKernel();
  return altered<Kernel>(kernel, change(kernel));
}

describe('the suite fails on a broken kernel', () => {
  const kernels: Record<string, () => Kernel> = {
    'bridges are not marked': () =>
      withNetlink((netlink) => ({
        ensureBridge: (name, options) => netlink.ensureBridge(name, { ...options, alias: '' }),
      })),
    'the peer is made here, whatever was asked': () =>
      withNetlink((netlink) => ({
        ensureVeth: (name, options) =>
          netlink.ensureVeth(name, { ...options, peer: { ...options.peer, netnsFd: undefined } }),
      })),
    'an existing link is made anew': () =>
      withNetlink((netlink) => ({
        ensureVeth(name, options) {
          const there = netlink.link(name);
          if (there) netlink.removeLink(there.ifindex);
          return netlink.ensureVeth(name, options);
        },
      })),
    'a rule that is there counts as new': () =>
      withNetlink((netlink) => ({
        ensureRule(rule) {
          netlink.ensureRule(rule);
          return true;
        },
      })),
    'removing the absent fails': () =>
      withNetlink((netlink) => ({
        removeLink(link) {
          if (!netlink.link(link)) throw new Error('no such link');
          netlink.removeLink(link);
        },
      })),
    'a removal of many takes others along': () =>
      withNetlink((netlink) => ({
        async removeLinks(links) {
          const groups = links.length > 0 ? netlink.links().filter(({ group }) => group !== 0) : [];
          for (const link of [...links, ...groups.map(({ ifindex }) => ifindex)]) netlink.removeLink(link);
        },
      })),
    'port flags are forgotten': () =>
      withNetlink((netlink) => ({
        setLink: (link, { port: _, ...change }) => netlink.setLink(link, change),
      })),
    'addresses pile up': () =>
      withNetlink((netlink) => ({
        addresses: (link) => netlink.addresses(link).flatMap((address) => [address, address]),
      })),
    'nodad is forgotten': () =>
      withNetlink((netlink) => ({ ensureAddress: (link, cidr) => netlink.ensureAddress(link, cidr) })),
    'every address may be a source': () =>
      withNetlink((netlink) => ({
        ensureAddress: (link, cidr, { nodad } = {}) => netlink.ensureAddress(link, cidr, { nodad }),
      })),
    'checksums are left to hardware for good': () => withNetlink(() => ({ setTxChecksum: () => undefined })),
    'a second gateway is added': () =>
      withNetlink((netlink) => ({
        ensureRoute: (route) => netlink.ensureRoute({ metric: netlink.routes().length + 1, ...route }),
      })),
    'any gateway will do': () =>
      withNetlink((netlink) => ({
        ensureRoute: (route) => netlink.ensureRoute({ ...route, link: route.link ?? 1, onlink: true }),
      })),
    'neighbours age': () =>
      withNetlink((netlink) => ({
        neighbours: (link) => netlink.neighbours(link).map((one) => ({ ...one, state: 2 })),
      })),
    'a batch ends at the first refusal': () =>
      withNetlink((netlink) => ({
        ensureNeighbours: (entries) => {
          for (const entry of entries) netlink.ensureNeighbours([entry]);
        },
      })),
    'a MAC is at every port that it was ever at': () => {
      const ever: Parameters<Netlink['ensureFdb']>[0][number][] = [];
      return withNetlink((netlink) => ({
        ensureFdb(entries) {
          netlink.ensureFdb(entries);
          ever.push(...entries);
        },
        fdb: (link) => [
          ...netlink.fdb(link),
          ...ever
            .filter((entry) => entry.link === link)
            .map((entry) => ({ ...entry, mac: entry.mac.toLowerCase(), ifindex: entry.link, permanent: false })),
        ],
      }));
    },
    'the all-zero entry holds one destination': () =>
      withNetlink((netlink) => ({
        ensureFdb(entries) {
          for (const { link, mac, dst, table } of entries) {
            netlink.removeFdb([{ link, mac, table }]);
            netlink.ensureFdb([{ link, mac, dst, table }]);
          }
        },
      })),
    'a namespace is made anew each time': () =>
      broken((kernel) => ({
        namespaces: altered(kernel.namespaces, {
          ensure(path) {
            kernel.namespaces.remove(path);
            return kernel.namespaces.ensure(path);
          },
        }),
      })),
    'removing an absent namespace fails': () =>
      broken((kernel) => ({
        namespaces: altered(kernel.namespaces, {
          remove(path) {
            kernel.namespaces.open(path)[Symbol.dispose]();
            kernel.namespaces.remove(path);
          },
        }),
      })),
    'a visit takes a promise': () =>
      broken((kernel) => ({
        namespaces: altered(kernel.namespaces, {
          ensure: (path) => altered(kernel.namespaces.ensure(path), { run: (fn) => fn() }),
        }),
      })),
    'settings are the same everywhere': () =>
      broken((kernel) => ({
        namespaces: altered(kernel.namespaces, {
          ensure: (path) =>
            altered(kernel.namespaces.ensure(path), {
              setSysctl: (name, value) => kernel.host.setSysctl(name, value),
              getSysctl: (name) => kernel.host.getSysctl(name),
            }),
        }),
      })),
    'half a transaction is applied': () =>
      broken((kernel) => ({
        nft: (namespace) => {
          const nft = kernel.nft(namespace);
          return altered(nft, {
            apply(ruleset) {
              if (ruleset.includes('{')) nft.apply(ruleset);
              else for (const line of ruleset.split(/[\n;]/)) nft.apply(line);
            },
          });
        },
      })),
    'an absent table is an empty one': () =>
      broken((kernel) => ({
        nft: (namespace) => {
          const nft = kernel.nft(namespace);
          return altered(nft, { list: (what) => nft.list(what) ?? [] });
        },
      })),
    'nft is the host`s alone': () => broken((kernel) => ({ nft: () => kernel.nft() })),
    'a monitor tells of everything': () =>
      broken((kernel) => ({
        monitor: (namespace, _groups, onEvent, onLoss) =>
          kernel.monitor(namespace, ['link', 'address', 'route', 'neighbour', 'nft'], onEvent, onLoss),
      })),
    'a closed monitor goes on': () =>
      broken((kernel) => ({
        monitor: (...args) => altered(kernel.monitor(...args), { [Symbol.dispose]: () => undefined }),
      })),
    'a cgroup has a new number each time': () => {
      let n = 1000n;
      return broken((kernel) => ({ cgroups: altered(kernel.cgroups, { ensure: () => n++ }) }));
    },
    'a removed cgroup stays': () =>
      broken((kernel) => ({ cgroups: altered(kernel.cgroups, { remove: async () => undefined }) })),
    'a port can be held twice': () =>
      broken((kernel) => ({ ports: altered(kernel.ports, { hold: () => ({ [Symbol.dispose]: () => undefined }) }) })),
    'a held port stays held': () =>
      broken((kernel) => ({
        ports: altered(kernel.ports, {
          hold: (...words) => kernel.ports.hold(...words) && { [Symbol.dispose]: () => undefined },
        }),
      })),
    'everything is forgotten, whatever there is': () => broken(() => ({ conntrack: { remove: () => 1 } })),
    'every socket can be destroyed': () =>
      broken((kernel) => ({ sockets: altered(kernel.sockets, { destroy: () => true }) })),
  };

  test.each(Object.keys(kernels))('%s', async (how) => {
    const complaints: string[] = [];
    for (const [which, run] of Object.entries(KERNEL_CASES)) {
      const on = fake(kernels[how]!());
      try {
        await run(on);
      } catch {
        // The complaint that we want.
        complaints.push(which);
      } finally {
        await on.close();
      }
    }
    expect(complaints.length).toBeGreaterThan(0);
    // A defect of one kind is no reason for everything to fail: the cases are about different things.
    expect(complaints.length).toBeLessThan(Object.keys(KERNEL_CASES).length / 2);
  });
});
