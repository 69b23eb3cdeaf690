/** `sluice endpoint …` */
import type { Client } from '../client/client.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { View } from '../model/request.ts';
import { command, type Group } from './command/command.ts';
import { inspectEach } from './command/each.ts';
import { words } from './command/flag.ts';
import { type Column, idColumn, inspectFlags, listFlags, nameColumn, printList, stateColumn } from './print/listing.ts';

/** Names by id; for what has gone meanwhile, nothing. */
export async function namesOf(list: () => Promise<readonly { readonly id: string; readonly name: string }[]>) {
  return new Map((await list()).map(({ id, name }) => [id, name]));
}

async function columns(client: Client): Promise<readonly Column<View<Endpoint>>[]> {
  const [networks, sandboxes] = await Promise.all([namesOf(client.networks.list), namesOf(client.sandboxes.list)]);
  return [
    idColumn('ENDPOINT ID'),
    nameColumn,
    { title: 'SANDBOX', field: 'Sandbox', of: ({ spec }) => sandboxes.get(spec.sandbox) ?? '', shrink: true },
    { title: 'NETWORK', field: 'Network', of: ({ spec }) => networks.get(spec.network) ?? '', shrink: true },
    { title: 'ADDRESSES', field: 'Addresses', of: ({ spec }) => spec.addresses.join(', '), shrink: true },
    { title: 'MAC', field: 'Mac', of: ({ spec }) => spec.mac },
    stateColumn,
  ];
}

const ls = command({
  summary: 'List endpoints',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    const client = await context.client();
    const bare = flags.quiet || flags.format === 'json';
    const [items, cells] = await Promise.all([client.endpoints.list(), bare ? [] : columns(client)]);
    await printList(context, items, cells, flags);
  },
});

const inspect = command({
  summary: 'Show all of an endpoint: addresses, interfaces, what was dropped and why',
  about: 'An endpoint is called SANDBOX.NETWORK.',
  flags: inspectFlags,
  args: { endpoint: words('names or ids', { of: 'endpoint' }) },
  async run(context, { format }, { endpoint }) {
    return inspectEach(context, endpoint, (await context.client()).endpoints.get, format);
  },
});

export const endpoint: Group = { summary: "Endpoints: a sandbox's place on a network", commands: { ls, inspect } };
