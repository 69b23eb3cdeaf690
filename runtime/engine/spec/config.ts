/** The bundle's config.json: the plan, with what is found on this host and in the container's root. */
import { availableParallelism, totalmem } from 'node:os';
import { basename, join, relative } from 'node:path';
import type { ContainerPlan } from '../../../src/contracts/runtime.ts';
import type { CgroupMount } from '../usage.ts';
import { deviceNode } from './limit.ts';
import { inRoot } from './mount.ts';
import { realSources, userIn } from './rootfs.ts';
import { readProfile } from './seccomp.ts';
import { bundleSpec, securityOf } from './spec.ts';

export interface HostFacts {
  /** Host paths that no container may mount. */
  readonly own: readonly string[];
  readonly mounts: readonly CgroupMount[];
  /** Of the daemon's bounding set. */
  readonly capabilities: bigint;
  readonly cgroupsPath: string;
  /** Static init for `--init`. */
  readonly init: string;
}

export function configOf(plan: ContainerPlan, { own, mounts, capabilities, cgroupsPath, init }: HostFacts): object {
  const { image, rootfs } = plan;
  const spec = { ...plan.spec, mounts: realSources(plan.spec, own) };
  const profile = securityOf(spec.securityOpt).seccomp;
  return bundleSpec(
    { ...plan, spec },
    {
      user: userIn(rootfs, spec.user ?? image.user),
      host: { cpus: availableParallelism(), memoryBytes: totalmem(), capabilities },
      cgroups: mounts
        .filter(({ controllers }) => controllers.length > 0)
        .map(({ path }) => join('/sys/fs/cgroup', basename(path))),
      resolve: (target) => `/${relative(rootfs, inRoot(rootfs, target))}`,
      nodes: spec.devices.map((device) => ({ ...deviceNode(device), access: device.access })),
      cgroupsPath,
      seccomp: profile && profile !== 'unconfined' ? readProfile(profile) : undefined,
      init,
    },
  );
}
