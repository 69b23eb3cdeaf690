/** The hard case of bin/sluice-off. */
import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Stage, sweep } from '../kernel/off-stage.ts';

beforeAll(sweep);
afterAll(sweep);

test('a thousand sandboxes are out of the kernel within two seconds', async () => {
  const stage = await Stage.open();
  try {
    stage.makeSandboxes(1_000);
    const result = stage.off();
    expect(result.said).toContain('1000 namespaces');
    expect(result.ms).toBeLessThan(2_000);
    expect(stage.inside('ip -o link | wc -l').trim()).toBe('1');
    expect(readdirSync(stage.cgroups).filter((name) => name.startsWith('sluice-'))).toEqual([]);
  } finally {
    stage.close();
  }
});
