/** The files of an archive that is loaded, each kept beside the store until it is known which of them are blobs of an image. */
import { readFile } from 'node:fs/promises';
import { SluiceError } from '../../../src/errors.ts';
import { componentsOf, hostile } from '../layer/path.ts';
import type { BlobId, Blobs, BlobWriter } from '../store/blobs.ts';
import { type TarEntry, type TarHandler, TarReader } from './tar-reader.ts';

/** Images have at most some hundred layers, three files each in old archives. */
const MEMBERS_MAX = 20_000;
/** How often a link may lead to a link. */
const LINKS_MAX = 8;

export interface Member extends BlobId {
  readonly writer: BlobWriter;
}

type Step =
  | { readonly type: 'open'; readonly path: string }
  | { readonly type: 'data'; readonly chunk: Buffer }
  | { readonly type: 'close' };

/** Collects what one chunk of the archive says; the writing, which waits for the disk, comes after. */
class Steps implements TarHandler {
  readonly links: Map<string, string>;
  steps: Step[] = [];
  #members = 0;
  #inFile = false;

  constructor(links: Map<string, string>) {
    this.links = links;
  }

  entry(entry: TarEntry): void {
    if (++this.#members > MEMBERS_MAX)
      throw new SluiceError('image.limit', `the archive has more than ${MEMBERS_MAX} files`);
    const path = componentsOf(entry.path).join('/');
    this.#inFile = entry.type === 'file';
    if (this.#inFile) this.steps.push({ type: 'open', path });
    if (entry.type === 'link') this.links.set(path, componentsOf(entry.link).join('/'));
    if (entry.type === 'symlink') this.links.set(path, resolved(path, entry.link));
  }

  data(chunk: Buffer): void {
    if (this.#inFile) this.steps.push({ type: 'data', chunk });
  }

  close(): void {
    if (this.#inFile) this.steps.push({ type: 'close' });
    this.#inFile = false;
  }
}

/** Where a symbolic link in an archive leads, inside of it. */
function resolved(path: string, link: string): string {
  const parts = path.split('/').slice(0, -1);
  for (const part of link.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') parts.push(part);
    else if (parts.pop() === undefined) throw hostile('leads out of the archive', path);
  }
  if (link.startsWith('/')) throw hostile('leads out of the archive', path);
  return parts.join('/');
}

export class Spool implements AsyncDisposable {
  readonly #members = new Map<string, Member>();
  readonly #links = new Map<string, string>();

  /** Reads the whole archive, decompressed already, of at most `bytesMax`. */
  async fill(archive: AsyncIterable<Buffer>, blobs: Blobs, bytesMax: number, signal: AbortSignal): Promise<void> {
    const handler = new Steps(this.#links);
    const tar = new TarReader(handler);
    let current: { readonly path: string; readonly writer: BlobWriter } | null = null;
    let total = 0;
    try {
      for await (const chunk of archive) {
        signal.throwIfAborted();
        total += chunk.length;
        if (total > bytesMax) throw new SluiceError('image.limit', `the archive has more than ${bytesMax} bytes`);
        tar.push(chunk);
        for (const step of handler.steps.splice(0)) {
          if (step.type === 'open') current = { path: step.path, writer: await blobs.writer() };
          if (step.type === 'data') await current!.writer.write(step.chunk);
          if (step.type === 'close' && current) {
            const { path, writer } = current;
            await this.#members.get(path)?.writer.abandon();
            this.#members.set(path, { ...(await writer.seal()), writer });
            this.#links.delete(path);
            current = null;
          }
        }
      }
      tar.end();
    } finally {
      await current?.writer.abandon();
    }
  }

  /** A file of the archive, through links; undefined where there is none. */
  get(path: string): Member | undefined {
    let name = componentsOf(path).join('/');
    for (let step = 0; step <= LINKS_MAX; step++) {
      const member = this.#members.get(name);
      if (member) return member;
      const link = this.#links.get(name);
      if (link === undefined) return undefined;
      name = link;
    }
    return undefined;
  }

  /** As `get`; fails with `image.archive` where the archive lacks the file. */
  must(path: string): Member {
    const member = this.get(path);
    if (!member) throw new SluiceError('image.archive', `the archive lacks the file ${path}, which it refers to`);
    return member;
  }

  /** The blob of that digest: by its place in an OCI layout. Fails with `image.digest` where the content is another. */
  blob(expected: BlobId): Member {
    const member = this.must(`blobs/sha256/${expected.digest.slice('sha256:'.length)}`);
    if (member.digest !== expected.digest || member.size !== expected.size)
      throw new SluiceError('image.digest', `the archive's blob ${expected.digest} has another digest or size`, {
        expected,
        found: { digest: member.digest, size: member.size },
      });
    return member;
  }

  /** The whole of a small file. */
  static async read(member: Member, bytesMax: number, what: string): Promise<Buffer> {
    if (member.size > bytesMax) throw new SluiceError('image.limit', `${what} has more than ${bytesMax} bytes`);
    return readFile(member.writer.path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { writer } of this.#members.values()) await writer.abandon();
  }
}
