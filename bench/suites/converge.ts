/** How soon the hosts of a cluster agree: compiled daemons, a real Redis, hosts as network namespaces. */
import { openCluster } from '../cluster.ts';
import { placeOf, WAIT_MS } from '../stage.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';
import { IMPATIENT, openComings } from './converge/coming.ts';
import { type Death, openDeaths, RATE } from './converge/death.ts';

const NETWORK = 'mesh';
/** Hosts with a daemon and an endpoint on the network. */
const HOSTS = ['a', 'b', 'c'] as const;

/** Endpoints made one after another: 1,040 in 16 rounds. */
const EVENTS: Amount = { block: 65, warmup: 2, quick: 10 };
/** Each takes half a second, with its return: 1,008 in 16 rounds. */
const DEATHS: Amount = { block: 63, warmup: 0, quick: 3 };
const families = { endpoint: EVENTS, death: DEATHS };

const event = {
  kind: 'absolute',
  better: 'lower',
  unit: 'ms',
  family: 'endpoint',
  metric: 'ms',
} as const;
const WHAT =
  'from the moment the API on host A has accepted a sandbox on the overlay to the first answer that a sandbox on host B, ' +
  'which asks every millisecond, gets from its address';

const rows: readonly Row[] = [
  { id: 'converge/endpoint-p50/none', ...event, quantile: 0.5, what: `${WHAT} (median).` },
  { id: 'converge/endpoint-p99/none', ...event, quantile: 0.99, what: `${WHAT} (99th percentile).` },
  {
    id: 'converge/backend-death-p99/none',
    ...event,
    family: 'death',
    quantile: 0.99,
    what:
      `from SIGKILL to a replica's process on host A to the last new connection from a sandbox on host B, which opens ${RATE.toLocaleString('en-US')} a ` +
      'second, that the dead replica still gets (99th percentile). What answers there stands beside the process and outlives it.',
  },
];

async function open(wanted: readonly Row[]): Promise<OpenSuite> {
  const cluster = await openCluster('converge', HOSTS);
  try {
    const [a, b] = cluster.hosts as [(typeof cluster.hosts)[0], (typeof cluster.hosts)[0]];
    const wait = { waitMs: WAIT_MS };
    await a.client.networks.put(NETWORK, { driver: 'overlay', subnets: [{ cidr: '10.79.0.0/20' }] }, wait);
    for (const [at, { name, client }] of cluster.hosts.entries())
      await client.sandboxes.put(`stays-${name}`, { networks: [{ network: NETWORK, ip: `10.79.0.${10 + at}` }] }, wait);
    const place = await placeOf(b.client, 'stays-b');
    const isWanted = wanted.some(({ family }) => family === 'death');
    const mortal = { watcher: b.client, asker: place, cgroup: cluster.lab.outside.cgroup, network: NETWORK };
    const deaths = isWanted ? await openDeaths(a, mortal) : undefined;
    const comings = await openComings(a.client, { asker: place, network: NETWORK });
    const endpoint: Arm = {
      name: 'ours',
      async block(events) {
        const ms: number[] = [];
        while (ms.length < events) ms.push(await comings.next());
        return { ms, failed: 0 };
      },
    };
    const death: Arm = {
      name: 'ours',
      async block(events) {
        const seen: Death[] = [];
        while (seen.length < events) seen.push(await deaths!.next());
        return { ms: seen.map(({ ms }) => ms), failed: seen.reduce((sum, { failed }) => sum + failed, 0) };
      },
    };
    return {
      skipped: {},
      given: { ours: `${cluster.given} In the asking sandbox: ${IMPATIENT.join(', ')}.` },
      arms: { endpoint: [endpoint], ...(deaths && { death: [death] }) },
      async close() {
        comings.close();
        await deaths?.close();
        await cluster.close();
      },
    };
  } catch (error) {
    await cluster.close();
    throw error;
  }
}

export const converge: Suite = { name: 'converge', families, rows, open };
