/** `sluice network …` */
import { SluiceError } from '../errors.ts';
import { canonicalAddress, contains, parseCidr } from '../model/ip.ts';
import type { Network } from '../model/network.ts';
import type { NetworkRequest, View } from '../model/request.ts';
import { attachmentFlags, attachmentOf } from './attachment.ts';
import { command, type FlagValues, type Group, UsageError } from './command/command.ts';
import { forEach, inspectEach } from './command/each.ts';
import { integer, many, one, pairs, type Reader, text, toggle, word, words } from './command/flag.ts';
import { waitFlags, waitOf, waitTimeoutFlag, warn } from './command/wait.ts';
import { type Column, idColumn, inspectFlags, listFlags, nameColumn, printList, stateColumn } from './print/listing.ts';
import { progress } from './print/progress.ts';

const readAux: Reader<readonly [string, string]> = (given) => {
  const [, name, address] = /^([^=]+)=(.+)$/.exec(given) ?? [];
  if (!name || !address) throw new UsageError(`"${given}" is not NAME=IP`);
  return [name, address];
};

const createFlags = {
  driver: one('DRIVER', text, 'Network driver', { short: 'd', absent: 'bridge' }),
  subnet: many('CIDR', text, 'Subnet, one of each address family; without any, free ones are chosen'),
  gateway: many('IP', text, "A subnet's gateway", { absent: 'its first address' }),
  ipRange: many('CIDR', text, 'Part of a subnet from which automatic addresses come'),
  auxAddress: many('NAME=IP', readAux, 'Address of a subnet that is never given to a sandbox'),
  internal: toggle('No way in or out but between its own endpoints'),
  ipv6: toggle('With IPv6, also when no --subnet says so'),
  ipv4: toggle('--ipv4=false: IPv6 only', { absent: 'true' }),
  mtu: one('BYTES', integer, 'MTU of its links', { absent: "the underlay's, less the driver's overhead" }),
  vni: one('N', integer, 'VXLAN network identifier of an overlay', { absent: 'a free one' }),
  attachable: toggle('Every overlay is; taken for the sake of scripts that say so'),
  label: pairs('KEY=VALUE', 'Label'),
  opt: pairs('KEY=VALUE', 'Option of the driver', { short: 'o' }),
  ipamDriver: one('DRIVER', text, 'Address management driver'),
  quiet: toggle('Print the id instead of the name', { short: 'q' }),
  detach: toggle('Return as soon as the network is stored'),
  waitTimeout: waitTimeoutFlag,
};

type SubnetRequest = NonNullable<NetworkRequest['subnets']>[number];
type Draft = { -readonly [K in keyof SubnetRequest]: SubnetRequest[K] };

/** Each gateway, range and reserved address goes to the subnet that holds it. */
export function subnetsOf(flags: FlagValues<typeof createFlags>): readonly SubnetRequest[] | undefined {
  const { subnet, gateway, ipRange, auxAddress } = flags;
  if (subnet.length === 0) {
    const [stray] = [...gateway, ...ipRange, ...auxAddress.map(([, address]) => address)];
    if (stray !== undefined) throw new UsageError(`${stray} needs its subnet: --subnet CIDR`);
    return undefined;
  }
  const drafts: Draft[] = subnet.map((cidr) => ({ cidr }));
  const holderOf = (flag: string, address: string): Draft => {
    const canonical = canonicalAddress(address.split('/')[0]!);
    const holder = drafts.find(({ cidr }) => contains(parseCidr(cidr!), canonical));
    if (holder) return holder;
    const message = `${flag} ${address} is in no subnet of the network (${subnet.join(', ')})`;
    throw new SluiceError('address.outside', message, { address });
  };
  for (const address of gateway) {
    const holder = holderOf('--gateway', address);
    if (holder.gateway) throw new UsageError(`subnet ${holder.cidr} has two gateways: ${holder.gateway}, ${address}`);
    holder.gateway = address;
  }
  for (const range of ipRange) {
    const holder = holderOf('--ip-range', range);
    if (holder.range) throw new UsageError(`subnet ${holder.cidr} has two ranges: ${holder.range}, ${range}`);
    holder.range = range;
  }
  for (const [name, address] of auxAddress) {
    const holder = holderOf('--aux-address', address);
    holder.aux = { ...holder.aux, [name]: address };
  }
  return drafts;
}

export function networkRequest(flags: FlagValues<typeof createFlags>): NetworkRequest {
  const { driver, ipamDriver, internal, ipv4, ipv6, mtu, vni, opt, label } = flags;
  const subnets = subnetsOf(flags);
  return {
    ...(driver !== undefined && { driver }),
    ...(ipamDriver !== undefined && { ipam: ipamDriver }),
    ...(subnets && { subnets }),
    ...(ipv4 !== undefined && { ipv4 }),
    ...(ipv6 !== undefined && { ipv6 }),
    ...(internal !== undefined && { internal }),
    ...(mtu !== undefined && { mtu }),
    ...(vni !== undefined && { vni }),
    ...(opt && { options: opt }),
    ...(label && { labels: label }),
  };
}

const create = command({
  summary: 'Create a network',
  examples: [
    'sluice network create web',
    'sluice network create --subnet 10.20.0.0/24 --subnet fd00:20::/64 --ipv6 web',
    'sluice network create --internal --ipv4=false --ipv6 backstage',
    'sluice network create --driver overlay mesh',
  ],
  flags: createFlags,
  args: { name: word('name of the new network') },
  async run(context, flags, { name }) {
    const request = networkRequest(flags);
    const { networks } = await context.client();
    const put = networks.put(name, request, { create: true, ...waitOf(flags) });
    const view = await progress(context.terminal, `network ${name} is programmed`, put);
    context.terminal.out(`${flags.quiet ? view.id : view.name}\n`);
    warn(context, view);
  },
});

const COLUMNS: readonly Column<View<Network>>[] = [
  idColumn('NETWORK ID'),
  nameColumn,
  { title: 'DRIVER', field: 'Driver', of: ({ spec }) => spec.driver },
  { title: 'SCOPE', field: 'Scope', of: ({ spec }) => spec.scope },
  {
    title: 'SUBNETS',
    field: 'Subnets',
    of: ({ spec }) => spec.subnets.map(({ cidr }) => cidr).join(', '),
    shrink: true,
  },
  stateColumn,
];

const ls = command({
  summary: 'List networks',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    await printList(context, await (await context.client()).networks.list(), COLUMNS, flags);
  },
});

const inspect = command({
  summary: 'Show all of a network: addresses, options, state, conditions',
  examples: ["sluice network inspect --peers --format '{{json .Peers.Differences}}' mesh"],
  flags: {
    peers: toggle("With its endpoints on all nodes, and what this node's kernel has of them otherwise than it should"),
    ...inspectFlags,
  },
  args: { network: words('names or ids', { of: 'network' }) },
  async run(context, { peers, format }, { network }) {
    const { networks } = await context.client();
    const whole = async (ref: string) => ({ ...(await networks.get(ref)), peers: await networks.peers(ref) });
    return inspectEach(context, network, peers ? whole : networks.get, format);
  },
});

const update = command({
  summary: 'Add subnets to an overlay that fills up',
  examples: ['sluice network update --subnet-add 10.51.0.0/20 mesh'],
  flags: {
    subnetAdd: many('CIDR', text, 'Subnet to add; what is on the network keeps its addresses'),
    ...waitFlags,
  },
  args: { network: word('name or id', { of: 'network' }) },
  async run(context, flags, { network }) {
    if (flags.subnetAdd.length === 0) throw new UsageError('nothing to change: --subnet-add CIDR');
    const { networks } = await context.client();
    const add = flags.subnetAdd.map((cidr) => ({ cidr }));
    const adding = networks.addSubnets(network, add, waitOf(flags));
    const view = await progress(context.terminal, `network ${network} has its new subnets`, adding);
    context.terminal.out(`${view.name}\n`);
    warn(context, view);
  },
});

const rm = command({
  summary: 'Remove networks that no endpoint is on',
  aliases: ['remove'],
  flags: waitFlags,
  args: { network: words('names or ids', { of: 'network' }) },
  async run(context, flags, { network }) {
    const { networks } = await context.client();
    return forEach(context, 'removed', network, (ref) => networks.remove(ref, waitOf(flags)));
  },
});

const connect = command({
  summary: 'Join a sandbox to a network',
  examples: ['sluice network connect --ip 10.20.0.9 --network-alias db web box'],
  flags: {
    ...attachmentFlags,
    quiet: toggle('Print the id of the endpoint instead of its name', { short: 'q' }),
    ...waitFlags,
  },
  args: { network: word('name or id', { of: 'network' }), sandbox: word('name or id', { of: 'sandbox' }) },
  async run(context, flags, { network, sandbox }) {
    const { sandboxes, networks } = await context.client();
    const joining = sandboxes.connect(sandbox, { network, ...attachmentOf(flags) }, waitOf(flags));
    const endpoint = await progress(context.terminal, `sandbox ${sandbox} is on network ${network}`, joining);
    context.terminal.out(`${flags.quiet ? endpoint.id : endpoint.name}\n`);
    warn(context, endpoint);
    warn(context, await networks.get(endpoint.spec.network));
  },
});

const disconnect = command({
  summary: 'Take a sandbox off a network',
  flags: waitFlags,
  args: { network: word('name or id', { of: 'network' }), sandbox: word('name or id', { of: 'sandbox' }) },
  async run(context, flags, { network, sandbox }) {
    const { sandboxes } = await context.client();
    const leaving = sandboxes.disconnect(sandbox, network, waitOf(flags));
    const endpoint = await progress(context.terminal, `sandbox ${sandbox} is off network ${network}`, leaving);
    context.terminal.out(`${endpoint.name}\n`);
  },
});

const prune = command({
  summary: 'Remove all networks that no endpoint is on, but for bridge, host and none',
  flags: { force: toggle('Do not ask', { short: 'f' }), ...waitFlags },
  args: {},
  async run(context, flags) {
    const question = 'This removes every network that no endpoint is on. Go on? [y/N] ';
    const answer = flags.force ? null : await context.terminal.ask(question);
    if (answer !== null && !/^y(es)?$/i.test(answer.trim())) return 1;
    const { networks } = await context.client();
    const pruned = await progress(context.terminal, 'unused networks are removed', networks.prune(waitOf(flags)));
    context.terminal.out(pruned.map(({ name }) => `${name}\n`).join(''));
    return 0;
  },
});

export const network: Group = {
  summary: 'Networks',
  commands: { create, ls, inspect, update, rm, connect, disconnect, prune },
};
