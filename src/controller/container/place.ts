/** Whether what runs in a sandbox has a name and a place among backends: a plain sandbox always, a container's by its state. */
import type { ContainerDetail } from '../../model/container.ts';
import type { Context } from '../context.ts';
import { type Place, placeOf } from './decide.ts';

const PLAIN: Place = { named: true, serving: true };

export function placeOfSandbox({ world, tracker }: Pick<Context, 'world' | 'tracker'>, sandboxId: string): Place {
  const container = world.containerOfSandbox(sandboxId);
  return container ? placeOf(container.spec, tracker.detail<ContainerDetail>('container', container.id)) : PLAIN;
}
