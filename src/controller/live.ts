/** Statuses as the API shows them: what was written, with the kernel's counters as they stand at the moment of asking. */
import type { Dataplane } from '../contracts/dataplane.ts';
import type { Obj } from '../model/object.ts';
import type { View } from '../model/request.ts';

interface Statuses {
  view<O extends Obj>(object: O): Promise<View<O>>;
}

interface ServiceSet {
  readonly set: number;
}

export function liveStatuses(
  statuses: Statuses,
  dataplane: Pick<Dataplane, 'endpointCounters' | 'setCounters'>,
): Statuses {
  return {
    async view(object) {
      const view = await statuses.view(object);
      if (!view.status) return view;
      const { detail } = view.status;
      if (object.kind === 'endpoint')
        return {
          ...view,
          status: { ...view.status, detail: { ...detail, drops: dataplane.endpointCounters(object.id).drops } },
        };
      if (object.kind === 'service' && Array.isArray(detail.sets)) {
        const sets = (detail.sets as ServiceSet[]).map((set) => ({ ...set, ...dataplane.setCounters(set.set) }));
        return { ...view, status: { ...view.status, detail: { ...detail, sets } } };
      }
      return view;
    },
  };
}
