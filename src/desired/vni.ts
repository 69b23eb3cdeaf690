/** VXLAN network identifiers: claimed in the transaction that makes the network, so that no two networks of a cluster have one. */
import type { Op, Store } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import { objectKey, vniKey } from '../model/keys.ts';
import { type Network, PROBE_VNI, VNI_AUTOMATIC } from '../model/network.ts';

/** Identifiers looked at before it is said that none is left: of a hundred random ones all are taken only in a full cluster. */
const ATTEMPTS_MAX = 100;

/** The writes of a claim. The identifier is the network's id's own, or the next free one, so that daemons seldom meet. `network.vni`. */
export async function claimVni(store: Store, id: string, asked?: number): Promise<{ vni: number; claim: Op }> {
  const claim = (vni: number): { vni: number; claim: Op } => ({
    vni,
    claim: { op: 'put', key: vniKey(vni), value: { id }, expect: 0 },
  });
  if (asked === PROBE_VNI)
    throw new SluiceError('network.vni', `VNI ${asked} is kept for the hosts' own test of checksums; choose another`, {
      vni: asked,
    });
  if (asked !== undefined) {
    const holder = await store.get<{ readonly id: string }>(vniKey(asked));
    if (!holder) return claim(asked);
    const network = await store.get<Network>(objectKey('network', holder.value.id));
    const name = network?.value.name ?? holder.value.id;
    throw new SluiceError('network.vni', `VNI ${asked} belongs to network ${name}`, { vni: asked, network: name });
  }
  const { min, max } = VNI_AUTOMATIC;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    // Another stretch of the id each time: 56 of them, then one further each round.
    const at = attempt % 56;
    const drawn = Number.parseInt(id.slice(at, at + 8), 16) + Math.floor(attempt / 56);
    const vni = min + (drawn % (max - min + 1));
    if (!(await store.get(vniKey(vni)))) return claim(vni);
  }
  throw new SluiceError('network.vni', `${ATTEMPTS_MAX} VNIs that were tried are all taken`, {
    attempts: ATTEMPTS_MAX,
  });
}

/** The writes that free the identifier, while it is still the network's. */
export async function releaseVni(store: Store, { id, spec }: Pick<Network, 'id' | 'spec'>): Promise<Op[]> {
  if (spec.vni === undefined) return [];
  const key = vniKey(spec.vni);
  const holder = await store.get<{ readonly id: string }>(key);
  return holder?.value.id === id ? [{ op: 'delete', key, expect: holder.revision }] : [];
}
