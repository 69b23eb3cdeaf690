/** `sluice pull`, `push`, `load`, `image import`, `image save`: what moves bytes, with bars on standard error. */
import type { Client } from '../../client/client.ts';
import { SluiceError } from '../../errors.ts';
import type { Image, ImageProgress } from '../../model/image/image.ts';
import { type Context, command, UsageError } from '../command/command.ts';
import { many, one, optionalWord, text, toggle, word, words } from '../command/flag.ts';
import { Bars } from '../print/bars.ts';
import { changesOf } from './change.ts';

const quiet = toggle('No progress; print the id alone', { short: 'q' });
const platform = one('OS/ARCH', text, 'Build for that platform', { absent: "the host's" });

interface Moving {
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ImageProgress) => void;
}

/** Runs a transfer with bars; an interrupt ends it, and waits until the daemon has let go. */
async function moving<T>(
  context: Context,
  silent: boolean | undefined,
  work: (client: Client, options: Moving) => Promise<T>,
): Promise<T> {
  const stop = new AbortController();
  const interrupt = (): void => stop.abort(new UsageError('interrupted'));
  process.once('SIGINT', interrupt);
  const bars = silent ? null : new Bars(context.terminal);
  try {
    return await work(await context.client(), { signal: stop.signal, onProgress: bars?.show });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    throw new SluiceError('request.invalid', 'the transfer was interrupted; nothing half-done stays');
  } finally {
    bars?.end();
    process.off('SIGINT', interrupt);
  }
}

const nameOf = ({ names, id }: Image): string => names[0] ?? id;

/** Pulls it, with bars unless `silent`; an interrupt ends it. */
export const pulling = (context: Context, reference: string, wanted?: string, silent?: boolean): Promise<Image> =>
  moving(context, silent, ({ images }, options) => images.pull(reference, { ...options, platform: wanted }));

export const pull = command({
  summary: 'Pull an image from its registry',
  flags: { platform, quiet },
  args: { image: word('name, with a tag or digest', { of: 'image' }) },
  async run(context, flags, { image }) {
    const pulled = await pulling(context, image, flags.platform, flags.quiet);
    context.terminal.out(`${flags.quiet ? pulled.id : (pulled.names[0] ?? pulled.digests[0] ?? pulled.id)}\n`);
  },
});

export const push = command({
  summary: 'Push an image to the registry that its name says',
  flags: { quiet: toggle('No progress', { short: 'q' }) },
  args: { image: word('name with a tag', { of: 'image' }) },
  async run(context, flags, { image }) {
    const { digest } = await moving(context, flags.quiet, ({ images }, options) => images.push(image, options));
    context.terminal.out(`${digest}\n`);
  },
});

/** A failure of a file of the caller's, in the words of the file system. */
const fileError = (path: string, { code, message }: NodeJS.ErrnoException): SluiceError =>
  new SluiceError('request.invalid', `${path}: ${code === 'ENOENT' ? 'there is no such file' : message}`, { path });

/** The bytes of a file, or of standard input when there is none. */
function bytesFrom(path: string | undefined): AsyncIterable<Uint8Array> {
  const { createReadStream, openSync } = process.getBuiltinModule('node:fs');
  if (path !== undefined && path !== '-') {
    try {
      return createReadStream('', { fd: openSync(path, 'r'), highWaterMark: 1024 * 1024 });
    } catch (error) {
      throw fileError(path, error as NodeJS.ErrnoException);
    }
  }
  if (process.stdin.isTTY)
    throw new UsageError('standard input is a terminal: name a file, or send an archive into it');
  return process.stdin;
}

export const load = command({
  summary: 'Load images from an archive: docker save, skopeo, buildah; plain, gzip or zstd',
  flags: { input: one('FILE', text, 'Archive', { short: 'i', absent: 'standard input' }), platform, quiet },
  args: {},
  async run(context, flags) {
    const loading = moving(context, flags.quiet, ({ images }, options) =>
      images.load(bytesFrom(flags.input), { ...options, platform: flags.platform }),
    );
    for (const image of await loading) context.terminal.out(`${flags.quiet ? image.id : nameOf(image)}\n`);
  },
});

export const importing = command({
  summary: 'Make an image of a plain file system as a tar',
  examples: [`sluice image import --change 'CMD ["/bin/sh"]' rootfs.tar mine:1`],
  flags: {
    change: many('LINE', text, 'Line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME …', {
      short: 'c',
    }),
    platform,
    quiet,
  },
  args: { file: word('tar, or - for standard input'), name: optionalWord('name of the image') },
  async run(context, flags, { file, name }) {
    const changes = changesOf(flags.change);
    const work = moving(context, flags.quiet, ({ images }, options) =>
      images.import(bytesFrom(file), name ?? null, { ...options, platform: flags.platform, changes }),
    );
    context.terminal.out(`${(await work).id}\n`);
  },
});

export const save = command({
  summary: 'Write images into an archive that docker, skopeo and buildah load',
  examples: ['sluice image save -o app.tar app:1 app:2', 'sluice image save app:1 | gzip >app.tar.gz'],
  flags: { output: one('FILE', text, 'Archive', { short: 'o', absent: 'standard output' }) },
  args: { image: words('names or ids', { of: 'image' }) },
  async run(context, { output }, { image }) {
    const { createWriteStream, renameSync, rmSync } = process.getBuiltinModule('node:fs');
    const { pipeline } = process.getBuiltinModule('node:stream/promises');
    if (output === undefined && context.terminal.columns !== undefined)
      throw new UsageError('standard output is a terminal: name a file with -o, or send the archive on');
    const archive = await (await context.client()).images.save(image);
    if (output === undefined) {
      await pipeline(archive, createWriteStream('', { fd: 1, autoClose: false }));
      return;
    }
    // A whole archive or none: one cut short looks like one to whoever comes later.
    const part = `${output}.part-${process.pid}`;
    try {
      await pipeline(archive, createWriteStream(part, { flags: 'wx' }));
      renameSync(part, output);
    } catch (error) {
      rmSync(part, { force: true });
      if (error instanceof SluiceError) throw error;
      if ((error as NodeJS.ErrnoException).code === 'ECONNRESET')
        throw new SluiceError('daemon.unreachable', 'the daemon went away in the middle of the archive');
      throw fileError(output, error as NodeJS.ErrnoException);
    }
  },
});
