import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { cgroupMounts, processesOf } from '../../runtime/engine/usage.ts';

test('a process in a cgroup that no container was given, as one that ends is in the root of them all, names nobody', () => {
  const mounts = cgroupMounts(readFileSync('/proc/self/mountinfo', 'utf8'));
  expect(mounts.length).toBeGreaterThan(0);
  // Were it taken for a container, everything beside it would be signalled with it.
  expect(processesOf(process.pid, mounts)).toEqual([]);
  expect(processesOf(1, mounts)).toEqual([]);
});
