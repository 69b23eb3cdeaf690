/** Fills a Redis with what a cluster holds, by the code that answers requests: written to a store in memory first, which is quicker, then copied. */
import { OverlayDriver } from '../../../plugins/overlay/overlay.ts';
import { systemClock } from '../../../src/clock.ts';
import { Registration } from '../../../src/cluster/registration.ts';
import type { Op, Store } from '../../../src/contracts/store.ts';
import { createDesired, type Desired } from '../../../src/desired/desired.ts';
import { createIpam } from '../../../src/ipam/ipam.ts';
import { createFakeKernel } from '../../../src/kernel/fake.ts';
import { createLogger } from '../../../src/log.ts';
import { createMemoryStore } from '../../../src/store/memory.ts';
import { openRedisStore } from '../../../src/store/redis/redis.ts';
import { createFakeImages } from '../../../test/unit/image-fake.ts';
import { BACKENDS, hostOfNode, nodeName, type PlannedNetwork, planNetworks, type Scale } from './population.ts';

/** Records in one transaction. */
const RECORDS = 500;

export interface SeededEndpoint {
  readonly id: string;
  readonly network: string;
  /** Number of the node that has it. */
  readonly node: number;
}

export async function seed(url: string, scale: Scale): Promise<readonly SeededEndpoint[]> {
  const memory = createMemoryStore({ clock: systemClock });
  const endpoints = await populate(memory, scale);
  const redis = await openRedisStore({ url, clock: systemClock });
  const { items } = await memory.list('');
  for (let at = 0; at < items.length; at += RECORDS) {
    const ops = items.slice(at, at + RECORDS).map(({ key, value }): Op => ({ op: 'put', key, value }));
    await redis.transact(ops, { topics: [] });
  }
  await redis.close();
  await memory.close();
  return endpoints;
}

/** Networks, sandboxes with their endpoints, and services, as requests on their nodes would write them. */
export async function populate(store: Store, scale: Scale): Promise<readonly SeededEndpoint[]> {
  const clock = systemClock;
  const underlay = () => ({ address: '198.18.0.1', port: 4789, ifname: 'eth0', mtu: 1500 });
  const driver = new OverlayDriver({ instance: 'scale', kernel: createFakeKernel({ clock }), underlay }, clock);
  const ipam = createIpam({ store, clock, pools: [] });
  const desiredOf = (node: string): Desired =>
    createDesired({
      store,
      clock,
      node,
      drivers: { get: () => driver, names: () => ['overlay'] },
      ipams: new Map([['default', ipam]]),
      images: createFakeImages(),
      hostPrefixes: () => [],
    });
  const nodes = Array.from({ length: scale.nodes }, (_, at) => desiredOf(nodeName(at)));
  // Known to each other from the start: what is measured is a cluster that is there, not one that comes together.
  for (let at = 0; at < scale.nodes; at++) {
    const describe = () => hostOfNode(at);
    await new Registration({ store, clock, logger: createLogger('error'), node: nodeName(at), describe }).refresh();
  }
  const made: SeededEndpoint[] = [];
  for (const network of planNetworks(scale)) {
    await nodes[0]!.networks.put(network.name, { driver: 'overlay', subnets: [{ cidr: network.cidr }] });
    for (let at = 0; at < network.endpoints; at++) {
      const node = network.participants[at % network.participants.length]!;
      const { object } = await nodes[node]!.sandboxes.put(boxName(network, at), {
        networks: [{ network: network.name }],
      });
      const [endpoint] = await nodes[node]!.endpoints.ofSandbox(object.id);
      made.push({ id: endpoint!.id, network: network.name, node });
    }
    for (let at = 0; at < network.services; at++) {
      // Sandboxes are their node's: the service is asked for where its backends are.
      const count = network.participants.length;
      const owner = nodes[network.participants[at % count]!]!;
      const own = Array.from({ length: network.endpoints }, (_, box) => box).filter(
        (box) => box % count === at % count,
      );
      const backends = own.slice(0, BACKENDS).map((box) => ({ sandbox: boxName(network, box) }));
      await owner.services.put(`${network.name}-${at}`, { network: network.name, ports: [{ port: 80 }], backends });
    }
  }
  return made;
}

const boxName = ({ name }: PlannedNetwork, at: number): string => `${name}-${at}`;
