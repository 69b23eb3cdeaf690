/** The store's file under a kill, a full disk and a second daemon: with real processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.ts';
import { tryFlock } from '../../src/kernel/fd.ts';
import { lockState } from '../../src/store/lock.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { makeFolder } from '../folder.ts';

const WRITER = join(import.meta.dirname, 'store-writer.ts');
let folder: string;
let children: ChildProcess[] = [];

beforeEach(() => {
  folder = makeFolder('store');
});
afterEach(() => {
  for (const child of children) child.kill('SIGKILL');
  children = [];
  rmSync(folder, { recursive: true });
});

type Line = Record<string, unknown>;

/** The lines that a program says, told as they come, and its end. */
function run(program: string, args: readonly string[], onLine: (line: Line, child: ChildProcess) => void) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  children.push(child);
  const lines: Line[] = [];
  let trouble = '';
  child.stderr.on('data', (text: Buffer) => {
    trouble += text.toString();
  });
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Line;
    lines.push(line);
    onLine(line, child);
  });
  return new Promise<{ lines: Line[]; trouble: string }>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => resolve({ lines, trouble }));
  });
}
const writer = (mode: string, onLine: (line: Line, child: ChildProcess) => void) =>
  run(process.execPath, [WRITER, folder, mode], onLine);

const reopen = () => openSqliteStore({ path: join(folder, 'sluice.db'), clock: systemClock });

test('what was answered before a kill -9 is there after it, at any moment', async () => {
  let incarnation: string | undefined;
  let acknowledged = 0;
  for (const killAfter of [1, 7, 60, 333]) {
    const { lines, trouble } = await writer('until-killed', ({ n }, child) => {
      if (n === killAfter) child.kill('SIGKILL');
    });
    const written = lines.filter(({ revision }) => revision !== undefined);
    expect(written.length, trouble).toBeGreaterThanOrEqual(killAfter);
    const store = await reopen();
    incarnation ??= store.incarnation;
    expect(store.incarnation).toBe(incarnation);
    const { items, revision } = await store.list<number>('');
    const { n, revision: told } = written.at(-1) as { n: number; revision: number };
    expect(revision).toBeGreaterThanOrEqual(told);
    expect(told).toBeGreaterThan(acknowledged);
    acknowledged = told;
    // Both keys of a transaction, or neither.
    const last = items.find(({ key }) => key === 'last')!;
    expect(last.value).toBeGreaterThanOrEqual(n);
    expect((await store.get(`k/${last.value}`))?.revision).toBe(last.revision);
    await store.close();
  }
});

test('a full disk is store.full; reads go on, and so do writes when there is room again', async () => {
  // A file system of two megabytes in a mount namespace that ends with the process.
  const command = `mount -t tmpfs -o size=2m none ${folder} && exec ${process.execPath} ${WRITER} ${folder} until-full`;
  const { lines, trouble } = await run('unshare', ['-m', 'sh', '-c', command], () => undefined);
  const full = lines.findIndex(({ code }) => code !== undefined);
  expect(lines[full], trouble).toMatchObject({ code: 'store.full', message: expect.stringContaining('sluice.db') });
  const last = lines[full - 1] as { n: number; revision: number };
  expect(last.n).toBeGreaterThan(50);
  expect(lines[full + 1]).toMatchObject({ readable: { value: last.n, revision: last.revision } });
  expect(lines[full + 2]).toEqual({ revision: last.revision + 1, entries: last.n + 1 });
});

test('a second daemon on the directory is refused with the pid of the first, and not after its end', async () => {
  let second: Line[] = [];
  let here: unknown;
  const first = await writer('until-killed', async ({ n }, child) => {
    if (n !== 0) return;
    try {
      lockState(folder, tryFlock);
    } catch (error) {
      here = error;
    }
    second = (await writer('until-killed', () => undefined)).lines;
    child.kill('SIGKILL');
  });
  const pid = first.lines[0]!.locked;
  expect(second).toEqual([
    {
      code: 'store.locked',
      message: `another daemon (pid ${pid}) holds the state directory ${folder}`,
      details: { stateDir: folder, pid },
    },
  ]);
  expect(here).toMatchObject({ code: 'store.locked', details: { pid } });
  const lock = lockState(folder, tryFlock);
  expect(() => lockState(folder, tryFlock)).toThrow(`pid ${process.pid}`);
  lock.release();
  lockState(folder, tryFlock).release();
});

test('a directory that cannot be made is told', () => {
  writeFileSync(join(folder, 'file'), '');
  expect(() => lockState(join(folder, 'file', 'below'), tryFlock)).toThrow(
    expect.objectContaining({ code: 'store.unavailable' }),
  );
});
