import { describe, expect, test } from 'vitest';
import { SluiceError } from '../../src/errors.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { findUnderlay, type UnderlaySettings } from '../../src/kernel/netlink/underlay.ts';

const PEER = { name: 'p0', mac: '02:00:00:00:00:02', mtu: 9000 };

function host() {
  const { netlink } = createFakeKernel().host;
  const { ifindex } = netlink.ensureVeth('eth0', { mac: '02:00:00:00:00:01', mtu: 9000, alias: '', peer: PEER });
  netlink.setLink(ifindex, { up: true });
  netlink.ensureAddress(ifindex, '192.0.2.1/24');
  netlink.ensureAddress(ifindex, '2001:db8::1/64', { nodad: true });
  return { netlink, ifindex };
}
const find = (netlink: ReturnType<typeof host>['netlink'], settings: Partial<UnderlaySettings> = {}) =>
  findUnderlay(netlink, { vxlanPort: 4789, ...settings });

describe('the underlay', () => {
  test('is where the default route leaves by, IPv4 first', () => {
    const { netlink } = host();
    netlink.ensureRoute({ dst: '::/0', via: '2001:db8::ff' });
    expect(find(netlink)).toEqual({ address: '2001:db8::1', port: 4789, ifname: 'eth0', mtu: 9000 });
    netlink.ensureRoute({ dst: '0.0.0.0/0', via: '192.0.2.254' });
    expect(find(netlink)).toMatchObject({ address: '192.0.2.1' });
  });

  test('is the address or the interface that the settings name', () => {
    const { netlink } = host();
    expect(find(netlink, { advertise: '2001:DB8:0:0::1' })).toMatchObject({ address: '2001:db8::1', mtu: 9000 });
    expect(find(netlink, { dataPathAddr: 'eth0', advertise: '2001:db8::1' })).toMatchObject({ address: '192.0.2.1' });
    expect(find(netlink, { dataPathAddr: '192.0.2.1', vxlanPort: 8472 })).toMatchObject({ port: 8472 });
  });

  test.each([
    ['no default route', {}, 'default route'],
    ['an address of another host', { advertise: '192.0.2.77' }, '192.0.2.77'],
    ['an interface that is not there', { dataPathAddr: 'eth7' }, 'eth7'],
  ])('is refused for %s', (_, settings, words) => {
    const { netlink } = host();
    try {
      find(netlink, settings);
    } catch (error) {
      expect(error).toBeInstanceOf(SluiceError);
      expect(error).toMatchObject({ code: 'network.underlay', message: expect.stringContaining(words) });
      return;
    }
    throw new Error('was not refused');
  });
});
