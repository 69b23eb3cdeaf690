/** A window of time in which endpoints change at a steady rate, and what that cost whom. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../../src/errors.ts';
import type { Crowd } from './crowd.ts';
import { planNetworks } from './population.ts';
import type { SeededEndpoint } from './seed.ts';
import type { Applied } from './worker.ts';

/** Changes of one network in the window. */
export interface Stream {
  readonly network: string;
  /** Changes a second. */
  readonly rate: number;
}

export interface Seen {
  /** Bytes that Redis sent to each node, by its number. */
  readonly bytes: ReadonlyMap<number, number>;
  /** Changes that were committed, by network. */
  readonly changes: ReadonlyMap<string, number>;
  /** Of each change: from its commit until the last participant's World had it, ms. */
  readonly lags: readonly number[];
  /** Changes that some participant had not taken over in time, or that failed. */
  readonly failed: number;
  readonly commandsPerSecond: number;
  /** Bytes that Redis sent to all nodes in a second while changes went on, and how many of them were made in a second. */
  readonly steady: { readonly bytes: number; readonly changes: number };
}

/** Until the last participant has the last change. */
const APPLIED_MS_MAX = 10_000;
const ASK_MS = 50;
/** How far the sockets' counters and Redis's own may be apart: what is on its way at either end of the window, and what was asked meanwhile. */
const APART_MAX = 0.05;

/** Between two looks at both counters, and until they are to go the same way. */
const EVEN_MS = 500;
const EVEN_MS_MAX = 60_000;

interface Change {
  readonly network: string;
  readonly revision: number;
  readonly committedMs: number;
}

/**
 * Changes for `seconds`, after those of the first `lead` seconds. All bytes and lags are those of both, until the last participant has the last
 * change: that takes longer where nodes are many and their processors few. What is `steady` ends with the changes.
 */
export async function runWindow(crowd: Crowd, streams: readonly Stream[], seconds: number, lead = 0): Promise<Seen> {
  const participants = new Map(planNetworks(crowd.scale).map(({ name, participants }) => [name, participants.length]));
  await crowd.ask({ do: 'applied' });
  await evenly(crowd);
  const [bytesBefore, countBefore, startedAt] = [await crowd.bytes(), await crowd.count(), performance.now()];
  const [bytesPerSecond, ...changed] = await Promise.all([
    sending(crowd, streams, seconds, lead),
    ...streams.map((stream) => change(crowd, stream, lead + seconds)),
  ]);
  const changes = changed.flatMap(({ made }) => made);
  const applied = new Map<number, { nodes: number; lastMs: number }>();
  const left = (): Change[] =>
    changes.filter(({ network, revision }) => (applied.get(revision)?.nodes ?? 0) < participants.get(network)!);
  const until = performance.now() + APPLIED_MS_MAX;
  for (;;) {
    for (const one of (await crowd.ask({ do: 'applied' })).flat()) add(applied, one);
    if (left().length === 0 || performance.now() > until) break;
    await sleep(ASK_MS);
  }
  await evenly(crowd);
  const elapsed = (performance.now() - startedAt) / 1_000;
  const [bytesAfter, countAfter] = [await crowd.bytes(), await crowd.count()];
  const bytes = new Map([...bytesAfter].map(([node, count]) => [node, count - bytesBefore.get(node)!]));
  checkBytes(
    [...bytes.values()].reduce((sum, count) => sum + count, 0),
    countAfter.bytes - countBefore.bytes,
  );
  const missed = left();
  return {
    bytes,
    changes: Map.groupBy(changes, ({ network }) => network)
      .entries()
      .reduce((counts, [network, some]) => counts.set(network, some.length), new Map<string, number>()),
    lags: changes
      .filter((one) => !missed.includes(one))
      // A reader on another processor may have it before its writer hears of the commit.
      .map(({ revision, committedMs }) => Math.max(0, applied.get(revision)!.lastMs - committedMs)),
    failed: missed.length + changed.reduce((sum, { failed }) => sum + failed, 0),
    commandsPerSecond: (countAfter.commands - countBefore.commands) / elapsed,
    steady: { bytes: bytesPerSecond, changes: changes.length / (lead + seconds) },
  };
}

/** Bytes a second that Redis sends after the lead. Either end is half-way between two changes, when the nodes have most of the one before. */
async function sending(crowd: Crowd, streams: readonly Stream[], seconds: number, lead: number): Promise<number> {
  const between = 1_000 / Math.max(...streams.map(({ rate }) => rate));
  const count = async (): Promise<[bytes: number, atMs: number]> => [(await crowd.count()).bytes, performance.now()];
  await sleep(Math.max(0, lead * 1_000 - between / 2));
  const [before, beganMs] = await count();
  await sleep(beganMs + seconds * 1_000 - performance.now());
  const [after, endedMs] = await count();
  return (after - before) / ((endedMs - beganMs) / 1_000);
}

/** Endpoints of the network in turn, one at a time each, at a steady rate. */
async function change(
  crowd: Crowd,
  { network, rate }: Stream,
  seconds: number,
): Promise<{ readonly made: readonly Change[]; readonly failed: number }> {
  const endpoints = crowd.endpoints.filter((endpoint) => endpoint.network === network);
  const made: Change[] = [];
  let failed = 0;
  const one = async (endpoint: SeededEndpoint): Promise<void> => {
    try {
      made.push({ network, ...(await crowd.change(endpoint)) });
    } catch {
      // Counted, and printed with the row.
      failed++;
    }
  };
  const startedAt = performance.now();
  const working: Promise<void>[] = [];
  for (let at = 0; at < Math.round(rate * seconds); at++) {
    const dueMs = startedAt + (at * 1_000) / rate - performance.now();
    if (dueMs > 0) await sleep(dueMs);
    working.push(one(endpoints[at % endpoints.length]!));
  }
  await Promise.all(working);
  if (made.length === 0) throw new SluiceError('internal', `no endpoint of ${network} could be changed`);
  return { made, failed };
}

function add(applied: Map<number, { nodes: number; lastMs: number }>, [revision, nodes, lastMs]: Applied): void {
  const seen = applied.get(revision) ?? { nodes: 0, lastMs: 0 };
  applied.set(revision, { nodes: seen.nodes + nodes, lastMs: Math.max(seen.lastMs, lastMs) });
}

/**
 * Waits until nodes read as fast as Redis sends: what was sent before a window and read in it would count for the window. Nodes that do not catch
 * up are found by {@link checkBytes}.
 */
async function evenly(crowd: Crowd): Promise<void> {
  const counters = async (): Promise<[sockets: number, redis: number]> => {
    const [bytes, { bytes: redis }] = [await crowd.bytes(), await crowd.count()];
    return [[...bytes.values()].reduce((sum, count) => sum + count, 0), redis];
  };
  const until = performance.now() + EVEN_MS_MAX;
  let before = await counters();
  while (performance.now() < until) {
    await sleep(EVEN_MS);
    const now = await counters();
    const [sockets, redis] = [now[0] - before[0], now[1] - before[1]];
    if (Math.abs(sockets / redis - 1) < APART_MAX) return;
    before = now;
  }
}

/** Two counters of one thing: the sockets', and Redis's. */
function checkBytes(sockets: number, redis: number): void {
  if (Math.abs(sockets / redis - 1) > APART_MAX)
    throw new SluiceError('internal', `the nodes read ${sockets} bytes, but Redis says that it sent ${redis}`);
}
