/** `sluice ps|logs|top|port`, and how a container is told in a table. */
import type { Container, ContainerDetail, ShownPort } from '../../model/container.ts';
import type { View } from '../../model/request.ts';
import { command, UsageError } from '../command/command.ts';
import { many, one, type Reader, toggle, word } from '../command/flag.ts';
import { type Column, idColumn, listFlags, nameColumn, printList, stateText } from '../print/listing.ts';
import { renderTable } from '../print/table.ts';
import { readMoment, readTail } from './words.ts';

export const detailOf = (view: View<Container>): Partial<ContainerDetail> =>
  (view.status?.detail ?? {}) as Partial<ContainerDetail>;

const STEPS = [
  [1, 'second'],
  [60, 'minute'],
  [3_600, 'hour'],
  [86_400, 'day'],
  [604_800, 'week'],
  [31_536_000, 'year'],
] as const;

/** `5 minutes` */
export function spanOf(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  const [size, unit] = STEPS.findLast(([step]) => seconds >= step) ?? STEPS[0];
  const count = Math.floor(seconds / size);
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}

/** `Up 5 minutes (healthy)`, `Exited (0) 3 seconds ago`, `Restarting (1)`, `Created`; what keeps it from being so, in words. */
export function statusText(view: View<Container>, now: number): string {
  const { phase, health, exitCode, startedAt, finishedAt, failure } = detailOf(view);
  const since = (time: string | undefined): string => (time ? spanOf(now - Date.parse(time)) : 'some time');
  if (view.removing) return 'Removing';
  if (view.status?.state === 'error' && !failure) return stateText(view);
  if (phase === 'running') return `Up ${since(startedAt)}${health ? ` (${health})` : ''}`;
  if (phase === 'restarting') return `Restarting (${exitCode ?? '?'}) ${since(finishedAt)} ago`;
  if (phase === 'exited') return `Exited (${exitCode ?? '?'}) ${since(finishedAt)} ago`;
  return view.spec.wanted === 'running' ? 'Starting' : 'Created';
}

const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);
export const portText = ({ address, published, target, protocol }: ShownPort): string =>
  `${bracketed(address)}:${published}->${target}/${protocol}`;

/** Docker's width of a command that is abbreviated. */
const COMMAND_MAX = 20;

/** `"sh -c 'echo a b'"`: what it runs, the image's own words included, as Docker writes it. */
export function commandText(view: View<Container>, noTrunc = false): string {
  const { entrypoint = [], command = [] } = view.spec;
  // A daemon of an earlier version says nothing of the image's.
  const [program = '', ...args] = detailOf(view).args ?? [...entrypoint, ...command];
  const words = [program, ...args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg))].join(' ');
  const letters = [...words];
  const isShort = noTrunc || letters.length <= COMMAND_MAX;
  return JSON.stringify(isShort ? words : `${letters.slice(0, COMMAND_MAX - 1).join('')}…`);
}

const columns = (now: number, noTrunc?: boolean): readonly Column<View<Container>>[] => [
  idColumn('CONTAINER ID'),
  { title: 'IMAGE', field: 'Image', of: ({ spec }) => spec.image, shrink: true },
  { title: 'COMMAND', field: 'Command', of: (view) => commandText(view, noTrunc), shrink: true },
  { title: 'CREATED', field: 'Created', of: ({ createdAt }) => `${spanOf(now - Date.parse(createdAt))} ago` },
  { title: 'STATUS', field: 'Status', of: (view) => statusText(view, now) },
  { title: 'PORTS', field: 'Ports', of: (view) => (detailOf(view).ports ?? []).map(portText).join(', '), shrink: true },
  { ...nameColumn, title: 'NAMES', field: 'Names' },
];

const FILTERS = ['id', 'name', 'status', 'label', 'ancestor', 'network', 'volume', 'health'] as const;
type Filter = readonly [key: (typeof FILTERS)[number], value: string];

const readFilter: Reader<Filter> = (given) => {
  const [, key, value] = /^([a-z]+)=(.+)$/.exec(given) ?? [];
  if (!(FILTERS as readonly (string | undefined)[]).includes(key))
    throw new UsageError(`"${given}" is not one of ${FILTERS.map((known) => `${known}=…`).join(' ')}`);
  return [key as Filter[0], value!];
};

function fits(view: View<Container>, [key, value]: Filter): boolean {
  const { id, name, spec, labels } = view;
  const { phase = 'created', health } = detailOf(view);
  if (key === 'id') return id.startsWith(value);
  if (key === 'name') return name.includes(value);
  if (key === 'status') return phase === value;
  if (key === 'health') return (health ?? 'none') === value;
  if (key === 'ancestor') return spec.image === value || spec.imageId.includes(value);
  if (key === 'volume') return spec.mounts.some(({ source, target }) => source === value || target === value);
  if (key === 'label') {
    const [label, wanted] = value.split(/=(.*)/s);
    return label! in labels && (wanted === undefined || labels[label!] === wanted);
  }
  return true;
}

export const ps = command({
  summary: 'List containers',
  about: `Those that run, or are about to; with --all every one. Filters: ${FILTERS.map((key) => `${key}=…`).join(' ')}.`,
  examples: ['sluice ps --all --filter status=exited'],
  flags: {
    all: toggle('Also those that do not run', { short: 'a' }),
    filter: many('KEY=VALUE', readFilter, 'Only those that fit; several must all fit'),
    ...listFlags,
  },
  args: {},
  async run(context, { all, filter, ...flags }) {
    const client = await context.client();
    const networks = filter.filter(([key]) => key === 'network').map(([, value]) => value);
    const onNetworks = await sandboxesOn(client, networks);
    const items = (await client.containers.list()).filter((view) => {
      const { phase } = detailOf(view);
      const shown = all || filter.some(([key]) => key === 'status') || phase === 'running' || phase === 'restarting';
      return shown && filter.every((one) => fits(view, one)) && (!onNetworks || onNetworks.has(view.spec.sandbox));
    });
    await printList(context, items, columns(Date.now(), flags.noTrunc), flags);
  },
});

async function sandboxesOn(
  client: Awaited<ReturnType<Parameters<typeof printList>[0]['client']>>,
  networks: readonly string[],
): Promise<ReadonlySet<string> | null> {
  if (networks.length === 0) return null;
  const ids = await Promise.all(networks.map(async (ref) => (await client.networks.get(ref)).id));
  const endpoints = (await client.endpoints.list()).filter(({ spec }) => ids.includes(spec.network));
  return new Set(endpoints.map(({ spec }) => spec.sandbox));
}

export const logs = command({
  summary: 'What a container has written',
  examples: ['sluice logs --follow --tail 100 --timestamps api-1'],
  flags: {
    follow: toggle('Go on with what is written from now on', { short: 'f' }),
    tail: one('LINES', readTail, 'The last lines only', { short: 'n', absent: 'all' }),
    since: one('TIME', readMoment(Date.now), 'Not before: a time, or so long ago as 10m'),
    until: one('TIME', readMoment(Date.now), 'Not after'),
    timestamps: toggle('Show when each line was written', { short: 't' }),
  },
  args: { container: word('name or id', { of: 'container' }) },
  async run({ client, terminal }, { timestamps, ...options }, { container }) {
    for await (const { time, stream, text } of (await client()).containers.logs(container, options))
      await terminal.write(stream, Buffer.from(timestamps ? `${time} ${text}` : text));
  },
});

export const top = command({
  summary: 'Processes of a container, as the host sees them',
  examples: ['sluice top api-1'],
  flags: {},
  args: { container: word('name or id', { of: 'container' }) },
  async run({ client, terminal }, _, { container }) {
    const processes = await (await client()).containers.top(container);
    terminal.out(
      renderTable(
        ['PID', 'USER', 'COMMAND'],
        processes.map(({ pid, user, command }) => [String(pid), user, command]),
        { columns: terminal.columns, shrink: [false, false, true] },
      ),
    );
  },
});

export const port = command({
  summary: 'Published ports of a container',
  examples: ['sluice port shop-1'],
  flags: {},
  args: { container: word('name or id', { of: 'container' }) },
  async run({ client, terminal }, _, { container }) {
    const view = await (await client()).containers.get(container);
    for (const { address, published, target, protocol } of detailOf(view).ports ?? [])
      terminal.out(`${target}/${protocol} -> ${bracketed(address)}:${published}\n`);
  },
});
