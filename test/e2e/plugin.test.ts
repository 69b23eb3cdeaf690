import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import { FAR } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { eventually, openHost, type TestHost } from './harness.ts';
import { sandbox } from './traffic.ts';

let host: TestHost;
const bad = join('/tmp', `sluice-bad-driver-${process.pid}.mjs`);
beforeAll(async () => {
  writeFileSync(
    bad,
    `export const create = () => ({
      name: 'bad', capabilities: () => ({ scope: 'local', addresses: true, overhead: { ipv4: 0, ipv6: 0 } }), validate() {},
      createNetwork: async (network) => { if (network.options.how === 'throw') throw new Error('the moon is wrong'); if (network.options.how === 'hang') await new Promise(() => {}); return { routed: false }; },
      deleteNetwork: async () => {}, createEndpoint: async () => ({}), join: async () => ({ ifprefix: 'eth', gateways: [], routes: [], neighbours: [] }), leave: async () => {}, deleteEndpoint: async () => {},
    });`,
  );
  host = await openHost({
    name: 'plug',
    settings: { plugins: { ptp: join(projectRoot(), 'dist/plugins/example/ptp.js'), bad } },
  });
});
afterAll(() => host.close());

describe('third-party drivers', () => {
  test('the example routes between its endpoints and to the outside', async () => {
    await host.cli(
      'network',
      'create',
      'links',
      '--driver',
      'ptp',
      '--ipv6',
      '--subnet',
      '10.77.0.0/24',
      '--subnet',
      'fd00:77::/64',
    );
    const a = await sandbox(host, 'a', '--network', 'links');
    const b = await sandbox(host, 'b', '--network', 'links');
    for (const address of [...b.addresses, FAR.ipv4, FAR.ipv6]) expect(await a.ping(address)).toBe(true);
    await host.cli('service', 'create', '--name', 'shop', '--network', 'links', '--backend', 'b');
    await b.serve(80);
    const [{ spec }] = await host.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop');
    for (const vip of spec.vips) expect(await a.ask(vip, 80)).toBe(`b hello ${vip}`);
    await host.cli('service', 'rm', 'shop');
    await host.cli('sandbox', 'rm', '--force', 'a', 'b');
    await host.cli('network', 'rm', 'links');
  });

  test('a driver that throws is reported with its own words, one that hangs with its time limit; others go on', async () => {
    expect((await host.sluice(['network', 'create', 'cursed', '--driver', 'bad', '-o', 'how=throw'])).stderr).toContain(
      'the moon is wrong',
    );
    const hung = host.sluice(
      ['network', 'create', 'hung', '--driver', 'bad', '-o', 'how=hang', '--wait-timeout', '15s'],
      { timeoutMs: 30_000 },
    );
    await new Promise((resolve) => setTimeout(resolve, 300));
    const start = performance.now();
    await host.cli('network', 'create', 'fine');
    expect(performance.now() - start).toBeLessThan(2_000 * slowness());
    expect((await hung).stderr).toMatch(/driver\.timeout|driver\.open|wait\.timeout/);
    await host.cli('network', 'rm', 'fine');
    for (const name of ['cursed', 'hung']) await host.sluice(['network', 'rm', name, '--detach']);
    await eventually(
      async () => (await host.json<{ name: string }[]>('network', 'ls')).every(({ name }) => name !== 'cursed'),
      45_000,
    );
  });

  test('a module that is missing or has no create keeps the daemon from starting, with one sentence', async () => {
    const { startDaemon } = await import('../../src/lab/daemon.ts');
    for (const path of ['/nowhere/driver.js', join(projectRoot(), 'dist/src/errors.js')]) {
      const start = startDaemon({
        instance: 'plugbad',
        stateDir: `${host.stateDir}2`,
        runDir: `${host.runDir}2`,
        cgroupRoot: host.cgroupRoot,
        netnsPath: host.netnsPath,
        settings: { bpffs: host.bpffs, plugins: { x: path } },
      });
      await expect(start).rejects.toThrow(/config\.invalid/);
    }
  });
});
