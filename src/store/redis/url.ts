/** Where Redis is and how it is spoken to, from a URL: pure but for the files that the URL names. */
import { readFileSync } from 'node:fs';
import { SluiceError } from '../../errors.ts';

export interface RedisHost {
  readonly host: string;
  readonly port: number;
}

export interface RedisPlace {
  readonly hosts: readonly RedisHost[];
  /** Path of a unix socket instead of hosts. */
  readonly path?: string;
  readonly username?: string;
  readonly password?: string;
  /** Only 0 on a Redis Cluster. */
  readonly db: number;
  readonly tls?: {
    readonly ca?: Buffer;
    readonly cert?: Buffer;
    readonly key?: Buffer;
    readonly servername?: string;
  };
  /** Name of the primary that the hosts, Sentinels, watch over. */
  readonly sentinel?: string;
  readonly sentinelPassword?: string;
  /** The hosts are nodes of a Redis Cluster. */
  readonly cluster: boolean;
  /** Replicas that acknowledge a lease before it counts. */
  readonly replicas: number;
}

const URL_FORM = /^(rediss?|redis\+unix):\/\/(?:([^@]*)@)?([^?#]*?)(?:\?([^#]*))?$/;
const PARAMETERS = [
  'sentinel',
  'sentinelPasswordFile',
  'cluster',
  'replicas',
  'passwordFile',
  'ca',
  'cert',
  'key',
  'servername',
];
const SENTINEL_PORT = 26379;
const REDIS_PORT = 6379;

/**
 * `redis://[USER:PASSWORD@]HOST[:PORT],…[/DB][?…]`, `rediss://` with TLS, `redis+unix:///PATH`. Parameters: `sentinel=NAME`, `cluster`, `replicas=N`,
 * `passwordFile`, `sentinelPasswordFile`, `ca`, `cert`, `key` (files), `servername`. Fails with `config.invalid`, which never repeats the password.
 */
export function parseRedisUrl(url: string): RedisPlace {
  const form = URL_FORM.exec(url);
  if (!form) throw invalid('a Redis is redis://HOST:PORT, rediss://HOST:PORT or redis+unix:///PATH');
  const [, scheme, login = '', rest = '', query = ''] = form;
  const parameters = new URLSearchParams(query);
  for (const name of parameters.keys())
    if (!PARAMETERS.includes(name)) throw invalid(`the URL of Redis has an unknown parameter ${name}`);
  const [username, password] = splitLogin(login);
  const sentinel = parameters.get('sentinel') ?? undefined;
  const cluster = parameters.has('cluster');
  if (sentinel !== undefined && cluster) throw invalid('the URL of Redis names a Sentinel and a Cluster: it is one');
  const unix = scheme === 'redis+unix';
  const [list = '', dbText = ''] = unix ? ['', ''] : rest.split('/');
  const place: RedisPlace = {
    hosts: unix ? [] : list.split(',').map((host) => parseHost(host, sentinel ? SENTINEL_PORT : REDIS_PORT)),
    path: unix ? rest : undefined,
    username: username || undefined,
    password: fileText(parameters.get('passwordFile')) ?? (password || undefined),
    db: count(dbText || '0', 'database'),
    tls: scheme === 'rediss' ? tlsOf(parameters) : undefined,
    sentinel,
    sentinelPassword: fileText(parameters.get('sentinelPasswordFile')),
    cluster,
    replicas: count(parameters.get('replicas') ?? '0', 'number of replicas'),
  };
  if (unix && !rest.startsWith('/')) throw invalid('the path of the socket of Redis is absolute');
  if (!sentinel && !cluster && place.hosts.length > 1)
    throw invalid('several hosts are Sentinels (?sentinel=NAME) or a Cluster (?cluster)');
  if (cluster && place.db !== 0) throw invalid('a Redis Cluster has database 0 only');
  // WAIT asks the node that it is sent to; in a Cluster nobody says which one that is to be.
  if (cluster && place.replicas > 0)
    throw invalid('replicas are not counted on a Redis Cluster: leave out cluster or replicas');
  return place;
}

/** Who can write to Redis is root on every node: off this machine it takes TLS and a password. Fails with `config.invalid`. */
export function ensureGuarded(place: RedisPlace, insecure: boolean): void {
  if (insecure || place.path !== undefined || place.hosts.every(({ host }) => isLoopback(host))) return;
  const lacks = [...(place.tls ? [] : ['TLS (rediss://)']), ...(place.password ? [] : ['a password'])];
  if (lacks.length === 0) return;
  throw invalid(
    `Redis at ${nameOf(place)} is not on loopback and lacks ${lacks.join(' and ')}: who writes there is root on every node (insecureStore allows it)`,
  );
}

/** For messages: never with a password. */
export const nameOf = ({ path, hosts, sentinel }: RedisPlace): string =>
  path ?? `${sentinel ? `${sentinel} of ` : ''}${hosts.map(({ host, port }) => `${host}:${port}`).join(',')}`;

const isLoopback = (host: string): boolean => host === 'localhost' || host === '::1' || /^127(?:\.\d+){3}$/.test(host);

function parseHost(text: string, portDefault: number): RedisHost {
  const form = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(text);
  const port = Number(form?.[3] ?? portDefault);
  if (!form || port < 1 || port > 65_535) throw invalid(`${text || 'nothing'} is no host of Redis`);
  return { host: (form[1] ?? form[2])!, port };
}

function splitLogin(login: string): [string, string] {
  const at = login.indexOf(':');
  const [user, password] = at < 0 ? [login, ''] : [login.slice(0, at), login.slice(at + 1)];
  try {
    return [decodeURIComponent(user), decodeURIComponent(password)];
  } catch {
    throw invalid('user and password in the URL of Redis are percent-encoded');
  }
}

function count(text: string, what: string): number {
  if (!/^\d{1,3}$/.test(text)) throw invalid(`the ${what} in the URL of Redis is no small number`);
  return Number(text);
}

function tlsOf(parameters: URLSearchParams): NonNullable<RedisPlace['tls']> {
  const file = (name: string) => {
    const path = parameters.get(name);
    return path === null ? undefined : readNamed(path);
  };
  return {
    ca: file('ca'),
    cert: file('cert'),
    key: file('key'),
    servername: parameters.get('servername') ?? undefined,
  };
}

const fileText = (path: string | null): string | undefined =>
  path === null ? undefined : readNamed(path).toString('utf8').trim();

function readNamed(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw invalid(`the URL of Redis names ${path}: ${(error as Error).message}`);
  }
}

const invalid = (message: string): SluiceError => new SluiceError('config.invalid', message, { setting: 'store' });
