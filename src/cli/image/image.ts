/** `sluice image …` */
import type { Image } from '../../model/image/image.ts';
import { command, type Group } from '../command/command.ts';
import { forEach, inspectEach } from '../command/each.ts';
import { toggle, word, words } from '../command/flag.ts';
import { agoText, bytesText } from '../print/amount.ts';
import { type Column, formatFlag, inspectFlags, listFlags, printList } from '../print/listing.ts';
import { progress } from '../print/progress.ts';
import { login, logout } from './login.ts';
import { importing, load, pull, push, save } from './transfer.ts';

/** One name of an image. */
interface Row {
  readonly id: string;
  readonly name: string;
  readonly repository: string;
  readonly tag: string;
  readonly image: Image;
}

const NONE = '<none>';
/** Hex digits of an id, which is `sha256:…`. */
const hexOf = (id: string): string => id.slice(id.indexOf(':') + 1);
/** As people type it: `busybox`, `localhost:5000/x`. */
const familiar = (repository: string): string => repository.replace(/^docker\.io\/(?:library\/)?/, '');

/** A row a name, and one for an image without any; pure. */
export function rowsOf(images: readonly Image[]): Row[] {
  return images.flatMap((image) => {
    const id = hexOf(image.id);
    if (image.names.length === 0) {
      const repository = image.digests[0]?.replace(/@.*/, '');
      return [{ id, name: `~${id}`, repository: repository ? familiar(repository) : NONE, tag: NONE, image }];
    }
    return image.names.map((name) => {
      const colon = name.lastIndexOf(':');
      return { id, name, repository: familiar(name.slice(0, colon)), tag: name.slice(colon + 1), image };
    });
  });
}

const COLUMNS: readonly Column<Row>[] = [
  { title: 'REPOSITORY', field: 'Repository', of: ({ repository }) => repository, shrink: true },
  { title: 'TAG', field: 'Tag', of: ({ tag }) => tag, shrink: true },
  { title: 'IMAGE ID', field: 'ID', of: ({ id }) => id, id: true },
  { title: 'CREATED', field: 'CreatedSince', of: ({ image }) => agoText(image.created, Date.now()) },
  { title: 'SIZE', field: 'Size', of: ({ image }) => bytesText(image.size) },
];

export const ls = command({
  summary: 'List images',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    const images = await (await context.client()).images.list();
    if (flags.format === 'json' && !flags.quiet) {
      context.terminal.out(`${JSON.stringify(images, null, 2)}\n`);
      return;
    }
    const rows = rowsOf(images);
    const shown = flags.quiet ? [...new Map(rows.map((row) => [row.id, row])).values()] : rows;
    await printList(context, shown, COLUMNS, flags);
  },
});

const inspect = command({
  summary: 'Show all of an image',
  flags: inspectFlags,
  args: { image: words('names or ids', { of: 'image' }) },
  async run(context, { format }, { image }) {
    return inspectEach(context, image, (await context.client()).images.get, format);
  },
});

interface StepRow {
  readonly id: string;
  readonly name: string;
  readonly created: string;
  readonly by: string;
  readonly size: number;
  readonly comment: string;
}

const STEP_COLUMNS: readonly Column<StepRow>[] = [
  { title: 'CREATED', field: 'CreatedSince', of: ({ created }) => agoText(created, Date.now()) },
  { title: 'CREATED BY', field: 'CreatedBy', of: ({ by }) => by, shrink: true },
  { title: 'SIZE', field: 'Size', of: ({ size }) => bytesText(size) },
  { title: 'COMMENT', field: 'Comment', of: ({ comment }) => comment, shrink: true },
];

const history = command({
  summary: 'Show the steps that made an image, the latest first',
  flags: { format: formatFlag, noTrunc: listFlags.noTrunc },
  args: { image: word('name or id', { of: 'image' }) },
  async run(context, flags, { image }) {
    const steps = await (await context.client()).images.history(image);
    if (flags.format === 'json') {
      context.terminal.out(`${JSON.stringify(steps, null, 2)}\n`);
      return;
    }
    // Their order is their name, for a listing is sorted by it.
    const rows = steps.map((step, index) => ({ ...step, id: '', name: String(index).padStart(4, '0') }));
    await printList(context, rows, STEP_COLUMNS, flags);
  },
});

const tag = command({
  summary: 'Give an image one more name',
  examples: ['sluice image tag app:1 localhost:5000/app:1'],
  flags: {},
  args: { image: word('name or id', { of: 'image' }), name: word('name to give it') },
  async run(context, _flags, { image, name }) {
    await (await context.client()).images.tag(image, name);
  },
});

export const rm = command({
  summary: 'Remove names, and images with their last one',
  aliases: ['remove'],
  flags: { force: toggle('Also what containers were made from, and ids with several names', { short: 'f' }) },
  args: { image: words('names or ids', { of: 'image' }) },
  async run(context, { force }, { image }) {
    const { images } = await context.client();
    return forEach(context, 'removed', image, (ref) => images.remove(ref, { force }));
  },
});

const prune = command({
  summary: 'Remove images without a name that no container was made from',
  flags: {
    all: toggle('Also those with names', { short: 'a' }),
    force: toggle('Do not ask', { short: 'f' }),
  },
  args: {},
  async run(context, flags) {
    const what = flags.all ? 'every image that no container was made from' : 'every image without a name';
    const answer = flags.force ? null : await context.terminal.ask(`This removes ${what}. Go on? [y/N] `);
    if (answer !== null && !/^y(es)?$/i.test(answer.trim())) return 1;
    const { images } = await context.client();
    const { deleted, bytes } = await progress(
      context.terminal,
      'unused images are removed',
      images.prune({ all: flags.all }),
    );
    context.terminal.out(`${deleted.map((id) => `${id}\n`).join('')}${bytesText(bytes)} given back\n`);
    return 0;
  },
});

export const image: Group = {
  summary: 'Images',
  commands: { pull, push, load, import: importing, save, tag, ls, inspect, history, rm, prune, login, logout },
};
