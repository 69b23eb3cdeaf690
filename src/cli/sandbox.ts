/** `sluice sandbox …` */
import { basename, resolve } from 'node:path';
import type { Client } from '../client/client.ts';
import type { SandboxRequest, View } from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import { attachmentFlags, networkFlag, networksOf } from './attachment.ts';
import { type Context, command, type FlagValues, type Group, UsageError } from './command/command.ts';
import { forEach, inspectEach } from './command/each.ts';
import { many, one, pairs, text, toggle, word, words } from './command/flag.ts';
import { waitFlags, waitOf, warn } from './command/wait.ts';
import { namesOf } from './endpoint.ts';
import { exec } from './exec.ts';
import { type Column, idColumn, inspectFlags, listFlags, nameColumn, printList, stateColumn } from './print/listing.ts';
import { progress } from './print/progress.ts';

const commonFlags = {
  network: networkFlag,
  ...attachmentFlags,
  label: pairs('KEY=VALUE', 'Label'),
  quiet: toggle('Print the id instead of the name', { short: 'q' }),
  ...waitFlags,
};

const createFlags = {
  ...commonFlags,
  hostname: one('NAME', text, 'Host name that its records say', { absent: 'the name' }),
  dns: many('IP', text, 'Resolver for foreign names', { absent: "the host's" }),
  dnsSearch: many('DOMAIN', text, 'Search domain', { absent: "the host's" }),
  dnsOption: many('OPTION', text, 'Resolver option', { also: ['--dns-opt'] }),
  sysctl: pairs('KEY=VALUE', 'Sysctl below net., set inside'),
};

export function sandboxRequest(flags: FlagValues<typeof createFlags>): SandboxRequest {
  const { network, hostname, dns, dnsSearch, dnsOption, sysctl, label } = flags;
  const networks = networksOf(network, flags);
  const resolver = {
    ...(dns.length > 0 && { servers: dns }),
    ...(dnsSearch.length > 0 && { search: dnsSearch }),
    ...(dnsOption.length > 0 && { options: dnsOption }),
  };
  return {
    ...(networks && { networks }),
    ...(hostname !== undefined && { hostname }),
    ...(Object.keys(resolver).length > 0 && { dns: resolver }),
    ...(sysctl && { sysctls: sysctl }),
    ...(label && { labels: label }),
  };
}

async function put(
  context: Context,
  name: string,
  request: SandboxRequest,
  flags: Pick<FlagValues<typeof commonFlags>, 'quiet' | 'detach' | 'waitTimeout'>,
): Promise<void> {
  const { sandboxes, networks } = await context.client();
  const putting = sandboxes.put(name, request, { create: true, ...waitOf(flags) });
  const view = await progress(context.terminal, `sandbox ${name} is programmed`, putting);
  context.terminal.out(`${flags.quiet ? view.id : view.name}\n`);
  warn(context, view);
  const joined = request.networks ?? (request.attach ? [] : [{ network: 'bridge' }]);
  for (const { network } of joined) warn(context, await networks.get(network));
}

const create = command({
  summary: 'Create a sandbox: a network namespace of its own, on networks',
  examples: [
    'sluice sandbox create api-1 --network web --network-alias api',
    'sluice sandbox create gate --network web:ip=10.20.0.9 --network backstage:ifname=inner0',
  ],
  flags: createFlags,
  args: { name: word('name of the new sandbox') },
  run: (context, flags, { name }) => put(context, name, sandboxRequest(flags), flags),
});

const attach = command({
  summary: 'Take in a network namespace that somebody else made',
  about:
    'Its interfaces and its default route stay, no file of it is written, and removing the sandbox leaves the namespace as it was. ' +
    'Without --network it joins none; "sluice network connect" does so later.',
  examples: ['sluice sandbox attach --network web /run/netns/guest'],
  flags: {
    ...commonFlags,
    network: { ...networkFlag, absent: 'none' },
    name: one('NAME', text, 'Name of the sandbox', { absent: 'the last part of the path' }),
  },
  args: { netnsPath: word('path of the namespace, such as /run/netns/guest or /proc/PID/ns/net') },
  run(context, flags, { netnsPath }) {
    const path = resolve(netnsPath);
    // The last part of /proc/PID/ns/net says nothing.
    const pid = /^\/proc\/(\d+)\//.exec(path)?.[1];
    const name = flags.name ?? (pid ? `pid-${pid}` : basename(path));
    const networks = networksOf(flags.network, flags);
    if (networks && flags.network.length === 0) throw new UsageError('flags of an endpoint need their --network');
    return put(
      context,
      name,
      { attach: path, ...(networks && { networks }), ...(flags.label && { labels: flags.label }) },
      flags,
    );
  },
});

async function columns(client: Client): Promise<readonly Column<View<Sandbox>>[]> {
  const [networks, endpoints] = await Promise.all([namesOf(client.networks.list), client.endpoints.list()]);
  const places = (id: string) => endpoints.filter(({ spec }) => spec.sandbox === id);
  return [
    idColumn('SANDBOX ID'),
    nameColumn,
    {
      title: 'NETWORKS',
      field: 'Networks',
      of: ({ id }) =>
        places(id)
          .map(({ spec }) => networks.get(spec.network) ?? spec.network)
          .join(', '),
      shrink: true,
    },
    {
      title: 'ADDRESSES',
      field: 'Addresses',
      of: ({ id }) =>
        places(id)
          .flatMap(({ spec }) => spec.addresses.map((address) => address.split('/')[0]!))
          .join(', '),
      shrink: true,
    },
    { title: 'ORIGIN', field: 'Origin', of: ({ spec }) => spec.origin },
    stateColumn,
  ];
}

const ls = command({
  summary: 'List sandboxes',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    const client = await context.client();
    const bare = flags.quiet || flags.format === 'json';
    const [items, cells] = await Promise.all([client.sandboxes.list(), bare ? [] : columns(client)]);
    await printList(context, items, cells, flags);
  },
});

const inspect = command({
  summary: 'Show all of a sandbox: namespace, cgroup, resolver, state',
  flags: inspectFlags,
  args: { sandbox: words('names or ids', { of: 'sandbox' }) },
  async run(context, { format }, { sandbox }) {
    return inspectEach(context, sandbox, (await context.client()).sandboxes.get, format);
  },
});

const rm = command({
  summary: 'Remove sandboxes with their endpoints; what runs in them is ended',
  aliases: ['remove'],
  flags: { force: toggle('Also those that services balance over', { short: 'f' }), ...waitFlags },
  args: { sandbox: words('names or ids', { of: 'sandbox' }) },
  async run(context, flags, { sandbox }) {
    const { sandboxes } = await context.client();
    const options = { ...waitOf(flags), force: flags.force };
    return forEach(context, 'removed', sandbox, (ref) => sandboxes.remove(ref, options));
  },
});

export const sandbox: Group = {
  summary: 'Sandboxes: named network namespaces',
  commands: { create, ls, inspect, exec, attach, rm },
};
