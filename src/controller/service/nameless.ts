/**
 * Objects without a name: put back after a loss of the store while another had been given the name. They are told of, and have it again once it is free.
 */
import { isSluiceError } from '../../errors.ts';
import { shortId } from '../../model/id.ts';
import type { Network } from '../../model/network.ts';
import type { Service } from '../../model/service.ts';
import type { Context } from '../context.ts';
import { troubleOf } from '../tracker.ts';

/** Asks the store only where two objects are called the same, or were: nobody else can be without a name. */
export async function reportNameless(context: Context, object: Network | Service): Promise<void> {
  const { world, tracker, desired } = context;
  const { kind, id, name, owner } = object;
  const all: Iterable<Network | Service> = kind === 'network' ? world.networks.values() : world.services.values();
  const isDoubted =
    troubleOf(tracker, kind, id, 'NameTaken') !== undefined ||
    [...all].some((one) => one.id !== id && one.name === name && one.owner === owner && !one.removing);
  if (!isDoubted) return;
  try {
    const holder =
      object.kind === 'network'
        ? await desired.networks.records.nameless(object)
        : await desired.services.records.nameless(object);
    const whose = holder && `${name} is ${kind} ${shortId(holder)} since the store was lost`;
    const help = `this one works as before and answers to its id, ${shortId(id)}; it has its name again when the other one is removed`;
    await tracker.condition(kind, id, 'NameTaken', whose !== null, `${whose ?? name}: ${help}`);
  } catch (error) {
    // It is looked at again: somebody else was faster, or the store is away.
    if (!isSluiceError(error, 'store.conflict', 'store.unavailable')) throw error;
  }
}
