/** What the daemon weighs with a thousand sandboxes, and what the command line takes to start. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../src/client/client.ts';
import { SluiceError } from '../../src/errors.ts';
import { nodeBinary, projectRoot } from '../../src/lab/daemon.ts';
import { openStage, type Stage, WAIT_MS } from '../stage.ts';
import { median } from '../stats.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';

const SANDBOXES = 1_000;
const SERVICES = 100;
const NETWORKS = ['left', 'right'] as const;
/** API calls under way while they are made. */
const CONCURRENCY = 8;

/** Seconds between a collection and the reading. */
const READING: Amount = { block: 1, warmup: 0, quick: 1 };
/** Starts of one arm in a row. */
const STARTS: Amount = { block: 20, warmup: 2, quick: 5 };
const families = { start: STARTS, memory: READING };

const rows: readonly Row[] = [
  {
    id: 'footprint/cli-start/node',
    kind: 'difference',
    better: 'lower',
    unit: 'ms',
    family: 'start',
    metric: 'ms',
    peer: 'node',
    what: '`sluice version`, which asks the daemon, minus `node -e 0` under the same Node: from the fork to the exit (median).',
  },
  {
    id: 'footprint/daemon-pss/none',
    kind: 'absolute',
    better: 'lower',
    unit: 'MB',
    family: 'memory',
    metric: 'pssMB',
    what:
      `proportional set size of the daemon after a collection, with ${SANDBOXES.toLocaleString('en-US')} sandboxes (each with ` +
      `its veth and its DNS sockets) on two bridges, and ${SERVICES} services.`,
  },
];

function startArm(name: string, argv: readonly [string, ...string[]], env: NodeJS.ProcessEnv): Arm {
  const [file, ...args] = argv;
  return {
    name,
    async block(starts) {
      const times: number[] = [];
      let failed = 0;
      for (let start = 0; start < starts; start++) {
        const began = performance.now();
        const { status } = spawnSync(file, args, { stdio: 'ignore', env: { ...process.env, ...env } });
        times.push(performance.now() - began);
        if (status !== 0) failed++;
      }
      return { ms: median(times), failed };
    },
  };
}

/** Calls `make` for 0 … count − 1, a few at a time. */
async function each(count: number, make: (at: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await make(next++);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
}

async function populate(client: Client, say: (line: string) => void): Promise<void> {
  const wait = { waitMs: WAIT_MS };
  const started = performance.now();
  for (const [at, name] of NETWORKS.entries())
    await client.networks.put(name, { subnets: [{ cidr: `10.${80 + at}.0.0/16` }] }, wait);
  const networkOf = (at: number): string => NETWORKS[at % NETWORKS.length]!;
  await each(SANDBOXES, (at) => client.sandboxes.put(`s${at}`, { networks: [{ network: networkOf(at) }] }, wait));
  // Backends of a service are on its own network: every second sandbox.
  await each(SERVICES, (at) => {
    const backends = [0, 2, 4].map((step) => ({ sandbox: `s${(at + step) % SANDBOXES}` }));
    return client.services.put(`v${at}`, { network: networkOf(at), ports: [{ port: 80 }], backends }, wait);
  });
  say(`${SANDBOXES} sandboxes, ${SERVICES} services: ${Math.round((performance.now() - started) / 1_000)} s`);
}

/** 10^6 bytes of a line `NAME: 123 kB`. */
function megabytes(text: string, name: string): number {
  const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1];
  if (kilobytes === undefined) throw new SluiceError('internal', `no line "${name}" in: ${text.slice(0, 500)}`);
  return (Number(kilobytes) * 1024) / 1e6;
}

/** What the maps that a process holds open occupy in the kernel, 10^6 bytes; each map once. */
function mapMegabytes(pid: number): number {
  const maps = new Map<string, number>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    const info = mapInfo(pid, fd);
    if (info !== null) maps.set(/^map_id:\s+(\d+)$/m.exec(info)![1]!, Number(/^memlock:\s+(\d+)$/m.exec(info)![1]));
  }
  return [...maps.values()].reduce((sum, bytes) => sum + bytes, 0) / 1e6;
}

/** What the kernel says of a descriptor that is a map; null: it is none, or was closed meanwhile. */
function mapInfo(pid: number, fd: string): string | null {
  try {
    if (readlinkSync(`/proc/${pid}/fd/${fd}`) !== 'anon_inode:bpf-map') return null;
    return readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function memoryArm(stage: Stage, say: (line: string) => void): Arm {
  let populated: Promise<void> | null = null;
  return {
    name: 'ours',
    async block(seconds) {
      populated ??= populate(stage.client, say);
      await populated;
      const { pid } = stage.host.daemon.current!;
      process.kill(pid, 'SIGUSR2');
      await sleep(seconds * 1_000);
      return { pssMB: megabytes(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'), 'Pss'), failed: 0 };
    },
  };
}

/** Numbers of the memory row that are no part of it. */
async function memoryApart(stage: Stage): Promise<Record<string, number>> {
  const { pid } = stage.host.daemon.current!;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const metrics = await stage.client.metrics();
  const metric = (name: string): number => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1]) / 1e6;
  return {
    'kernel maps MB': mapMegabytes(pid),
    'RSS MB': megabytes(status, 'VmRSS'),
    'heap used MB': metric('nodejs_heap_size_used_bytes'),
    'heap MB': metric('nodejs_heap_size_total_bytes'),
    'external MB': metric('nodejs_external_memory_bytes'),
    threads: Number(/^Threads:\s+(\d+)$/m.exec(status)?.[1]),
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
  };
}

async function open(_wanted: readonly Row[], say: (line: string) => void): Promise<OpenSuite> {
  const stage = await openStage('footprint');
  const env = { SLUICE_HOST: `unix://${stage.host.socket}` };
  return {
    skipped: {},
    given: {
      ours: 'the daemon with --expose-gc, SQLite store; the command line by its launcher, bin/sluice.',
      node: 'the same Node binary, `node -e 0`.',
    },
    arms: {
      start: [
        startArm('ours', [join(projectRoot(), 'bin/sluice'), 'version'], env),
        startArm('node', [nodeBinary(), '-e', '0'], env),
      ],
      memory: [memoryArm(stage, say)],
    },
    apart: async () => ({ 'footprint/daemon-pss/none': await memoryApart(stage) }),
    close: stage.close,
  };
}

export const footprint: Suite = { name: 'footprint', families, rows, open };
