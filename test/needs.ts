/** The one way to leave a test out: the kernel lacks something, which is named. test/run.ts judges the reason. */
import type { TestContext } from 'vitest';

/**
 * Skips the test when `present` is false, with the reason `kernel lacks: WHAT`. Where test/kernel-features.json says that
 * the kernel of that release has it, `npm test` fails on the skip.
 */
export function needs(context: TestContext, what: string, present: boolean): void {
  if (!present) context.skip(`kernel lacks: ${what}`);
}
