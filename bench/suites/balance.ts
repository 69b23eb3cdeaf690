/**
 * A service's VIP, balanced at connect time, against the backend's own address and against proxies and DNAT. All arms share the
 * network, the backend and its server; they differ in what stands between. The direct arm's client belongs to no cgroup of
 * ours, so that no program of ours runs for it.
 */
import { join } from 'node:path';
import { SluiceError } from '../../src/errors.ts';
import { labFolder } from '../../src/lab/owner.ts';
import { type Place, runAt } from '../../src/lab/place.ts';
import { iperf3, startIperf3, wrk } from '../../src/load/foreign.ts';
import { connect, startHookCost, startServer, udp } from '../../src/load/load.ts';
import { versionOf } from '../machine.ts';
import { startHaproxy } from '../peers/haproxy.ts';
import { startNft } from '../peers/nft.ts';
import { startNginx } from '../peers/nginx.ts';
import { CPUS, openStage, PLACEMENT, type Stage, untilAnswered, WAIT_MS } from '../stage.ts';
import type { Amount, Arm, OpenSuite, Row, Sample, Suite } from '../suite.ts';

const NETWORK = 'bench';
const SUBNET = { cidr: '10.77.0.0/16', gateway: '10.77.0.1' };
const ADDRESS = {
  backends: ['10.77.1.1', '10.77.1.2', '10.77.1.3'],
  one: '10.77.2.1',
  three: '10.77.2.2',
  nft: '10.77.2.9',
} as const;
const BACKEND = ADDRESS.backends[0];
/** Of the nft client: eight of them. */
const NFT_SOURCES = { allow: '10.77.9.0/28', addresses: Array.from({ length: 8 }, (_, at) => `10.77.9.${at + 1}`) };
const PORT = { http: 80, echo: 7, iperf3: 5201, haproxy: 8081, nginx: 8082, foreign: 8083 } as const;

const KEPT_CONNECTIONS = 32;
const NEW_CONCURRENCY = 16;
/** New connections a second of the latency row: well below what any arm can do, and the same for all. */
const LATENCY_RATE = 2_000;
const UDP_WINDOW = 32;

/** Seconds. */
const TRAFFIC: Amount = { block: 3, warmup: 1, quick: 1 };
const families = {
  keepalive: TRAFFIC,
  newconn: TRAFFIC,
  latency: TRAFFIC,
  throughput: TRAFFIC,
  udp: TRAFFIC,
  hook: TRAFFIC,
};

const ratio = { kind: 'ratio', better: 'higher' } as const;
const kept = { ...ratio, unit: 'req/s', family: 'keepalive', metric: 'rate' } as const;
const fresh = { ...ratio, unit: 'conn/s', family: 'newconn', metric: 'rate' } as const;
const hook = { kind: 'absolute', better: 'lower', unit: 'ns', family: 'hook', metric: 'nsPerRun' } as const;
const through = (peer: string): string => `through ${peer} to the same backend`;
const KEPT = `requests a second over ${KEPT_CONNECTIONS} kept connections (wrk), to the VIP and`;
const FRESH = `new connections a second, each asking one byte (${NEW_CONCURRENCY} under way), to the VIP and`;
const PEERS = { haproxy: 'HAProxy in TCP mode', nginx: 'nginx stream', nft: 'nftables DNAT' } as const;

const rows: readonly Row[] = [
  { id: 'balance/keepalive/direct', ...kept, peer: 'direct', what: `${KEPT} directly.` },
  { id: 'balance/newconn/direct', ...fresh, peer: 'direct', what: `${FRESH} directly.` },
  {
    id: 'balance/newconn-three/direct',
    ...fresh,
    ours: 'three',
    peer: 'direct',
    what: `${FRESH} directly; here the VIP spreads over three backends, and the direct arm asks one.`,
  },
  {
    id: 'balance/newconn-p99/direct',
    kind: 'ratio',
    better: 'lower',
    unit: 'us',
    family: 'latency',
    metric: 'p99Us',
    peer: 'direct',
    what: `99th percentile of the time from the moment a connection is due to its answer, at ${LATENCY_RATE} a second.`,
  },
  {
    id: 'balance/throughput/direct',
    ...ratio,
    unit: 'Gbit/s',
    family: 'throughput',
    metric: 'gbitPerS',
    peer: 'direct',
    what: 'one iperf3 stream, to the VIP and directly.',
  },
  {
    id: 'balance/udp-unconnected/direct',
    ...ratio,
    unit: 'echo/s',
    family: 'udp',
    metric: 'rate',
    peer: 'direct',
    what: `datagrams of 64 bytes echoed through one unconnected socket (${UDP_WINDOW} under way), to the VIP and directly.`,
  },
  ...Object.entries(PEERS).flatMap(([peer, name]): Row[] => [
    { id: `balance/keepalive/${peer}`, ...kept, peer, what: `${KEPT} ${through(name)}.` },
    { id: `balance/newconn/${peer}`, ...fresh, peer, what: `${FRESH} ${through(name)}.` },
  ]),
  {
    id: 'balance/connect-hook-ns/none',
    ...hook,
    ours: 'in-scope',
    what: 'nanoseconds that the programs at the connect4 hook run for one connect to the VIP from a sandbox (BPF statistics).',
  },
  {
    id: 'balance/connect-hook-foreign-ns/none',
    ...hook,
    ours: 'foreign',
    what: 'the same for one connect from a namespace that is no sandbox, within the cgroup that the hook is attached to.',
  },
];

interface Places {
  readonly ours: Place;
  readonly direct: Place;
  readonly nft: Place;
}

async function makeObjects({ client }: Stage): Promise<void> {
  const wait = { waitMs: WAIT_MS };
  await client.networks.put(NETWORK, { subnets: [SUBNET] }, wait);
  const join = (name: string, more: { ip?: string; allow?: string[] } = {}) =>
    client.sandboxes.put(name, { networks: [{ network: NETWORK, ...more }] }, wait);
  await join('client', { ip: '10.77.0.10' });
  await join('nft', { ip: '10.77.0.11', allow: [NFT_SOURCES.allow] });
  for (const [at, ip] of ADDRESS.backends.entries()) await join(`backend${at + 1}`, { ip });
  const ports = [{ port: PORT.http }, { port: PORT.iperf3 }, { port: PORT.echo, protocol: 'udp' as const }];
  const backends = (count: number) =>
    ADDRESS.backends.slice(0, count).map((_, at) => ({ sandbox: `backend${at + 1}` }));
  await client.services.put('one', { network: NETWORK, ips: [ADDRESS.one], ports, backends: backends(1) }, wait);
  await client.services.put('three', { network: NETWORK, ips: [ADDRESS.three], ports, backends: backends(3) }, wait);
}

/** Servers in the backends, and one on the host that is nobody's backend. Tags tell them apart. */
async function startServers(stage: Stage): Promise<void> {
  for (const [at, address] of ADDRESS.backends.entries()) {
    const place = await stage.sandbox(`backend${at + 1}`);
    await startServer(place, { ports: [PORT.http, PORT.echo], tag: 'abc'[at]!, cpus: CPUS.server });
    if (at === 0) await startIperf3(place, { cpus: CPUS.server });
    await untilAnswered(stage.outside(await stage.sandbox('client')), address, PORT.http);
  }
  await startServer(stage.outside({}), { ports: [PORT.foreign], tag: 'f', cpus: CPUS.server });
}

/** The VIP must lead to every backend before a ratio says anything: one that leads past the balancer is no balancer. */
async function checkSpread(places: Places): Promise<void> {
  for (const [address, tags] of [
    [ADDRESS.one, 'a'],
    [ADDRESS.three, 'abc'],
  ] as const) {
    const { answers, failed } = await connect(places.ours, { address, port: PORT.http, rate: 500, seconds: 0.5 });
    const seen = Object.keys(answers).sort().join('');
    if (seen !== tags || failed > 0)
      throw new SluiceError('internal', `VIP ${address}: answered by "${seen}", ${failed} failed; "${tags}" is due`);
  }
}

async function addNftAddresses(place: Place): Promise<void> {
  const lines = NFT_SOURCES.addresses.map((address) => `addr add ${address}/16 dev eth0\n`);
  const { code, stderr } = await runAt(place, ['ip', '-batch', '-'], { input: lines.join('') });
  if (code !== 0) throw new SluiceError('internal', `the nft client's addresses: ${stderr}`);
}

const keptArm = (name: string, place: Place, address: string, port: number = PORT.http): Arm => ({
  name,
  async block(seconds) {
    const url = `http://${address}:${port}/`;
    const { rate, failed } = await wrk(place, { url, seconds, connections: KEPT_CONNECTIONS, cpus: CPUS.client });
    return { rate, failed };
  },
});

interface FreshOptions {
  readonly port?: number;
  readonly rate?: number;
  readonly sources?: readonly string[];
}
const freshArm = (name: string, place: Place, address: string, options: FreshOptions = {}): Arm => ({
  name,
  async block(seconds) {
    const concurrency = options.rate ? 1_024 : NEW_CONCURRENCY;
    const target = { address, port: PORT.http, cpus: CPUS.client, seconds, concurrency, ...options };
    const { rate, failed, latencyUs } = await connect(place, target);
    return { rate, p99Us: latencyUs?.p99 ?? Number.NaN, failed };
  },
});

const streamArm = (name: string, place: Place, address: string): Arm => ({
  name,
  async block(seconds) {
    const { bitsPerSecond } = await iperf3(place, { address, port: PORT.iperf3, seconds, cpus: CPUS.client });
    return { gbitPerS: bitsPerSecond / 1e9, failed: 0 };
  },
});

const echoArm = (name: string, place: Place, address: string): Arm => ({
  name,
  async block(seconds) {
    const target = { address, port: PORT.echo, seconds, window: UDP_WINDOW, cpus: CPUS.client };
    const { rate, failed } = await udp(place, target);
    return { rate, failed };
  },
});

/** What the hook cost while nothing but this client connects below the cgroup. */
const hookArm = (name: string, cgroup: string, meter: Place, place: Place, address: string, port: number): Arm => ({
  name,
  async block(seconds): Promise<Sample> {
    const hooks = await startHookCost(cgroup, meter);
    const target = { address, port, seconds, concurrency: NEW_CONCURRENCY, cpus: CPUS.client };
    const { opened, failed } = await connect(place, target);
    const costs = (await hooks.stop()).filter(({ hook }) => hook === 'connect4');
    const runs = Math.max(0, ...costs.map(({ runs }) => runs));
    if (runs < opened)
      throw new SluiceError('internal', `connect4 at ${cgroup} ran ${runs} times for ${opened} connects`);
    return { nsPerRun: costs.reduce((sum, { ns }) => sum + ns, 0) / runs, failed };
  },
});

/** Proxies listen on the network's gateway address, in the host's namespace: one hop less than from a sandbox of their own. */
async function startPeers(stage: Stage, places: Places, wanted: ReadonlySet<string>) {
  const folder = (name: string): string => join(labFolder(stage.lab.id), name);
  const host = stage.outside({});
  const proxy = { address: SUBNET.gateway, backends: [`${BACKEND}:${PORT.http}`], client: places.direct };
  const given: Record<string, string> = {};
  if (wanted.has('haproxy')) {
    const peer = await startHaproxy(host, { ...proxy, folder: folder('haproxy'), port: PORT.haproxy });
    given.haproxy = peer.given;
  }
  if (wanted.has('nginx')) {
    const peer = await startNginx(host, { ...proxy, folder: folder('nginx'), port: PORT.nginx });
    given.nginx = peer.given;
  }
  if (wanted.has('nft')) {
    await addNftAddresses(places.nft);
    const backends = [{ address: BACKEND, port: PORT.http }];
    const peer = await startNft(places.nft, { folder: folder('nft'), address: ADDRESS.nft, port: PORT.http, backends });
    await untilAnswered(places.nft, ADDRESS.nft, PORT.http);
    given.nft = `${peer.given}\nclient addresses: ${NFT_SOURCES.addresses.join(' ')}`;
  }
  return given;
}

const PROGRAMS: Readonly<Record<string, Parameters<typeof versionOf>>> = {
  haproxy: [['haproxy', '-v'], /version (\S+)/],
  nginx: [['nginx', '-v'], /nginx\/(\S+)/],
};

async function open(wanted: readonly Row[]): Promise<OpenSuite> {
  const absent = Object.keys(PROGRAMS).filter((name) => versionOf(...PROGRAMS[name]!) === 'absent');
  const skipped = Object.fromEntries(
    wanted.flatMap(({ id, peer }) => (peer && absent.includes(peer) ? [[id, `${peer} is not installed`]] : [])),
  );
  const stage = await openStage('balance');
  try {
    await makeObjects(stage);
    await startServers(stage);
    const ours = await stage.sandbox('client');
    const places = { ours, direct: stage.outside(ours), nft: stage.outside(await stage.sandbox('nft')) };
    await checkSpread(places);
    const peers = new Set(wanted.flatMap(({ peer }) => (peer && !absent.includes(peer) ? [peer] : [])));
    const given = await startPeers(stage, places, peers);
    const { direct, nft } = places;
    const foreign: Place = { netnsPath: stage.host.netnsPath, cgroup: stage.host.cgroup };
    const meter: Place = { cgroup: stage.lab.outside.cgroup };
    const { cgroupRoot, address } = stage.host;
    return {
      skipped,
      given: {
        all: PLACEMENT,
        ours: 'service one: a VIP over one backend; service three: over three. The client is in the sandbox and its cgroup.',
        direct: "the backend's address. The client is in the same namespace, and in no cgroup of ours.",
        ...given,
      },
      arms: {
        keepalive: [
          keptArm('ours', ours, ADDRESS.one),
          keptArm('direct', direct, BACKEND),
          keptArm('haproxy', direct, SUBNET.gateway, PORT.haproxy),
          keptArm('nginx', direct, SUBNET.gateway, PORT.nginx),
          keptArm('nft', nft, ADDRESS.nft),
        ],
        newconn: [
          freshArm('ours', ours, ADDRESS.one),
          freshArm('three', ours, ADDRESS.three),
          freshArm('direct', direct, BACKEND),
          freshArm('haproxy', direct, SUBNET.gateway, { port: PORT.haproxy }),
          freshArm('nginx', direct, SUBNET.gateway, { port: PORT.nginx }),
          freshArm('nft', nft, ADDRESS.nft, { sources: NFT_SOURCES.addresses }),
        ],
        latency: [
          freshArm('ours', ours, ADDRESS.one, { rate: LATENCY_RATE }),
          freshArm('direct', direct, BACKEND, { rate: LATENCY_RATE }),
        ],
        throughput: [streamArm('ours', ours, ADDRESS.one), streamArm('direct', direct, BACKEND)],
        udp: [echoArm('ours', ours, ADDRESS.one), echoArm('direct', direct, BACKEND)],
        hook: [
          hookArm('in-scope', cgroupRoot, meter, ours, ADDRESS.one, PORT.http),
          hookArm('foreign', cgroupRoot, meter, foreign, address, PORT.foreign),
        ],
      },
      close: stage.close,
    };
  } catch (error) {
    await stage.close();
    throw error;
  }
}

export const balance: Suite = { name: 'balance', families, rows, open };
