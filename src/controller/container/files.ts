/** The files that a container sees under /etc: its own, not the image's. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Container } from '../../model/container.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import { shortId } from '../../model/id.ts';

const LOCAL = [
  '127.0.0.1\tlocalhost',
  '::1\tlocalhost ip6-localhost ip6-loopback',
  'fe00::0\tip6-localnet',
  'ff00::0\tip6-mcastprefix',
  'ff02::1\tip6-allnodes',
  'ff02::2\tip6-allrouters',
];

export const hostnameOf = ({ id, spec }: Container): string => spec.hostname ?? shortId(id);

/** Text of /etc/hosts: the usual names, `--add-host`, and its own name for each of its addresses. */
export function hostsText(container: Container, endpoints: readonly Endpoint[]): string {
  const name = hostnameOf(container);
  const short = name.split('.')[0]!;
  const added = container.spec.addHosts.map((line) => {
    const colon = line.indexOf(':');
    return `${line.slice(colon + 1)}\t${line.slice(0, colon)}`;
  });
  const own = endpoints.flatMap(({ spec }) =>
    spec.addresses.map((address) => `${address.split('/')[0]}\t${name}${short === name ? '' : ` ${short}`}`),
  );
  return `${[...LOCAL, ...added, ...own].join('\n')}\n`;
}

/** Writes them where they differ, in place: a running container has these very files mounted. Returns path inside → path on the host. */
export function writeFiles(
  dir: string,
  resolvConf: string | undefined,
  container: Container,
  endpoints: readonly Endpoint[],
): Record<string, string> {
  mkdirSync(dir, { recursive: true });
  const write = (name: string, text: string): string => {
    const path = join(dir, name);
    if (textOf(path) !== text) writeFileSync(path, text);
    return path;
  };
  return {
    ...(resolvConf && { '/etc/resolv.conf': resolvConf }),
    '/etc/hosts': write('hosts', hostsText(container, endpoints)),
    '/etc/hostname': write('hostname', `${hostnameOf(container)}\n`),
  };
}

function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
