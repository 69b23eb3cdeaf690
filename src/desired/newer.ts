/**
 * What a newer version wrote into an object and this one does not know: pure. Daemons of two versions share a store while a cluster is upgraded, and
 * a version only ever adds: fields, values of a choice, kinds of records. Whoever rewrites a list or a part of an object takes along what it does not know.
 */
import type { MountRequest, ReplicaTemplate } from '../model/container/request.ts';
import type { HealthSpec, MountSpec, PublishSpec, RestartSpec } from '../model/container.ts';
import type { PlacementSpec } from '../model/service/placement.ts';
import { type BackendSpec, isProtocol, type ReplicaSpec, type ServicePort } from '../model/service.ts';

/** The fields of `T`, none missing, none too many: the compiler counts. */
type Fields<T> = { readonly [K in keyof Required<T>]: true };

const REPLICAS: Fields<ReplicaSpec> = { count: true, container: true, imageId: true, version: true, placement: true };
const PLACEMENT: Fields<PlacementSpec> = { mode: true, constraints: true, perNodeMax: true, updateParallelism: true };
const PORT: Fields<ServicePort> = { name: true, port: true, target: true, protocol: true };
const PUBLISH: Fields<PublishSpec> = {
  address: true,
  published: true,
  target: true,
  protocol: true,
  mode: true,
  from: true,
};
const HEALTH: Fields<HealthSpec> = {
  test: true,
  intervalMs: true,
  timeoutMs: true,
  retries: true,
  startPeriodMs: true,
};
const RESTART: Fields<RestartSpec> = { name: true, retriesMax: true };
const MOUNT: Fields<MountRequest> = { type: true, source: true, target: true, readOnly: true, options: true };
const MOUNT_TYPES: { readonly [T in MountSpec['type']]: true } = { bind: true, volume: true, tmpfs: true };
const TEMPLATE: Fields<ReplicaTemplate> = {
  image: true,
  entrypoint: true,
  command: true,
  env: true,
  user: true,
  workdir: true,
  hostname: true,
  tty: true,
  stdin: true,
  stdinOnce: true,
  mounts: true,
  devices: true,
  memoryBytes: true,
  cpus: true,
  pidsMax: true,
  readOnly: true,
  privileged: true,
  capAdd: true,
  capDrop: true,
  securityOpt: true,
  userns: true,
  init: true,
  addHosts: true,
  ulimits: true,
  stopSignal: true,
  stopTimeoutMs: true,
  restart: true,
  health: true,
  foreign: true,
  sysctls: true,
  dns: true,
  labels: true,
};

/** `next` with what `before` has besides these fields. */
function keeping<T extends object>(before: T | undefined, next: T, fields: Fields<T>): T {
  const unknown = Object.entries(before ?? {}).filter(([key]) => !Object.hasOwn(fields, key));
  return unknown.length === 0 ? next : { ...(Object.fromEntries(unknown) as Partial<T>), ...next };
}

/** The same one by one, those that `isSame` says; then the ones of `before` that are not `isKnown`. */
function keepingEach<T extends object>(
  before: readonly T[],
  next: readonly T[],
  fields: Fields<T>,
  { isSame, isKnown }: { readonly isSame: (a: T, b: T) => boolean; readonly isKnown: (one: T) => boolean },
): T[] {
  const all = next.map((one) =>
    keeping(
      before.find((other) => isKnown(other) && isSame(other, one)),
      one,
      fields,
    ),
  );
  return [...all, ...before.filter((one) => !isKnown(one))];
}

export const keepingPorts = (before: readonly ServicePort[], next: readonly ServicePort[]): ServicePort[] =>
  keepingEach(before, next, PORT, {
    isSame: (a, b) => a.port === b.port && a.protocol === b.protocol,
    isKnown: ({ protocol }) => isProtocol(protocol),
  });

export const keepingPublish = (before: readonly PublishSpec[], next: readonly PublishSpec[]): PublishSpec[] =>
  keepingEach(before, next, PUBLISH, {
    isSame: (a, b) => a.published === b.published && a.protocol === b.protocol && a.address === b.address,
    isKnown: ({ protocol }) => isProtocol(protocol),
  });

export const keepingReplicas = (before: ReplicaSpec | undefined, next: ReplicaSpec): ReplicaSpec =>
  keeping(before, next, REPLICAS);

/** Also in what it is made of: mounts go by where they are inside. */
export function keepingTemplate(before: ReplicaTemplate | undefined, next: ReplicaTemplate): ReplicaTemplate {
  const { health, restart } = next;
  const mounts = keepingEach(before?.mounts ?? [], next.mounts ?? [], MOUNT, {
    isSame: (a, b) => a.target === b.target,
    isKnown: ({ type }) => Object.hasOwn(MOUNT_TYPES, type),
  });
  return {
    ...keeping(before, next, TEMPLATE),
    ...(health && { health: keeping<Partial<HealthSpec>>(before?.health, health, HEALTH) }),
    ...(restart && { restart: keeping<Partial<RestartSpec>>(before?.restart, restart, RESTART) }),
    ...(mounts.length > 0 && { mounts }),
  };
}

/** None, where neither the request nor anything unknown asks for one. */
export function keepingPlacement(before?: PlacementSpec, next?: PlacementSpec): PlacementSpec | undefined {
  const kept = keeping(before, next ?? {}, PLACEMENT);
  return next === undefined && Object.keys(kept).length === 0 ? undefined : kept;
}

/** Backends that are neither a sandbox nor an address. */
export const unknownBackends = (backends: readonly BackendSpec[]): BackendSpec[] =>
  backends.filter((backend) => !('sandbox' in backend || 'address' in backend));

/** What a backend is, whatever else is said of it. */
export const backendKey = (backend: BackendSpec): string => {
  if ('sandbox' in backend) return `${backend.sandbox}:${backend.port ?? ''}`;
  return 'address' in backend ? `${backend.address}:${backend.port ?? ''}` : JSON.stringify(backend);
};
