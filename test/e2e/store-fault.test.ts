/** A store that is full, damaged, or of a newer version: a coded error, and what runs goes on. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { type Inside, sandbox } from './traffic.ts';

let host: TestHost;
let client: Inside;
let vip: string;

beforeEach(async () => {
  host = await openHost({
    name: 'fault',
    // The lab takes the mount away with its folder.
    prepare: (bare) => bare.must(`mkdir -p ${bare.stateDir} && mount -t tmpfs -o size=2m none ${bare.stateDir}`),
  });
  await host.cli('network', 'create', 'web');
  await (await sandbox(host, 'server', '--network', 'web')).serve(80);
  client = await sandbox(host, 'client', '--network', 'web');
  await host.cli('service', 'create', '--name', 'shop', '--network', 'web', '--port', '80', '--backend', 'server');
  vip = (await host.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop'))[0].spec.vips[0]!;
});
afterEach(() => host.close());

const served = async (): Promise<true> => {
  expect(await client.ask(vip, 80)).toBe(`server hello ${vip}`);
  return true;
};

/** What the daemon says when it refuses to start. */
async function refusal(): Promise<string> {
  const error = await host.daemon.start().catch((reason: Error) => reason);
  return error instanceof Error ? error.message : 'it started';
}

test('a full disk: writes are refused with store.full, what runs and its names go on, and with room all is as before', async () => {
  const filler = join(host.stateDir, 'filler');
  await host.exec(`dd if=/dev/zero of=${filler} bs=4k status=none`);
  let refused = await host.sluice(['sandbox', 'create', 'extra0', '--network', 'web']);
  // The write-ahead log has room for some more.
  for (let more = 1; refused.code === 0 && more < 200; more++)
    refused = await host.sluice(['sandbox', 'create', `extra${more}`, '--network', 'web']);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(/disk is full.*\(store\.full\)/);
  await served();
  expect((await client.exec('dig +short @127.0.0.11 shop')).stdout.trim()).toBe(vip);
  expect((await host.sluice(['network', 'inspect', 'web'])).code).toBe(0);
  // A daemon that is killed on a full disk comes back when there is room, and knows what was accepted.
  const before = (await host.json<{ name: string }[]>('sandbox', 'ls')).map(({ name }) => name);
  rmSync(filler);
  await host.daemon.kill();
  await host.daemon.start();
  expect((await host.json<{ name: string }[]>('sandbox', 'ls')).map(({ name }) => name)).toEqual(before);
  await host.cli('sandbox', 'create', 'late', '--network', 'web');
  await served();
}, 60_000);

test('a damaged store: the daemon does not start and says which file; traffic goes on; sluice-off needs no store', async () => {
  await host.daemon.kill();
  const path = join(host.stateDir, 'sluice.db');
  const bytes = readFileSync(path);
  bytes.fill(0x5a, 100, Math.min(bytes.length, 20_000));
  writeFileSync(path, bytes);
  for (const suffix of ['-wal', '-shm']) rmSync(path + suffix, { force: true });
  expect(await refusal()).toMatch(/sluice\.db.*damaged.*\(store\.damaged\)/);
  expect(readFileSync(path).equals(bytes), 'what it refuses it leaves alone').toBe(true);
  await served();
  const off = await host.exec([join(projectRoot(), 'bin/sluice-off'), '--force', '--run-dir', host.runDir]);
  expect(off.stderr).toBe('');
  expect(off.code).toBe(0);
  expect(existsSync(join(host.bpffs, host.instance))).toBe(false);
});

test('a store of a newer version: refused by its number, untouched', async () => {
  await host.daemon.stop();
  const path = join(host.stateDir, 'sluice.db');
  const db = new DatabaseSync(path);
  db.exec('PRAGMA user_version = 4711');
  db.close();
  expect(await refusal()).toMatch(/newer Sluice \(layout 4711.*\(store\.newer\)/);
  await served();
  const again = new DatabaseSync(path);
  again.exec('PRAGMA user_version = 1');
  again.close();
  await host.daemon.start();
  await eventually(served);
});
