/** Diff and trace over whole nodes: each link of a way broken, and named first. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import type { Store } from '../../src/contracts/store.ts';
import { createMemoryStore } from '../../src/store/memory.ts';
import { DiagnosisNode } from './diagnosis-bed.ts';

describe('two nodes and a network across them', () => {
  let store: Store;
  let [a, b]: DiagnosisNode[] = [];
  let client: Awaited<ReturnType<DiagnosisNode['box']>>;
  let server: typeof client;
  let [bridge, device] = ['', ''];
  const wrong = async (to: string) => {
    const { steps, wrong: found } = await a!.controllers.diagnosis.trace({ from: 'client', to });
    return found
      ? `${found.step} ${found.node}: ${found.reason}`
      : steps.map(({ step, node, state }) => `${step} ${node} ${state}`).join(', ');
  };
  const WHOLE =
    'name a ok, source a ok, route a ok, neighbour a ok, forwarding a ok, tunnel a ok, host a ok, answer b ok, tunnel b ok, forwarding b ok, sandbox b ok';
  const differences = async (node: DiagnosisNode) =>
    (await node.controllers.diagnosis.diff({})).items.flatMap(({ kind, differences: all }) =>
      all.map(({ what }) => `${kind}: ${what}`),
    );

  beforeAll(async () => {
    store = createMemoryStore({ clock: systemClock });
    [a, b] = [new DiagnosisNode('a', '192.0.2.1', store), new DiagnosisNode('b', '192.0.2.2', store)];
    for (const node of [a, b]) await node.start();
    const { object } = await a.desired.networks.put('mesh', { driver: 'overlay' });
    [bridge, device] = [`sl${object.id.slice(0, 12)}`, `sx${object.id.slice(0, 12)}`];
    client = await a.box('client', 'mesh');
    server = await b.box('server', 'mesh');
    await vi.waitFor(async () => expect(await wrong('server')).toBe(WHOLE), 5_000);
  });
  afterAll(async () => {
    for (const node of [a, b]) await node?.close();
    await store.close();
  });

  test('differ in nothing, and the way is whole', async () => {
    expect(await differences(a!)).toEqual([]);
    expect(await differences(b!)).toEqual([]);
    expect(await wrong(server.ip)).toBe(WHOLE.replace('name a ok', 'name a unasked'));
    expect((await store.list('question/')).items).toEqual([]);
    expect((await store.list('answer/')).items).toEqual([]);
  });

  test('a forwarding entry, a neighbour, the device', async () => {
    const { netlink } = a!.kernel.host;
    const link = a!.link(device);
    netlink.removeFdb([{ link, mac: server.mac, dst: '192.0.2.2', table: 'self' }]);
    expect(await wrong('server')).toBe(
      `forwarding a: forwarding entry ${server.mac} of ${device} is missing (towards 192.0.2.2)`,
    );
    expect(await differences(a!)).toEqual([`network: forwarding entry ${server.mac} of ${device}`]);
    netlink.ensureFdb([{ link, mac: server.mac, dst: '192.0.2.2', table: 'self' }]);

    netlink.removeNeighbours([{ link: a!.link(bridge), ip: server.ip }]);
    expect(await wrong('server')).toBe(`neighbour a: neighbour ${server.ip} on ${bridge} is missing (${server.mac})`);
    netlink.ensureNeighbours([{ link: a!.link(bridge), ip: server.ip, mac: server.mac }]);

    netlink.setLink(link, { up: false });
    expect(await wrong('server')).toBe(`tunnel a: link ${device} should be up and is down`);
    netlink.setLink(link, { up: true });
    expect(await wrong('server')).toBe(WHOLE);
  });

  test('the veth on the other host, and its entry for the way back', async () => {
    const { netlink } = b!.kernel.host;
    const veth = `sv${server.id.slice(0, 12)}`;
    netlink.setLink(b!.link(veth), { up: false });
    expect(await wrong('server')).toBe(`sandbox b: link ${veth} should be up and is down`);
    expect(await differences(b!)).toContain(`endpoint: link ${veth}`);
    netlink.setLink(b!.link(veth), { up: true });
    netlink.removeFdb([{ link: b!.link(device), mac: client.mac, dst: '192.0.2.1', table: 'self' }]);
    expect(await wrong('server')).toMatch(
      new RegExp(`^forwarding b: forwarding entry ${client.mac} of ${device} is missing`),
    );
    netlink.ensureFdb([{ link: b!.link(device), mac: client.mac, dst: '192.0.2.1', table: 'self' }]);
    expect(await wrong('server')).toBe(WHOLE);
  });

  test("the source's address", async () => {
    using space = a!.inside('client');
    const link = space.netlink.link('eth0')!.ifindex;
    const { cidr } = space.netlink.addresses(link).find((one) => one.cidr.startsWith(client.ip))!;
    space.netlink.removeAddress(link, cidr);
    expect(await wrong('server')).toMatch(new RegExp(`^source a: address ${client.ip}/\\d+ of eth0 is missing`));
    space.netlink.ensureAddress(link, cidr);
    expect(await wrong('server')).toBe(WHOLE);
  });

  test('a host whose kernel is silent; a port that nobody serves; an address that nobody has', async () => {
    a!.echo = false;
    expect(await wrong('server')).toMatch(/^host a: the kernel of b does not answer at 192\.0\.2\.2/);
    a!.echo = true;
    expect(await wrong('server:80')).toBe('port b: nobody in server listens on port 80');
    expect(await wrong(server.ip.replace(/\d+$/, '201'))).toMatch(/^route a: no endpoint of network mesh has/);
    await expect(a!.controllers.diagnosis.trace({ from: 'server', to: 'client' })).rejects.toMatchObject({
      code: 'object.notfound',
      message: expect.stringContaining('is on node b'),
    });
  });

  test('two networks with one VNI, as after a loss of the store: each is told of the other, on both nodes', async () => {
    const mesh = await a!.desired.networks.get('mesh');
    const other = { ...mesh, id: 'e'.repeat(64), name: 'late' };
    const told = async (node: DiagnosisNode, { id }: { readonly id: string }) =>
      (await node.desired.statuses.get('network', id))?.conditions.find(
        ({ type, active }) => type === 'VniTaken' && active,
      )?.message;
    await store.transact([{ op: 'put', key: `network/${other.id}`, value: other }]);
    for (const node of [a!, b!]) {
      await vi.waitFor(async () =>
        expect(await told(node, other)).toContain(`VNI ${mesh.spec.vni} is that of network mesh`),
      );
      node.controllers.auditSoon();
      await vi.waitFor(async () => expect(await told(node, mesh)).toContain('of network late (eeeeeeeeeeee), too'));
    }
    expect(await wrong('server')).toBe(WHOLE);
    await store.transact([{ op: 'delete', key: `network/${other.id}` }]);
    for (const node of [a!, b!]) {
      await vi.waitFor(async () => {
        // One that came before the other network's end was heard of changes nothing.
        node.controllers.auditSoon();
        expect(await told(node, mesh)).toBeUndefined();
      });
    }
  });

  test('a question that is none is refused', async () => {
    await expect(a!.questions.ask('b', 'weather', {})).rejects.toMatchObject({ code: 'request.invalid' });
  });
});
