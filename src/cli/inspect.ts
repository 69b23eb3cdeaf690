/** `sluice inspect`: whatever has the name. */
import { isSluiceError, SluiceError } from '../errors.ts';
import type { Obj } from '../model/object.ts';
import { command, UsageError } from './command/command.ts';
import { inspectEach } from './command/each.ts';
import { one, type Reader, words } from './command/flag.ts';
import { inspectFlags } from './print/listing.ts';

const NOUNS = ['container', 'sandbox', 'service', 'network', 'endpoint', 'volume'] as const;
type Noun = (typeof NOUNS)[number];

const readNoun: Reader<Noun> = (given) => {
  const noun = NOUNS.find((known) => known === given);
  if (!noun) throw new UsageError(`"${given}" is not one of ${NOUNS.join(', ')}`);
  return noun;
};

export const inspect = command({
  summary: 'All that is known of an object of any kind',
  about: 'Objects of several kinds that share a name are all shown, unless --type says which is meant.',
  examples: ['sluice inspect web', "sluice inspect --type network --format '{{.Status.State}}' web"],
  flags: { ...inspectFlags, type: one('KIND', readNoun, NOUNS.join(', '), { absent: 'any' }) },
  args: { object: words('names or ids') },
  async run(context, { format, type }, { object }) {
    const client = await context.client();
    const getters: Readonly<Record<Noun, (ref: string) => Promise<Obj>>> = {
      container: client.containers.get,
      sandbox: client.sandboxes.get,
      service: client.services.get,
      network: client.networks.get,
      endpoint: client.endpoints.get,
      volume: client.volumes.get,
    };
    const nouns = type ? [type] : NOUNS;
    const found = async (ref: string): Promise<readonly Obj[]> => {
      const views = await Promise.all(
        nouns.map((noun) =>
          getters[noun](ref).catch((error: unknown) => {
            if (isSluiceError(error, 'object.notfound')) return null;
            throw error;
          }),
        ),
      );
      const known = views.filter((view) => view !== null);
      // A container's sandbox bears its name and is a part of it.
      const parts = known.flatMap(({ spec }) => (spec as { readonly sandbox?: string }).sandbox ?? []);
      const present = known.filter(({ id }) => !parts.includes(id));
      if (present.length === 0)
        throw new SluiceError(
          'object.notfound',
          `there is no ${nouns.join(', ').replace(/, (\w+)$/, ' or $1')} ${ref}`,
          {
            name: ref,
          },
        );
      return present;
    };
    return inspectEach(context, object, found, format);
  },
});
