/** How quickly containers and further processes in them start, and how quickly an image is here. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { SluiceError } from '../../src/errors.ts';
import { busyboxArchive } from '../../src/lab/busybox.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { cgroupMount, labFolder } from '../../src/lab/owner.ts';
import { connectDocker } from '../peers/docker.ts';
import { type Oci, prepareOci } from '../peers/oci.ts';
import { hasPodman, preparePodman } from '../peers/podman.ts';
import { openPullBed, type PullBed } from '../peers/registry.ts';
import { openStage, type Stage, WAIT_MS } from '../stage.ts';
import { median } from '../stats.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';

const IMAGE = 'busybox:latest';
const COMMAND = ['sleep', '1000000'] as const;
/** The container whose root and configuration the runtimes by themselves get. */
const TEMPLATE = 'template';
const RUNTIMES = ['runc', 'crun'] as const;

const DETACHED: Amount = { block: 20, warmup: 2, quick: 5 };
const EXECS: Amount = { block: 30, warmup: 2, quick: 5 };
/** Containers started at once. */
const PARALLEL: Amount = { block: 100, warmup: 0, quick: 100 };
/** Pulls, one after another. */
const PULLS: Amount = { block: 1, warmup: 1, quick: 1 };
/** `run -d` of those that are called beside runc, which take longer. */
const FOREIGN: Amount = { block: 5, warmup: 1, quick: 2 };
/** Launched at once by the bench when a runtime starts a hundred: more only wait for each other. */
const LAUNCHERS = 8;
/** Milliseconds that the last of them has. */
const CROWD_MS = 120_000;
const families = { detached: DETACHED, exec: EXECS, parallel: PARALLEL, pull: PULLS, foreign: FOREIGN };

const ms = { unit: 'ms', metric: 'ms' } as const;
const rows: readonly Row[] = [
  ...RUNTIMES.map(
    (peer): Row => ({
      ...{ id: `run/detached/${peer}`, kind: 'difference', better: 'lower', family: 'detached', peer, ...ms },
      what:
        `a container that runs, through the API (image root, namespaces, monitor, record), from the request to the answer, minus ` +
        `\`${peer} run -d\` of the same root and configuration, from its execution to its end (median of a block). Neither has a network.`,
    }),
  ),
  ...RUNTIMES.map(
    (peer): Row => ({
      ...{ id: `run/exec/${peer}`, kind: 'difference', better: 'lower', family: 'exec', peer, ...ms },
      what: `\`true\` in a running container, from the request to its exit status, minus \`${peer} exec\` (median of a block).`,
    }),
  ),
  {
    ...{ id: 'run/parallel-100/runc', kind: 'ratio', better: 'higher', unit: '/s', metric: 'rate', family: 'parallel' },
    peer: 'runc',
    what: `${PARALLEL.block} containers asked for at once, a second, until the last one runs; of runc ${LAUNCHERS} are executed at once.`,
  },
  {
    ...{ id: 'run/parallel-100-failed/none', kind: 'absolute', better: 'lower', unit: '', metric: 'failed' },
    ...{ family: 'parallel', count: true },
    what: 'of those, how many did not come to run.',
  },
  {
    ...{ id: 'run/pull/skopeo', kind: 'ratio', better: 'higher', unit: '/s', metric: 'rate', family: 'pull' },
    peer: 'skopeo',
    what: 'an image of four layers from a registry on loopback, unpacked and on the disk; the rate is pulls a second.',
  },
  ...(['docker', 'podman'] as const).map(
    (peer): Row => ({
      ...{ id: `run/detached/${peer}`, kind: 'difference', better: 'lower', family: 'foreign', peer, ...ms },
      what: `the same, minus \`run -d\` of ${peer}.`,
    }),
  ),
];

/** Median milliseconds of `count` calls of `make`; what they made is removed outside the clock. */
async function timed(count: number, make: (at: number) => Promise<unknown>, remove: (at: number) => Promise<unknown>) {
  const times: number[] = [];
  for (let at = 0; at < count; at++) {
    const started = performance.now();
    await make(at);
    times.push(performance.now() - started);
    await remove(at);
  }
  return { ms: median(times), failed: 0 };
}

const nothing = async (): Promise<void> => undefined;

/** As many at once as there are, or as `atOnce` says; how many failed and how many came to be in a second. */
async function crowd(count: number, atOnce: number, make: (at: number) => Promise<unknown>) {
  let next = 0;
  let failed = 0;
  const started = performance.now();
  const lane = async (): Promise<void> => {
    for (let at = next++; at < count; at = next++) {
      try {
        await make(at);
      } catch (error) {
        failed++;
        process.stderr.write(`${error}\n`);
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return { rate: ((count - failed) / (performance.now() - started)) * 1_000, failed };
}

/** Our own arms, on a stage that has the image. */
function ours(stage: Stage): Readonly<Record<'detached' | 'exec' | 'parallel' | 'pull', (bed?: PullBed) => Arm>> {
  const { containers, images } = stage.client;
  const wait = { waitMs: WAIT_MS };
  const request = { image: IMAGE, command: [...COMMAND], networks: [], start: true };
  const make = (at: number, waitMs = WAIT_MS) => containers.put(`made-${at}`, request, { waitMs, create: true });
  const gone = (at: number) => containers.remove(`made-${at}`, { ...wait, force: true });
  const name = 'ours';
  return {
    detached: () => ({ name, block: (count) => timed(count, (at) => make(at), gone) }),
    exec: () => ({
      name,
      block: (count) =>
        timed(
          count,
          async () => {
            const session = await containers.exec(TEMPLATE, { args: ['true'] });
            for await (const _ of session.output);
            if (session.exitCode() !== 0) throw new SluiceError('internal', `exec: status ${session.exitCode()}`);
          },
          nothing,
        ),
    }),
    parallel: () => ({
      name,
      async block(count) {
        const result = await crowd(count, count, (at) => make(at, CROWD_MS));
        const there = (await containers.list()).filter((each) => each.name.startsWith('made-'));
        await crowd(there.length, LAUNCHERS, (at) => containers.remove(there[at]!.name, { ...wait, force: true }));
        return result;
      },
    }),
    pull: (bed) => ({
      name,
      async block(count) {
        const { ms: each } = await timed(
          count,
          () => images.pull(bed!.image),
          () => images.remove(bed!.image),
        );
        return { rate: 1_000 / each, failed: 0 };
      },
    }),
  };
}

/** Those of a runtime by itself. */
function theirs(name: string, oci: Oci): Readonly<Record<'detached' | 'exec' | 'parallel', Arm>> {
  const id = (at: number): string => `made-${at}`;
  return {
    detached: {
      name,
      block: (count) =>
        timed(
          count,
          (at) => oci.run(id(at)),
          (at) => oci.remove(id(at)),
        ),
    },
    exec: { name, block: (count) => timed(count, () => oci.exec(TEMPLATE), nothing) },
    parallel: {
      name,
      async block(count) {
        const result = await crowd(count, LAUNCHERS, (at) => oci.run(id(at)));
        await crowd(count, LAUNCHERS, (at) => oci.remove(id(at)));
        return result;
      },
    },
  };
}

const pullArm = (bed: PullBed): Arm => ({
  name: 'skopeo',
  async block(count) {
    const { ms: each } = await timed(count, bed.skopeo, async () => bed.clear());
    return { rate: 1_000 / each, failed: 0 };
  },
});

/** The runtimes by themselves, each with a container of its own that runs for the execs. */
async function runtimesOf(stage: Stage, folder: string): Promise<Readonly<Record<(typeof RUNTIMES)[number], Oci>>> {
  const request = { image: IMAGE, command: [...COMMAND], networks: [], start: true };
  const { id } = await stage.client.containers.put(TEMPLATE, request, { create: true, waitMs: WAIT_MS });
  const bundle = join(stage.host.stateDir, 'containers', id);
  const prepare = async (program: (typeof RUNTIMES)[number]): Promise<Oci> => {
    // crun refuses a host with cgroup v1 and v2 side by side unless the launcher hides one of them, as it does for ours.
    const mount = cgroupMount();
    const env = { SLUICE_OCI: program, ...(mount !== '/sys/fs/cgroup' && { SLUICE_OCI_HIDE: mount }) };
    const launcher = program === 'crun' ? { path: join(projectRoot(), 'bin/sluice-oci'), env } : undefined;
    const oci = prepareOci({ program, launcher, folder: join(folder, program), bundle });
    await oci.run(TEMPLATE);
    return oci;
  };
  return { runc: await prepare('runc'), crun: await prepare('crun') };
}

async function open(wanted: readonly Row[]): Promise<OpenSuite> {
  const docker = await connectDocker();
  const reasons: Record<string, string | false> = {
    'run/detached/docker': docker === null && 'no Docker daemon runs here',
    'run/detached/podman': !hasPodman() && 'Podman is not installed',
  };
  const skipped = Object.fromEntries(wanted.flatMap(({ id }) => (reasons[id] ? [[id, reasons[id]]] : [])));
  const needs = (family: string): boolean => wanted.some((row) => row.family === family && !(row.id in skipped));
  const stage = await openStage('run');
  const undo: (() => Promise<unknown>)[] = [stage.close];
  const close = async (): Promise<void> => {
    for (const step of undo.splice(0).reverse()) await step();
  };
  try {
    const folder = join(labFolder(stage.lab.id), 'bench');
    const archive = await busyboxArchive(IMAGE);
    await stage.client.images.load(Readable.from([archive]));
    const { runc, crun } = await runtimesOf(stage, folder);
    undo.push(async () => {
      await Promise.all([runc.remove(TEMPLATE), crun.remove(TEMPLATE)]);
      await stage.client.containers.remove(TEMPLATE, { force: true, waitMs: WAIT_MS });
    });
    const [own, byRunc, byCrun] = [ours(stage), theirs('runc', runc), theirs('crun', crun)];
    const bed = needs('pull') ? await openPullBed(stage.host, join(folder, 'pull')) : null;
    if (bed) undo.push(bed.close);
    const foreign: Arm[] = [];
    if (docker && needs('foreign')) {
      const image = await docker.loadImage(archive, IMAGE);
      undo.push(image.remove);
      foreign.push({
        name: 'docker',
        block: async (count) => {
          const ids: string[] = [];
          const made = async (): Promise<void> => void ids.push(await image.run(COMMAND));
          return timed(count, made, () => docker.removeContainer(ids.pop()!));
        },
      });
    }
    const podman = hasPodman() && needs('foreign') ? await podmanOf(folder, archive) : null;
    if (podman) {
      undo.push(podman.close);
      foreign.push({
        name: 'podman',
        block: (count) =>
          timed(
            count,
            (at) => podman.run(`made-${at}`, IMAGE, COMMAND),
            (at) => podman.remove(`made-${at}`),
          ),
      });
    }
    return {
      skipped,
      given: {
        ours: 'the HTTP API on its unix socket, SQLite store; conmon over the runtime that the host has.',
        runc: runc.given,
        crun: crun.given,
        ...(bed && { skopeo: bed.given }),
        ...(docker && { docker: docker.given }),
        ...(podman && { podman: podman.given }),
      },
      arms: {
        detached: [own.detached(), byRunc.detached, byCrun.detached],
        exec: [own.exec(), byRunc.exec, byCrun.exec],
        parallel: [own.parallel(), byRunc.parallel],
        pull: bed ? [own.pull(bed), pullArm(bed)] : [],
        foreign: [own.detached(), ...foreign],
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function podmanOf(folder: string, archive: Buffer) {
  const file = join(folder, 'busybox.tar');
  writeFileSync(file, archive);
  return preparePodman(join(folder, 'podman'), file);
}

export const run: Suite = { name: 'run', families, rows, open };
