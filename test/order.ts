/** In what order vitest takes the test files: long ones first, so that nobody waits for one that began last. */
import { statSync } from 'node:fs';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** What runs for long and is too short a text to be seen as such. */
const LONG = [
  'kills',
  'offload',
  'engine-kill',
  'container-survival',
  'service-replicas',
  'publish',
  'lab',
  'sim',
  'chaos',
  'plugin',
  'store-redis',
  'store-fault',
  'runtime',
  'client-http',
  'restart',
  'bench-scale',
];

const rank = ({ moduleId }: TestSpecification): number => {
  const at = LONG.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`));
  return at < 0 ? LONG.length : at;
};

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const size = new Map(files.map((file) => [file, statSync(file.moduleId).size]));
    // Files that share a process do so one after another, and only with those of their project.
    const project = ({ project: { name, config } }: TestSpecification): string => (config.isolate ? '' : name);
    return files.toSorted(
      (a, b) => rank(a) - rank(b) || project(a).localeCompare(project(b)) || size.get(b)! - size.get(a)!,
    );
  }
}
