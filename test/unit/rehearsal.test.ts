/** A driver's verbs over a kernel in which nothing is done: they say what differs. */
import { beforeEach, describe, expect, test } from 'vitest';
import { OverlayDriver } from '../../plugins/overlay/overlay.ts';
import type { DriverEndpoint, DriverNetwork } from '../../src/contracts/driver.ts';
import { Rehearsal } from '../../src/controller/diagnosis/rehearsal.ts';
import { ensureInside } from '../../src/controller/endpoint/inside.ts';
import { ensurePath } from '../../src/controller/firewall/path.ts';
import { createFakeKernel, type FakeKernel } from '../../src/kernel/fake.ts';
import { deriveMac } from '../../src/model/id.ts';

const NETWORK: DriverNetwork = {
  id: 'ab'.repeat(32),
  name: 'mesh',
  subnets: [{ cidr: '10.50.0.0/20', gateway: '10.50.0.1' }],
  internal: false,
  ipv4: true,
  ipv6: false,
  vni: 7001,
  options: {},
};
const [BRIDGE, DEVICE] = ['slabababababab', 'sxabababababab'];
const ENDPOINT: DriverEndpoint = { id: 'cd'.repeat(32), mac: '', addresses: ['10.50.0.9/20'] };
const endpoint = { ...ENDPOINT, mac: deriveMac(ENDPOINT.id, '10.50.0.9') };
const VETH = 'svcdcdcdcdcdcd';

describe('what would be done to the kernel', () => {
  let kernel: FakeKernel;
  const driverOver = (one: FakeKernel | ReturnType<Rehearsal['kernel']>) =>
    new OverlayDriver({
      instance: 't',
      kernel: one,
      underlay: () => ({ address: '192.0.2.1', port: 4789, ifname: 'eth0', mtu: 1500 }),
    });
  /** What differs of the network, and of the endpoint. */
  const differences = async (): Promise<string[]> => {
    const before = kernel.dump();
    const rehearsal = new Rehearsal();
    const driver = driverOver(rehearsal.kernel(kernel));
    await driver.createNetwork(NETWORK);
    if (kernel.host.netlink.link(BRIDGE)) await driver.createEndpoint(NETWORK, endpoint);
    expect(kernel.dump()).toBe(before);
    return rehearsal.differences.map(({ what, want, have }) => `${what}: ${want ?? '-'} ${have ?? '-'}`);
  };
  beforeEach(async () => {
    kernel = createFakeKernel();
    const driver = driverOver(kernel);
    await driver.createNetwork(NETWORK);
    await driver.createEndpoint(NETWORK, endpoint);
  });

  test('nothing, where all is as it should be', async () => {
    expect(await differences()).toEqual([]);
  });

  test('what is missing is said once, without what follows from it', async () => {
    const { netlink } = kernel.host;
    netlink.removeLink(netlink.link(VETH)!.ifindex);
    expect(await differences()).toEqual([`veth ${VETH}: there -`]);
    netlink.removeLink(netlink.link(DEVICE)!.ifindex);
    netlink.removeLink(netlink.link(BRIDGE)!.ifindex);
    expect(await differences()).toEqual([`bridge ${BRIDGE}: there -`, `vxlan ${DEVICE}: there -`]);
  });

  test('each attribute, address, port and forwarding entry that is otherwise', async () => {
    const { netlink } = kernel.host;
    const [bridge, device, veth] = [BRIDGE, DEVICE, VETH].map((name) => netlink.link(name)!.ifindex) as [
      number,
      number,
      number,
    ];
    netlink.removeAddress(bridge, '10.50.0.1/20');
    netlink.setLink(device, { up: false });
    netlink.setLink(veth, { mtu: 1400, master: 0 });
    expect((await differences()).sort()).toEqual(
      [
        `address 10.50.0.1/20 of ${BRIDGE}: there -`,
        `link ${DEVICE}: up down`,
        `MTU of ${VETH}: 1450 1400`,
        `bridge that ${VETH} is a port of: ${BRIDGE} -`,
        `flood of port ${VETH}: off off`,
        `forwarding entry ${endpoint.mac} of ${VETH}: there -`,
        `learning of port ${VETH}: off off`,
      ]
        .filter((line) => !line.endsWith('off off'))
        .sort(),
    );
  });

  test('a device of other ways than wanted, and one of another kind', async () => {
    const { netlink } = kernel.host;
    netlink.removeLink(netlink.link(DEVICE)!.ifindex);
    const more = { mtu: 1450, mac: '02:42:00:00:00:01', alias: `sluice:t:network:${NETWORK.id}` };
    netlink.ensureVxlan(DEVICE, { vni: 7001, port: 4789, local: '192.0.2.99', ttl: 64, df: 'unset', ...more });
    expect(await differences()).toContain(`local of ${DEVICE}: 192.0.2.1 192.0.2.99`);
    netlink.removeLink(netlink.link(DEVICE)!.ifindex);
    netlink.ensureBridge(DEVICE, more);
    await expect(differences()).rejects.toMatchObject({ code: 'kernel.exists' });
  });

  test('inside a sandbox: name, address, gateway, routes; with the command to type there', () => {
    const space = kernel.namespaces.ensure('/run/box');
    space.netlink.ensureVeth('eth0', {
      mtu: 1450,
      mac: endpoint.mac,
      alias: '',
      peer: { name: 'x', mac: '02:00:00:00:00:09', mtu: 1450 },
    });
    const link = () => space.netlink.link('eth0')!;
    const spec = { network: '', sandbox: '', aliases: [], allow: [], gwPriority: 0, ...endpoint };
    const joined = {
      ifprefix: 'eth',
      gateways: ['10.50.0.1'],
      routes: [],
      neighbours: [{ ip: '10.50.0.1', mac: '02:00:00:00:00:01' }],
    };
    const look = () => {
      const rehearsal = new Rehearsal();
      const inside = rehearsal.namespace(space, 'nsenter --net=/run/box ');
      ensureInside(inside, { link: link(), mtu: 1450, endpoint: spec, joined, ipv6: false });
      if (link().up) inside.netlink.ensureRoute({ dst: '0.0.0.0/0', via: '10.50.0.1', link: link().ifindex });
      return rehearsal.differences;
    };
    expect(look().map(({ what }) => what)).toEqual([
      'address 10.50.0.9/20 of eth0',
      'link eth0',
      'neighbour 10.50.0.1 on eth0',
    ]);
    ensureInside(space, { link: link(), mtu: 1450, endpoint: spec, joined, ipv6: false });
    expect(look()).toEqual([
      {
        what: 'route 0.0.0.0/0 via 10.50.0.1 dev eth0',
        want: 'there',
        command: 'nsenter --net=/run/box ip route replace 0.0.0.0/0 via 10.50.0.1 dev eth0',
      },
    ]);
    space[Symbol.dispose]();
  });

  test('a way of its own for a network across hosts', () => {
    const link = kernel.host.netlink.link(BRIDGE)!.ifindex;
    const subnets = [{ cidr: '10.50.0.0/20', pool: '' }];
    const look = () => {
      const rehearsal = new Rehearsal();
      ensurePath(rehearsal.namespace(kernel.host).netlink, { slot: 3, link, subnets });
      return rehearsal.differences.map(({ what }) => what);
    };
    expect(look()).toEqual([
      'rule fwmark 0x300000/0x3ff00000 table 5100003 priority 1090',
      `route 10.50.0.0/20 dev ${BRIDGE} table 5100003`,
    ]);
    ensurePath(kernel.host.netlink, { slot: 3, link, subnets });
    expect(look()).toEqual([]);
  });
});
