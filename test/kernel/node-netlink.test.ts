/** The links that the npm package node-netlink dumps are those that our client dumps. In a child process: it parks threads of libuv's pool. */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { needs } from '../needs.ts';
import { inside, KernelBed } from './kernel-bed.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

function installed(name: string): boolean {
  try {
    createRequire(import.meta.url).resolve(name);
    return true;
  } catch {
    // An optional package, which needs a compiler.
    return false;
  }
}

test('node-netlink and our client dump the same links', (context) => {
  needs(context, 'the optional package node-netlink', installed('node-netlink'));
  using space = bed.namespace();
  const { netlink } = space;
  const bridge = netlink.ensureBridge('br0', { mac: '02:42:0a:01:00:01', mtu: 1400, alias: 'mark' });
  for (let i = 0; i < 40; i++) {
    const peer = { name: `p${i}`, mac: `02:42:00:00:01:${(16 + i).toString(16)}`, mtu: 1300 + i };
    const link = netlink.ensureVeth(`v${i}`, { mtu: 1300 + i, alias: 'mark', peer });
    netlink.setLink(link.ifindex, { master: bridge.ifindex, up: i % 2 === 0 });
  }
  const theirs: unknown = JSON.parse(
    inside(space, process.execPath, join(import.meta.dirname, 'node-netlink-dump.ts')),
  );
  expect(netlink.links().map(({ ifindex, name, mtu, mac }) => ({ ifindex, name, mtu, mac }))).toEqual(theirs);
  expect(theirs).toHaveLength(82);
});
