/** `sluice service …` */
import type { Client } from '../../client/client.ts';
import type { ShownPort } from '../../model/container.ts';
import { tryParse } from '../../model/ip.ts';
import type { BackendRequest, ServiceRequest, View } from '../../model/request.ts';
import type { Protocol, Service, ServicePort } from '../../model/service.ts';
import { command, type FlagValues, type Group, UsageError } from '../command/command.ts';
import { forEach, inspectEach } from '../command/each.ts';
import {
  integer,
  many,
  one,
  optionalCommandLine,
  optionalWord,
  pairs,
  type Reader,
  text,
  toggle,
  word,
  words,
} from '../command/flag.ts';
import { publishFlag } from '../command/publish.ts';
import { waitFlags, waitOf, warn } from '../command/wait.ts';
import { portText as publishedText } from '../container/look.ts';
import { pullFlags, withImage } from '../container/run.ts';
import { namesOf } from '../endpoint.ts';
import {
  type Column,
  idColumn,
  inspectFlags,
  listFlags,
  nameColumn,
  printList,
  stateColumn,
} from '../print/listing.ts';
import { progress } from '../print/progress.ts';
import { logs } from './logs.ts';
import { placementFlags, ps, replicaFlags, replicasOf, scale, serving } from './replica.ts';

function portNumber(given: string, whole: string): number {
  const port = Number(given);
  if (!/^\d{1,5}$/.test(given) || port < 1 || port > 65_535)
    throw new UsageError(`"${given}" in "${whole}" is not a port from 1 to 65535`);
  return port;
}

/** `[NAME=]80[:8080][/udp]` */
export const readPort: Reader<NonNullable<ServiceRequest['ports']>[number]> = (given) => {
  const [, name, port, target, protocol] = /^(?:([^=]+)=)?([^:/]+)(?::([^/]+))?(?:\/(.+))?$/.exec(given) ?? [];
  if (port === undefined) throw new UsageError(`"${given}" is not [NAME=]PORT[:TARGET][/udp]`);
  if (protocol !== undefined && protocol !== 'tcp' && protocol !== 'udp')
    throw new UsageError(`"${protocol}" in "${given}" is neither tcp nor udp`);
  return {
    ...(name !== undefined && { name }),
    port: portNumber(port, given),
    ...(target !== undefined && { target: portNumber(target, given) }),
    ...(protocol !== undefined && { protocol: protocol as Protocol }),
  };
};

/** `SANDBOX[:PORT]`, `10.20.0.5[:PORT]`, `fd00::5`, `[fd00::5]:PORT` */
export const readBackend: Reader<BackendRequest> = (given) => {
  const bracketed = /^\[([^\]]+)\](?::(.+))?$/.exec(given);
  if (bracketed) {
    const [, address, port] = bracketed;
    if (!address!.includes(':') || tryParse(address!) === null)
      throw new UsageError(`"${address}" in "${given}" is not an IPv6 address`);
    return { address: address!, ...(port !== undefined && { port: portNumber(port, given) }) };
  }
  if (tryParse(given) !== null) return { address: given };
  const [, head, port] = /^([^:]+)(?::([^:]+))?$/.exec(given) ?? [];
  if (!head) throw new UsageError(`"${given}" is not SANDBOX[:PORT], IP[:PORT] or [IPv6]:PORT`);
  const at = port === undefined ? {} : { port: portNumber(port, given) };
  if (tryParse(head) !== null) return { address: head, ...at };
  // What consists of digits and dots alone was meant to be an address.
  if (/^\d+(\.\d*)+$/.test(head)) throw new UsageError(`"${head}" in "${given}" is not an IP address`);
  return { sandbox: head, ...at };
};

const createFlags = {
  publish: publishFlag,
  ...replicaFlags,
  ...pullFlags,
  name: one('NAME', text, 'Name of the service, in DNS as well'),
  network: one('NETWORK', text, 'Network that the service is on', { absent: 'bridge' }),
  ip: many('IP', text, 'Address of the service (VIP), one of each family', { absent: 'free ones' }),
  port: many('[NAME=]PORT[:TARGET][/udp]', readPort, 'Port, with the port of the backends where it differs', {
    absent: 'every port, to the same one of the backends',
  }),
  backend: many(
    'SANDBOX|IP[:PORT]',
    readBackend,
    'What connections are spread over; an IPv6 address with a port in brackets',
  ),
  ...placementFlags,
  networkAlias: many('NAME', text, 'A further name on the network', { also: ['--alias'] }),
  label: pairs('KEY=VALUE', 'Label'),
  quiet: toggle('Print the id instead of the name', { short: 'q' }),
  ...waitFlags,
};

export function serviceRequest(
  flags: FlagValues<typeof createFlags>,
  replicas?: ServiceRequest['replicas'],
): ServiceRequest {
  const { network = 'bridge', ip, port, publish, backend, networkAlias, label } = flags;
  return {
    network,
    ...(ip.length > 0 && { ips: ip }),
    ...(port.length > 0 && { ports: port }),
    ...(publish.length > 0 && { publish: publish.flat() }),
    ...(backend.length > 0 && { backends: backend }),
    ...(replicas && { replicas }),
    ...(networkAlias.length > 0 && { aliases: networkAlias }),
    ...(label && { labels: label }),
  };
}

const create = command({
  summary: 'Create a service: one address in front of several backends, or of containers that it runs',
  about:
    'With an image it runs containers of it, named SERVICE-1 and so on, and balances over those that are up and, where there is a health ' +
    'check, healthy. One that dies is started again, one that is gone is made anew.',
  examples: [
    'sluice service create --name shop --network web --port 80 --replicas 3 busybox httpd -f -p 80',
    'sluice service create --name shop --network web --port 80 --backend api-1 --backend api-2',
    'sluice service create --name dns --network web --port 53/udp --backend 10.20.0.9:5353 --backend "[fd00:20::9]:5353"',
  ],
  flags: createFlags,
  args: {
    image: optionalWord('name or id of what its replicas run', { of: 'image' }),
    command: optionalCommandLine('program and its arguments'),
  },
  async run(context, flags, { image, command }) {
    const { name } = flags;
    if (name === undefined) throw new UsageError('sluice service create needs --name NAME');
    const client = await context.client();
    const { services, networks } = client;
    const replicas = replicasOf(flags, image, command, context.env);
    const put = (): Promise<View<Service>> => {
      const putting = services.put(name, serviceRequest(flags, replicas), { create: true, ...waitOf(flags) });
      return progress(context.terminal, `service ${name} is programmed`, putting);
    };
    const made = await (image === undefined ? put() : withImage(context, flags, image, put));
    const view = flags.detach ? made : await serving(context, client, made, flags.waitTimeout);
    context.terminal.out(`${flags.quiet ? view.id : view.name}\n`);
    warn(context, view);
    warn(context, await networks.get(view.spec.network));
  },
});

const portText = ({ name, port, target, protocol }: ServicePort): string =>
  `${name ? `${name}=` : ''}${port}${target === port ? '' : `:${target}`}/${protocol}`;

/** Ports of the VIP, then those that this host publishes. */
function portsText({ spec, status }: View<Service>): string {
  const published = (status?.detail.ports ?? []) as readonly ShownPort[];
  const own = spec.ports.length > 0 ? spec.ports.map(portText) : ['all'];
  return [...own, ...published.map(publishedText)].join(', ');
}

async function columns(client: Client): Promise<readonly Column<View<Service>>[]> {
  const networks = await namesOf(client.networks.list);
  return [
    idColumn('SERVICE ID'),
    nameColumn,
    { title: 'NETWORK', field: 'Network', of: ({ spec }) => networks.get(spec.network) ?? '', shrink: true },
    { title: 'VIPS', field: 'Vips', of: ({ spec }) => spec.vips.join(', '), shrink: true },
    { title: 'PORTS', field: 'Ports', of: portsText, shrink: true },
    {
      title: 'BACKENDS',
      field: 'Backends',
      of: ({ spec, status }) =>
        spec.replicas?.placement?.mode === 'global'
          ? `${status?.detail.backends ?? 0}`
          : `${status?.detail.backends ?? 0}/${spec.backends.length + (spec.replicas?.count ?? 0)}`,
    },
    stateColumn,
  ];
}

const ls = command({
  summary: 'List services',
  about:
    'PORTS are those of the VIP, then the ones of this host that lead to it; BACKENDS says how many addresses are balanced over, and how many ' +
    'backends the service has.',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    const client = await context.client();
    const bare = flags.quiet || flags.format === 'json';
    const [items, cells] = await Promise.all([client.services.list(), bare ? [] : columns(client)]);
    await printList(context, items, cells, flags);
  },
});

const inspect = command({
  summary: 'Show all of a service: addresses, ports, backends, connections made and refused',
  flags: inspectFlags,
  args: { service: words('names or ids', { of: 'service' }) },
  async run(context, { format }, { service }) {
    return inspectEach(context, service, (await context.client()).services.get, format);
  },
});

const update = command({
  summary: 'Change the backends of a service, or the number or image of its replicas',
  about:
    'Open connections stay with their backend. With another image replicas are replaced one after another, each when a new one serves; ' +
    'in a cluster on one node at a time, or on as many as --update-parallelism of the service says.',
  examples: [
    'sluice service update shop --backend-add api-3 --backend-rm api-1',
    'sluice service update shop --replicas 5 --image registry.local/shop:2',
  ],
  flags: {
    ...pullFlags,
    replicas: one('N', integer, 'How many containers run'),
    image: one('IMAGE', text, 'What they run'),
    updateParallelism: { ...placementFlags.updateParallelism, absent: 'as before' },
    backendAdd: many('SANDBOX|IP[:PORT]', readBackend, 'Backend to add'),
    backendRm: many('SANDBOX|IP[:PORT]', readBackend, 'Backend to take out of the balancing'),
    quiet: toggle('Print the id instead of the name', { short: 'q' }),
    ...waitFlags,
  },
  args: { service: word('name or id', { of: 'service' }) },
  async run(context, flags, { service }) {
    const { backendAdd: add, backendRm: remove, replicas: count, image, updateParallelism } = flags;
    const backends = add.length > 0 || remove.length > 0;
    const replicas = count !== undefined || image !== undefined || updateParallelism !== undefined;
    if (!backends && !replicas)
      throw new UsageError(
        'sluice service update needs --backend-add, --backend-rm, --replicas, --image or --update-parallelism',
      );
    const client = await context.client();
    const { services } = client;
    const change = async (): Promise<View<Service>> => {
      const scaled = replicas
        ? await services.scale(service, { count, image, updateParallelism }, waitOf(flags))
        : undefined;
      return backends ? services.update(service, { add, remove }, waitOf(flags)) : scaled!;
    };
    const put = (): Promise<View<Service>> => progress(context.terminal, `service ${service} is programmed`, change());
    const made = await (image === undefined ? put() : withImage(context, flags, image, put));
    const view = flags.detach || !replicas ? made : await serving(context, client, made, flags.waitTimeout);
    context.terminal.out(`${flags.quiet ? view.id : view.name}\n`);
    warn(context, view);
  },
});

const rm = command({
  summary: 'Remove services',
  aliases: ['remove'],
  flags: waitFlags,
  args: { service: words('names or ids', { of: 'service' }) },
  async run(context, flags, { service }) {
    const { services } = await context.client();
    return forEach(context, 'removed', service, (ref) => services.remove(ref, waitOf(flags)));
  },
});

export const service: Group = {
  summary: 'Balanced services',
  commands: { create, ls, inspect, update, scale, ps, logs, rm },
};
