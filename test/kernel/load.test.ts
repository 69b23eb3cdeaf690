/** The load generators against their own server, in namespaces: what they count is what happened. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { cgroupMount, sweepLab } from '../../src/lab/owner.ts';
import { iperf3, startIperf3, wrk } from '../../src/load/foreign.ts';
import { connect, startConnect, startHold, startHookCost, startServer, udp } from '../../src/load/load.ts';

let lab: Lab;
let client: LabHost;
let backend: LabHost;

const at = (host: LabHost) => ({ netnsPath: host.netnsPath, cgroup: host.cgroup });
const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((a, b) => a + b, 0);

beforeAll(async () => {
  await sweepLab();
  lab = await createLab({ name: 'load', hosts: ['client', 'backend'] });
  [client, backend] = [lab.host('client'), lab.host('backend')];
});
afterAll(async () => {
  expect(await lab?.close()).toEqual([]);
});

describe('new connections', () => {
  it('each is answered by the server whose tag it counts, at the rate that was asked for', async () => {
    const server = await startServer(at(backend), { ports: [80, 81], tag: 'x' });
    const result = await connect(at(client), { address: backend.address, port: 81, rate: 200, seconds: 1 });
    expect(result).toMatchObject({ failed: 0, errors: {}, failures: null });
    expect(result.opened).toBe(result.completed);
    expect(result.opened).toBeGreaterThan(190);
    expect(result.answers.x?.count).toBe(result.completed);
    expect(result.latencyUs!.p50).toBeGreaterThan(1);
    expect(result.latencyUs!.p99).toBeGreaterThanOrEqual(result.latencyUs!.p50);
    const served = await server.stop();
    expect(served).toMatchObject({ accepted: result.opened, pings: result.opened, aborted: 0 });
  });

  it.each(['server', 'client', 'reset'] as const)('over IPv6, closed by %s first', async (close) => {
    const server = await startServer(at(backend), { ports: [80] });
    const result = await connect(at(client), { address: backend.address6, port: 80, rate: 100, seconds: 0.5, close });
    expect(result).toMatchObject({ failed: 0, opened: result.completed });
    expect((await server.stop()).accepted).toBe(result.opened);
  });

  it('refused and unanswered ones are failures by name, with the time of the first and the last', async () => {
    const from = Number(process.hrtime.bigint()) / 1e6;
    const refused = await connect(at(client), { address: backend.address, port: 9, rate: 100, seconds: 0.5 });
    expect(refused.completed).toBe(0);
    expect(refused.errors).toEqual({ ECONNREFUSED: refused.opened });
    expect(refused.failures!.firstMs).toBeGreaterThan(from);
    expect(refused.failures!.lastMs - refused.failures!.firstMs).toBeGreaterThan(300);
    const target = { address: '198.18.0.99', port: 9, rate: 10, seconds: 0.5, timeoutMs: 200 };
    const lost = await connect(at(client), target);
    expect(lost.errors).toEqual({ ETIMEDOUT: lost.opened });
  });

  it('that begin in a warm-up are not part of the result, the failed ones are', async () => {
    const server = await startServer(at(backend), { ports: [80] });
    const warm = { address: backend.address, port: 80, rate: 200, warmup: 1, seconds: 0.5 };
    const result = await connect(at(client), warm);
    expect(result.opened).toBeGreaterThan(280);
    expect(result.seconds).toBeCloseTo(0.5, 1);
    expect(result.rate).toBeGreaterThan(150);
    expect(result.rate).toBeLessThan(250);
    await server.stop();
    expect((await connect(at(client), { ...warm, port: 9 })).failed).toBeGreaterThan(280);
  });

  it('come from the source addresses in turn', async () => {
    const server = await startServer(at(backend), { ports: [80] });
    const target = { address: backend.address, port: 80, rate: 100, seconds: 0.3 };
    const own = await connect(at(client), { ...target, sources: [client.address] });
    expect(own).toMatchObject({ failed: 0 });
    const foreign = await connect(at(client), { ...target, sources: [client.address, '192.0.2.1'] });
    expect(foreign.errors).toEqual({ EADDRNOTAVAIL: Math.floor(foreign.opened / 2) });
    await server.stop();
  });

  it('end when they are stopped: a run without end too', async () => {
    const server = await startServer(at(backend), { ports: [80] });
    const running = await startConnect(at(client), { address: backend.address, port: 80, rate: 100, seconds: 0 });
    await new Promise((resolve) => setTimeout(resolve, 300));
    const result = await running.stop();
    expect(result.completed).toBeGreaterThan(10);
    expect(result.failed).toBe(0);
    await server.stop();
  });
});

describe('held connections', () => {
  it('stay open, and those that break are counted', async () => {
    const server = await startServer(at(backend), { ports: [80] });
    const hold = await startHold(at(client), {
      address: backend.address,
      port: 80,
      connections: 50,
      intervalMs: 50,
    });
    await new Promise((resolve) => setTimeout(resolve, 200));
    await server.stop();
    await new Promise((resolve) => setTimeout(resolve, 200));
    const result = await hold.stop();
    expect(result).toMatchObject({ connections: 50, opened: 50, broken: 50, open: 0, failed: 50 });
    expect(sum(result.errors)).toBe(50);
    expect(result.answered).toBeGreaterThan(150);
  });

  it('that are left alone end whole', async () => {
    const server = await startServer(at(backend), { ports: [80] });
    const hold = await startHold(at(client), { address: backend.address6, port: 80, connections: 20, intervalMs: 20 });
    const result = await hold.stop();
    expect(result).toMatchObject({ opened: 20, open: 20, broken: 0, failed: 0 });
    expect(result.answered).toBe(result.pings);
    await server.stop();
  });
});

describe('datagrams', () => {
  it.each([false, true])('come back whole and from the address asked (connected: %s)', async (connected) => {
    const server = await startServer(at(backend), { ports: [53], tag: 'u' });
    for (const address of [backend.address, backend.address6]) {
      const result = await udp(at(client), { address, port: 53, rate: 500, seconds: 0.5, connected });
      expect(result).toMatchObject({ failed: 0, late: 0, received: result.sent });
      expect(result.answers.u?.count).toBe(result.sent);
    }
    await server.stop();
  });

  it('without an answer are lost, and each counts once', async () => {
    const target = { address: backend.address, port: 9, rate: 100, seconds: 0.5, timeoutMs: 100 };
    const unconnected = await udp(at(client), target);
    expect(unconnected.errors).toEqual({ ETIMEDOUT: unconnected.sent });
    const connected = await udp(at(client), { ...target, connected: true });
    expect(connected.errors.ECONNREFUSED).toBeGreaterThan(0);
    expect(connected.failed).toBe(connected.sent);
  });
});

describe('what others wrote', () => {
  it('wrk: keep-alive and one connection a request', async () => {
    const server = await startServer(at(backend), { ports: [80] });
    const url = `http://${backend.address}/`;
    const kept = await wrk(at(client), { url, seconds: 1, connections: 4 });
    expect(kept).toMatchObject({ failed: 0, errors: {} });
    expect(kept.rate).toBeGreaterThan(100);
    const accepted = 4;
    const single = await wrk(at(client), { url, seconds: 1, connections: 4, headers: ['Connection: close'] });
    expect(single.failed).toBe(0);
    const served = await server.stop();
    expect(served.accepted).toBeGreaterThanOrEqual(accepted + single.requests);
    expect(served.requests).toBeGreaterThanOrEqual(kept.requests + single.requests);
  });

  it('iperf3: bits a second as they arrived', async () => {
    const server = await startIperf3(at(backend));
    const result = await iperf3(at(client), { address: backend.address, seconds: 1 });
    expect(result.bitsPerSecond).toBeGreaterThan(1e8);
    await server.stop();
  });

  it('one that fails says why', async () => {
    await expect(iperf3(at(client), { address: backend.address, seconds: 1 })).rejects.toThrow(/onnection refused/);
  });
});

it('the cost of cgroup hooks: nothing where no program is attached', async () => {
  const hooks = await startHookCost(cgroupMount());
  const costs = await hooks.stop();
  for (const { runs, ns } of costs) expect(ns).toBeGreaterThanOrEqual(runs > 0 ? 1 : 0);
});
