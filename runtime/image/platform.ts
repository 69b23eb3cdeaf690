/** Which of several builds of an image is for a machine. */
import { SluiceError } from '../../src/errors.ts';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
}

/** Node's names of architectures in Go's, which images use. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', arm: 'arm', ia32: '386' };
/** Names that other tools write for them. */
const ALIASES: Readonly<Record<string, string>> = { x86_64: 'amd64', aarch64: 'arm64', i386: '386' };

export const hostPlatform = (): Platform => ({
  os: 'linux',
  architecture: ARCHITECTURES[process.arch] ?? process.arch,
});

/** `linux/amd64`, `linux/arm/v7`, or an architecture alone. */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split('/');
  const [os, architecture, variant] = parts.length === 1 ? ['linux', parts[0]!] : parts;
  if (!os || !architecture || parts.length > 3 || !/^[a-z0-9_/.-]+$/.test(text.toLowerCase()))
    throw new SluiceError('image.platform', `${JSON.stringify(text)} is no platform: write OS/ARCHITECTURE[/VARIANT]`);
  return { os, architecture: ALIASES[architecture] ?? architecture, variant };
}

export const platformName = ({ os, architecture, variant }: Platform): string =>
  [os, architecture, ...(variant ? [variant] : [])].join('/');

/** arm64 has one variant so far, which most leave out. */
const variantOf = ({ architecture, variant }: Platform): string =>
  variant ?? (architecture === 'arm64' ? 'v8' : architecture === 'arm' ? 'v7' : '');

const fits = (wanted: Platform, offered: Platform): boolean =>
  offered.os === wanted.os && (ALIASES[offered.architecture] ?? offered.architecture) === wanted.architecture;

/** The offer that fits best: the same variant, else one without, else the first of that architecture; undefined: none does. */
export function choosePlatform<T extends { readonly platform?: Platform }>(
  wanted: Platform,
  offers: readonly T[],
): T | undefined {
  const fitting = offers.filter(({ platform }) => platform && fits(wanted, platform));
  const exact = fitting.find(({ platform }) => variantOf(platform!) === variantOf(wanted));
  return exact ?? (wanted.variant ? undefined : (fitting.find(({ platform }) => !platform!.variant) ?? fitting[0]));
}

/** Fails with `image.platform`, naming both, unless an image of `found` runs on `wanted`. */
export function checkPlatform(wanted: Platform, found: Platform, what: string): void {
  if (fits(wanted, found) && (!wanted.variant || variantOf(wanted) === variantOf(found))) return;
  throw new SluiceError(
    'image.platform',
    `${what} is for ${platformName(found)}, and ${platformName(wanted)} is wanted`,
    { found: platformName(found), wanted: platformName(wanted) },
  );
}
