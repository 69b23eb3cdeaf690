/** Removes what bears our mark and nobody wants. Only after the first full sync: before, everything counts as wanted. */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { hasBulkDelete, hasInventory, type NetworkDriver } from '../contracts/driver.ts';
import { isId } from '../model/id.ts';
import { type Context, netnsPath, sandboxDir } from './context.ts';
import type { ServiceController } from './service/service.ts';
import type { Views } from './view.ts';

/** Returns what was removed, in words. */
export async function prune(
  context: Context,
  services: ServiceController,
  views: Views,
  drivers: readonly NetworkDriver[],
): Promise<string[]> {
  const { world, dataplane } = context;
  const removed: string[] = [];
  for (const driver of drivers) {
    if (!hasInventory(driver)) continue;
    const found = await driver.inventory();
    const strays = found.endpoints.filter((id) => !world.endpoints.has(id));
    if (strays.length > 0) {
      if (hasBulkDelete(driver)) await driver.deleteEndpoints(strays);
      else for (const id of strays) await driver.deleteEndpoint('', id);
      removed.push(`${strays.length} links of endpoints that are no more`);
    }
    for (const id of found.networks.filter((network) => !world.networks.has(network))) {
      await driver.deleteNetwork(id);
      removed.push(`links of network ${id.slice(0, 12)} that is no more`);
    }
  }
  for (const id of idsIn(join(context.runDir, 'netns'))) {
    if (world.sandboxes.has(id)) continue;
    context.kernel.namespaces.remove(netnsPath(context, id));
    removed.push(`namespace of sandbox ${id.slice(0, 12)} that is no more`);
  }
  for (const id of idsIn(join(context.runDir, 'sandbox')))
    if (!world.sandboxes.has(id)) rmSync(sandboxDir(context, id), { recursive: true, force: true });
  for (const id of idsIn(context.cgroupBase)) {
    if (world.sandboxes.has(id)) continue;
    await context.kernel.cgroups.remove(join(context.cgroupBase, id), { kill: true });
    removed.push(`cgroup of sandbox ${id.slice(0, 12)} that is no more`);
  }
  const { frontends, sets } = services.wanted();
  const count = dataplane.prune({
    sandboxes: new Set(world.sandboxes.keys()),
    endpoints: new Set(world.endpoints.keys()),
    segments: new Set(world.networks.keys()),
    frontends,
    sets,
  });
  if (count > 0) removed.push(`${count} entries of the data plane`);
  await services.collect();
  await views.collect();
  return removed;
}

function idsIn(dir: string): string[] {
  try {
    return readdirSync(dir).filter(isId);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
