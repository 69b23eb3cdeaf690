/** What every kernel does about checksums that devices leave to hardware, and about addresses that nothing but their own packets use. */
import { expect } from 'vitest';
import { isSluiceError } from '../../src/errors.ts';
import type { KernelUnderTest } from './kernel.ts';

const coded =
  (code: 'kernel.notfound' | 'kernel.missing') =>
  (error: unknown): boolean =>
    isSluiceError(error, code);

export const OFFLOAD_CASES: Readonly<Record<string, (on: KernelUnderTest) => void>> = {
  'a device leaves checksums to hardware until it is told otherwise, and only where it can'({ kernel: { host } }) {
    const { netlink } = host;
    const outer = { port: 4789, local: '10.9.0.1', mtu: 1400, alias: 'mark' };
    const one = netlink.ensureVxlan('vx0', { ...outer, vni: 42, mac: '02:42:0a:01:00:01' }).ifindex;
    const two = netlink.ensureVxlan('vx1', { ...outer, vni: 43, mac: '02:42:0a:01:00:02' }).ifindex;
    const state = (): boolean[] => [one, two].map((link) => netlink.txChecksum(link));
    expect(state()).toEqual([true, true]);
    for (let i = 0; i < 2; i++) netlink.setTxChecksum(one, false);
    expect(state()).toEqual([false, true]);
    netlink.setLink(one, { up: true });
    expect(state()).toEqual([false, true]);
    for (let i = 0; i < 2; i++) netlink.setTxChecksum(one, true);
    expect(state()).toEqual([true, true]);
    netlink.setTxChecksum(one, false);
    netlink.removeLink(one);
    const again = netlink.ensureVxlan('vx0', { ...outer, vni: 42, mac: '02:42:0a:01:00:01' }).ifindex;
    expect(netlink.txChecksum(again)).toBe(true);
    expect(() => netlink.txChecksum(4711)).toThrow(expect.toSatisfy(coded('kernel.notfound')));
    expect(() => netlink.setTxChecksum(4711, false)).toThrow(expect.toSatisfy(coded('kernel.notfound')));
    // The loopback has no choice.
    expect(() => netlink.setTxChecksum(1, false)).toThrow(expect.toSatisfy(coded('kernel.missing')));
  },
  'an address is no source unasked when that is wanted'({ kernel: { host } }) {
    const { netlink } = host;
    const { ifindex } = netlink.ensureBridge('br0', { mac: '02:42:0a:01:00:01', mtu: 1400, alias: 'mark' });
    netlink.ensureAddress(ifindex, 'fd00:1::1/64', { nodad: true, deprecated: true });
    netlink.ensureAddress(ifindex, 'fd00:2::1/64', { nodad: true });
    const deprecated = (cidr: string): boolean =>
      ((netlink.addresses(ifindex).find((one) => one.cidr === cidr)?.flags ?? 0) & 0x20) !== 0;
    expect(['fd00:1::1/64', 'fd00:2::1/64'].map(deprecated)).toEqual([true, false]);
  },
};
