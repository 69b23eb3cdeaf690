/**
 * Whose a lab is, and how every trace of it is removed, also after its owner died between any two lines.
 * A lab's id is `<pid>-<name>`. Everything it makes carries the id or lies in a folder or cgroup that does; the folder is made
 * first and removed last, so what a dead owner left can be found and taken apart from its name alone.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../errors.ts';

/** Folder of all labs of the machine; on a tmpfs, so a reboot takes it along with the namespaces. */
export const LAB_ROOT = '/run/sluice-lab';

/** How often a cgroup is killed, and how long each time is waited for, before it counts as stuck. */
const ROUNDS_MAX = 500;
const ROUND_MS = 10;

/** Prefix of a lab's names in /run/netns and in the cgroup tree. */
const PREFIX = 'sluice-lab-';

export const labFolder = (id: string): string => join(LAB_ROOT, id);
export const namespaceName = (id: string, host: string): string => `${PREFIX}${id}-${host}`;
export const namespacePath = (name: string): string => `/run/netns/${name}`;
export const labCgroup = (id: string): string => join(cgroupMount(), `${PREFIX}${id}`);

/** Mount point of cgroup v2, also on a hybrid host: `/sys/fs/cgroup` or `/sys/fs/cgroup/unified`. */
export function cgroupMount(mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')): string {
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    if (after?.startsWith('cgroup2 ')) return before!.split(' ')[4]!;
  }
  throw new SluiceError('kernel.missing', 'no cgroup v2 is mounted');
}

/** Ticks after boot at which a process started; tells it from a later one with the same number. Null when it is gone. */
export function processStart(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command, in brackets, may hold spaces and brackets itself; field 22 is the 20th after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? null : fields[19]!;
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** Makes the lab's folder and says in it who owns it. */
export function claimLab(id: string): void {
  mkdirSync(LAB_ROOT, { recursive: true });
  mkdirSync(labFolder(id));
  writeFileSync(join(labFolder(id), 'owner'), `${process.pid} ${processStart(process.pid)}`);
}

function ownerLives(id: string): boolean {
  let owner = `${id.split('-')[0]} `;
  try {
    owner = readFileSync(join(labFolder(id), 'owner'), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  const [pid, start] = owner.split(' ');
  const now = processStart(Number(pid));
  // Without a start time the owner is between two lines of claimLab: it counts as alive while its number does.
  return now !== null && (!start || now === start);
}

/** Ids of labs whose owner has died. */
export function deadLabs(): string[] {
  if (!existsSync(LAB_ROOT)) return [];
  return readdirSync(LAB_ROOT).filter((id) => /^\d+-/.test(id) && !ownerLives(id));
}

/** Takes apart what labs of dead owners left; returns their ids. */
export async function sweepLab(): Promise<string[]> {
  const dead = deadLabs();
  for (const id of dead) await removeLab(id);
  return dead;
}

/** Kills the lab's processes, then removes its namespaces, mounts (pins go with their bpffs), cgroups and folder. Absent succeeds. */
export async function removeLab(id: string): Promise<void> {
  await killGroup(labCgroup(id));
  const folder = labFolder(id);
  const mounts = mountsBelow(folder);
  // Lazily: a namespace or file system that something still holds goes when its holder does.
  if (mounts.length > 0)
    unlessGone(
      () => execFileSync('umount', ['-l', ...mounts.reverse()], { stdio: 'pipe' }),
      () => mountsBelow(folder).length > 0,
    );
  for (const name of namespacesOf(id))
    unlessGone(
      () => execFileSync('ip', ['netns', 'delete', name], { stdio: 'pipe' }),
      () => namespacesOf(id).includes(name),
    );
  await removeCgroup(labCgroup(id));
  rmSync(folder, { recursive: true, force: true });
}

/** Two sweeps may meet at the same leftovers: what the other has removed is no failure. */
function unlessGone(remove: () => unknown, isThere: () => boolean): void {
  try {
    remove();
  } catch (error) {
    if (isThere()) throw error;
  }
}

/** What still exists of a lab, as lines for people; empty after {@link removeLab}. */
export function labTraces(id: string): string[] {
  const cgroup = labCgroup(id);
  return [
    ...mountsBelow(labFolder(id)).map((path) => `mount ${path}`),
    ...namespacesOf(id).map((name) => `namespace ${name}`),
    ...(existsSync(cgroup) ? [`cgroup ${cgroup}`] : []),
    ...(existsSync(labFolder(id)) ? [`folder ${labFolder(id)}`] : []),
  ];
}

function namespacesOf(id: string): string[] {
  if (!existsSync('/run/netns')) return [];
  return readdirSync('/run/netns').filter((name) => name.startsWith(`${PREFIX}${id}-`));
}

/** Mount points at or below a folder, in the order they were mounted; a point mounted twice stands twice. */
export function mountsBelow(folder: string, mountinfo = readFileSync('/proc/self/mountinfo', 'utf8')): string[] {
  return mountinfo
    .split('\n')
    .map((line) =>
      (line.split(' ')[4] ?? '').replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
    )
    .filter((path) => path === folder || path.startsWith(`${folder}/`));
}

/** All cgroups of a tree, children before their parents. */
function cgroupTree(path: string): string[] {
  if (!existsSync(path)) return [];
  const children = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...children.flatMap((child) => cgroupTree(join(path, child.name))), path];
}

const cgroupProcesses = (path: string): number[] =>
  cgroupTree(path).flatMap((group) =>
    readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number),
  );

/** Whether a task is in a cgroup or below it, also one that is ending: `cgroup.procs` leaves it out, and the group is busy until it has. */
const isPopulated = (path: string): boolean =>
  existsSync(path) && /^populated 1$/m.test(readFileSync(join(path, 'cgroup.events'), 'utf8'));

/** Kills everything in a cgroup and below it, and waits until it is gone. */
export async function killGroup(path: string): Promise<void> {
  for (let round = 0; isPopulated(path); round++) {
    if (round > ROUNDS_MAX) {
      const left = cgroupProcesses(path).join(' ');
      throw new SluiceError('kernel.failed', `processes ${left} of cgroup ${basename(path)} do not end`);
    }
    writeFileSync(join(path, 'cgroup.kill'), '1');
    await sleep(ROUND_MS);
  }
}

/** Once more while somebody enters: a program whose owner died may be on its way in (src/lab/place.ts). */
async function removeCgroup(path: string): Promise<void> {
  for (let round = 0; existsSync(path); round++) {
    await killGroup(path);
    try {
      for (const group of cgroupTree(path)) rmdirSync(group);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY' || round > ROUNDS_MAX) throw error;
      await sleep(ROUND_MS);
    }
  }
}
