/** A small cluster of the suite `scale`, with everything that a large one has. */
import { existsSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { Crowd } from '../../bench/suites/scale/crowd.ts';
import { runWindow } from '../../bench/suites/scale/window.ts';

describe('the crowd of the suite scale', () => {
  let crowd: Crowd | undefined;
  afterEach(async () => crowd?.close());

  test('stands still, wakes up, and everybody who takes part gets every change', { timeout: 60_000 }, async () => {
    crowd = await Crowd.open({ nodes: 20, endpoints: 120, services: 10 }, () => undefined);
    const seen = await crowd.awake(() =>
      runWindow(
        crowd!,
        [
          { network: 'all', rate: 4 },
          { network: 'ten', rate: 8 },
        ],
        2,
      ),
    );
    expect(Object.fromEntries(seen.changes)).toEqual({ all: 8, ten: 16 });
    expect(seen.failed).toBe(0);
    expect(seen.lags).toHaveLength(24);
    expect(seen.bytes.size).toBe(20);
    for (const bytes of seen.bytes.values()) expect(bytes).toBeGreaterThan(1_000);
    expect(seen.commandsPerSecond).toBeGreaterThan(20);
    // Those that stand still do nothing.
    const [before, after] = [
      await crowd.count(),
      await new Promise((done) => setTimeout(done, 500)).then(() => crowd!.count()),
    ];
    expect(after.commands).toBe(before.commands);
    const { folder } = crowd;
    await crowd.close();
    crowd = undefined;
    expect(existsSync(folder)).toBe(false);
  });
});
