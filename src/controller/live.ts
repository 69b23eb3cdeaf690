/** Statuses as the API shows them: what was written, with the kernel's counters as they stand at the moment of asking. */
import type { Dataplane } from '../contracts/dataplane.ts';
import type { Statuses as KeptStatuses } from '../desired/status.ts';
import { balanced, dropped } from '../metrics.ts';
import type { Obj } from '../model/object.ts';
import type { View } from '../model/request.ts';
import type { Tracker } from './tracker.ts';
import type { World } from './world.ts';

type Counters = Pick<Dataplane, 'endpointCounters' | 'setCounters'>;

interface Statuses extends Pick<KeptStatuses, 'kept' | 'onKept'> {
  view<O extends Obj>(object: O): Promise<View<O>>;
}

interface ServiceSet {
  readonly set: number;
  readonly vip: string;
  readonly port: number;
}

export function liveStatuses(
  statuses: Statuses,
  dataplane: Pick<Dataplane, 'endpointCounters' | 'setCounters'>,
): Statuses {
  return {
    kept: statuses.kept,
    onKept: (listener) => statuses.onKept(listener),
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

/** Sets the gauges of balancing and drops from the kernel's maps: when /metrics is read. */
export function collectCounters(
  world: Pick<World, 'services' | 'endpoints'>,
  tracker: Tracker,
  dataplane: Counters,
): void {
  balanced.reset();
  dropped.reset();
  for (const service of world.services.values()) {
    for (const { set, vip, port } of tracker.detail<{ sets: readonly ServiceSet[] }>('service', service.id).sets ??
      []) {
      const { connects, refused } = dataplane.setCounters(set);
      balanced.set({ service: service.name, vip, port, result: 'balanced' }, connects);
      balanced.set({ service: service.name, vip, port, result: 'refused' }, refused);
    }
  }
  for (const endpoint of world.endpoints.values()) {
    for (const [reason, count] of Object.entries(dataplane.endpointCounters(endpoint.id).drops))
      if (count > 0) dropped.set({ endpoint: endpoint.name, reason }, count);
  }
}
