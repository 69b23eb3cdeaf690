/** The daemon ends at every fault point in turn, and at random moments of a hundred creations and removals: nothing stays, everything goes on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { isSluiceError } from '../../src/errors.ts';
import { FAULT_POINTS, type FaultPoint } from '../../src/fault.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { expectRemains, remains } from './remains.ts';

let host: TestHost;
afterEach(() => host.close());

/** Those that only a start over empty pins passes are walked in test/kernel/dataplane-restart.test.ts. */
const STARTING = new Set<FaultPoint>(['dataplane.loaded', 'dataplane.pinned', 'dataplane.attached']);
const POINTS = FAULT_POINTS.filter((point) => !STARTING.has(point));

/** A removal of what may have gone already. */
const gone = (work: () => Promise<unknown>) => async (): Promise<void> => {
  try {
    await work();
  } catch (error) {
    if (!isSluiceError(error, 'object.notfound')) throw error;
  }
};

/** The life of every kind of object, as calls in order; each may be made again. */
function life(tag: string): (() => Promise<unknown>)[] {
  const { networks, sandboxes, services } = host.client;
  const wait = { waitMs: 5_000 };
  const [net, a, b, shop] = [`net${tag}`, `a${tag}`, `b${tag}`, `shop${tag}`];
  return [
    () => networks.put(net, { ipv6: true }, wait),
    () => sandboxes.put(a, { networks: [{ network: net }] }, wait),
    () => sandboxes.put(b, { networks: [{ network: net }] }, wait),
    () => services.put(shop, { network: net, ports: [{ port: 80 }], backends: [{ sandbox: a }, { sandbox: b }] }, wait),
    () => services.update(shop, { remove: [{ sandbox: b }] }, wait),
    gone(() => sandboxes.remove(b, { ...wait, force: true })),
    gone(() => services.remove(shop, wait)),
    gone(() => sandboxes.remove(a, { ...wait, force: true })),
    gone(() => networks.remove(net, wait)),
  ];
}

/** Whether the call failed because the daemon ended under it, or had just done so. */
const cutOff = (error: unknown): boolean => isSluiceError(error, 'daemon.unreachable', 'daemon.stopping');

/** Everything that is there works: what an interrupted call had begun is finished or undone. */
async function allReady(): Promise<void> {
  await eventually(async () => {
    const { networks, sandboxes, endpoints, services } = host.client;
    const all = await Promise.all([networks.list(), sandboxes.list(), endpoints.list(), services.list()]);
    for (const { kind, name, status } of all.flat())
      expect(`${kind} ${name}: ${status?.state} ${status?.error?.message ?? ''}`).toBe(`${kind} ${name}: ready `);
  }, 10_000);
}

/** Makes the call; when the daemon ends under it, `revive` and once more, as a user would who heard no answer. */
async function insist(step: () => Promise<unknown>, revive: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (error) {
    if (!cutOff(error)) throw error;
    await revive();
    await step();
  }
}

test('the daemon dies at every fault point in turn: what was half made is finished or undone, and nothing is left', async () => {
  host = await openHost({ name: 'chaos' });
  await allReady();
  const before = await remains(host);
  for (const point of POINTS) {
    await host.daemon.kill();
    const doomed = await host.daemon.start({ env: { SLUICE_FAULT: point } });
    const revive = async (): Promise<void> => {
      expect(await doomed.exited, point).toBe('SIGKILL');
      if (host.daemon.current) return;
      await host.daemon.start();
      await allReady();
    };
    for (const step of life(point.replace('.', ''))) await insist(step, revive);
    const late = await Promise.race([doomed.exited, sleep(5_000, 'the fault point was never passed')]);
    expect(late, point).toBe('SIGKILL');
    if (!host.daemon.current) await host.daemon.start();
    await expectRemains(host, before);
  }
}, 300_000);

test('killed at random while a hundred sandboxes and services come and go: nothing is left', async () => {
  host = await openHost({ name: 'churn' });
  await host.client.networks.put('web', { ipv6: true }, { waitMs: 5_000 });
  await allReady();
  const before = await remains(host);
  const { sandboxes, services } = host.client;
  let left = 100;
  let kills = 0;
  /** The daemon is back, whoever of the workers noticed first. */
  const back = (): Promise<unknown> => eventually(() => host.client.version(), 10_000);
  const insistently = async (step: () => Promise<unknown>): Promise<void> => {
    const until = performance.now() + 60_000;
    for (;;) {
      try {
        await step();
        return;
      } catch (error) {
        if (!cutOff(error) || performance.now() > until) throw error;
        await back();
      }
    }
  };
  const worker = async (): Promise<void> => {
    while (left > 0) {
      const number = left--;
      const [box, shop] = [`box${number}`, `shop${number}`];
      await insistently(() => sandboxes.put(box, { networks: [{ network: 'web' }] }, { waitMs: 5_000 }));
      const request = { network: 'web', ports: [{ port: 80 }], backends: [{ sandbox: box }] };
      if (number % 3 === 0) await insistently(() => services.put(shop, request, { waitMs: 5_000 }));
      // Not always in the polite order: a backend may go before its service.
      if (number % 2 === 0) await insistently(gone(() => sandboxes.remove(box, { force: true })));
      if (number % 3 === 0) await insistently(gone(() => services.remove(shop)));
      await insistently(gone(() => sandboxes.remove(box, { force: true })));
    }
  };
  const killer = async (): Promise<void> => {
    while (left > 0) {
      await sleep(150 + Math.random() * 600);
      await host.daemon.kill();
      kills++;
      await host.daemon.start();
    }
  };
  await Promise.all([worker(), worker(), worker(), worker(), killer()]);
  expect(kills).toBeGreaterThan(5);
  await expectRemains(host, before, 30_000);
}, 180_000);
