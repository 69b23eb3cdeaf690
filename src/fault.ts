/**
 * Named fault points. After every step of a plan stands one; a test kills the daemon at each in turn and then looks
 * for what was left behind. `SLUICE_FAULT=name` ends the process there with SIGKILL; `SLUICE_FAULT=name:throw` makes
 * the step fail instead, so that the undo path is walked too; `name:N` and `name:throw:N` act on the Nth passage.
 */
import { SluiceError } from './errors.ts';

export const FAULT_POINTS = [
  'network.leased',
  'network.stored',
  'network.driver',
  'network.policy',
  'network.peers',
  'network.removed',
  'network.released',
  'sandbox.leased',
  'sandbox.stored',
  'sandbox.netns',
  'sandbox.cgroup',
  'sandbox.resolver',
  'sandbox.dataplane',
  'endpoint.leased',
  'endpoint.stored',
  'endpoint.link',
  'endpoint.moved',
  'endpoint.address',
  'endpoint.dataplane',
  'endpoint.ready',
  'endpoint.withdrawn',
  'endpoint.unlinked',
  'endpoint.released',
  'sandbox.withdrawn',
  'sandbox.removed',
  'container.stored',
  'container.mounted',
  'container.created',
  'container.published',
  'container.started',
  'container.deleted',
  'container.released',
  'service.leased',
  'service.stored',
  'service.backends',
  'service.frontends',
  'service.withdrawn',
  'service.released',
  'replica.leaving',
  'replica.stored',
  'dataplane.loaded',
  'dataplane.pinned',
  'dataplane.attached',
  'dataplane.slots',
  'dataplane.count',
] as const;
export type FaultPoint = (typeof FAULT_POINTS)[number];

const [wanted, ...how] = (process.env.SLUICE_FAULT ?? '').split(':');
let left = Number(how.find((word) => /^\d+$/.test(word)) ?? 1);

export function fault(name: FaultPoint): void {
  if (name !== wanted || --left !== 0) return;
  if (how.includes('throw')) throw new SluiceError('internal', `fault point ${name}`);
  process.kill(process.pid, 'SIGKILL');
}
