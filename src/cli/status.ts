/** `sluice status` and `sluice version`: what is there, and how it fares. */
import type { StatusAnswer, VersionAnswer } from '../model/answer.ts';
import type { Kind } from '../model/object.ts';
import { agoText } from './cluster/node.ts';
import { command } from './command/command.ts';
import { one, text } from './command/flag.ts';
import { ownVersion } from './install.ts';
import { formatFlag, printOne } from './print/listing.ts';
import { clean, renderTable } from './print/table.ts';

/** `name  value` lines; what is undefined is left out. */
function pairsOf(rows: readonly (readonly [string, string | undefined])[], indent = ''): string {
  const present = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(...present.map(([name]) => name.length)) + 2;
  return present.map(([name, value]) => `${indent}${`${name}:`.padEnd(width)}${clean(value!)}\n`).join('');
}

/** `2 ready, 1 error` */
function countText(states: Readonly<Record<string, number>>): string {
  const some = Object.entries(states).filter(([, count]) => count > 0);
  return some.length > 0 ? some.map(([state, count]) => `${count} ${state}`).join(', ') : '0';
}

const PLURALS: Readonly<Record<Kind, string>> = {
  network: 'Networks',
  sandbox: 'Sandboxes',
  endpoint: 'Endpoints',
  service: 'Services',
  container: 'Containers',
  volume: 'Volumes',
  assignment: 'Assignments',
  node: 'Nodes',
};

export function statusText(status: StatusAnswer): string {
  const { store, counts, components, conditions, nodes = [] } = status;
  const storeText = store.available
    ? `revision ${store.revision}`
    : `away: ${store.error?.message ?? 'no reason given'} (${store.error?.code ?? 'internal'})`;
  const head = pairsOf([
    ['State', status.state],
    ['Version', status.version],
    ['Node', status.node],
    ['Instance', status.instance],
    ['Kernel', status.kernel],
    ['Started', status.startedAt],
    ['Store', storeText],
    ...Object.entries(counts ?? {})
      .filter(([, states]) => Object.values(states).some((count) => count > 0))
      .map(([kind, states]) => [PLURALS[kind as Kind], countText(states)] as const),
  ]);
  const parts = renderTable(
    ['COMPONENT', 'STATE', 'QUEUED', 'LAST SUCCESS', 'ERROR'],
    components.map(({ name, state, queued, lastSuccess, error }) => [
      name,
      state,
      String(queued ?? 0),
      lastSuccess ?? '',
      error ? `${error.message} (${error.code})` : '',
    ]),
  );
  const peers = renderTable(
    ['NODE', 'STATE', 'LAST SEEN', 'EPOCH', 'APPLIED', 'BEHIND'],
    nodes.map(({ name, state, silentMs, epoch, applied, behind }) => [
      name,
      state,
      agoText(silentMs),
      String(epoch ?? ''),
      String(applied ?? ''),
      String(behind ?? ''),
    ]),
  );
  const active = conditions.filter((condition) => condition.active);
  const wrong = active.map(({ type, message, since }) => `${type} since ${since}: ${clean(message)}\n`).join('');
  return [
    head,
    ...(nodes.length > 0 ? [peers] : []),
    ...(components.length > 0 ? [parts] : []),
    ...(wrong ? [`Conditions:\n${wrong}`] : []),
  ].join('\n');
}

export const status = command({
  summary: 'Health of the daemon: its parts, its store, what is amiss with the host',
  flags: { format: formatFlag },
  args: {},
  aliases: ['info'],
  async run(context, { format = 'table' }) {
    await printOne(context, await (await context.client()).status(), format, statusText);
  },
});

interface Versions {
  readonly client: { readonly version: string; readonly node: string };
  /** Null when the daemon does not answer. */
  readonly server: VersionAnswer | null;
}

function versionText({ client, server }: Versions): string {
  const own = `Client:\n${pairsOf(
    [
      ['Version', client.version],
      ['Node.js', client.node],
    ],
    '  ',
  )}`;
  if (!server) return own;
  const theirs = pairsOf(
    [
      ['Version', server.version],
      ['API', server.api],
      ['Node', server.node],
      ['Instance', server.instance],
      ['Kernel', server.kernel],
    ],
    '  ',
  );
  return `${own}Server:\n${theirs}`;
}

export const version = command({
  summary: 'Versions of this program and of the daemon',
  flags: {
    format: one('FORMAT', text, "table, json, or a template such as '{{.Server.Version}}'", { absent: 'table' }),
  },
  args: {},
  async run(context, { format = 'table' }) {
    const client = { version: ownVersion(), node: process.version };
    let failure: unknown;
    const server = await (await context.client()).version().catch((error: unknown) => {
      failure = error;
      return null;
    });
    await printOne<Versions>(context, { client, server }, format, versionText);
    if (failure) throw failure;
  },
});
