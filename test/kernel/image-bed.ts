/** A store of images in a folder of its own, foreign tools beside it, and archives to feed it with. */
import { execFile, execFileSync } from 'node:child_process';
import { createReadStream, createWriteStream, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { type Headers, pack } from 'tar-stream';
import { createImages, type ImageStore, type ImagesOptions } from '../../runtime/image/images.ts';
import { systemClock } from '../../src/clock.ts';
import type { TransferOptions } from '../../src/contracts/image.ts';
import { libc } from '../../src/kernel/libc.ts';
import { createLogger } from '../../src/log.ts';
import { makeFolder } from '../folder.ts';
import { mountsBelow, SLOWNESS } from './kernel-bed.ts';

const MNT_DETACH = 2;
const run = promisify(execFile);

/** A header as tar-stream takes it. */
export type Member = Partial<Headers> & {
  readonly content?: string | Buffer;
  readonly pax?: Readonly<Record<string, string>>;
};

export async function tarOf(entries: readonly Member[]): Promise<Buffer> {
  const out = pack();
  for (const { content, ...header } of entries) out.entry({ mode: 0o644, ...header } as Headers, content ?? '');
  out.finalize();
  return bytesOf(out);
}

export const transfer = (more: Partial<TransferOptions> = {}): TransferOptions => ({
  signal: AbortSignal.timeout(60_000 * SLOWNESS),
  ...more,
});

export const streamOf = (bytes: Uint8Array | string): AsyncIterable<Uint8Array> =>
  typeof bytes === 'string' ? createReadStream(bytes) : Readable.from([bytes], { objectMode: false });

export async function bytesOf(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** A program's output; fails with what it said. */
export async function tool(command: string, ...args: string[]): Promise<string> {
  try {
    return (await run(command, args, { timeout: 60_000 * SLOWNESS, maxBuffer: 64 * 1024 * 1024 })).stdout.trim();
  } catch (error) {
    throw new Error(`${command} ${args.join(' ')}: ${(error as { stderr?: string }).stderr || error}`);
  }
}

/** Everything below a directory as the kernel sees it, one line a file: type, mode, owner, links, size, time, target, device, attributes. */
export const listing = (dir: string): string[] =>
  execFileSync('/usr/bin/python3', ['-IS', '-c', LISTING, dir], { encoding: 'utf8' }).trimEnd().split('\n');

const LISTING = `
import os, stat, sys
root = sys.argv[1]
def line(path):
    s = os.lstat(path)
    name = os.path.relpath(path, root)
    attrs = sorted((a, os.getxattr(path, a, follow_symlinks=False).hex()) for a in os.listxattr(path, follow_symlinks=False))
    size = s.st_size if stat.S_ISREG(s.st_mode) else 0
    links = s.st_nlink if not stat.S_ISDIR(s.st_mode) else 0
    target = os.readlink(path) if stat.S_ISLNK(s.st_mode) else ''
    print(name, oct(s.st_mode), s.st_uid, s.st_gid, links, size, int(s.st_mtime), target, s.st_rdev, attrs)
line(root)
for base, dirs, files in sorted(os.walk(root)):
    for name in sorted(dirs + files):
        line(os.path.join(base, name))
`;

export class ImageBed {
  readonly dir: string;
  store: ImageStore;
  readonly #options: Partial<ImagesOptions>;
  #buildah = false;

  constructor(name: string, options: Partial<ImagesOptions> = {}) {
    this.dir = options.dir ?? makeFolder(name);
    this.#options = options;
    this.store = this.open();
  }

  /** Another life of the daemon over the same folder. */
  open(): ImageStore {
    const options = { clock: systemClock, logger: createLogger('silent'), ...this.#options };
    this.store = createImages({ ...options, dir: this.images });
    return this.store;
  }

  get images(): string {
    return join(this.dir, 'images');
  }
  path(name: string): string {
    return join(this.dir, name);
  }

  /** What is in a folder of the store. */
  inside(name: 'tmp' | 'layers' | 'roots' | 'blobs/sha256'): string[] {
    return readdirSync(join(this.images, name)).sort();
  }

  buildah(...args: string[]): Promise<string> {
    this.#buildah = true;
    const place = [
      '--root',
      this.path('containers'),
      '--runroot',
      this.path('containers-run'),
      '--storage-driver',
      'overlay',
    ];
    return tool('buildah', ...place, ...args);
  }

  /** An image made by a shell script in a mounted container of buildah; `$m` is its root. */
  async build(name: string, from: string, script: string, ...config: string[]): Promise<void> {
    const container = await this.buildah('from', '--pull-never', from);
    const root = await this.buildah('mount', container);
    await tool('sh', '-euc', `m=${root}; ${script}`);
    await this.buildah('umount', container);
    if (config.length > 0) await this.buildah('config', ...config, container);
    await this.buildah('commit', '--quiet', container, name);
    await this.buildah('rm', container);
  }

  async close(): Promise<void> {
    if (this.#buildah) await this.buildah('rm', '--all');
    await this.store.close();
    for (const point of mountsBelow(this.dir)) libc.umount2(point, MNT_DETACH);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A file system of few bytes in memory, mounted at the path. */
export async function smallDisk(path: string, bytes: number): Promise<void> {
  mkdirSync(path, { recursive: true });
  await tool('mount', '-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path);
}

export const writeStream = (stream: AsyncIterable<Uint8Array>, path: string): Promise<void> =>
  pipeline(stream, createWriteStream(path));
