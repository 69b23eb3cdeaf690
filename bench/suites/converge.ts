/** How soon the hosts of a cluster agree: compiled daemons, a real Redis, hosts as network namespaces. */
import { SluiceError } from '../../src/errors.ts';
import { runAt } from '../../src/lab/place.ts';
import { openCluster } from '../cluster.ts';
import { monotonicMs, startProber } from '../probe/prober.ts';
import { placeOf, WAIT_MS } from '../stage.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';
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

/**
 * Whoever asks for an address before it exists asks again after a second by default. The asker is told to ask its neighbours every few
 * milliseconds, so that what is measured is the cluster and not that second.
 */
export const IMPATIENT = ['net.ipv4.neigh.eth0.retrans_time_ms=4', 'net.ipv4.neigh.eth0.mcast_solicit=1000'];

async function open(wanted: readonly Row[]): Promise<OpenSuite> {
  const cluster = await openCluster('converge', HOSTS);
  try {
    const [a, b] = cluster.hosts as [(typeof cluster.hosts)[0], (typeof cluster.hosts)[0]];
    const wait = { waitMs: WAIT_MS };
    await a.client.networks.put(NETWORK, { driver: 'overlay', subnets: [{ cidr: '10.79.0.0/20' }] }, wait);
    for (const [at, { name, client }] of cluster.hosts.entries())
      await client.sandboxes.put(`stays-${name}`, { networks: [{ network: NETWORK, ip: `10.79.0.${10 + at}` }] }, wait);
    const place = await placeOf(b.client, 'stays-b');
    const { code, stderr } = await runAt(place, ['sysctl', '-qw', ...IMPATIENT]);
    if (code !== 0) throw new SluiceError('internal', `sysctl in the asking sandbox: ${stderr}`);
    const isWanted = wanted.some(({ family }) => family === 'death');
    const mortal = { watcher: b.client, asker: place, cgroup: cluster.lab.outside.cgroup, network: NETWORK };
    const deaths = isWanted ? await openDeaths(a, mortal) : undefined;
    const prober = await startProber(place);
    let made = 0;
    const endpoint: Arm = {
      name: 'ours',
      async block(events) {
        const ms: number[] = [];
        for (let n = 0; n < events; n++) {
          const name = `comes-${made}`;
          const ip = `10.79.${1 + (Math.floor(made / 250) % 12)}.${1 + (made++ % 250)}`;
          const answered = prober.ask(ip);
          // Awaited below; a refusal before that is no unhandled one.
          answered.catch(() => undefined);
          await a.client.sandboxes.put(name, { networks: [{ network: NETWORK, ip }] });
          const acceptedAt = monotonicMs();
          ms.push(Math.max(0, (await answered) - acceptedAt));
          await a.client.sandboxes.remove(name, { waitMs: WAIT_MS });
        }
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
        prober.close();
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
