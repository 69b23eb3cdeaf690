/** Copies in and out of a root of which one side stands still, or goes away: given up in time, and nobody is left at work. */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { copyIn, copyOut } from '../../runtime/engine/stream/copy.ts';
import { findTools } from '../../runtime/engine/tool.ts';
import { type Clock, systemClock } from '../../src/clock.ts';
import { makeFolder } from '../folder.ts';
import { SLOWNESS } from './kernel-bed.ts';

/** As long as nothing may move here, milliseconds; the minute of the engine's own otherwise. */
const STALL_MS = 400 * SLOWNESS;
const clock: Clock = {
  ...systemClock,
  after: (ms, fn) => systemClock.after(ms === 60_000 ? STALL_MS : ms, fn),
};
const tools = findTools({ root: join(import.meta.dirname, '../..'), mount: '/sys/fs/cgroup' });
const folder = makeFolder('copy');
const root = join(folder, 'root');
/** More than pipes and buffers on the way hold. */
const LARGE = 8 * 1024 * 1024;
let archive: Buffer;

beforeEach(() => {
  mkdirSync(join(root, 'data'), { recursive: true });
  writeFileSync(join(folder, 'note'), Buffer.alloc(LARGE, 'a note '));
  archive = execFileSync('tar', ['-C', folder, '-c', 'note'], { maxBuffer: 2 * LARGE });
});
afterEach(async () => {
  // A process that was killed is gone a moment later.
  for (let n = 0; workers().length > 0 && n < 100; n++) await sleep(10);
  expect(workers()).toEqual([]);
  rmSync(root, { recursive: true });
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Processes that have the root as theirs. */
const workers = (): string[] =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readlinkSync(`/proc/${pid}/root`) === root;
    } catch {
      return false;
    }
  });
const never = (): Promise<never> => new Promise(() => undefined);
const into = (tar: AsyncIterable<Uint8Array>, path = '/data'): Promise<void> => copyIn(clock, tools, root, path, tar);
const stall = { code: 'runtime.failed', message: expect.stringContaining('nothing was copied for 60 s') };

test('in: a sender that stands still in the middle is given up; the next copy is whole', async () => {
  async function* sender(): AsyncGenerator<Uint8Array> {
    yield archive.subarray(0, LARGE / 2);
    await never();
  }
  const begun = performance.now();
  await expect(into(sender())).rejects.toMatchObject(stall);
  expect(performance.now() - begun).toBeGreaterThan(STALL_MS * 0.9);
  async function* whole(): AsyncGenerator<Uint8Array> {
    yield archive;
  }
  await into(whole());
  expect(readFileSync(join(root, 'data/note')).length).toBe(LARGE);
});

test('in: one that is slow and never stands still so long is not', async () => {
  async function* sender(): AsyncGenerator<Uint8Array> {
    const size = Math.ceil(archive.length / 6);
    for (let at = 0; at < archive.length; at += size) {
      yield archive.subarray(at, at + size);
      await sleep(STALL_MS / 3);
    }
  }
  await into(sender());
  expect(readFileSync(join(root, 'data/note')).length).toBe(LARGE);
});

test('in: one that goes away in the middle fails the copy at once', async () => {
  async function* sender(): AsyncGenerator<Uint8Array> {
    yield archive.subarray(0, LARGE / 2);
    throw new Error('gone');
  }
  await expect(into(sender())).rejects.toThrow('gone');
  async function* cut(): AsyncGenerator<Uint8Array> {
    yield archive.subarray(0, LARGE / 2);
  }
  await expect(into(cut())).rejects.toMatchObject({ code: 'runtime.failed' });
});

test('out: a reader that stands still, and one that leaves', async () => {
  writeFileSync(join(root, 'data/note'), Buffer.alloc(LARGE, 'a note '));
  const chunks = copyOut(clock, tools, root, '/data/note');
  expect((await chunks.next()).done).toBe(false);
  expect(workers()).toHaveLength(1);
  await sleep(STALL_MS * 2);
  expect(workers()).toEqual([]);
  const rest = async (): Promise<void> => {
    for await (const _ of chunks);
  };
  await expect(rest()).rejects.toMatchObject(stall);

  const others = copyOut(clock, tools, root, '/data/note');
  await others.next();
  await others.return(undefined);
});
