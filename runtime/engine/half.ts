/** What tools wrote of a container, read with doubt: the daemon that asked them may have died, and numbers may be others' by now. */
import { readFileSync } from 'node:fs';
import type { ContainerPlan } from '../../src/contracts/runtime.ts';
import type { Bundles, Record } from './bundle.ts';
import { startOf } from './process.ts';

/**
 * A container that was being created when its daemon died. A process counts when it is in the container's cgroup, a monitor when its command
 * line names the container.
 */
export function halfMade(
  bundles: Bundles,
  id: string,
  boot: string,
  cgroupOf: (plan: ContainerPlan) => string,
): Record {
  const [pid, monitor] = [bundles.number(id, 'pid') ?? 0, bundles.number(id, 'monitor.pid') ?? 0];
  const plan = bundles.plan(id);
  const ours = plan !== null && readText(`/proc/${pid}/cgroup`).includes(cgroupOf(plan));
  const monitors = readText(`/proc/${monitor}/cmdline`).includes(id);
  return {
    generation: 0,
    pid,
    start: (ours ? startOf(pid) : null) ?? '',
    monitor,
    monitorStart: monitors ? startOf(monitor) : null,
    boot,
  };
}

/** Trimmed; empty where there is none. */
export function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}
