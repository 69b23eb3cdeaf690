/** Files of this machine as a tar stream, and a tar stream as files: what `sluice cp` moves. */
import { createReadStream, createWriteStream } from 'node:fs';
import { chmod, lstat, mkdir, readdir, readlink, rm, symlink, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { extract, type Headers, pack } from 'tar-stream';
import { SluiceError } from '../../errors.ts';

/** The path and what is below it; its own name in the archive is `name`, and it is left out itself when that is empty. */
export function packed(path: string, name: string): AsyncIterable<Uint8Array> {
  const archive = pack();
  add(archive, path, name)
    .then(() => archive.finalize())
    .catch((error: Error) => archive.destroy(error));
  return archive as AsyncIterable<Uint8Array>;
}

async function add(archive: ReturnType<typeof pack>, path: string, name: string): Promise<void> {
  const stat = await lstat(path);
  const head = { name, mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid, mtime: stat.mtime };
  if (stat.isDirectory()) {
    if (name !== '') await put(archive, { ...head, type: 'directory' });
    for (const child of (await readdir(path)).sort())
      await add(archive, join(path, child), name === '' ? child : `${name}/${child}`);
  } else if (stat.isSymbolicLink()) await put(archive, { ...head, type: 'symlink', linkname: await readlink(path) });
  else if (stat.isFile()) {
    const entry = archive.entry({ ...head, type: 'file', size: stat.size });
    // What grows while it is read is cut where it ended.
    if (stat.size === 0) entry.end();
    else await pipeline(createReadStream(path, { end: stat.size - 1 }), entry);
  }
  // Sockets and devices of the host have no business in a copy.
}

function put(archive: ReturnType<typeof pack>, head: Headers): Promise<void> {
  return new Promise((resolve, reject) => {
    archive.entry(head, (error) => (error ? reject(error) : resolve()));
  });
}

/** Type of the first entry, null for an empty archive; the rest is not read. */
export async function firstType(tar: AsyncIterable<Uint8Array>): Promise<Headers['type'] | null> {
  const reader = extract();
  const entries = reader[Symbol.asyncIterator]();
  feed(tar, reader);
  const { value, done } = await entries.next();
  reader.destroy();
  return done ? null : (value.header.type ?? 'file');
}

function feed(tar: AsyncIterable<Uint8Array>, reader: ReturnType<typeof extract>): void {
  pipeline(tar, reader).catch((error: NodeJS.ErrnoException) => {
    if (!reader.destroyed) reader.destroy(error);
  });
}

/**
 * Writes the entries below `target`, their first component replaced by it. Nothing is written through a link or outside: what is in the way of
 * a file is removed, what is in the way of a folder and is none is an error.
 */
export async function unpack(tar: AsyncIterable<Uint8Array>, target: string): Promise<void> {
  const reader = extract();
  feed(tar, reader);
  const times: [string, Date][] = [];
  for await (const entry of reader) {
    const { name, type = 'file', mode, mtime, linkname } = entry.header;
    const [, ...below] = name.split('/').filter((part) => part !== '' && part !== '.');
    if (below.includes('..')) throw new SluiceError('request.invalid', `the archive holds the path ${name}`, { name });
    const path = join(target, ...below);
    await safeParents(target, below);
    if (type === 'directory') {
      await mkdir(path).catch(async (error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST' || !(await lstat(path)).isDirectory()) throw error;
      });
      if (mode !== undefined) await chmod(path, mode);
      if (mtime) times.push([path, mtime]);
    } else if (type === 'symlink') {
      await rm(path, { force: true });
      await symlink(linkname ?? '', path);
    } else if (type === 'file' || type === 'contiguous-file') {
      await rm(path, { force: true });
      await pipeline(entry, createWriteStream(path, { flags: 'wx', mode: mode ?? 0o644 }));
      if (mode !== undefined) await chmod(path, mode);
      if (mtime) await utimes(path, mtime, mtime);
      continue;
    }
    entry.resume();
  }
  for (const [path, time] of times.reverse()) await utimes(path, time, time);
}

async function safeParents(target: string, below: readonly string[]): Promise<void> {
  for (let n = 0; n < below.length; n++) {
    const parent = join(target, ...below.slice(0, n));
    const stat = await lstat(parent).catch((error: NodeJS.ErrnoException) => {
      // It will be made. Whatever else keeps it from being looked at is said.
      if (error.code === 'ENOENT') return null;
      throw error;
    });
    if (stat && !stat.isDirectory() && n > 0)
      throw new SluiceError('request.invalid', `the archive writes below ${parent}, which is no folder`, {
        path: parent,
      });
  }
}
