/** The OCI runtime specification of a container: config.json of its bundle. Nothing here touches the host. */
import type { ContainerPlan, ExecPlan } from '../../../src/contracts/runtime.ts';
import { SluiceError } from '../../../src/errors.ts';
import type { ContainerSpec, DeviceSpec } from '../../../src/model/container.ts';
import { capabilitiesOf } from './capability.ts';
import { envOf, programOf } from './command.ts';
import { deviceRules, type HostSize, resourcesOf } from './limit.ts';
import { mountsOf, type OciMount } from './mount.ts';
import { type Seccomp, seccompProfile } from './seccomp.ts';
import type { User } from './user.ts';

/** What the planner is told of the host and of the root file system. */
export interface Found {
  readonly user: User;
  readonly host: HostSize;
  readonly nodes: readonly {
    readonly path: string;
    readonly type: 'c' | 'b';
    readonly major: number;
    readonly minor: number;
    readonly fileMode: number;
    readonly uid: number;
    readonly gid: number;
    readonly access: DeviceSpec['access'];
  }[];
  /** Paths inside of mounted v1 hierarchies. */
  readonly cgroups: readonly string[];
  /** A mount's target with all symbolic links taken inside the root. */
  resolve(target: string): string;
  /** Where the container's own cgroup is, as the OCI runtime is to be told. */
  readonly cgroupsPath: string;
  /** A profile of the user's, parsed; absent: ours. */
  readonly seccomp?: unknown;
  /** Path of a static init on the host, for `--init`. */
  readonly init: string;
}

/** What a container must not see of the host's /proc and /sys, and what it may only read. */
const MASKED = [
  '/proc/acpi',
  '/proc/asound',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/devices/virtual/powercap',
  '/sys/firmware',
];
const READ_ONLY = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger', '/sys/fs/cgroup'];
const INIT_PATH = '/dev/init';
/** Ids of a user namespace. */
const SHIFT_IDS = 65_536;

export interface Process {
  readonly terminal: boolean;
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: Readonly<Record<string, readonly string[]>>;
  readonly noNewPrivileges: boolean;
  readonly rlimits?: readonly { readonly type: string; readonly soft: number; readonly hard: number }[];
  readonly oomScoreAdj?: number;
}

/** Options of `--security-opt`, `key=value` or `key:value`; an unknown one is `runtime.spec`. */
export function securityOf(options: readonly string[]): {
  readonly newPrivileges: boolean;
  readonly seccomp?: string;
  readonly openSystemPaths: boolean;
} {
  let newPrivileges = false;
  let seccomp: string | undefined;
  let openSystemPaths = false;
  for (const option of options) {
    const [, key = option, value = ''] = /^([^=:]+)[=:](.*)$/.exec(option) ?? [];
    if (key === 'no-new-privileges' && ['', 'true', 'false'].includes(value)) newPrivileges = value === 'false';
    else if (key === 'seccomp' && value !== '') seccomp = value;
    else if (key === 'systempaths' && value === 'unconfined') openSystemPaths = true;
    // Nothing confines by AppArmor or SELinux labels here; not to is the one wish that can be met.
    else if (!(key === 'apparmor' && value === 'unconfined') && !(key === 'label' && value === 'disable'))
      throw new SluiceError(
        'runtime.spec',
        `--security-opt ${option}: no-new-privileges=, seccomp=, systempaths=unconfined`,
        {
          option,
        },
      );
  }
  return { newPrivileges, seccomp, openSystemPaths };
}

function processOf(
  spec: ContainerSpec,
  host: bigint,
  {
    user,
    tty,
    args,
    env,
    cwd,
  }: { user: User; tty: boolean; args: readonly string[]; env: readonly string[]; cwd: string },
): Process {
  const bounding = capabilitiesOf(spec, host);
  // A user who is not root begins with none, as in Docker, and may gain none.
  const effective = user.uid === 0 ? bounding : [];
  return {
    terminal: tty,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.groups },
    args,
    env,
    cwd,
    capabilities: { bounding, permitted: effective, effective, inheritable: [], ambient: [] },
    noNewPrivileges: !spec.privileged && !securityOf(spec.securityOpt).newPrivileges,
  };
}

const rlimitsOf = (spec: ContainerSpec) =>
  Object.entries(spec.ulimits).map(([name, { soft, hard }]) => ({ type: `RLIMIT_${name.toUpperCase()}`, soft, hard }));

const seccompOf = (spec: ContainerSpec, host: bigint, given: unknown): Seccomp | unknown => {
  if (spec.privileged || securityOf(spec.securityOpt).seccomp === 'unconfined') return undefined;
  return given ?? seccompProfile(capabilitiesOf(spec, host));
};

/** config.json; fails with `runtime.spec` for what cannot be. */
export function bundleSpec(plan: ContainerPlan, found: Found) {
  const { spec, image } = plan;
  const { user } = found;
  const cwd = spec.workdir || image.workdir || '/';
  if (!cwd.startsWith('/')) throw new SluiceError('runtime.spec', `--workdir ${cwd} is not absolute`, { workdir: cwd });
  const args = programOf(spec, image);
  const env = envOf(spec.env, image.env, { home: user.home, hostname: spec.hostname, tty: spec.tty });
  const main = processOf(spec, found.host.capabilities, {
    user,
    tty: spec.tty,
    args: spec.init ? [INIT_PATH, '--', ...args] : args,
    env,
    cwd,
  });
  const open = spec.privileged || securityOf(spec.securityOpt).openSystemPaths;
  const init: OciMount[] = spec.init
    ? [{ destination: INIT_PATH, type: 'bind', source: found.init, options: ['bind', 'ro', 'rprivate'] }]
    : [];
  const ids = plan.shift === undefined ? undefined : [{ containerID: 0, hostID: plan.shift, size: SHIFT_IDS }];
  return {
    ociVersion: '1.0.2',
    process: { ...main, rlimits: rlimitsOf(spec), oomScoreAdj: 0 },
    root: { path: plan.rootfs, readonly: spec.readOnly },
    hostname: spec.hostname,
    mounts: [...mountsOf(spec, plan.files, plan.volumes, found.resolve), ...init],
    linux: {
      namespaces: [
        ...['pid', 'ipc', 'uts', 'mount', 'cgroup'].map((type) => ({ type })),
        { type: 'network', path: plan.netnsPath },
        ...(ids ? [{ type: 'user' }] : []),
      ],
      ...(ids && { uidMappings: ids, gidMappings: ids }),
      devices: found.nodes.map(({ access: _, ...node }) => node),
      resources: { ...resourcesOf(spec, found.host), devices: deviceRules(spec, found.nodes) },
      cgroupsPath: found.cgroupsPath,
      rootfsPropagation: 'private',
      ...(!open && { maskedPaths: MASKED, readonlyPaths: [...READ_ONLY, ...found.cgroups] }),
      seccomp: seccompOf(spec, found.host.capabilities, found.seccomp),
    },
  };
}

/** The process of an `exec`: the container's own environment and confinement, unless it is privileged. */
export function execSpec(container: ContainerPlan, plan: ExecPlan, user: User, host: bigint): Process {
  const { image, spec } = container;
  const env = envOf(plan.env, [...image.env, ...spec.env], { home: user.home, hostname: spec.hostname, tty: plan.tty });
  const confined = plan.privileged ? { ...spec, privileged: true } : spec;
  return processOf(confined, host, {
    user,
    tty: plan.tty,
    args: plan.args,
    env,
    cwd: plan.workdir || spec.workdir || image.workdir || '/',
  });
}
