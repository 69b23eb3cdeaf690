import type { Container } from '../../model/container.ts';
import type { Context } from '../context.ts';

/** How long the nodes of a network take to let go of a replica that they were told of, milliseconds. */
const LET_GO_MS = 100;

/** Before a replica on a network across hosts is told to end, other nodes send nothing new there. */
export async function withdrawFromPeers(
  { world, desired, clock }: Pick<Context, 'world' | 'desired' | 'clock'>,
  { spec }: Container,
): Promise<void> {
  if (!spec.replica) return;
  const told = world.endpointsOfSandbox(spec.sandbox).filter((endpoint) => endpoint.spec.serving && !endpoint.removing);
  for (const endpoint of told) await desired.endpoints.serve(endpoint, false);
  if (told.length > 0) await clock.sleep(LET_GO_MS);
}
