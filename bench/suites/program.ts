/** What it takes to programme a host with the endpoints of the others, in a real kernel, by what the daemon itself uses. */
import { join } from 'node:path';
import { OverlayDriver } from '../../plugins/overlay/overlay.ts';
import { createEbpfDataplane } from '../../src/balancer/ebpf.ts';
import type { DriverNetwork } from '../../src/contracts/driver.ts';
import type { Member } from '../../src/controller/peer/plan.ts';
import { PeerTable } from '../../src/controller/peer/table.ts';
import { SluiceError } from '../../src/errors.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { createLab } from '../../src/lab/lab.ts';
import { deriveMac } from '../../src/model/id.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';

const PEERS = 10_000;
/** Hosts that have them. */
const HOSTS = 50;

/** Times that all of them are programmed anew. */
const ALL: Amount = { block: 1, warmup: 1, quick: 1 };
/** Single endpoints that come while the others are there: 1,008 in 16 rounds. */
const SINGLE: Amount = { block: 63, warmup: 5, quick: 20 };
const families = { all: ALL, single: SINGLE };

const rows: readonly Row[] = [
  {
    id: 'program/peers-10k/none',
    kind: 'absolute',
    better: 'lower',
    unit: 's',
    family: 'all',
    metric: 'seconds',
    what:
      `${PEERS.toLocaleString('en-US')} endpoints of ${HOSTS} other hosts programmed into an overlay that knows none: dump, difference, ` +
      'forwarding entries of the bridge and of the device, neighbours, stations of the shortcut. A dump afterwards must show every one of them.',
  },
  {
    id: 'program/peer-one-more/none',
    kind: 'absolute',
    better: 'lower',
    unit: 'ms',
    family: 'single',
    metric: 'ms',
    quantile: 0.5,
    what: `one endpoint more, while ${PEERS.toLocaleString('en-US')} are there: from the news to the last answer of the kernel.`,
  },
];

const network: DriverNetwork = {
  id: 'be'.repeat(32),
  name: 'bench',
  subnets: [{ cidr: '10.50.0.0/16', gateway: '10.50.0.1' }],
  internal: false,
  ipv4: true,
  ipv6: false,
  vni: 7_077,
  options: {},
};

function peer(n: number): Member {
  const address = `10.50.${1 + (n >> 8)}.${n & 255}`;
  const id = n.toString(16).padStart(64, '0');
  return { id, revision: n, mac: deriveMac(id, address), addresses: [address], vtep: `198.18.1.${1 + (n % HOSTS)}` };
}

async function open(): Promise<OpenSuite> {
  const lab = await createLab({ name: 'program', hosts: ['a'] });
  const host = lab.host('a');
  const kernel = createKernel({ host: host.netnsPath });
  const { instance, bpffs, cgroupRoot } = host;
  const objectDir = join(projectRoot(), 'dist/bpf');
  const dataplane = createEbpfDataplane({ kernel, instance, bpffs, cgroupRoot, objectDir });
  const close = async (): Promise<void> => {
    dataplane.off();
    kernel[Symbol.dispose]();
    const traces = await lab.close();
    if (traces.length > 0) throw new SluiceError('internal', `the bench left behind: ${traces.join(', ')}`);
  };
  try {
    const underlay = () => ({ address: host.address, port: 4789, ifname: 'eth0', mtu: 1500 });
    const driver = new OverlayDriver({ instance: host.instance, kernel, underlay });
    const { ifindex: bridge, tunnel } = await driver.createNetwork(network);
    const place = { bridge: bridge!, tunnel: tunnel!.ifindex };
    await dataplane.start();
    dataplane.ensureSegment({ id: network.id, number: 1, tunnel: place.tunnel, direct: true });
    const breathe = () => new Promise<void>((resolve) => void setImmediate(resolve));
    const everybody = Array.from({ length: PEERS }, (_, n) => peer(n));
    const { netlink } = kernel.host;
    const parts = { netlink, dataplane };
    const counts = () => ({
      remote: netlink.fdb(place.tunnel).filter(({ table, dst, mac }) => table === 'self' && dst && !/^[0:]+$/.test(mac))
        .length,
      neighbours: netlink.neighbours(place.bridge).filter(({ state }) => state === 0x80).length,
    });
    const ensureCounts = (expected: number): void => {
      const { remote, neighbours } = counts();
      const stations = dataplane.stations(place.tunnel).size;
      if (remote !== expected || neighbours !== expected || stations !== expected)
        throw new SluiceError(
          'internal',
          `${expected} peers are due; the kernel has ${remote}, ${neighbours} neighbours and ${stations} stations`,
        );
    };
    const all: Arm = {
      name: 'ours',
      async block() {
        // A table of its own each time: nothing is remembered of what the kernel has.
        await new PeerTable(place, parts, breathe).sync([], new Set());
        ensureCounts(0);
        const table = new PeerTable(place, parts, breathe);
        const started = performance.now();
        await table.sync(everybody, new Set());
        const seconds = (performance.now() - started) / 1_000;
        ensureCounts(PEERS);
        return { seconds, failed: 0 };
      },
    };
    const single: Arm = {
      name: 'ours',
      async block(times) {
        const table = new PeerTable(place, parts, breathe);
        await table.sync(everybody, new Set());
        const ms: number[] = [];
        for (let n = PEERS; n < PEERS + times; n++) {
          const started = performance.now();
          await table.follow(new Map([[peer(n).id, peer(n)]]));
          ms.push(performance.now() - started);
        }
        ensureCounts(PEERS + times);
        return { ms, failed: 0 };
      },
    };
    return {
      skipped: {},
      given: {
        ours: "the overlay driver's devices in a namespace of the lab, the daemon's own table of peers, one process.",
      },
      arms: { all: [all], single: [single] },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

export const program: Suite = { name: 'program', families, rows, open };
