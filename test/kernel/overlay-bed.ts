/** Hosts of a lab with the overlay driver on each, its peers programmed as a script says: no daemon, no store. */
import { join } from 'node:path';
import { OverlayDriver } from '../../plugins/overlay/overlay.ts';
import { createEbpfDataplane } from '../../src/balancer/ebpf.ts';
import { createFakeDataplane } from '../../src/balancer/fake.ts';
import type { Dataplane } from '../../src/contracts/dataplane.ts';
import type { DriverEndpoint, DriverNetwork, EndpointResult, Underlay } from '../../src/contracts/driver.ts';
import type { Kernel, Namespace } from '../../src/contracts/kernel.ts';
import { ensureInside } from '../../src/controller/endpoint/inside.ts';
import { Guard } from '../../src/controller/firewall/vxlan.ts';
import type { Member } from '../../src/controller/peer/plan.ts';
import { PeerTable } from '../../src/controller/peer/table.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { type Background, type RunResult, runAt, startAt } from '../../src/lab/place.ts';
import { deriveMac } from '../../src/model/id.ts';

export const PORT = 4789;
let endpoints = 0;

export const network = (n: number, more: Partial<DriverNetwork> = {}): DriverNetwork => ({
  id: n.toString(16).padStart(4, '0').repeat(16),
  name: `mesh${n}`,
  subnets: [
    { cidr: '10.50.0.0/20', gateway: '10.50.0.1' },
    { cidr: 'fd00:50::/64', gateway: 'fd00:50::1' },
  ],
  internal: false,
  ipv4: true,
  ipv6: true,
  vni: 7000 + n,
  options: {},
  ...more,
});

export interface Box {
  readonly network: DriverNetwork;
  readonly endpoint: DriverEndpoint;
  readonly namespace: Namespace;
  readonly ip: string;
  readonly ip6: string;
  run(command: string | readonly [string, ...string[]], timeoutMs?: number): Promise<RunResult>;
  spawn(command: string | readonly [string, ...string[]]): Background;
  /** Whether one ping is answered. */
  pings(address: string, ...flags: string[]): Promise<boolean>;
}

export class OverlayHost {
  readonly lab: LabHost;
  readonly kernel: Kernel;
  readonly driver: OverlayDriver;
  readonly underlay: Underlay;
  readonly guard: Guard;
  readonly dataplane: Dataplane;
  readonly #nft: ReturnType<Kernel['nft']>;
  readonly #tables = new Map<string, PeerTable>();
  readonly #boxes: Namespace[] = [];
  readonly #background: Background[] = [];

  /** Without a guard all goes by the bridge, and everything may be sent. */
  constructor(lab: LabHost, { address, mtu, guarded }: { address: string; mtu: number; guarded: boolean }) {
    this.lab = lab;
    this.kernel = createKernel({ host: lab.netnsPath });
    this.underlay = { address, port: PORT, ifname: 'eth0', mtu };
    this.driver = new OverlayDriver({ instance: lab.instance, kernel: this.kernel, underlay: () => this.underlay });
    const { kernel } = this;
    const { instance, bpffs, cgroupRoot } = lab;
    const objectDir = join(projectRoot(), 'dist/bpf');
    this.dataplane = guarded
      ? createEbpfDataplane({ kernel, instance, bpffs, cgroupRoot, objectDir })
      : createFakeDataplane();
    this.#nft = this.kernel.nft();
    this.guard = new Guard(this.#nft, lab.instance);
  }

  /** Frames of the network may go past the bridge, or not. */
  direct(net: DriverNetwork, direct: boolean): number {
    const tunnel = this.kernel.host.netlink.link(`sx${net.id.slice(0, 12)}`)!.ifindex;
    this.dataplane.ensureSegment({ id: net.id, number: 1_000_000 + net.vni!, tunnel, direct });
    return tunnel;
  }

  /** The endpoint's guard and station, by what the driver says of its link. */
  guardAs(net: DriverNetwork, { id, mac, addresses }: DriverEndpoint, link: NonNullable<EndpointResult['link']>): void {
    this.dataplane.ensureEndpoint({
      id,
      number: Number.parseInt(id.slice(0, 8), 16),
      hostIfindex: link.hostIfindex!,
      mac,
      addresses: addresses.map((address) => address.split('/')[0]!),
      allow: [],
      spoof: false,
      tunnel: this.direct(net, true),
      queued: link.hostQueued,
    });
  }

  /** A sandbox with an endpoint of the network; `last` is the host part of its addresses. */
  async box(net: DriverNetwork, last: number): Promise<Box> {
    await this.driver.createNetwork(net);
    const [ip, ip6] = [`10.50.0.${last}`, `fd00:50::${last.toString(16)}`];
    const id = (++endpoints).toString(16).padStart(8, '0').repeat(8);
    const endpoint: DriverEndpoint = { id, mac: deriveMac(id, ip), addresses: [`${ip}/20`, `${ip6}/64`] };
    const path = `${this.lab.netnsPath}-${endpoints}`;
    const namespace = this.kernel.namespaces.ensure(path);
    this.#boxes.push(namespace);
    const { link } = await this.driver.createEndpoint(net, endpoint, path);
    this.guardAs(net, endpoint, link!);
    const joined = await this.driver.join(net, endpoint);
    const inner = namespace.netlink.link(link!.ifindex)!;
    namespace.setSysctl('net.ipv6.conf.default.accept_dad', '0');
    const spec = { network: net.id, sandbox: '', aliases: [], allow: [], gwPriority: 0, ...endpoint };
    ensureInside(namespace, { link: inner, mtu: link!.mtu, endpoint: spec, joined, ipv6: true });
    for (const via of joined.gateways)
      namespace.netlink.ensureRoute({ dst: via.includes(':') ? '::/0' : '0.0.0.0/0', via });
    const place = { netnsPath: path };
    const run: Box['run'] = (command, timeoutMs = 15_000) => runAt(place, command, { timeoutMs });
    return {
      network: net,
      endpoint,
      namespace,
      ip,
      ip6,
      run,
      spawn: (command) => {
        const started = startAt(place, command);
        this.#background.push(started);
        return started;
      },
      pings: async (address, ...flags) =>
        (await run(['ping', '-c', '1', '-W', '1', '-n', ...flags, address])).code === 0,
    };
  }

  async remove({ network: net, endpoint, namespace }: Box): Promise<void> {
    await this.driver.deleteEndpoint(net.id, endpoint.id);
    this.dataplane.removeEndpoint(endpoint.id);
    this.kernel.namespaces.remove(namespace.path);
  }

  table(net: DriverNetwork): PeerTable {
    const known = this.#tables.get(net.id);
    if (known) return known;
    const bridge = this.kernel.host.netlink.link(`sl${net.id.slice(0, 12)}`)!.ifindex;
    const tunnel = this.kernel.host.netlink.link(`sx${net.id.slice(0, 12)}`)!.ifindex;
    const table = new PeerTable(
      { bridge, tunnel },
      { netlink: this.kernel.host.netlink, dataplane: this.dataplane },
      async () => undefined,
    );
    this.#tables.set(net.id, table);
    return table;
  }

  async close(): Promise<void> {
    for (const each of this.#background) await each.stop();
    for (const each of this.#boxes) {
      this.kernel.namespaces.remove(each.path);
      each[Symbol.dispose]();
    }
    this.#nft[Symbol.dispose]();
    this.dataplane.off();
    this.kernel[Symbol.dispose]();
  }
}

export class OverlayBed {
  readonly lab: Lab;
  readonly hosts: readonly OverlayHost[];
  #revision = 1;

  constructor(lab: Lab, hosts: readonly OverlayHost[]) {
    this.lab = lab;
    this.hosts = hosts;
  }

  static async open(
    name: string,
    count: number,
    { family = 4, mtu = 1500, guarded = false }: { family?: 4 | 6; mtu?: number; guarded?: boolean } = {},
  ): Promise<OverlayBed> {
    const names = Array.from({ length: count }, (_, n) => `h${n}`);
    const lab = await createLab({ name, hosts: names, mtu });
    const address = ({ address, address6 }: LabHost) => (family === 4 ? address : address6);
    const hosts = lab.hosts.map((host) => new OverlayHost(host, { address: address(host), mtu, guarded }));
    for (const { dataplane } of hosts) await dataplane.start();
    return new OverlayBed(lab, hosts);
  }

  /** What a host is told of a box on `at`. */
  member({ endpoint }: Box, at: OverlayHost, told: OverlayHost): Member {
    const addresses = endpoint.addresses.map((address) => address.split('/')[0]!);
    const vtep = at === told ? undefined : at.underlay.address;
    return { id: endpoint.id, revision: this.#revision++, mac: endpoint.mac, addresses, vtep };
  }

  /** Tells every host that takes part about every box. */
  async connect(net: DriverNetwork, boxes: ReadonlyMap<Box, OverlayHost>): Promise<void> {
    for (const told of new Set(boxes.values())) {
      const members = [...boxes].map(([box, at]) => this.member(box, at, told));
      await told.table(net).sync(members, new Set());
    }
  }

  async close(): Promise<void> {
    for (const host of this.hosts) await host.close();
    const left = await this.lab.close();
    if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`);
  }
}
