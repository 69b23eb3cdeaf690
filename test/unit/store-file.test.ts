/** What the SQLite store makes of files that are not as it left them. */
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openSqliteStore } from '../../src/store/sqlite.ts';
import { createManualClock } from '../clock.ts';
import { makeFolder } from '../folder.ts';

let folder: string;
let path: string;
const clock = createManualClock();
const open = () => openSqliteStore({ path, clock });

beforeEach(() => {
  folder = makeFolder('store');
  path = join(folder, 'sluice.db');
});
afterEach(() => rmSync(folder, { recursive: true }));

async function filled(): Promise<void> {
  const store = await open();
  for (let n = 0; n < 300; n++) await store.transact([{ op: 'put', key: `k/${n}`, value: 'x'.repeat(300) }]);
  await store.close();
}

/** The file is refused with the code, and left as it is. */
async function expectRefused(code: string, words: string): Promise<void> {
  const before = readFileSync(path);
  await expect(open()).rejects.toMatchObject({ code, message: expect.stringContaining(words), details: { path } });
  expect(readFileSync(path).equals(before)).toBe(true);
}

describe('a file that is refused', () => {
  test('is no database', async () => {
    writeFileSync(path, 'not a database, but long enough to have a header '.repeat(100));
    await expectRefused('store.damaged', path);
  });

  test('is somebody else’s database', async () => {
    const db = new DatabaseSync(path);
    db.exec('CREATE TABLE songs (name TEXT)');
    db.close();
    await expectRefused('store.damaged', 'not a store of Sluice');
  });

  test('was cut off', async () => {
    await filled();
    truncateSync(path, Math.floor(statSync(path).size / 2 / 4096) * 4096);
    await expectRefused('store.damaged', 'damaged');
  });

  test('has overwritten pages', async () => {
    await filled();
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 3 * 4096, 12 * 4096);
    writeFileSync(path, bytes);
    await expectRefused('store.damaged', 'damaged');
  });

  test('was written by a newer version', async () => {
    await filled();
    const db = new DatabaseSync(path);
    db.exec('PRAGMA user_version = 99');
    db.close();
    await expectRefused('store.newer', 'layout 99');
  });
});

test('damage that shows later is told where it is read', async () => {
  await filled();
  const db = new DatabaseSync(path);
  db.exec("UPDATE entries SET value = '{broken' WHERE key = 'k/7'");
  db.close();
  const store = await open();
  await expect(store.get('k/7')).rejects.toMatchObject({ code: 'store.damaged' });
  await expect(store.list('k/')).rejects.toMatchObject({ code: 'store.damaged' });
  expect(await store.get('k/8')).not.toBeNull();
  await store.close();
});

test('a folder that is not there, or a folder in the file’s place, is unavailable', async () => {
  await expect(openSqliteStore({ path: join(folder, 'none', 'x.db'), clock })).rejects.toMatchObject({
    code: 'store.unavailable',
  });
  mkdirSync(path);
  await expect(open()).rejects.toMatchObject({ code: 'store.unavailable' });
});

test('a copy of the file is the same incarnation, a new file another', async () => {
  await filled();
  const first = await open();
  copyFileSync(path, join(folder, 'copy.db'));
  const copy = await openSqliteStore({ path: join(folder, 'copy.db'), clock });
  const fresh = await openSqliteStore({ path: join(folder, 'fresh.db'), clock });
  expect(copy.incarnation).toBe(first.incarnation);
  expect(fresh.incarnation).not.toBe(first.incarnation);
  for (const store of [first, copy, fresh]) await store.close();
});

test('the log is trimmed by count, and stays so over a restart', async () => {
  let store = await openSqliteStore({ path, clock, logMax: 100 });
  for (let n = 0; n < 2_050; n++) await store.transact([{ op: 'put', key: 'k', value: n }]);
  await store.close();
  const db = new DatabaseSync(path);
  for (const table of ['changes', 'topics'])
    expect(db.prepare(`SELECT min(revision) AS oldest, count(*) AS count FROM ${table}`).get()).toEqual({
      oldest: 1_901,
      count: 150,
    });
  db.close();
  store = await openSqliteStore({ path, clock, logMax: 100 });
  const signal = new AbortController();
  const first = async (from: number) =>
    (await store.watch('cluster', from, signal.signal)[Symbol.asyncIterator]().next()).value;
  expect(await first(1_899)).toEqual({ type: 'relist', revision: 2_050 });
  expect(await first(1_900)).toMatchObject({ type: 'change', change: { revision: 1_901 } });
  signal.abort();
  await store.close();
});
