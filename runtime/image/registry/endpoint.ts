/** Where a registry is reached. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { getCACertificates } from 'node:tls';
import { SluiceError } from '../../../src/errors.ts';
import { DEFAULT_REGISTRY } from '../reference.ts';

export interface RegistrySettings {
  /** Registry → bases that are asked before it, `https://mirror.example` or `http://10.0.0.5:5000/prefix`. */
  readonly mirrors: Readonly<Record<string, readonly string[]>>;
  /** `HOST[:PORT]` of registries whose certificate is not checked, and that may speak plain HTTP. Those on loopback are. */
  readonly insecure: readonly string[];
  /** Folder with `HOST[:PORT]/*.crt`: certificates of authorities that are trusted for that registry. */
  readonly certificates: string;
}

export interface Endpoint {
  /** `https://registry-1.docker.io`, no slash at the end. */
  readonly base: string;
  /** The certificate is not checked. */
  readonly unverified: boolean;
  /** Certificates that are trusted beside the system's; none: the system's alone. */
  readonly authorities: readonly string[];
  /** Not the registry itself. */
  readonly mirror: boolean;
  /** Registry that credentials are kept for. */
  readonly account: string;
}

/** Docker Hub's API is not where its name is. */
const HUB = 'registry-1.docker.io';
const LOOPBACK = /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?$/;

export const isInsecure = (host: string, { insecure }: RegistrySettings): boolean =>
  LOOPBACK.test(host) || insecure.includes(host);

/** The system's authorities, Node's own, and those in the folder of that host. */
function authoritiesOf(host: string, { certificates }: RegistrySettings): string[] {
  const dir = join(certificates, host);
  let names: string[];
  try {
    names = readdirSync(dir).filter((name) => name.endsWith('.crt'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return names.map((name) => readFileSync(join(dir, name), 'utf8'));
}

let system: readonly string[] | null = null;
/** Everything that is trusted for an endpoint. */
export function trustedBy({ authorities }: Endpoint): string[] {
  system ??= [...new Set([...getCACertificates('default'), ...getCACertificates('system')])];
  return [...system, ...authorities];
}

function mirrorOf(text: string, settings: RegistrySettings): Endpoint {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (!url || !['http:', 'https:'].includes(url.protocol))
    throw new SluiceError('config.invalid', `${text} is no mirror: write http://HOST or https://HOST`);
  return {
    base: url.href.replace(/\/+$/, ''),
    unverified: isInsecure(url.host, settings),
    authorities: authoritiesOf(url.host, settings),
    mirror: true,
    account: url.host,
  };
}

/** In the order in which they are tried. Mirrors only serve pulls. */
export function endpointsOf(registry: string, settings: RegistrySettings, purpose: 'pull' | 'push'): Endpoint[] {
  const host = registry === DEFAULT_REGISTRY ? HUB : registry;
  const unverified = isInsecure(registry, settings);
  const own = { unverified, authorities: authoritiesOf(registry, settings), mirror: false, account: registry };
  const mirrors = purpose === 'pull' ? (settings.mirrors[registry] ?? []) : [];
  return [
    ...mirrors.map((text) => mirrorOf(text, settings)),
    { ...own, base: `https://${host}` },
    ...(unverified ? [{ ...own, base: `http://${host}` }] : []),
  ];
}
