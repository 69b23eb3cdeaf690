/** How quickly sandboxes come onto networks and leave them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../src/errors.ts';
import { labFolder } from '../../src/lab/owner.ts';
import { hasCni, prepareCni } from '../peers/cni.ts';
import { connectDocker, type Docker } from '../peers/docker.ts';
import { openStage, type Stage, WAIT_MS } from '../stage.ts';
import { median } from '../stats.ts';
import type { Amount, Arm, OpenSuite, Row, Suite } from '../suite.ts';

const NETWORK = 'bench';
const SUBNET = { cidr: '10.78.0.0/16' };
/** The sandbox that is attached and detached. */
const GUEST = 'guest';

/** Attach and detach, so often. */
const CYCLES: Amount = { block: 200, warmup: 5, quick: 20 };
/** Sandboxes made one after another. */
const SANDBOXES: Amount = { block: 100, warmup: 5, quick: 20 };
/** Networks made one after another. */
const NETWORKS: Amount = { block: 20, warmup: 1, quick: 3 };
const families = { cycle: CYCLES, sandbox: SANDBOXES, network: NETWORKS };

const rows: readonly Row[] = [
  {
    id: 'attach/cycle/cni-bridge',
    kind: 'ratio',
    better: 'higher',
    unit: '/s',
    family: 'cycle',
    metric: 'rate',
    peer: 'cni-bridge',
    what:
      `attach + detach of one namespace, ${CYCLES.block} times in a row: ours through the API, CNI's by executing the bridge ` +
      'plugin with host-local. The clock starts before the first attach and stops when the last link is gone.',
  },
  {
    id: 'attach/sandbox-rate/none',
    kind: 'absolute',
    better: 'higher',
    unit: '/s',
    family: 'sandbox',
    metric: 'rate',
    what: `sandboxes with one network, ${SANDBOXES.block} created one after another, each awaited until it is programmed.`,
  },
  {
    id: 'attach/network-create/docker',
    kind: 'ratio',
    better: 'lower',
    unit: 'ms',
    family: 'network',
    metric: 'ms',
    peer: 'docker',
    what: 'a bridge network made through the API of each, from the request to the answer that it is programmed (median).',
  },
];

/** Names of the links in the host's namespace, read where the daemon lives. */
function linksOf(stage: Stage): Set<string> {
  const text = readFileSync(`/proc/${stage.host.daemon.current!.pid}/net/dev`, 'utf8');
  return new Set([...text.matchAll(/^\s*(\S+):/gm)].map(([, name]) => name!));
}

/** Waits until the host has no link that is not in `before`. */
async function untilGone(stage: Stage, before: ReadonlySet<string>): Promise<void> {
  const until = performance.now() + WAIT_MS;
  for (;;) {
    const left = [...linksOf(stage)].filter((name) => !before.has(name));
    if (left.length === 0) return;
    if (performance.now() > until) throw new SluiceError('wait.timeout', `links stay behind: ${left.join(' ')}`);
    await sleep(1);
  }
}

const cycleArm = (stage: Stage): Arm => ({
  name: 'ours',
  async block(cycles) {
    const { sandboxes } = stage.client;
    const before = linksOf(stage);
    const started = performance.now();
    for (let cycle = 0; cycle < cycles; cycle++) {
      await sandboxes.connect(GUEST, { network: NETWORK }, { waitMs: WAIT_MS });
      await sandboxes.disconnect(GUEST, NETWORK);
    }
    await untilGone(stage, before);
    return { rate: (cycles / (performance.now() - started)) * 1_000, failed: 0 };
  },
});

const sandboxArm = (stage: Stage): Arm => ({
  name: 'ours',
  async block(count) {
    const { sandboxes } = stage.client;
    const before = linksOf(stage);
    const names = Array.from({ length: count }, (_, at) => `made-${at}`);
    const started = performance.now();
    for (const name of names) await sandboxes.put(name, { networks: [{ network: NETWORK }] }, { waitMs: WAIT_MS });
    const rate = (count / (performance.now() - started)) * 1_000;
    for (const name of names) await sandboxes.remove(name);
    await untilGone(stage, before);
    const left = async () => (await sandboxes.list()).filter(({ name }) => names.includes(name)).length;
    while ((await left()) > 0) await sleep(20);
    return { rate, failed: 0 };
  },
});

/** Median milliseconds of `count` calls of `make`, each undone by `remove` outside the clock. */
async function networkBlock(count: number, make: (name: string) => Promise<() => Promise<unknown>>) {
  const times: number[] = [];
  for (let at = 0; at < count; at++) {
    const started = performance.now();
    const remove = await make(`bench-${at}`);
    times.push(performance.now() - started);
    await remove();
  }
  return { ms: median(times), failed: 0 };
}

const networkArm = (stage: Stage): Arm => ({
  name: 'ours',
  block: (count) =>
    networkBlock(count, async (name) => {
      await stage.client.networks.put(name, {}, { waitMs: WAIT_MS });
      return () => stage.client.networks.remove(name, { waitMs: WAIT_MS });
    }),
});

const dockerArm = (docker: Docker): Arm => ({
  name: 'docker',
  block: (count) => networkBlock(count, async (name) => docker.createNetwork(name)),
});

async function open(wanted: readonly Row[]): Promise<OpenSuite> {
  const docker = await connectDocker();
  const reasons: Record<string, string | false> = {
    'attach/cycle/cni-bridge': !hasCni() && 'the CNI plugins are not installed',
    'attach/network-create/docker': docker === null && 'no Docker daemon runs here',
  };
  const skipped = Object.fromEntries(wanted.flatMap(({ id }) => (reasons[id] ? [[id, reasons[id]]] : [])));
  const stage = await openStage('attach', { others: ['pod'] });
  try {
    const wait = { waitMs: WAIT_MS };
    await stage.client.networks.put(NETWORK, { subnets: [SUBNET] }, wait);
    await stage.client.sandboxes.put(GUEST, { networks: [] }, wait);
    const pod = stage.lab.host('pod');
    const cni = prepareCni(stage.outside({}), {
      folder: join(labFolder(stage.lab.id), 'cni'),
      netnsPath: pod.netnsPath,
    });
    const cniArm: Arm = {
      name: 'cni-bridge',
      block: async (cycles) => ({ rate: await cni.cycles(cycles), failed: 0 }),
    };
    return {
      skipped,
      given: {
        ours: 'the HTTP API on its unix socket, SQLite store, one call after another; attach is awaited, detach is accepted.',
        'cni-bridge': cni.given,
        ...(docker && { docker: docker.given }),
      },
      arms: {
        cycle: [cycleArm(stage), cniArm],
        sandbox: [sandboxArm(stage)],
        network: [networkArm(stage), ...(docker ? [dockerArm(docker)] : [])],
      },
      close: stage.close,
    };
  } catch (error) {
    await stage.close();
    throw error;
  }
}

export const attach: Suite = { name: 'attach', families, rows, open };
