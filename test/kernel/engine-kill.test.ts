/** kill -9 of the monitor and of the OCI runtime before, in and after each step: a coded error or a state that is right, and nothing left. */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { isSluiceError } from '../../src/errors.ts';
import { EngineBed } from './engine-bed.ts';

let bed: EngineBed;
beforeAll(async () => {
  bed = new EngineBed();
  const launcher = join(bed.folder, 'launcher');
  writeFileSync(launcher, LAUNCHER(), { mode: 0o755 });
  await bed.start({ oci: launcher });
});
afterAll(() => bed.close());

const FOREVER = ['sh', '-c', 'trap "exit 5" TERM; echo began; while :; do sleep 0.05; done'];

/**
 * Stands before the OCI runtime. The file `fault` names a verb, a moment and a victim; the first call of that verb takes it away and does it.
 * A victim in the middle is killed so many milliseconds after the runtime began.
 */
const LAUNCHER = (): string => `#!/bin/sh
fault=${bed.folder}/fault
read -r verb when victim 2>/dev/null <$fault || verb=
found=
for word; do [ "$word" = "$verb" ] && found=1; id=$word; done
[ -n "$found" ] || exec ${bed.tools.oci} "$@"
rm $fault
monitor() {
  file=${bed.folder}/containers/$id/monitor.pid
  until [ -s $file ]; do sleep 0.01; done
  kill -9 "$(cat $file)"
}
case "$when $victim" in
  'before monitor') monitor; exec ${bed.tools.oci} "$@" ;;
  'before runtime') kill -9 $$ ;;
  'after monitor') ${bed.tools.oci} "$@"; status=$?; monitor; exit $status ;;
  'after runtime') ${bed.tools.oci} "$@"; kill -9 $$ ;;
esac
${bed.tools.oci} "$@" & runtime=$!
sleep "$when"
case $victim in runtime) kill -9 $runtime 2>/dev/null ;; monitor) monitor ;; esac
wait $runtime
`;

const books = (): string[] => {
  const dir = join(bed.folder, 'run/oci');
  return existsSync(dir) ? readdirSync(dir) : [];
};
/** Mounts below our folder, and processes that were given a name in it, on the whole host. */
const mounts = (): string[] =>
  readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(bed.folder));
function processes(): string[] {
  const all = execFileSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' }).split('\n');
  return all.filter((line) => line.includes(bed.folder) && !/ ps -eo/.test(line));
}
function remains(): string[] {
  const attach = join(bed.folder, 'run/attach');
  return [
    ...bed.traces(),
    ...books().map((name) => `${name} in the books`),
    ...mounts(),
    ...processes(),
    ...readdirSync(attach).map((name) => `socket ${name}`),
    ...readdirSync(join(bed.folder, 'containers')).filter((name) => name !== 'exits'),
    ...readdirSync(join(bed.folder, 'containers/exits')),
  ];
}

/** What a step came to: `ok`, or the code of its error. Anything else is a failure of the test. */
async function step(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return 'ok';
  } catch (error) {
    if (isSluiceError(error)) return error.code;
    throw error;
  }
}

const moments = ['before', 'after', '0.004', '0.015'];
const cases = ['create', 'start', 'delete'].flatMap((verb) =>
  ['monitor', 'runtime'].flatMap((victim) => moments.map((when) => [verb, when, victim] as const)),
);

test.each(cases)(
  '%s, %s, the %s',
  async (verb, when, victim) => {
    const plan = bed.plan(FOREVER);
    const { id } = plan;
    const { runtime } = bed;
    const life = async (): Promise<string[]> => {
      const said: string[] = [await step(() => runtime.create(plan)), await step(() => runtime.start(id))];
      if (said.join() === 'ok,ok') {
        // Told to end it does; without its monitor it is ended.
        while ((await runtime.state(id))?.state === 'running' && (await bed.logs(id)) === '') await sleep(10);
        said.push(await step(() => runtime.kill(id, 'SIGTERM')));
        expect([5, 137]).toContain((await bed.ended(id)).exitCode);
      }
      return [...said, await step(() => runtime.delete(id))];
    };
    writeFileSync(join(bed.folder, 'fault'), `${verb} ${when} ${victim}\n`);
    const said = await life();
    // It was met: otherwise this would prove nothing.
    expect(existsSync(join(bed.folder, 'fault'))).toBe(false);
    for (const one of said) expect(one).toMatch(/^(ok|runtime\.failed|object\.notfound)$/);
    // As the daemon does that was told of a failure: once more, and it is gone.
    expect(await step(() => runtime.delete(id))).toBe('ok');
    expect(await runtime.list()).toEqual([]);
    expect(remains()).toEqual([]);
    // And the same container can be made.
    expect(await life()).toEqual(['ok', 'ok', 'ok', 'ok']);
    expect(remains()).toEqual([]);
    rmSync(plan.rootfs, { recursive: true, force: true });
  },
  // A runtime that is killed once the container is there leaves conmon reading what that holds open, until the engine's limit of 30 s.
  60_000,
);

test('a start whose runtime was killed is not taken for one that went well', async () => {
  const plan = bed.plan(FOREVER);
  await bed.runtime.create(plan);
  writeFileSync(join(bed.folder, 'fault'), 'start before runtime\n');
  expect(await step(() => bed.runtime.start(plan.id))).toBe('runtime.failed');
  expect((await bed.runtime.state(plan.id))?.state).not.toBe('running');
  await bed.ended(plan.id);
  await bed.runtime.delete(plan.id);
  await bed.runtime.create(plan);
  writeFileSync(join(bed.folder, 'fault'), 'start after runtime\n');
  expect(await step(() => bed.runtime.start(plan.id))).toBe('ok');
  expect(await bed.runtime.state(plan.id)).toMatchObject({ state: 'running' });
  await bed.runtime.delete(plan.id);
  expect(remains()).toEqual([]);
});
