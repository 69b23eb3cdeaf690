/** What this host has of an endpoint otherwise than it should, from its port on the bridge to the routes in its sandbox. */
import type { NetworkDriver } from '../../contracts/driver.ts';
import type { Namespace } from '../../contracts/kernel.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import { formatCidr, parseCidr } from '../../model/ip.ts';
import type { Network } from '../../model/network.ts';
import type { Sandbox } from '../../model/sandbox.ts';
import { type Context, driverNetwork } from '../context.ts';
import { ensureInside } from '../endpoint/inside.ts';
import { type Candidate, planRoutes, syncDefaultRoutes } from '../endpoint/route.ts';
import type { Spaces } from '../spaces.ts';
import type { Rehearsal } from './rehearsal.ts';

export interface EndpointParts {
  readonly context: Context;
  readonly spaces: Pick<Spaces, 'get' | 'path'>;
  /** Of the endpoint's sandbox, by network: those on which it has an endpoint. Undefined: not one of ours. */
  readonly driverOf: (network: Network) => NetworkDriver | undefined;
}

const forDriver = ({ id, spec }: Endpoint) => ({ id, mac: spec.mac, addresses: spec.addresses });

export async function compareEndpoint(
  { context, spaces, driverOf }: EndpointParts,
  endpoint: Endpoint,
  {
    network,
    sandbox,
    driver,
  }: { readonly network: Network; readonly sandbox: Sandbox; readonly driver: NetworkDriver },
  rehearsal: Rehearsal,
): Promise<void> {
  const { kernel } = context;
  const { differences } = rehearsal;
  const { link } = await driver.createEndpoint(driverNetwork(network), forDriver(endpoint));
  // What is inside comes and goes with the pair.
  if (!link || (link.hostIfindex !== undefined && link.hostIfindex < 0)) return;
  const space = sandbox.spec.origin === 'host' ? kernel.host : spaces.get(sandbox.id);
  if (!space) {
    differences.push({
      what: `namespace of sandbox ${sandbox.name}`,
      want: 'there',
      command: `ls -l ${spaces.path(sandbox)}`,
    });
    return;
  }
  const enter = `nsenter --net=${space.path} `;
  const inside = rehearsal.namespace(space, enter);
  const inner = inside.netlink.link(link.ifindex);
  if (inner?.mac !== endpoint.spec.mac) {
    const have = kernel.host.netlink.link(link.ifname) ? 'still on the host' : undefined;
    differences.push({ what: `interface in sandbox ${sandbox.name}`, want: 'there', have, command: `${enter}ip link` });
    return;
  }
  const joined = await driver.join(driverNetwork(network), forDriver(endpoint));
  const ipv6 = endpoint.spec.addresses.some((address) => address.includes(':'));
  ensureInside(inside, { link: inner, mtu: link.mtu, endpoint: endpoint.spec, joined, ipv6 });
  // Without the link's being up there are no routes by it.
  if (!inner.up || sandbox.spec.origin === 'host') return;
  if (!joined.pointToPoint)
    for (const address of endpoint.spec.addresses)
      inside.netlink.ensureRoute({ dst: formatCidr(parseCidr(address)), link: inner.ifindex });
  const wanted = planRoutes(await candidatesOf({ context, driverOf }, sandbox, space));
  // Those of the sandbox as a whole are shown with the endpoint that gives them; without any, with each.
  if (wanted.length === 0 || wanted.some((route) => route.link === inner.ifindex))
    syncDefaultRoutes(inside, wanted, sandbox.spec.origin === 'attached');
}

/** Gateways of all endpoints of the sandbox: which of them gives the default route is decided among them. */
async function candidatesOf(
  { context, driverOf }: Pick<EndpointParts, 'context' | 'driverOf'>,
  sandbox: Sandbox,
  { netlink }: Namespace,
): Promise<Candidate[]> {
  const { world } = context;
  const links = netlink.links();
  const candidates: Candidate[] = [];
  for (const endpoint of world.endpointsOfSandbox(sandbox.id)) {
    const network = world.networks.get(endpoint.spec.network);
    const link = links.find(({ mac }) => mac === endpoint.spec.mac);
    const driver = network && driverOf(network);
    if (endpoint.removing || !network || !link || !driver) continue;
    const joined = await driver.join(driverNetwork(network), forDriver(endpoint));
    candidates.push({ link: link.ifindex, network: network.name, priority: endpoint.spec.gwPriority, joined });
  }
  return candidates;
}
