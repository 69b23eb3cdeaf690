/** `sluice cp`: files between a container and this machine. */
import { basename, dirname, join, resolve } from 'node:path';
import type { Client } from '../../client/client.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import { command, UsageError } from '../command/command.ts';
import { word } from '../command/flag.ts';
import { progress } from '../print/progress.ts';

export interface Place {
  /** Absent: this machine. */
  readonly container?: string;
  readonly path: string;
}

/** `CONTAINER:PATH`, or a path here; `./a:b` and `/a:b` are paths. */
export function readPlace(given: string): Place {
  const [, container, path] = /^([^/.:][^/:]*):(.*)$/s.exec(given) ?? [];
  return container === undefined ? { path: given } : { container, path: path === '' ? '/' : path! };
}

/** The path cleaned, and whether only what is in it is meant (`DIR/.`) or it must be a folder (`DIR/`). */
export function readPath(path: string): {
  readonly path: string;
  readonly contents: boolean;
  readonly folder: boolean;
} {
  const contents = /(^|\/)\.$/.test(path);
  const folder = contents || path.endsWith('/');
  return { path: join('/', path), contents, folder };
}

type Kind = 'directory' | 'file' | null;

async function kindInside({ containers }: Client, ref: string, path: string): Promise<Kind> {
  const { firstType } = await import('./archive.ts');
  try {
    const type = await firstType(await containers.read(ref, path));
    return type === null || type === 'directory' ? type : 'file';
  } catch (error) {
    if (isSluiceError(error, 'runtime.notfound')) return null;
    throw error;
  }
}

async function kindHere(path: string): Promise<Kind> {
  const { stat } = await import('node:fs/promises');
  try {
    return (await stat(path)).isDirectory() ? 'directory' : 'file';
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** Where the copy comes to lie. */
export function targetOf(
  from: { readonly path: string; readonly kind: Exclude<Kind, null>; readonly contents: boolean },
  to: { readonly path: string; readonly kind: Kind; readonly folder: boolean },
): string {
  if (to.kind === 'directory') return from.contents || from.path === '/' ? to.path : join(to.path, basename(from.path));
  if (to.kind === 'file' && from.kind === 'directory')
    throw new SluiceError('request.invalid', `${to.path} is a file, and ${from.path} a folder`);
  if (to.folder && from.kind === 'file')
    throw new SluiceError('request.invalid', `there is no folder ${to.path}`, { path: to.path });
  return to.path;
}

async function copyIn(client: Client, from: string, ref: string, to: string): Promise<void> {
  const { packed } = await import('./archive.ts');
  const there = readPath(to);
  const here = { ...readPath(from), path: resolve(from) };
  const kind = await kindHere(here.path);
  if (kind === null) throw new SluiceError('request.invalid', `there is no ${here.path} on this machine`);
  const target = targetOf({ ...here, kind }, { ...there, kind: await kindInside(client, ref, there.path) });
  if (target === '/') await client.containers.write(ref, '/', packed(here.path, ''));
  else await client.containers.write(ref, dirname(target), packed(here.path, basename(target)));
}

async function copyOut(client: Client, ref: string, from: string, to: string): Promise<void> {
  const { unpack } = await import('./archive.ts');
  const there = readPath(from);
  const kind = await kindInside(client, ref, there.path);
  if (kind === null)
    throw new SluiceError('object.notfound', `there is no ${there.path} in container ${ref}`, { path: there.path });
  const here = { ...readPath(to), path: resolve(to) };
  const target = targetOf({ ...there, kind }, { ...here, kind: await kindHere(here.path) });
  await unpack(await client.containers.read(ref, there.path), target);
}

export const cp = command({
  summary: 'Copy files between a container and this machine',
  about:
    'FROM and TO are CONTAINER:PATH, a path of this machine, or - for a tar stream. FOLDER/. means what is in it. The container need not run.',
  examples: ['sluice cp index.html web:/www/', 'sluice cp web:/var/log ./logs', 'sluice cp web:/www - >www.tar'],
  flags: {},
  args: { from: word('what to copy'), to: word('where to') },
  async run(context, _, { from, to }) {
    const source = readPlace(from);
    const target = readPlace(to);
    if ((source.container === undefined) === (target.container === undefined))
      throw new UsageError('one of FROM and TO is CONTAINER:PATH, the other a path of this machine');
    const client = await context.client();
    const { terminal } = context;
    const copy = async (): Promise<void> => {
      if (source.container !== undefined && target.path === '-')
        for await (const bytes of await client.containers.read(source.container, readPath(source.path).path))
          await terminal.write('stdout', bytes);
      else if (source.container !== undefined) await copyOut(client, source.container, source.path, target.path);
      else if (source.path === '-')
        await client.containers.write(target.container!, readPath(target.path).path, terminal.input().bytes);
      else await copyIn(client, source.path, target.container!, target.path);
    };
    await progress(terminal, `${from} is copied`, copy());
  },
});
