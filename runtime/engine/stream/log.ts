/** A container's log as conmon writes it: `TIME stdout|stderr F|P TEXT` a line, P for a line that was written in parts. */
import { type FSWatcher, watch } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import type { LogLine, LogOptions } from '../../../src/contracts/runtime.ts';
import { type LogFile, logFiles } from './rotation.ts';

const CHUNK_BYTES = 64 << 10;
/** A line that conmon did not end, because it was killed, is told in pieces of this size. */
const LINE_BYTES_MAX = 1 << 20;
const NEWLINE = 0x0a;

export function parseLine(line: string): LogLine | null {
  const match = /^(\S+) (stdout|stderr) ([FP]) ?([\s\S]*)$/.exec(line);
  if (!match) return null;
  const [, time, stream, whole, text] = match;
  return { time: time!, stream: stream as LogLine['stream'], text: whole === 'F' ? `${text}\n` : text! };
}

/** Reads the lines that a log has and gets, over its parts from the oldest on (rotation.ts). */
class Reader {
  readonly #path: string;
  #file: FileHandle | null = null;
  #inode = 0n;
  #at = 0;
  #rest: Buffer = Buffer.alloc(0);

  constructor(path: string) {
    this.#path = path;
  }

  /** Everything that is there by now. */
  async *read(): AsyncGenerator<LogLine> {
    // Somebody emptied it in place.
    if (this.#file && (await this.#file.stat()).size < this.#at) this.#at = 0;
    yield* this.#drain();
    for (let next = this.#following(); next; next = this.#following()) {
      // Full before the next one took its place: what was written to it since the last look is all that it ever gets.
      yield* this.#drain();
      await this.#enter(next);
      yield* this.#drain();
    }
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = null;
  }

  /** The part after the one that is read; the oldest when that is none of them any more. */
  #following(): LogFile | undefined {
    const files = logFiles(this.#path);
    const at = this.#file ? files.findIndex(({ inode }) => inode === this.#inode) : -1;
    return files[at + 1];
  }

  /** It may have got another name meanwhile, or have gone: then the next look finds what there is. */
  async #enter({ path, inode }: LogFile): Promise<void> {
    const file = await this.#open(path);
    if (!file) return;
    if ((await file.stat({ bigint: true })).ino !== inode) {
      await file.close();
      return;
    }
    await this.close();
    this.#file = file;
    this.#inode = inode;
    this.#at = 0;
    this.#rest = Buffer.alloc(0);
  }

  async #open(path: string): Promise<FileHandle | null> {
    try {
      return await open(path, 'r');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw error;
    }
  }

  async *#drain(): AsyncGenerator<LogLine> {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    while (this.#file) {
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, this.#at);
      if (bytesRead === 0) return;
      this.#at += bytesRead;
      let data = Buffer.concat([this.#rest, chunk.subarray(0, bytesRead)]);
      for (let end = data.indexOf(NEWLINE); end >= 0; end = data.indexOf(NEWLINE)) {
        const line = parseLine(data.toString('utf8', 0, end));
        data = data.subarray(end + 1);
        if (line) yield line;
      }
      this.#rest = data.length > LINE_BYTES_MAX ? Buffer.alloc(0) : Buffer.from(data);
    }
  }
}

/** `running` says whether more may come; `onEnd` calls back when it no longer does. */
export async function* readLog(
  path: string,
  { follow, tail, since = 0, until = Number.POSITIVE_INFINITY, signal }: LogOptions,
  life: { running(): boolean; onEnd(listener: () => void): () => void },
): AsyncGenerator<LogLine> {
  const fits = ({ time }: LogLine): boolean => {
    const at = Date.parse(time);
    return at >= since && at <= until;
  };
  let news = Promise.withResolvers<void>();
  const wake = (): void => news.resolve();
  const reader = new Reader(path);
  let watcher: FSWatcher | undefined;
  const forget = life.onEnd(wake);
  signal.addEventListener('abort', wake, { once: true });
  try {
    // Before the first read, so that nothing is written unheard between the two.
    if (follow && life.running()) watcher = watch(path.slice(0, path.lastIndexOf('/')), wake);
    const last: LogLine[] = [];
    for await (const line of reader.read()) {
      if (signal.aborted) return;
      if (!fits(line)) continue;
      if (tail === undefined) yield line;
      else if (last.push(line) > tail) last.shift();
    }
    yield* last;
    while (watcher && !signal.aborted) {
      const running = life.running();
      news = Promise.withResolvers();
      for await (const line of reader.read()) if (fits(line)) yield line;
      // What was written before its end is read after it was noticed.
      if (!running) return;
      if (life.running()) await news.promise;
    }
  } finally {
    watcher?.close();
    forget();
    signal.removeEventListener('abort', wake);
    await reader.close();
  }
}
