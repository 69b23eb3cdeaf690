/** Everything that a host's daemon keeps, in the kernel and in its store, as sorted lines to compare: what is there after that was not before leaked. */
import { existsSync, readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { expect } from 'vitest';
import { FLOW_MAPS } from '../../src/balancer/maps/layout.ts';
import { isSluiceError } from '../../src/errors.ts';
import { closeFd, mapEntries, mapInfo, objectGet } from '../../src/kernel/bpf/bpf.ts';
import { eventually, type TestHost } from './harness.ts';

export type Remains = Readonly<Record<string, readonly string[]>>;

/** Map entries that count or remember, and so may stay: numbers that were given stay given. */
const COUNTING = /stat|count|drop|layout|stage/;

/** In the order of the tables' names: one that was written anew is listed last. */
const byTable = (lines: readonly string[]): string[] =>
  lines
    .join('\n')
    .split(/^(?=table )/m)
    .sort()
    .flatMap((table) => table.split('\n'))
    .filter((line) => line !== '');

export async function remains(host: TestHost): Promise<Remains> {
  const lines = async (command: string): Promise<string[]> =>
    (await host.must(command)).split('\n').filter((line) => line.trim() !== '');
  return {
    links: (await lines('ip -o link')).map((line) => line.replace(/^\d+: /, '').split(/[:@]/)[0]!).sort(),
    // Link-local ones come with the first port of a bridge and stay with it.
    addresses: (await lines('ip -o addr | grep -v fe80:')).map((line) =>
      line
        .replace(/^\d+: /, '')
        .split(/\s+/)
        .slice(0, 4)
        .join(' '),
    ),
    routes: await lines('ip -4 route; ip -6 route | grep -v ^fe80:'),
    neighbours: await lines('ip neigh show nud permanent'),
    fdb: await lines('bridge fdb show | grep -v " self permanent" | grep -v "^eth0 " || true'),
    nft: byTable((await lines('nft -s list ruleset')).map((line) => line.replace(/packets \d+ bytes \d+/, ''))),
    namespaces: readdirSync(join(host.runDir, 'netns')).sort(),
    sandboxes: readdirSync(join(host.runDir, 'sandbox')).sort(),
    cgroups: folders(join(host.cgroupRoot, `sluice-${host.instance}`)),
    mounts: await lines(
      `grep -F '${host.runDir}' /proc/self/mountinfo | cut -d' ' -f5 | grep -vxF '${host.runDir}/netns' | sort || true`,
    ),
    ...pins(host.bpffs),
    store: storeKeys(join(host.stateDir, 'sluice.db')),
  };
}

/** Waits until the host holds just what `before` says, and names what it has beside or lacks when it does not. */
export async function expectRemains(
  host: TestHost,
  before: Remains,
  { limitMs = 15_000, leases = true }: { readonly limitMs?: number; readonly leases?: boolean } = {},
): Promise<void> {
  const counted = ({ store, ...rest }: Remains): Remains => ({
    ...rest,
    store: store!.filter((key) => leases || !/^(?:lease|pool)\//.test(key)),
  });
  const look = async (): Promise<true> => {
    expect(counted(await remains(host))).toEqual(counted(before));
    return true;
  };
  await eventually(look, limitMs, 250);
}

function folders(root: string): string[] {
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .sort();
}

/** Names of all pins, and the keys of every configuration map. */
function pins(root: string): Record<string, string[]> {
  const all = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory());
  const paths = all
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((name) => name.includes('/'));
  const entries: string[] = [];
  for (const path of paths.filter((name) => name.includes('/maps/'))) {
    const fd = objectGet(join(root, path));
    if (fd === null) continue;
    try {
      const { name } = mapInfo(fd);
      if (FLOW_MAPS.has(name) || COUNTING.test(name)) continue;
      for (const [key, value] of mapEntries(fd)) {
        // In an array every index is there.
        if (value.some((byte) => byte !== 0)) entries.push(`${name} ${key.toString('hex')}`);
      }
    } finally {
      closeFd(fd);
    }
  }
  return { pins: paths.sort(), 'map entries': entries.sort() };
}

/** Keys of the store, less the numbers that were given once and stay given. */
function storeKeys(path: string): string[] {
  // In a cluster the store is elsewhere.
  if (!existsSync(path)) return [];
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    const rows = db.prepare('SELECT key FROM entries ORDER BY key').all() as { key: string }[];
    return rows.map(({ key }) => key).filter((key) => !/^local\/[^/]+\/counter\/|^poolspace\/|^reference\//.test(key));
  } finally {
    db.close();
  }
}

/** A removal of what may have gone already. */
export const gone = (work: () => Promise<unknown>) => async (): Promise<void> => {
  try {
    await work();
  } catch (error) {
    if (!isSluiceError(error, 'object.notfound')) throw error;
  }
};

/** Whether the call failed because the daemon ended under it, or had just done so. */
export const cutOff = (error: unknown): boolean => isSluiceError(error, 'daemon.unreachable', 'daemon.stopping');

/** Everything that is there works: what an interrupted call had begun is finished or undone. */
export async function allReady(host: TestHost): Promise<void> {
  await eventually(async () => {
    const { networks, sandboxes, endpoints, services } = host.client;
    const all = await Promise.all([networks.list(), sandboxes.list(), endpoints.list(), services.list()]);
    for (const { kind, name, status } of all.flat())
      expect(`${kind} ${name}: ${status?.state} ${status?.error?.message ?? ''}`).toBe(`${kind} ${name}: ready `);
    return true;
  }, 10_000);
}
