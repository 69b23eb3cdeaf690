/** `sluice node …` */
import type { Availability, NodeRequest, NodeView } from '../../model/node.ts';
import { command, type Group, UsageError } from '../command/command.ts';
import { forEach, inspectEach } from '../command/each.ts';
import { many, text, word, words } from '../command/flag.ts';
import { type Column, idColumn, inspectFlags, listFlags, nameColumn, printList } from '../print/listing.ts';

const COLOURS = { ready: 'green', unreachable: 'yellow', lost: 'red' } as const;

const COLUMNS: readonly Column<NodeView>[] = [
  idColumn('NODE ID'),
  nameColumn,
  { title: 'ADDRESS', field: 'Address', of: ({ spec }) => spec.address },
  {
    title: 'STATE',
    field: 'State',
    of: ({ session }) => session.state,
    colour: ({ session }) => COLOURS[session.state],
  },
  { title: 'AVAILABILITY', field: 'Availability', of: ({ spec }) => spec.availability ?? 'active' },
  { title: 'LAST SEEN', field: 'LastSeen', of: ({ session }) => agoText(session.silentMs) },
  {
    title: 'LABELS',
    field: 'Labels',
    of: ({ labels }) =>
      Object.entries(labels)
        .map(([key, value]) => `${key}=${value}`)
        .join(', '),
    shrink: true,
  },
];

/** `now`, `4 s ago`, `3 min ago` */
export function agoText(ms: number): string {
  if (ms < 2_000) return 'now';
  return ms < 120_000 ? `${Math.round(ms / 1_000)} s ago` : `${Math.round(ms / 60_000)} min ago`;
}

const ls = command({
  summary: 'List nodes, and what this one knows of the others',
  about:
    'unreachable: its daemon gives no sign of life, and its kernel answers: what runs there still serves. lost: nor does that; its backends are out of names and balancing.',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    await printList(context, await (await context.client()).nodes.list(), COLUMNS, flags);
  },
});

const inspect = command({
  summary: 'Show all of a node: addresses, routes, labels, session',
  flags: inspectFlags,
  args: { node: words('names or ids', { of: 'node' }) },
  async run(context, { format }, { node }) {
    return inspectEach(context, node, (await context.client()).nodes.get, format);
  },
});

const label = command({
  summary: 'Set labels on a node, and take some away',
  examples: ['sluice node label --add zone=a --rm rack host-1'],
  flags: {
    add: many('KEY=VALUE', text, 'Label to set'),
    rm: many('KEY', text, 'Label to take away'),
  },
  args: { node: word('name or id', { of: 'node' }) },
  async run(context, { add, rm }, { node }) {
    if (add.length + rm.length === 0) throw new UsageError('nothing to change: --add KEY=VALUE or --rm KEY');
    const labels: Record<string, string | null> = Object.fromEntries(rm.map((key) => [key, null]));
    for (const each of add) {
      const at = each.indexOf('=');
      if (at < 1) throw new UsageError(`"${each}" is not KEY=VALUE`);
      labels[each.slice(0, at)] = each.slice(at + 1);
    }
    const view = await (await context.client()).nodes.update(node, { labels } satisfies NodeRequest);
    context.terminal.out(`${view.name}\n`);
  },
});

const turn = (availability: Availability, summary: string, done: string) =>
  command({
    summary,
    flags: {},
    args: { node: words('names or ids', { of: 'node' }) },
    async run(context, _flags, { node }) {
      const { nodes } = await context.client();
      return forEach(context, done, node, (ref) => nodes.update(ref, { availability }));
    },
  });

const rm = command({
  summary: 'Forget lost nodes, their sandboxes and the addresses of those',
  aliases: ['remove'],
  flags: {},
  args: { node: words('names or ids', { of: 'node' }) },
  async run(context, _flags, { node }) {
    const { nodes } = await context.client();
    return forEach(context, 'removed', node, (ref) => nodes.remove(ref));
  },
});

export const node: Group = {
  summary: 'Nodes of the cluster',
  commands: {
    ls,
    inspect,
    label,
    drain: turn('drained', 'Send no new connections to backends on a node; open ones stay', 'drained'),
    undrain: turn('active', 'Take a node back into the balancing', 'active again'),
    rm,
  },
};
