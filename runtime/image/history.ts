/** How an image came about, as its configuration tells it. */
import type { Images } from '../../src/contracts/image.ts';
import type { LayerRecord } from './layer/job.ts';
import { type Configuration, diffIdsOf } from './manifest.ts';

/** The latest step first, as `docker history` has it. */
export async function historyOf(
  configuration: Configuration,
  layer: (diffId: string) => Promise<LayerRecord | null>,
): ReturnType<Images['history']> {
  const diffIds = [...diffIdsOf(configuration)];
  const steps: { created: string; by: string; size: number; comment: string }[] = [];
  for (const step of configuration.history ?? []) {
    const diffId = step.empty_layer ? undefined : diffIds.shift();
    const size = diffId === undefined ? 0 : ((await layer(diffId))?.bytes ?? 0);
    steps.push({ created: step.created ?? '', by: step.created_by ?? '', size, comment: step.comment ?? '' });
  }
  // Layers that no step tells of.
  for (const diffId of diffIds)
    steps.push({ created: '', by: '', size: (await layer(diffId))?.bytes ?? 0, comment: '' });
  return steps.reverse();
}
