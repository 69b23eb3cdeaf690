/** What the values of container flags mean: pure readers of one text each. */
import { isAbsolute, resolve } from 'node:path';
import type { MountRequest } from '../../model/container/request.ts';
import type { DeviceSpec, RestartSpec } from '../../model/container.ts';
import { UsageError } from '../command/command.ts';
import type { Reader } from '../command/flag.ts';

const SIZES: Readonly<Record<string, number>> = { '': 1, b: 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3, t: 1024 ** 4 };

/** Bytes of `512m`, `1g`, `64k`, `1048576`. */
export const readBytes: Reader<number> = (given) => {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?)([bkmgt]?)(?:i?b)?$/i.exec(given) ?? [];
  if (number === undefined) throw new UsageError(`"${given}" is not a size such as 512m or 1g`);
  return Math.round(Number(number) * SIZES[unit.toLowerCase()]!);
};

export const readDecimal: Reader<number> = (given) => {
  if (!/^\d+(\.\d+)?$/.test(given) || Number(given) <= 0) throw new UsageError(`"${given}" is not a number above 0`);
  return Number(given);
};

/** `no`, `on-failure[:N]`, `always`, `unless-stopped` */
export const readRestart: Reader<RestartSpec> = (given) => {
  const [, name, retries] = /^(no|on-failure|always|unless-stopped)(?::(\d+))?$/.exec(given) ?? [];
  if (name === undefined || (retries !== undefined && name !== 'on-failure'))
    throw new UsageError(`"${given}" is not no, on-failure[:N], always or unless-stopped`);
  return { name: name as RestartSpec['name'], retriesMax: Number(retries ?? 0) };
};

/** `KEY=value`, or `KEY` for its value here; null: it has none here. */
export function envOf(given: string, env: NodeJS.ProcessEnv): string | null {
  if (/^=|\0/.test(given)) throw new UsageError(`--env: "${given}" is not KEY=VALUE or KEY`);
  if (given.includes('=')) return given;
  return env[given] === undefined ? null : `${given}=${env[given]}`;
}

/** Lines `KEY=value` or `KEY` of a file; blank ones and comments are none. */
export function envLines(content: string, env: NodeJS.ProcessEnv): string[] {
  return content.split('\n').flatMap((line) => {
    const trimmed = line.trimStart();
    if (trimmed === '' || trimmed.startsWith('#')) return [];
    return envOf(trimmed.replace(/\r$/, ''), env) ?? [];
  });
}

const VOLUME_OPTIONS = ['ro', 'rw', 'nocopy', 'private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave', 'z', 'Z'];

/** `HOST:CTR[:ro]`, `NAME:CTR[:ro]`, `CTR` alone for a volume without a name. */
export const readVolume: Reader<MountRequest> = (given) => {
  const parts = given.split(':');
  if (parts.length > 3 || parts.some((part) => part === ''))
    throw new UsageError(`"${given}" is not HOST:CTR[:ro], NAME:CTR[:ro] or CTR`);
  const [source, target, options] = parts.length === 1 ? [undefined, parts[0]!, undefined] : parts;
  if (!isAbsolute(target!)) throw new UsageError(`"${target}" in "${given}" is not an absolute path`);
  const words = options?.split(',') ?? [];
  const unknown = words.find((word) => !VOLUME_OPTIONS.includes(word));
  if (unknown !== undefined)
    throw new UsageError(`"${unknown}" in "${given}" is not one of ${VOLUME_OPTIONS.join(', ')}`);
  const propagation = words.find((word) => /^r?(private|shared|slave)$/.test(word));
  const isPath = source !== undefined && /^[./~]/.test(source);
  return {
    type: isPath ? 'bind' : 'volume',
    ...(source !== undefined && { source: isPath ? resolve(source) : source }),
    target: target!,
    readOnly: words.includes('ro'),
    options: { ...(propagation && { propagation }), ...(words.includes('nocopy') && { nocopy: '' }) },
  };
};

/** `PATH[:size=64m,mode=1777]` */
export const readTmpfs: Reader<MountRequest> = (given) => {
  const colon = given.indexOf(':');
  const target = colon < 0 ? given : given.slice(0, colon);
  if (!isAbsolute(target)) throw new UsageError(`"${target}" in "${given}" is not an absolute path`);
  const options: Record<string, string> = {};
  let readOnly = false;
  for (const word of colon < 0 ? [] : given.slice(colon + 1).split(',')) {
    const [key, value = ''] = word.split('=');
    if (key === 'ro' || key === 'rw') readOnly = key === 'ro';
    else options[key!] = value;
  }
  return { type: 'tmpfs', target, readOnly, options };
};

/** `type=bind|volume|tmpfs,source=…,target=…[,readonly]…` */
export const readMount: Reader<MountRequest> = (given) => {
  const values = new Map(
    given.split(',').map((word) => {
      const at = word.indexOf('=');
      return at < 0 ? ([word, ''] as const) : ([word.slice(0, at), word.slice(at + 1)] as const);
    }),
  );
  const take = (...names: string[]): string | undefined => {
    const name = names.find((key) => values.has(key));
    const value = name === undefined ? undefined : values.get(name);
    for (const key of names) values.delete(key);
    return value;
  };
  const type = take('type') ?? 'volume';
  if (type !== 'bind' && type !== 'volume' && type !== 'tmpfs')
    throw new UsageError(`"${type}" in "${given}" is not bind, volume or tmpfs`);
  const source = take('source', 'src');
  const target = take('target', 'dst', 'destination');
  if (!target || !isAbsolute(target)) throw new UsageError(`"${given}" has no target=PATH that is absolute`);
  const readOnly = /^(|true|1)$/.test(take('readonly', 'ro') ?? 'false');
  const options: Record<string, string> = {};
  for (const [names, key] of [
    [['bind-propagation'], 'propagation'],
    [['volume-nocopy'], 'nocopy'],
    [['tmpfs-size'], 'size'],
    [['tmpfs-mode'], 'mode'],
  ] as const) {
    const value = take(...names);
    if (value !== undefined) options[key] = value;
  }
  const [unknown] = values.keys();
  if (unknown !== undefined) throw new UsageError(`"${unknown}" in "${given}" is no part of a mount`);
  return { type, ...(source !== undefined && { source }), target, readOnly, options };
};

/** `/dev/fuse[:/dev/inside][:rwm]` */
export const readDevice: Reader<DeviceSpec> = (given) => {
  const parts = given.split(':');
  const last = parts.at(-1)!;
  const access = parts.length > 1 && /^[rwm]{1,3}$/.test(last) ? parts.pop()! : 'rwm';
  const [source, target = source, ...more] = parts;
  if (!source || !target || more.length > 0 || ![source, target].every((path) => isAbsolute(path)))
    throw new UsageError(`"${given}" is not PATH[:PATH][:rwm]`);
  return { source, target, access };
};

/** `nofile=1024[:2048]` */
export const readUlimit: Reader<readonly [string, { readonly soft: number; readonly hard: number }]> = (given) => {
  const [, name, soft, hard = soft] = /^([a-z]+)=(-1|\d+)(?::(-1|\d+))?$/.exec(given) ?? [];
  if (name === undefined) throw new UsageError(`"${given}" is not NAME=SOFT[:HARD]`);
  return [name, { soft: Number(soft), hard: Number(hard) }];
};

/** Words of a shell-like text without a shell: blanks part them, quotes hold them together. */
export function wordsOf(given: string): string[] {
  const found = [...given.matchAll(/"((?:\\.|[^"\\])*)"|'([^']*)'|((?:\\.|[^\s"'\\])+)/g)];
  return found.map(([, double, single, plain]) => single ?? (double ?? plain!).replaceAll(/\\(.)/g, '$1'));
}

/** Seconds since 1970, RFC 3339, or a time before now such as `10m`: milliseconds since 1970. */
export const readMoment =
  (now: () => number): Reader<number> =>
  (given) => {
    if (/^\d+(\.\d+)?$/.test(given)) return Math.round(Number(given) * 1000);
    const ago = /^((\d+(\.\d+)?(ms|s|m|h|d))+)$/.exec(given);
    if (ago) {
      const units: Readonly<Record<string, number>> = { ms: 1, s: 1e3, m: 6e4, h: 36e5, d: 864e5 };
      let ms = 0;
      for (const [, number, unit] of given.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g))
        ms += Number(number) * units[unit!]!;
      return Math.round(now() - ms);
    }
    const at = Date.parse(given);
    if (Number.isNaN(at))
      throw new UsageError(`"${given}" is not a time such as 10m, 2026-01-31T12:00:00Z or 1767225600`);
    return at;
  };

export const readTail: Reader<number | undefined> = (given) => {
  if (given === 'all') return undefined;
  if (!/^\d{1,9}$/.test(given)) throw new UsageError(`"${given}" is not a number of lines, nor all`);
  return Number(given);
};
