/** `sluice volume …` */

import type { Volume } from '../../model/container/volume.ts';
import type { View } from '../../model/request.ts';
import { command, type Group } from '../command/command.ts';
import { forEach, inspectEach } from '../command/each.ts';
import { optionalWord, pairs, toggle, words } from '../command/flag.ts';
import { waitFlags, waitOf } from '../command/wait.ts';
import { type Column, inspectFlags, listFlags, nameColumn, printList, stateColumn } from '../print/listing.ts';
import { progress } from '../print/progress.ts';
import { madeUpName } from './name.ts';

const create = command({
  summary: 'Create a volume: a directory that outlives the containers which mount it',
  about: 'The first container that mounts it fills it with what its image has at that place.',
  examples: ['sluice volume create --label team=shop pages'],
  flags: { label: pairs('KEY=VALUE', 'Label', { short: 'l' }), ...waitFlags },
  args: { name: optionalWord('name of the volume; absent: one is made up') },
  async run(context, flags, { name = madeUpName(crypto.getRandomValues(new Uint8Array(4))) }) {
    const { volumes } = await context.client();
    const request = flags.label ? { labels: flags.label } : {};
    const making = volumes.put(name, request, { create: true, ...waitOf(flags) });
    context.terminal.out(`${(await progress(context.terminal, `volume ${name} is made`, making)).name}\n`);
  },
});

const COLUMNS: readonly Column<View<Volume>>[] = [
  { title: 'DRIVER', field: 'Driver', of: ({ spec }) => spec.driver },
  nameColumn,
  {
    title: 'MOUNTPOINT',
    field: 'Mountpoint',
    of: ({ status }) => String(status?.detail.mountpoint ?? ''),
    shrink: true,
  },
  stateColumn,
];

const ls = command({
  summary: 'List volumes',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    const items = await (await context.client()).volumes.list();
    // A volume is known by its name, also where ids are asked for.
    if (flags.quiet)
      context.terminal.out(
        items
          .map(({ name }) => `${name}\n`)
          .sort()
          .join(''),
      );
    else await printList(context, items, COLUMNS, flags);
  },
});

const inspect = command({
  summary: 'Show all of a volume: where it lies, labels, state',
  flags: inspectFlags,
  args: { volume: words('names or ids', { of: 'volume' }) },
  async run(context, { format }, { volume }) {
    return inspectEach(context, volume, (await context.client()).volumes.get, format);
  },
});

const rm = command({
  summary: 'Remove volumes that no container mounts, with their data',
  aliases: ['remove'],
  flags: waitFlags,
  args: { volume: words('names or ids', { of: 'volume' }) },
  async run(context, flags, { volume }) {
    const { volumes } = await context.client();
    return forEach(context, 'removed', volume, (ref) => volumes.remove(ref, waitOf(flags)));
  },
});

const prune = command({
  summary: 'Remove the anonymous volumes that no container mounts',
  flags: {
    all: toggle('Also those with a name', { short: 'a' }),
    force: toggle('Do not ask', { short: 'f' }),
    ...waitFlags,
  },
  args: {},
  async run(context, flags) {
    const what = flags.all ? 'every volume' : 'every anonymous volume';
    const answer = flags.force
      ? null
      : await context.terminal.ask(`This removes ${what} that no container mounts, with its data. Go on? [y/N] `);
    if (answer !== null && !/^y(es)?$/i.test(answer.trim())) return 1;
    const { volumes } = await context.client();
    const pruning = volumes.prune({ all: flags.all, ...waitOf(flags) });
    const pruned = await progress(context.terminal, 'unused volumes are removed', pruning);
    context.terminal.out(pruned.map(({ name }) => `${name}\n`).join(''));
    return 0;
  },
});

export const volume: Group = { summary: 'Volumes', commands: { create, ls, inspect, rm, prune } };
