/** The daemon ends at every fault point in turn: nothing stays, everything goes on. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { FAULT_POINTS, type FaultPoint } from '../../src/fault.ts';
import { type Daemon, projectRoot } from '../../src/lab/daemon.ts';
import { openHost, type TestHost } from '../e2e/harness.ts';
import { allReady, cutOff, expectRemains, gone, remains } from '../e2e/remains.ts';

/** What is unwanted goes with an audit. */
const settings = { auditSeconds: 0.5, plugins: { ptp: join(projectRoot(), 'dist/plugins/example/ptp.js') } };
/** A bridge passes the others: our own drivers make their links where they belong, and only an overlay has peers. */
const DRIVERS: Partial<Record<FaultPoint, string>> = { 'endpoint.moved': 'ptp', 'network.peers': 'overlay' };

let host: TestHost;
afterEach(() => host.close());

/** Those that only a start over empty pins passes are walked in test/kernel/dataplane-restart.test.ts. */
const STARTING = new Set<FaultPoint>(['dataplane.loaded', 'dataplane.pinned', 'dataplane.attached']);
/** Those of containers are walked in test/e2e/container-survival.test.ts and service-replicas.test.ts. */
const POINTS = FAULT_POINTS.filter((point) => !STARTING.has(point) && !/^(container|replica)\./.test(point));

/** The life of every kind of object, as calls in order; each may be made again. */
function life(tag: string, driver = 'bridge'): (() => Promise<unknown>)[] {
  const { networks, sandboxes, services } = host.client;
  const wait = { waitMs: 5_000 };
  const [net, a, b, shop] = [`net${tag}`, `a${tag}`, `b${tag}`, `shop${tag}`];
  return [
    () => networks.put(net, { driver, ipv6: true }, wait),
    () => sandboxes.put(a, { networks: [{ network: net }] }, wait),
    () => sandboxes.put(b, { networks: [{ network: net }] }, wait),
    () => services.put(shop, { network: net, ports: [{ port: 80 }], backends: [{ sandbox: a }, { sandbox: b }] }, wait),
    () => services.update(shop, { remove: [{ sandbox: b }] }, wait),
    gone(() => sandboxes.disconnect(b, net, wait)),
    () => sandboxes.connect(b, { network: net }, wait),
    gone(() => sandboxes.remove(b, { ...wait, force: true })),
    gone(() => services.remove(shop, wait)),
    gone(() => sandboxes.remove(a, { ...wait, force: true })),
    gone(() => networks.remove(net, wait)),
  ];
}

/** A daemon that will die at the point. Some it passes at its start already, for what is built in: then it dies the next time. */
async function startDoomed(point: FaultPoint): Promise<Daemon> {
  for (let passage = 1; passage < 5; passage++) {
    try {
      return await host.daemon.start({ settings, env: { SLUICE_FAULT: `${point}:${passage}` } });
    } catch (error) {
      expect(String(error), point).toContain('ended at its start (SIGKILL)');
    }
  }
  throw new Error(`the daemon does not start beyond ${point}`);
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
  host = await openHost({ name: 'chaos', settings });
  await allReady(host);
  // Of a network that was not encrypted the node's status says when that was.
  for (const step of life('first', 'overlay')) await step();
  const before = await remains(host);
  for (const point of POINTS) {
    await host.daemon.kill();
    const doomed = await startDoomed(point);
    const revive = async (): Promise<void> => {
      expect(await doomed.exited, point).toBe('SIGKILL');
      if (host.daemon.current) return;
      await host.daemon.start({ settings });
      await allReady(host);
    };
    for (const step of life(point.replace('.', ''), DRIVERS[point])) await insist(step, revive);
    const late = await Promise.race([doomed.exited, sleep(5_000, 'the fault point was never passed')]);
    expect(late, point).toBe('SIGKILL');
    if (!host.daemon.current) await host.daemon.start({ settings });
    // What was leased to nobody is collected half a minute later.
    await expectRemains(host, before, { leases: false });
  }
  await expectRemains(host, before, { limitMs: 60_000 });
}, 300_000);
