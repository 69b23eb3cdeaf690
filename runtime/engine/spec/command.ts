/** What a container runs: the user's words over the image's, as Docker merges them. */
import type { ImageConfig } from '../../../src/contracts/image.ts';
import { SluiceError } from '../../../src/errors.ts';
import { argsOf } from '../../../src/model/container/args.ts';
import type { ContainerSpec } from '../../../src/model/container.ts';

const PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/** Entrypoint and command in one; `runtime.spec` when there is neither. */
export function programOf(spec: Pick<ContainerSpec, 'entrypoint' | 'command' | 'image'>, image: ImageConfig): string[] {
  const args = argsOf(spec, image);
  if (args.length > 0) return args;
  throw new SluiceError('runtime.spec', `${spec.image} has no command, and none was given`, { image: spec.image });
}

/** Later ones win, `NAME` without a value takes one away; PATH, HOME, HOSTNAME and (with a terminal) TERM unless somebody set them. */
export function envOf(
  own: readonly string[],
  image: readonly string[],
  { home, hostname, tty }: { readonly home: string; readonly hostname?: string; readonly tty: boolean },
): string[] {
  const values = new Map<string, string>();
  const defaults = [
    PATH,
    ...(hostname ? [`HOSTNAME=${hostname}`] : []),
    ...(tty ? ['TERM=xterm'] : []),
    `HOME=${home}`,
  ];
  for (const entry of [...defaults, ...image, ...own]) {
    const equals = entry.indexOf('=');
    if (equals < 0) values.delete(entry);
    else values.set(entry.slice(0, equals), entry);
  }
  return [...values.values()];
}
