/** What a container runs, in one: the user's words over the image's, as Docker merges them. */
import type { ContainerSpec } from '../container.ts';

/** An entrypoint of the user's drops the image's command. Empty: there is neither. */
export function argsOf(
  { entrypoint, command }: Pick<ContainerSpec, 'entrypoint' | 'command'>,
  image: { readonly entrypoint: readonly string[]; readonly command: readonly string[] },
): string[] {
  return [...(entrypoint ?? image.entrypoint), ...(command ?? (entrypoint === undefined ? image.command : []))];
}
