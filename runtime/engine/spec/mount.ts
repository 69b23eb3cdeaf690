/** What is mounted in a container: the kernel's file systems, the daemon's files, and what the user asked for. Pure but for `inRoot`. */
import { lstatSync, readlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SluiceError } from '../../../src/errors.ts';
import type { ContainerSpec, MountSpec } from '../../../src/model/container.ts';

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

const SHM_BYTES = 64 << 20;

/** Those that every container has. */
export function systemMounts({ privileged }: { readonly privileged: boolean }, shmBytes = SHM_BYTES): OciMount[] {
  const access = privileged ? 'rw' : 'ro';
  const quiet = ['nosuid', 'noexec', 'nodev'];
  return [
    { destination: '/proc', type: 'proc', source: 'proc', options: quiet },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: [...quiet, 'mode=1777', `size=${shmBytes}`] },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: quiet },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: [...quiet, access] },
    { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: [...quiet, 'relatime', access] },
  ];
}

const LINKS_MAX = 40;

/**
 * Where a path inside a root file system leads on the host, every symbolic link taken as the container would take it: absolute ones begin at
 * the root, `..` ends there. Parts that do not exist are appended as they are. For a root that nobody changes meanwhile.
 */
export function inRoot(root: string, path: string): string {
  let rest = path.split('/').filter((part) => part !== '' && part !== '.');
  let at = '/';
  for (let links = 0; rest.length > 0; ) {
    const [part, ...next] = rest;
    rest = next;
    if (part === '..') {
      at = dirname(at);
      continue;
    }
    const here = join(at, part!);
    if (!lstatSync(join(root, here), { throwIfNoEntry: false })?.isSymbolicLink()) {
      at = here;
      continue;
    }
    if (++links > LINKS_MAX) throw new SluiceError('runtime.spec', `${path} has too many symbolic links`, { path });
    const target = readlinkSync(join(root, here));
    if (target.startsWith('/')) at = '/';
    rest = [...target.split('/').filter((each) => each !== '' && each !== '.'), ...rest];
  }
  return join(root, at);
}

function userMount(mount: MountSpec, volumes: Readonly<Record<string, string>>): OciMount {
  const { type, source, target, readOnly, options } = mount;
  const access = readOnly ? 'ro' : 'rw';
  if (type === 'tmpfs') {
    const { size, mode, ...others } = options;
    const flags = Object.entries(others).map(([key, value]) => (value === '' ? key : `${key}=${value}`));
    return {
      destination: target,
      type: 'tmpfs',
      source: 'tmpfs',
      options: [
        'nosuid',
        'nodev',
        'noexec',
        access,
        `mode=${mode ?? '1777'}`,
        ...(size ? [`size=${size}`] : []),
        ...flags,
      ],
    };
  }
  const from = type === 'volume' ? volumes[source ?? ''] : source;
  if (!from) throw new SluiceError('runtime.spec', `the mount at ${target} has no source`, { target, source });
  return {
    destination: target,
    type: 'bind',
    source: from,
    options: ['rbind', access, options.propagation ?? 'rprivate'],
  };
}

/** All mounts in the order in which the OCI runtime makes them: a user's mount at /dev/shm or /proc replaces ours, shallow ones come first. */
export function mountsOf(
  spec: Pick<ContainerSpec, 'mounts' | 'privileged'>,
  files: Readonly<Record<string, string>>,
  volumes: Readonly<Record<string, string>>,
  resolve: (target: string) => string,
): OciMount[] {
  const own = spec.mounts
    .map((mount) => userMount({ ...mount, target: resolve(mount.target) }, volumes))
    .sort((a, b) => a.destination.split('/').length - b.destination.split('/').length);
  const taken = new Set(own.map(({ destination }) => destination));
  const ours = Object.entries(files).map(
    ([destination, source]): OciMount => ({
      destination: resolve(destination),
      type: 'bind',
      source,
      options: ['bind', 'rw', 'rprivate'],
    }),
  );
  return [...systemMounts(spec), ...ours].filter(({ destination }) => !taken.has(destination)).concat(own);
}
