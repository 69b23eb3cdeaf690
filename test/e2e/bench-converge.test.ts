/** Comings and deaths as the suite `converge` measures them, on two hosts. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, openCluster } from '../../bench/cluster.ts';
import { placeOf } from '../../bench/stage.ts';
import { type Comings, openComings } from '../../bench/suites/converge/coming.ts';
import { type Deaths, openDeaths } from '../../bench/suites/converge/death.ts';
import { slowness } from '../../src/lab/slowness.ts';

const LIMIT_MS = 60_000;
let cluster: Cluster;
let comings: Comings | undefined;
let deaths: Deaths | undefined;
beforeAll(async () => {
  cluster = await openCluster('deaths', ['a', 'b']);
}, LIMIT_MS);
afterAll(async () => {
  comings?.close();
  await deaths?.close();
  await cluster?.close();
}, LIMIT_MS);

test('an endpoint that comes answers the other host, which asks already, without a second thought', {
  timeout: LIMIT_MS,
}, async () => {
  const [a, b] = cluster.hosts as [(typeof cluster.hosts)[0], (typeof cluster.hosts)[0]];
  const wait = { waitMs: 20_000 };
  await a.client.networks.put('near', { driver: 'overlay', subnets: [{ cidr: '10.79.0.0/20' }] }, wait);
  await a.client.sandboxes.put('stays', { networks: [{ network: 'near', ip: '10.79.0.10' }] }, wait);
  await b.client.sandboxes.put('prober', { networks: [{ network: 'near', ip: '10.79.0.11' }] }, wait);
  comings = await openComings(a.client, { asker: await placeOf(b.client, 'prober'), network: 'near' });
  const late: number[] = [];
  while (late.length < 20) late.push(await comings.next());
  // A kernel whose question for a neighbour was lost asks again after a second.
  expect(Math.max(...late)).toBeLessThan(900 * slowness());
});

test('a replica that dies leaves the balancing of the other host, comes back, and the next one dies', {
  timeout: LIMIT_MS,
}, async () => {
  const [a, b] = cluster.hosts as [(typeof cluster.hosts)[0], (typeof cluster.hosts)[0]];
  await a.client.networks.put('mesh', { driver: 'overlay', subnets: [{ cidr: '10.80.0.0/20' }] }, { waitMs: 20_000 });
  await b.client.sandboxes.put('asker', { networks: [{ network: 'mesh' }] }, { waitMs: 20_000 });
  const asker = await placeOf(b.client, 'asker');
  deaths = await openDeaths(a, {
    watcher: b.client,
    asker,
    cgroup: cluster.lab.outside.cgroup,
    network: 'mesh',
  });
  for (let n = 0; n < 2; n++) {
    const { ms, failed } = await deaths.next();
    expect(failed).toBe(0);
    // It was asked until the end of the measurement where it never left.
    expect(ms).toBeLessThan(450);
  }
});
