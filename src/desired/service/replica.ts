/** What a request for replicas means: pure. */
import type { Image } from '../../contracts/image.ts';
import { SluiceError } from '../../errors.ts';
import type { ReplicaTemplate } from '../../model/container/request.ts';
import { type PlacementSpec, readConstraint } from '../../model/service/placement.ts';
import type { ReplicaSpec } from '../../model/service.ts';
import { specOf } from '../container/spec.ts';
import { keepingPlacement, keepingReplicas, keepingTemplate } from '../newer.ts';
import { sameJson } from '../records.ts';
import { BACKENDS_MAX } from './port.ts';

/** `SERVICE-SLOT` */
export const replicaName = (service: string, slot: number): string => `${service}-${slot}`;

/** With this more replicas of a name, or none, the longest one would be longer than a name may be. */
const NAME_MAX = 63 - '-1024'.length;

/**
 * `before`: the replicas that the service has. What differs from them is a new version. `request.invalid` for what no container may be, too.
 */
export function replicasOf(
  service: string,
  request: { readonly count: number; readonly container: ReplicaTemplate; readonly placement?: PlacementSpec },
  image: Image,
  before?: ReplicaSpec,
): ReplicaSpec {
  const { count } = request;
  const placement = keepingPlacement(before?.placement, request.placement);
  const asked = { ...request.container, restart: request.container.restart ?? { name: 'always' as const } };
  const container = keepingTemplate(before?.container, asked);
  checkCount(count);
  checkPlacement(placement);
  if (service.length > NAME_MAX)
    throw new SluiceError('request.invalid', `the name of a service with replicas has at most ${NAME_MAX} characters`, {
      name: service,
    });
  // A container like this must be possible; what only a newer version understands is for that to judge.
  specOf(replicaName(service, 1), asked, image, '', { nameVolume: () => 'volume', publish: [] });
  const imageId = image.id;
  const same = before && sameJson([before.container, before.imageId], [container, imageId]);
  const version = same ? before.version : (before?.version ?? 0) + 1;
  return keepingReplicas(before, { count, container, imageId, placement, version });
}

/** `request.invalid`, also for a number where every node has one. */
export function checkCount(count: number, placement?: PlacementSpec): void {
  if (placement?.mode === 'global')
    throw new SluiceError(
      'request.invalid',
      'a service in mode global has one replica on every node, not a number of them',
    );
  if (!Number.isInteger(count) || count < 0 || count > BACKENDS_MAX)
    throw new SluiceError('request.invalid', `${count} is not a number of replicas up to ${BACKENDS_MAX}`, { count });
}

function checkPlacement({ mode, constraints = [], perNodeMax }: PlacementSpec = {}): void {
  for (const constraint of constraints)
    if (!readConstraint(constraint))
      throw new SluiceError(
        'request.invalid',
        `"${constraint}" is no constraint such as node.labels.zone==a or node.name!=host-1`,
        { constraint },
      );
  if (mode === 'global' && perNodeMax !== undefined)
    throw new SluiceError('request.invalid', 'mode global and a limit of replicas on a node exclude each other');
}
