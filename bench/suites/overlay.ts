/** A network across two hosts beside the same made by hand, on the same underlay and in the same rounds. */
import type { Place } from '../../src/lab/place.ts';
import { iperf3, startIperf3 } from '../../src/load/foreign.ts';
import { connect, startServer, udp } from '../../src/load/load.ts';
import { openCluster } from '../cluster.ts';
import { type Pod, placeOfPod, prepareVxlan } from '../peers/vxlan.ts';
import { CPUS, PLACEMENT, placeOf, untilAnswered, WAIT_MS } from '../stage.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';

const NETWORK = 'mesh';
const OURS = { client: '10.79.0.10', server: '10.79.0.11' } as const;
const HAND = { client: '10.89.0.10', server: '10.89.0.11' } as const;
const PORT = { http: 80, echo: 7, iperf3: 5201 } as const;
const NEW_CONCURRENCY = 16;
/** Datagrams a second of the latency row: far below what either can do. */
const LATENCY_RATE = 2_000;

/** Seconds. */
const TRAFFIC: Amount = { block: 3, warmup: 1, quick: 1 };
const families = { throughput: TRAFFIC, newconn: TRAFFIC, latency: TRAFFIC };

const stream = {
  kind: 'ratio',
  better: 'higher',
  unit: 'Gbit/s',
  family: 'throughput',
  metric: 'gbitPerS',
} as const;

const rows: readonly Row[] = [
  {
    id: 'overlay/throughput/by-hand',
    ...stream,
    peer: 'by-hand',
    what: 'one iperf3 stream between sandboxes on two hosts, through our overlay and through one made by hand.',
  },
  {
    id: 'overlay/newconn/by-hand',
    kind: 'ratio',
    better: 'higher',
    unit: 'conn/s',
    family: 'newconn',
    metric: 'rate',
    peer: 'by-hand',
    what: `new connections a second, each asking one byte (${NEW_CONCURRENCY} under way), likewise.`,
  },
  {
    id: 'overlay/latency-p50/by-hand',
    kind: 'ratio',
    better: 'lower',
    unit: 'us',
    family: 'latency',
    metric: 'p50Us',
    peer: 'by-hand',
    what: `median time from a datagram to its echo, ${LATENCY_RATE} a second through one connected socket, likewise.`,
  },
  {
    id: 'overlay/throughput/veth',
    ...stream,
    peer: 'veth',
    what: 'one iperf3 stream through our overlay, and between the hosts themselves without any tunnel.',
  },
];

const streamArm = (name: string, place: Place, address: string): Arm => ({
  name,
  async block(seconds) {
    const { bitsPerSecond } = await iperf3(place, { address, port: PORT.iperf3, seconds, cpus: CPUS.client });
    return { gbitPerS: bitsPerSecond / 1e9, failed: 0 };
  },
});

const freshArm = (name: string, place: Place, address: string): Arm => ({
  name,
  async block(seconds) {
    const target = { address, port: PORT.http, seconds, concurrency: NEW_CONCURRENCY, cpus: CPUS.client };
    const { rate, failed } = await connect(place, target);
    return { rate, failed };
  },
});

const echoArm = (name: string, place: Place, address: string): Arm => ({
  name,
  async block(seconds) {
    const target = { address, port: PORT.echo, seconds, rate: LATENCY_RATE, connected: true, cpus: CPUS.client };
    const { latencyUs, failed } = await udp(place, target);
    return { p50Us: latencyUs?.p50 ?? Number.NaN, failed };
  },
});

async function startServers(place: Place): Promise<void> {
  await startServer(place, { ports: [PORT.http, PORT.echo], cpus: CPUS.server });
  await startIperf3(place, { port: PORT.iperf3, cpus: CPUS.server });
}

async function open(): Promise<OpenSuite> {
  const cluster = await openCluster('overlay', ['a', 'b'], ['c', 'd', 'podc', 'podd']);
  try {
    const [a, b] = cluster.hosts as [(typeof cluster.hosts)[0], (typeof cluster.hosts)[0]];
    const wait = { waitMs: WAIT_MS };
    await a.client.networks.put(NETWORK, { driver: 'overlay', subnets: [{ cidr: '10.79.0.0/20' }] }, wait);
    await a.client.sandboxes.put('client', { networks: [{ network: NETWORK, ip: OURS.client }] }, wait);
    await b.client.sandboxes.put('server', { networks: [{ network: NETWORK, ip: OURS.server }] }, wait);
    const ours = await placeOf(a.client, 'client');
    const { lab } = cluster;
    const pods = ['c', 'd'].map(
      (name, at): Pod => ({
        host: lab.host(name),
        pod: lab.host(`pod${name}`),
        address: at === 0 ? HAND.client : HAND.server,
        mac: `02:42:0a:59:00:0${at}`,
      }),
    ) as [Pod, Pod];
    const byHand = await prepareVxlan(...pods, 20);
    const hand = placeOfPod(pods[0]);
    await startServers(await placeOf(b.client, 'server'));
    await startServers(placeOfPod(pods[1]));
    // The underlay alone: from host to host.
    await startIperf3(lab.host('d'), { port: PORT.iperf3, cpus: CPUS.server });
    await untilAnswered(ours, OURS.server, PORT.http);
    await untilAnswered(hand, HAND.server, PORT.http);
    return {
      skipped: {},
      given: {
        all: PLACEMENT,
        ours: `${cluster.given} Client and server are sandboxes on two of the hosts, in their cgroups.`,
        'by-hand': byHand,
        veth: "the hosts' own addresses on the underlay (veth pairs on a bridge, MTU 1500).",
      },
      arms: {
        throughput: [
          streamArm('ours', ours, OURS.server),
          streamArm('by-hand', hand, HAND.server),
          streamArm('veth', lab.host('c'), lab.host('d').address),
        ],
        newconn: [freshArm('ours', ours, OURS.server), freshArm('by-hand', hand, HAND.server)],
        latency: [echoArm('ours', ours, OURS.server), echoArm('by-hand', hand, HAND.server)],
      },
      close: cluster.close,
    };
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

export const overlay: Suite = { name: 'overlay', families, rows, open };
