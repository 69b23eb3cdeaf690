/**
 * A process that writes to a store until it is killed or the disk is full: `node store-writer.ts FOLDER until-killed|until-full`.
 * Says on stdout, one JSON a line, what it was told to be stored.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import { toSluiceError } from '../../src/errors.ts';
import { tryFlock } from '../../src/kernel/fd.ts';
import { lockState } from '../../src/store/lock.ts';
import { openSqliteStore } from '../../src/store/sqlite.ts';

const [folder = '', mode = ''] = process.argv.slice(2);
const say = (what: object): void => writeFileSync(1, `${JSON.stringify(what)}\n`);

try {
  lockState(folder, tryFlock);
} catch (error) {
  say(toSluiceError(error).toJSON());
  process.exit(1);
}
say({ locked: process.pid });
const ballast = join(folder, 'ballast');
if (mode === 'until-full') writeFileSync(ballast, Buffer.alloc(400_000));
const store = await openSqliteStore({ path: join(folder, 'sluice.db'), clock: systemClock });
for (let n = 0; ; n++) {
  try {
    const revision = await store.transact([
      { op: 'put', key: `k/${n}`, value: 'x'.repeat(mode === 'until-full' ? 4_000 : 200) },
      { op: 'put', key: 'last', value: n },
    ]);
    say({ revision, n });
  } catch (error) {
    say(toSluiceError(error).toJSON());
    break;
  }
  if (n % 20 === 0) await systemClock.sleep(1);
}
// The disk is full: what is there is read, sessions go on, and with room again so do writes.
const last = await store.get<number>('last');
const session = await store.session('node', 60_000).then(
  ({ epoch }) => epoch,
  (error: unknown) => toSluiceError(error).code,
);
say({ readable: last, session });
rmSync(ballast);
say({
  revision: await store.transact([{ op: 'put', key: 'after', value: 1 }]),
  entries: (await store.list('k/')).items.length,
});
await store.close();
