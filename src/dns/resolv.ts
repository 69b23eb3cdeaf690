/** resolv.conf: the host's, read and watched for our upstreams, and what a sandbox gets. Format: resolv.conf(5). */
import { readFileSync, statSync } from 'node:fs';
import type { Clock, Timer } from '../clock.ts';
import { parseServer, type Server } from './upstream.ts';

/** Where a sandbox finds us. */
export const RESOLVER_ADDRESS = '127.0.0.11';
/** glibc takes 6 search domains before 2.26 and 256 characters in all; musl 256 characters. More is cut here rather than there. */
const SEARCH_CHARACTERS_MAX = 256;
/** Upstreams that are asked; a question's time is up before a further one could be. */
const SERVERS_MAX = 6;
/** systemd-resolved's own address, and where it says which servers stand behind it. */
const STUB = '127.0.0.53';
const BEHIND_STUB = '/run/systemd/resolve/resolv.conf';
/** How soon a change is followed, milliseconds. */
const WATCH_MS = 1000;

export interface ResolvConf {
  readonly servers: readonly string[];
  readonly search: readonly string[];
}

/** The last `search` or `domain` line wins, as in the C libraries. */
export function parseResolvConf(text: string): ResolvConf {
  const servers: string[] = [];
  let search: readonly string[] = [];
  for (const line of text.split('\n')) {
    const [word, ...rest] = line.trim().split(/\s+/);
    if (word === 'nameserver' && rest[0]) servers.push(rest[0]);
    if (word === 'search' || word === 'domain') search = rest;
  }
  return { servers, search };
}

/**
 * The resolv.conf of a sandbox: us, `ndots:0` and the host's search domains, or those given. With `ndots:0` a name is asked as it
 * stands first, so that one question suffices for an owned one. Other `options` are appended; a given `ndots:N` replaces ours.
 */
export function resolvConf(
  hostText: string,
  { search, options = [] }: { readonly search?: readonly string[]; readonly options?: readonly string[] } = {},
): string {
  let left = SEARCH_CHARACTERS_MAX;
  const domains = (search ?? parseResolvConf(hostText).search).filter((domain) => {
    left -= domain.length + 1;
    // `.` means: none at all.
    return left >= -1 && domain !== '.';
  });
  const own = options.some((option) => option.startsWith('ndots:')) ? [] : ['ndots:0'];
  const lines = [`nameserver ${RESOLVER_ADDRESS}`, `options ${[...own, ...options].join(' ')}`];
  if (domains.length > 0) lines.splice(1, 0, `search ${domains.join(' ')}`);
  return `${lines.join('\n')}\n`;
}

/**
 * The servers that a host's resolv.conf names, in order; an entry that is no address is left out. With systemd-resolved's stub those
 * behind it (`behindStub`, its own file's text) follow it, for hosts whose stub cannot be reached. None named: the C libraries' default.
 */
export function upstreams(hostText: string, behindStub: string): Server[] {
  const named = parseResolvConf(hostText).servers;
  const all = named.includes(STUB) ? [...named, ...parseResolvConf(behindStub).servers] : named;
  const good = [...new Set(all)].flatMap((text) => {
    try {
      return [parseServer(text)];
    } catch {
      // A line of the host's file that nobody else understands either.
      return [];
    }
  });
  return (good.length > 0 ? good : [parseServer('127.0.0.1')]).slice(0, SERVERS_MAX);
}

/** Follows the host's resolv.conf, by looking: it may be replaced, be a link to something replaced, or be missing for a while. */
export class HostResolvers implements Disposable {
  servers: readonly Server[];
  readonly #clock: Clock;
  readonly #path: string;
  readonly #behindPath: string;
  readonly #onChange: () => void;
  #mark: string;
  #timer: Timer;

  constructor(
    clock: Clock,
    onChange: () => void,
    {
      path = '/etc/resolv.conf',
      behindStub = BEHIND_STUB,
    }: { readonly path?: string; readonly behindStub?: string } = {},
  ) {
    this.#clock = clock;
    this.#onChange = onChange;
    this.#path = path;
    this.#behindPath = behindStub;
    this.#mark = this.#look();
    this.servers = this.#read();
    this.#timer = clock.after(WATCH_MS, () => this.#tick());
  }

  [Symbol.dispose](): void {
    this.#timer.cancel();
  }

  #tick(): void {
    this.#timer = this.#clock.after(WATCH_MS, () => this.#tick());
    const mark = this.#look();
    if (mark === this.#mark) return;
    this.#mark = mark;
    this.servers = this.#read();
    this.#onChange();
  }

  #look(): string {
    return [this.#path, this.#behindPath]
      .map((path) => {
        const stat = orAbsent(() => statSync(path, { bigint: true }), null);
        return stat ? `${stat.dev}:${stat.ino}:${stat.size}:${stat.mtimeNs}` : '';
      })
      .join(' ');
  }

  #read(): Server[] {
    return upstreams(readText(this.#path), readText(this.#behindPath));
  }
}

const readText = (path: string): string => orAbsent(() => readFileSync(path, 'utf8'), '');

/** A file that is not there, or is none, names no servers; it is looked for again. */
function orAbsent<T>(read: () => T, absent: T): T {
  try {
    return read();
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? ''))
      return absent;
    throw error;
  }
}
