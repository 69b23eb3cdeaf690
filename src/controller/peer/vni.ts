/** Two networks with one VNI: the claim of the one was lost with the store, and both are there since it was put back. */
import { shortId } from '../../model/id.ts';
import type { Network } from '../../model/network.ts';
import type { Context } from '../context.ts';

/** Said of both, on every node: which of them a host takes part in is seen by its endpoints alone. */
export async function reportVni({ world, tracker }: Context, { id, spec: { vni } }: Network): Promise<void> {
  if (vni === undefined) return;
  const other = [...world.networks.values()].find((one) => one.id !== id && one.spec.vni === vni && !one.removing);
  const message = other
    ? `VNI ${vni} is that of network ${other.name} (${shortId(other.id)}), too, since the store was lost: a host can take part in one of them; make either anew`
    : '';
  await tracker.condition('network', id, 'VniTaken', other !== undefined, message);
}
