/** A process with a part of a cluster's nodes. It counts what each of them reads off its connections to Redis, by the sockets' own counters. */
import { AsyncLocalStorage } from 'node:async_hooks';
import diagnostics from 'node:diagnostics_channel';
import { mkdirSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { systemClock } from '../../../src/clock.ts';
import { openRedisStore } from '../../../src/store/redis/redis.ts';
import { monotonicMs } from '../../probe/prober.ts';
import { type Connect, type ScaleNode, startNode } from './node.ts';
import { hostOfNode, nodeName } from './population.ts';

export type Order =
  | { readonly do: 'start'; readonly url: string; readonly dir: string; readonly node: number }
  | { readonly do: 'settled'; readonly nodes: number }
  | { readonly do: 'change'; readonly node: number; readonly endpoint: string }
  | { readonly do: 'applied' }
  | { readonly do: 'bytes' }
  | { readonly do: 'memory' }
  | { readonly do: 'shrink' };

/** How many nodes took the revision over, and when the last of them did, on the machine's monotonic clock. */
export type Applied = readonly [revision: number, nodes: number, lastMs: number];

export interface Answers {
  readonly start: null;
  readonly settled: boolean;
  readonly change: { readonly revision: number; readonly committedMs: number };
  /** Since the last time it was asked. */
  readonly applied: readonly Applied[];
  /** By number of the node. */
  readonly bytes: readonly (readonly [node: number, bytes: number])[];
  /** Bytes a node: heap and what hangs on it, without what the process had before. */
  readonly memory: number;
  /** Collected, and what that freed given back to the machine. */
  readonly shrink: null;
}

/** Which node opens a connection: whatever follows from its start belongs to it. */
const whose = new AsyncLocalStorage<number>();
const open = new Map<number, Set<Socket>>();
const closed = new Map<number, number>();
const nodes = new Map<number, ScaleNode>();
let applied = new Map<number, { nodes: number; lastMs: number }>();

diagnostics.subscribe('net.client.socket', (message) => {
  const node = whose.getStore();
  const { socket } = message as { socket: Socket };
  if (node === undefined) return;
  const sockets = open.get(node) ?? new Set();
  open.set(node, sockets.add(socket));
  socket.once('close', () => {
    sockets.delete(socket);
    closed.set(node, (closed.get(node) ?? 0) + socket.bytesRead);
  });
});

function heap(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
const heapBefore = heap();

function took(revision: number): void {
  const seen = applied.get(revision) ?? { nodes: 0, lastMs: 0 };
  applied.set(revision, { nodes: seen.nodes + 1, lastMs: monotonicMs() });
}

async function start(url: string, dir: string, node: number): Promise<null> {
  const connect: Connect = (seen, onTerm) => openRedisStore({ url, clock: systemClock, seen, onTerm });
  const folder = join(dir, nodeName(node));
  mkdirSync(folder);
  nodes.set(node, await whose.run(node, () => startNode(nodeName(node), hostOfNode(node), connect, folder, took)));
  return null;
}

async function obey(order: Order): Promise<Answers[Order['do']]> {
  switch (order.do) {
    case 'start':
      return start(order.url, order.dir, order.node);
    case 'settled':
      return [...nodes.values()].every((node) => node.settled(order.nodes));
    case 'change': {
      const revision = await nodes.get(order.node)!.change(order.endpoint);
      return { revision, committedMs: monotonicMs() };
    }
    case 'applied': {
      const found = [...applied].map(([revision, { nodes: count, lastMs }]): Applied => [revision, count, lastMs]);
      applied = new Map();
      return found;
    }
    case 'bytes':
      return [...nodes.keys()].map((node) => {
        const live = [...(open.get(node) ?? [])].reduce((sum, { bytesRead }) => sum + bytesRead, 0);
        return [node, live + (closed.get(node) ?? 0)];
      });
    case 'memory':
      return (heap() - heapBefore) / nodes.size;
    case 'shrink':
      // An ordinary collection keeps the pages; this one is meant for a heap that is at its end.
      globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
      return null;
  }
}

process.on('message', ({ id, order }: { id: number; order: Order }) => {
  obey(order).then(
    (answer) => process.send!({ id, answer }),
    (error: unknown) => process.send!({ id, error: String((error as Error).stack ?? error) }),
  );
});
process.on('disconnect', () => process.exit(0));
