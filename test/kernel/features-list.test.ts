/** test/kernel-features.json, by which skips are judged, tells the truth of the kernel that runs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { Features } from '../../src/contracts/kernel.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { type KernelFeatures, kernelOf } from '../report.ts';

const NAMES = [
  'tcx',
  'netnsCookieInSockAddr',
  'cgroupBpf',
  'sockDestroy',
  'vxlan',
  'nftables',
  'overlayfs',
  'netem',
] as const;
// Written so that a feature added to the contract is missed here by the compiler. IPVS counts only once somebody loads it.
type Missing = Exclude<keyof Features, (typeof NAMES)[number] | 'release' | 'ipvs'>;
const nothingMissing: [Missing] extends [never] ? true : Missing = true;

test('the list says of this kernel what the probes say', () => {
  expect(nothingMissing).toBe(true);
  using kernel = createKernel();
  const lists = JSON.parse(readFileSync(join(projectRoot(), 'test/kernel-features.json'), 'utf8')) as KernelFeatures;
  const list = lists[kernelOf(kernel.features.release)];
  // A kernel that nobody has listed: there is nothing to compare, and skips on it are judged by their words alone.
  if (list === undefined) return;
  const has = NAMES.filter((name) => kernel.features[name]);
  const lacks = NAMES.filter((name) => !kernel.features[name]);
  expect({
    has: list.has.filter((name) => name !== 'ipvs').sort(),
    lacks: list.lacks.filter((name) => name !== 'ipvs').sort(),
  }).toEqual({
    has: [...has].sort(),
    lacks: [...lacks].sort(),
  });
});
