/** What a request for a container means: pure. */
import type { Image } from '../../contracts/image.ts';
import { SluiceError } from '../../errors.ts';
import type { ContainerRequest, MountRequest } from '../../model/container/request.ts';
import type { Container, ContainerSpec, HealthSpec, MountSpec, PublishSpec } from '../../model/container.ts';
import { sameJson } from '../records.ts';

/** Docker's defaults of a health check. */
const HEALTH: Omit<HealthSpec, 'test'> = { intervalMs: 30_000, timeoutMs: 30_000, retries: 3, startPeriodMs: 0 };
const STOP_MS = 10_000;
/** Paths that belong to the container's own making. */
const OURS = ['/', '/proc', '/sys', '/dev'];

/** Without a trailing slash, double slashes and dots. */
export function cleanPath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  return `/${parts.join('/')}`;
}

/**
 * Mounts as asked for, then a volume for every path that the image declares and nothing else covers. `nameVolume` names an anonymous volume.
 * `request.invalid` for two mounts of one path.
 */
export function mountsOf(
  name: string,
  mounts: readonly MountRequest[],
  volumes: readonly string[],
  nameVolume: () => string,
): MountSpec[] {
  const refuse = (message: string, target: string): never => {
    throw new SluiceError('request.invalid', `container ${name}: ${message}`, { target });
  };
  const all: MountSpec[] = mounts.map(({ type, source, target, readOnly = false, options = {} }) => ({
    type,
    source: type === 'volume' ? (source ?? nameVolume()) : source,
    target: cleanPath(target),
    readOnly,
    options,
  }));
  for (const [n, { target }] of all.entries()) {
    if (OURS.includes(target)) refuse(`nothing can be mounted over ${target}`, target);
    if (all.slice(0, n).some((other) => other.target === target)) refuse(`two mounts of ${target}`, target);
  }
  for (const path of volumes.map(cleanPath))
    if (!all.some(({ target }) => target === path) && !OURS.includes(path))
      all.push({ type: 'volume', source: nameVolume(), target: path, readOnly: false, options: {} });
  return all;
}

/** The whole specification; what belongs to its life (`wanted`, `generation`) is that of a new one. */
export function specOf(
  name: string,
  request: ContainerRequest,
  image: Image,
  sandbox: string,
  { nameVolume, publish }: { readonly nameVolume: () => string; readonly publish: readonly PublishSpec[] },
): ContainerSpec {
  const restart = { name: request.restart?.name ?? ('no' as const), retriesMax: request.restart?.retriesMax ?? 0 };
  const refuse = (message: string): never => {
    throw new SluiceError('request.invalid', `container ${name}: ${message}`, { name });
  };
  if (restart.retriesMax > 0 && restart.name !== 'on-failure')
    refuse(`a number of retries belongs to on-failure, not to ${restart.name}`);
  if (request.autoRemove && restart.name !== 'no') refuse('one that goes with its process is not restarted');
  const health = request.health && { test: [], ...HEALTH, ...image.config.health, ...request.health };
  if (health?.test.length === 0) refuse('neither the request nor the image says how health is checked');
  const program = [...(request.entrypoint ?? image.config.entrypoint), ...(request.command ?? [])];
  if (program.length === 0 && (request.entrypoint !== undefined || image.config.command.length === 0))
    refuse(`image ${request.image} names no program, and none was given`);
  return {
    image: request.image,
    imageId: image.id,
    sandbox,
    entrypoint: request.entrypoint,
    command: request.command,
    env: request.env ?? [],
    user: request.user,
    workdir: request.workdir,
    hostname: request.hostname,
    tty: request.tty ?? false,
    stdin: request.stdin ?? false,
    stdinOnce: request.stdinOnce,
    mounts: mountsOf(name, request.mounts ?? [], image.config.volumes, nameVolume),
    devices: request.devices ?? [],
    memoryBytes: request.memoryBytes,
    cpus: request.cpus,
    pidsMax: request.pidsMax,
    readOnly: request.readOnly ?? false,
    privileged: request.privileged ?? false,
    capAdd: request.capAdd ?? [],
    capDrop: request.capDrop ?? [],
    securityOpt: request.securityOpt ?? [],
    userns: request.userns ?? 'host',
    init: request.init ?? false,
    addHosts: request.addHosts ?? [],
    ulimits: request.ulimits ?? {},
    stopSignal: request.stopSignal,
    stopTimeoutMs: request.stopTimeoutMs ?? STOP_MS,
    restart,
    health,
    autoRemove: request.autoRemove ?? false,
    publish,
    wanted: request.start ? 'running' : 'created',
    generation: 1,
    foreign: request.foreign,
  };
}

/** The first thing in which the container is not what the request would make, null: none. Its life, and the names of anonymous volumes, do not count. */
export function specDiffers(found: Container, asked: ContainerSpec, anonymous: ReadonlySet<string>): string | null {
  const bare = (spec: ContainerSpec): ContainerSpec => ({
    ...spec,
    mounts: spec.mounts.map((mount) => ({
      ...mount,
      source: mount.type === 'volume' && anonymous.has(mount.source ?? '') ? '' : mount.source,
    })),
  });
  const there = bare(found.spec);
  const wanted = bare({
    ...asked,
    sandbox: found.spec.sandbox,
    wanted: found.spec.wanted,
    generation: found.spec.generation,
    stopWithinMs: found.spec.stopWithinMs,
    replica: found.spec.replica,
  });
  // `asked` names every field that there is: what else `there` has a newer version wrote.
  const key = Object.keys(wanted).find(
    (name) => !sameJson(there[name as keyof ContainerSpec], wanted[name as keyof ContainerSpec]),
  );
  return key ?? null;
}
