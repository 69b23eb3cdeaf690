/** A log that is full: how much of it is kept, and what its readers see meanwhile. */
import { readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ContainerPlan } from '../../src/contracts/runtime.ts';
import { EngineBed } from './engine-bed.ts';

const MIB = 1 << 20;
/** Of a part (runtime/engine/monitor.ts). */
const PART_BYTES = 16 * MIB;
/** Bytes of a line as the container writes it. */
const LINE = 1_000;
/** Lines that are written at once: three times they fill two parts, and something is in the third. */
const LINES = 12_000;

let bed: EngineBed;
beforeAll(async () => {
  bed = new EngineBed();
  await bed.start();
});
afterAll(() => bed.close());

/** Writes numbered lines, twelve megabytes at a time, each time when it is told to. */
function writer(): ContainerPlan {
  const plan = bed.plan([
    'sh',
    '-c',
    'for n in 0 1 2; do while ! test -e /data/go$n; do sleep 0.02; done; cat /data/$n; done',
  ]);
  for (let n = 0; n < 3; n++) {
    const lines = Array.from({ length: LINES }, (_, i) => `${n * LINES + i} `.padEnd(LINE - 1, 'x'));
    writeFileSync(join(plan.rootfs, 'data', String(n)), `${lines.join('\n')}\n`);
  }
  return plan;
}
const tell = (plan: ContainerPlan, n: number): void => writeFileSync(join(plan.rootfs, 'data', `go${n}`), '');
const numbers = (text: string): number[] => text.trimEnd().split('\n').map(Number.parseFloat);
const parts = ({ id }: ContainerPlan): Map<number, number> =>
  new Map(
    readdirSync(join(bed.folder, 'containers', id))
      .filter((name) => name.startsWith('log'))
      .map((name) => statSync(join(bed.folder, 'containers', id, name)))
      .map(({ ino, size }) => [ino, size]),
  );
const last = async ({ id }: ContainerPlan): Promise<number | undefined> => numbers(await bed.logs(id)).at(-1);
async function written(plan: ContainerPlan, n: number): Promise<void> {
  tell(plan, n);
  while ((await last(plan)) !== (n + 1) * LINES - 1) await sleep(50);
}

test('is bounded, is read over its parts, and who follows it misses nothing', async () => {
  const plan = writer();
  await bed.runtime.create(plan);
  await bed.runtime.start(plan.id);
  let seen = '';
  const following = (async () => {
    const signal = AbortSignal.timeout(60_000);
    for await (const { text } of bed.runtime.logs(plan.id, { follow: true, signal })) seen += text;
  })();
  for (let n = 0; n < 3; n++) {
    await written(plan, n);
    // conmon begins a part, and the engine then takes the oldest away: it looks once a second.
    while (parts(plan).size > (n === 0 ? 1 : 2)) await sleep(50);
    const sizes = [...parts(plan).values()];
    expect(sizes.length).toBe(n === 0 ? 1 : 2);
    for (const size of sizes) expect(size).toBeLessThanOrEqual(PART_BYTES);
    // The engine looks once a second whether a part is full.
    await sleep(1_500);
  }
  await bed.ended(plan.id);
  await following;
  expect(numbers(seen)).toEqual(Array.from({ length: 3 * LINES }, (_, n) => n));
  // All of two parts is there, in order, and no more.
  const kept = numbers(await bed.logs(plan.id));
  expect(kept.length).toBeGreaterThan((PART_BYTES / (LINE + 100)) * 1.1);
  expect(kept.length).toBeLessThan(3 * LINES);
  expect(kept).toEqual(Array.from({ length: kept.length }, (_, n) => 3 * LINES - kept.length + n));
  // Lines of conmon's, each a line of the container's or a piece of one.
  let tail = '';
  const signal = AbortSignal.timeout(60_000);
  for await (const { text } of bed.runtime.logs(plan.id, { follow: false, tail: 14_000, signal })) tail += text;
  const told = numbers(tail).slice(1);
  expect(told.length).toBeGreaterThan(12_000);
  expect(told).toEqual(kept.slice(-told.length));
  // A next life goes on with it; a container that is removed takes all of it along.
  await bed.runtime.delete(plan.id, { keepLogs: true });
  expect(parts(plan).size).toBe(2);
  await bed.runtime.create(plan);
  await bed.runtime.delete(plan.id);
  expect(readdirSync(join(bed.folder, 'containers'))).toEqual(['exits']);
}, 120_000);

test('is bounded without the daemon too', async () => {
  const plan = writer();
  await bed.runtime.create(plan);
  await bed.runtime.start(plan.id);
  await bed.runtime.close();
  for (let n = 0; n < 3; n++) tell(plan, n);
  const { pid } = (await bed.runtime.state(plan.id))!;
  while (parts(plan).size < 2 || processIsThere(pid!)) await sleep(50);
  await bed.start();
  await bed.ended(plan.id);
  expect(parts(plan).size).toBeLessThanOrEqual(3);
  for (const size of parts(plan).values()) expect(size).toBeLessThanOrEqual(PART_BYTES);
  const kept = numbers(await bed.logs(plan.id));
  expect(kept.at(-1)).toBe(3 * LINES - 1);
  expect(kept).toEqual([...kept].sort((a, b) => a - b));
  await bed.runtime.delete(plan.id);
}, 120_000);

function processIsThere(pid: number): boolean {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false }) !== undefined;
}
