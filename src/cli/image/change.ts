/** Lines of a Dockerfile that `image import --change` knows, as parts of an image's configuration. Pure. */
import type { ImageConfig } from '../../model/image/image.ts';
import { UsageError } from '../command/command.ts';

type Draft = Partial<ImageConfig>;

/** `["a", "b"]`, or a line for the shell. */
function commandOf(rest: string): readonly string[] {
  if (!rest.startsWith('[')) return ['/bin/sh', '-c', rest];
  let words: unknown;
  try {
    words = JSON.parse(rest);
  } catch {
    words = null;
  }
  if (!Array.isArray(words) || !words.every((word): word is string => typeof word === 'string'))
    throw new UsageError(`${rest} is no list of words such as ["/bin/sh", "-c", "date"]`);
  return words;
}

function pairOf(rest: string): readonly [string, string] {
  const [, key, value] = /^([^=\s]+)[=\s](.*)$/.exec(rest) ?? [];
  if (key === undefined) throw new UsageError(`"${rest}" is not KEY=VALUE`);
  return [key, value!.replace(/^"(.*)"$/, '$1')];
}

/** What each line adds to what came before. */
const INSTRUCTIONS: Readonly<Record<string, (rest: string, before: Draft) => Draft>> = {
  CMD: (rest) => ({ command: commandOf(rest) }),
  ENTRYPOINT: (rest) => ({ entrypoint: commandOf(rest) }),
  ENV: (rest, { env = [] }) => ({ env: [...env, pairOf(rest).join('=')] }),
  LABEL: (rest, { labels }) => ({ labels: { ...labels, ...Object.fromEntries([pairOf(rest)]) } }),
  EXPOSE: (rest, { ports = [] }) => ({ ports: [...ports, ...rest.split(/\s+/).map(portOf)] }),
  VOLUME: (rest, { volumes = [] }) => ({
    volumes: [...volumes, ...(rest.startsWith('[') ? commandOf(rest) : rest.split(/\s+/))],
  }),
  USER: (rest) => ({ user: rest }),
  WORKDIR: (rest) => ({ workdir: rest }),
  STOPSIGNAL: (rest) => ({ stopSignal: rest }),
};

function portOf(text: string): string {
  const [, port, protocol = 'tcp'] = /^(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text) ?? [];
  if (port === undefined) throw new UsageError(`"${text}" is no port such as 80 or 53/udp`);
  return `${port}/${protocol}`;
}

/** All lines together; a later one wins over an earlier one of its kind, but for those that add up. */
export function changesOf(lines: readonly string[]): Partial<ImageConfig> | undefined {
  if (lines.length === 0) return undefined;
  let draft: Draft = {};
  for (const line of lines) {
    const [, word = '', rest = ''] = /^\s*(\S+)\s+(.*?)\s*$/.exec(line) ?? [];
    const apply = INSTRUCTIONS[word.toUpperCase()];
    if (!apply || rest === '')
      throw new UsageError(`--change: "${line}" is none of ${Object.keys(INSTRUCTIONS).join(', ')} with a value`);
    draft = { ...draft, ...apply(rest, draft) };
  }
  return draft;
}
