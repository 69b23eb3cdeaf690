/** What a cluster costs as it grows: whole nodes but for their kernels, on a real Redis, with endpoints that change. */
import { cpus } from 'node:os';
import type { Curve } from '../curve.ts';
import { median, quantile } from '../stats.ts';
import type { Amount, Arm, OpenSuite, Row, Sample, Suite } from '../suite.ts';
import { Crowd, NODES_A_PROCESS } from './scale/crowd.ts';
import { SESSION_MS } from './scale/node.ts';
import { planNetworks, type Scale, slopeOf, TEN } from './scale/population.ts';
import { runWindow, type Seen, type Stream } from './scale/window.ts';

const CLAIMED: readonly Scale[] = [50, 100, 200, 500].map((nodes) => ({ nodes, endpoints: 10_000, services: 500 }));
/** Smaller, so that it is up soon; the largest has twice the nodes from which on looks at the others become rarer. */
const SMOKE: readonly Scale[] = [20, 40, 100].map((nodes) => ({ nodes, endpoints: 1_000, services: 30 }));

/** Of all endpoints, in a second. */
const CHANGING = 0.01;
/** Changes a second on the network of all nodes, while nothing else changes: each one reaches every node, and all of them are on this machine. */
const WIDE_RATE = 0.5;
/** Of what changes in a second, on the network of ten that every size has. */
const TEN_SHARE = 0.1;

/** Seconds of a window; the slope's block has one for every size, in which few changes are to be made. */
const WINDOW: Amount = { block: 5, warmup: 0, quick: 2 };
const WIDE_WINDOW: Amount = { block: 10, warmup: 0, quick: 4 };
/** Seconds of changes before the wide window: one of them, which finds the nodes just awake. */
const WIDE_LEAD = 1 / WIDE_RATE;
/** Of the sizes between, ordinary operation is looked at in so many rounds: it is drawn, no bar is held against it. */
const BETWEEN_ROUNDS = 4;
const families = { fixed: WINDOW, slope: WIDE_WINDOW };

const absolute = { kind: 'absolute', better: 'lower' } as const;
const rows: readonly Row[] = [
  {
    ...absolute,
    id: 'scale/bytes-per-change-slope/none',
    unit: '',
    family: 'slope',
    metric: 'slope',
    what:
      'rise of log(bytes that Redis sends to the connections of all participants in a second, by the changes of that second) with log(number of ' +
      `participants): ${WIDE_RATE} changes a second on a network that all nodes are on, nothing else changes; signs of life and idle watches ` +
      'are in it. 1: each participant costs the same.',
  },
  {
    id: 'scale/fixed-participants/none',
    kind: 'ratio',
    better: 'lower',
    deviation: true,
    unit: 'B',
    family: 'fixed',
    peer: 'smallest',
    metric: 'bytes',
    what:
      `bytes that Redis sends to the connections of the ${TEN} participants of one network, by the changes of that network, in the largest ` +
      `cluster and in the smallest, while ${100 * CHANGING} % of the endpoints change in a second; what counts is how far the quotient is from 1.`,
  },
  {
    ...absolute,
    id: 'scale/lag-p99/none',
    unit: 'ms',
    family: 'fixed',
    metric: 'ms',
    quantile: 0.99,
    what:
      'in the largest cluster, from the moment Redis has confirmed a change to the writer until the last of the ' +
      `${TEN} participants has it in its World, while ${100 * CHANGING} % of the endpoints change in a second; all nodes share this machine.`,
  },
];

/**
 * Changes a second in ordinary operation, by network: those of `ten` as many at every size. The first group's are left alone, because its nodes
 * are those of `ten`, whose bytes are counted.
 */
export function ordinary(scale: Scale): readonly Stream[] {
  const rate = CHANGING * scale.endpoints;
  const groups = planNetworks(scale).filter(({ name }) => name.startsWith('group-') && name !== 'group-0');
  const others = groups.map(({ name }) => ({ network: name, rate: (rate * (1 - TEN_SHARE)) / groups.length }));
  return [{ network: 'ten', rate: rate * TEN_SHARE }, ...others];
}

/** What was seen at one size, a number a round. */
interface Found {
  readonly lagP99: number[];
  readonly commands: number[];
  readonly memoryMB: number[];
  readonly wideKB: number[];
}

const sum = (numbers: Iterable<number>): number => [...numbers].reduce((all, each) => all + each, 0);

async function open(wanted: readonly Row[], say: (line: string) => void, quick: boolean): Promise<OpenSuite> {
  const all = quick ? SMOKE : CLAIMED;
  // The sizes between are for the slope alone.
  const scales = wanted.some(({ family }) => family === 'slope') ? all : [all[0]!, all.at(-1)!];
  const crowds: Crowd[] = [];
  const close = async (): Promise<void> => {
    for (const crowd of crowds) await crowd.close();
  };
  const found = new Map<number, Found>(
    scales.map(({ nodes }) => [nodes, { lagP99: [], commands: [], memoryMB: [], wideKB: [] }]),
  );
  try {
    // The largest first: coming up takes more memory than standing still.
    for (const scale of scales.toReversed()) crowds.unshift(await Crowd.open(scale, say));
  } catch (error) {
    await close();
    throw error;
  }

  /** One percent of the endpoints a second; call it while the nodes are awake. */
  const work = async (crowd: Crowd, seconds: number): Promise<Seen> => {
    const seen = await runWindow(crowd, ordinary(crowd.scale), seconds);
    const { lagP99, commands, memoryMB } = found.get(crowd.scale.nodes)!;
    lagP99.push(quantile(seen.lags, 0.99));
    commands.push(seen.commandsPerSecond);
    const memory = await crowd.ask({ do: 'memory' });
    memoryMB.push(sum(memory) / memory.length / 1e6);
    return seen;
  };
  const fixed = (name: string, crowd: Crowd): Arm => ({
    name,
    async block(seconds): Promise<Sample> {
      const seen = await crowd.awake(() => work(crowd, seconds));
      const ten = sum([...seen.bytes].filter(([node]) => node < TEN).map(([, bytes]) => bytes));
      return { bytes: ten / seen.changes.get('ten')!, ms: seen.lags, failed: seen.failed };
    },
  });
  const slope: Arm = {
    name: 'ours',
    async block(seconds): Promise<Sample> {
      const points: { x: number; y: number }[] = [];
      let failed = 0;
      for (const crowd of crowds) {
        const { nodes } = crowd.scale;
        const isLookedAt = crowd !== crowds[0] && crowd !== crowds.at(-1);
        const seen = await crowd.awake(async () => {
          if (isLookedAt && found.get(nodes)!.wideKB.length < BETWEEN_ROUNDS)
            failed += (await work(crowd, seconds)).failed;
          return runWindow(crowd, [{ network: 'all', rate: WIDE_RATE }], seconds, WIDE_LEAD);
        });
        failed += seen.failed;
        const bytes = seen.steady.bytes / seen.steady.changes;
        found.get(nodes)!.wideKB.push(bytes / 1e3);
        points.push({ x: nodes, y: bytes });
      }
      return { slope: slopeOf(points), failed };
    },
  };
  const curve = (title: string, unit: string, of: (one: Found) => readonly number[]): Curve => ({
    title,
    unit,
    over: 'nodes',
    points: [...found].filter(([, one]) => of(one).length > 0).map(([x, one]) => ({ x, y: median(of(one)) })),
  });
  const curves = (): readonly Curve[] => [
    curve('bytes a change on a network of all', 'kB', ({ wideKB }) => wideKB),
    curve('lag, 99th percentile', 'ms', ({ lagP99 }) => lagP99),
    curve('Redis commands a second', '/s', ({ commands }) => commands),
    curve('memory a node (heap)', 'MB', ({ memoryMB }) => memoryMB),
  ];
  const { endpoints, services } = scales[0]!;
  return {
    skipped: {},
    arms: { fixed: [fixed('smallest', crowds[0]!), fixed('ours', crowds.at(-1)!)], slope: [slope] },
    given: {
      ours:
        `${scales.map(({ nodes }) => nodes).join(', ')} nodes, each size with a Redis of its own (unix socket, not saved, before the nodes in the ` +
        `scheduler), ${endpoints} endpoints and ${services} services; up to ${NODES_A_PROCESS} nodes a process on ${cpus().length} processors; ` +
        `sessions of ${SESSION_MS / 1_000} s, no audits, each node's copies in an SQLite of its own in memory. A size that is not being measured stands still (SIGSTOP).`,
    },
    curves,
    async apart() {
      const numbers = curves().flatMap(({ title, unit, points }) =>
        points.map(({ x, y }): [string, number] => [`${title} at ${x} nodes, ${unit}`, y]),
      );
      return { 'scale/lag-p99/none': Object.fromEntries(numbers) };
    },
    close,
  };
}

export const scale: Suite = { name: 'scale', families, rows, open };
