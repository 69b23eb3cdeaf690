/** Limits and devices of a container in the OCI runtime's words. */
import { statSync } from 'node:fs';
import { SluiceError } from '../../../src/errors.ts';
import type { ContainerSpec, DeviceSpec } from '../../../src/model/container.ts';

/** Without `--pids-limit`: a fork bomb ends here. */
const PIDS_MAX = 4_096;
const CPU_PERIOD_US = 100_000;

export interface HostSize {
  readonly cpus: number;
  readonly memoryBytes: number;
  /** Its own bounding set of capabilities. */
  readonly capabilities: bigint;
}

/** Limits above what the host has, or below what a process needs, are `runtime.spec`. */
export function resourcesOf(spec: ContainerSpec, host: HostSize) {
  const { memoryBytes, cpus, pidsMax } = spec;
  const refuse = (message: string): never => {
    throw new SluiceError('runtime.spec', message, { memoryBytes, cpus, pidsMax });
  };
  if (cpus !== undefined && (cpus <= 0 || cpus > host.cpus)) refuse(`--cpus ${cpus}: this host has ${host.cpus}`);
  if (memoryBytes !== undefined && (memoryBytes < 6 << 20 || memoryBytes > host.memoryBytes))
    refuse(
      `--memory ${memoryBytes}: this host has ${host.memoryBytes} bytes, and a container takes ${6 << 20} at least`,
    );
  return {
    pids: { limit: pidsMax ?? PIDS_MAX },
    ...(memoryBytes !== undefined && { memory: { limit: memoryBytes } }),
    ...(cpus !== undefined && { cpu: { quota: Math.round(cpus * CPU_PERIOD_US), period: CPU_PERIOD_US } }),
  };
}

/** Character devices that every container may use and the OCI runtime makes: null, zero, full, random, urandom, tty, ptmx, pts. */
const EVERYBODYS = [
  [1, 3],
  [1, 5],
  [1, 7],
  [1, 8],
  [1, 9],
  [5, 0],
  [5, 2],
  [136, undefined],
] as const;

interface DeviceNode {
  readonly path: string;
  readonly type: 'c' | 'b';
  readonly major: number;
  readonly minor: number;
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
}

/** The node of a host's device under the path that it has inside; `runtime.spec` when it is missing or none. */
export function deviceNode({ source, target }: DeviceSpec): DeviceNode {
  const found = statSync(source, { throwIfNoEntry: false });
  if (!found) throw new SluiceError('runtime.spec', `there is no device ${source}`, { source });
  if (!found.isCharacterDevice() && !found.isBlockDevice())
    throw new SluiceError('runtime.spec', `${source} is no device`, { source });
  return {
    path: target,
    type: found.isBlockDevice() ? 'b' : 'c',
    // As glibc's makedev packs them.
    major: (found.rdev >>> 8) & 0xfff,
    minor: (found.rdev & 0xff) | ((found.rdev >>> 12) & 0xfff00),
    fileMode: found.mode & 0o777,
    uid: found.uid,
    gid: found.gid,
  };
}

/** The device controller's rules: nothing, then everybody's, then what was given. Making nodes is harmless, opening them is what counts. */
export function deviceRules(
  spec: Pick<ContainerSpec, 'privileged'>,
  nodes: readonly (DeviceNode & { access: string })[],
) {
  if (spec.privileged) return [{ allow: true, access: 'rwm' }];
  return [
    { allow: false, access: 'rwm' },
    { allow: true, type: 'c', access: 'm' },
    { allow: true, type: 'b', access: 'm' },
    ...EVERYBODYS.map(([major, minor]) => ({ allow: true, type: 'c', major, minor, access: 'rwm' })),
    ...nodes.map(({ type, major, minor, access }) => ({ allow: true, type, major, minor, access })),
  ];
}
