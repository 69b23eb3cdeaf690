/** A service that runs its own backends: made, scaled, replaced, renewed, and gone, with the compiled daemon and command line. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import { type ContainerHost, openContainerHost } from './container-host.ts';
import { eventually } from './harness.ts';

let host: ContainerHost;
beforeAll(async () => {
  host = await openContainerHost('rep');
  await host.image('shop:2', { Env: ['PATH=/bin', 'WHAT=second'] });
  await host.cli('network', 'create', '--subnet', '10.20.0.0/24', 'web');
  await host.cli('run', '-d', '--init', '--name', 'client', '--network', 'web', 'busybox', 'sleep', '600');
});
afterAll(() => host.close());

const HEALTH = ['--health-cmd', 'wget -qO- http://127.0.0.1/', '--health-interval', '300ms'];
/** Told to end, it still answers for a while, as a server should. */
const SERVE = [
  'sh',
  '-c',
  'mkdir -p /www; echo $HOSTNAME $WHAT >/www/index.html; httpd -f -p 80 -h /www & trap "sleep 0.5; exit" TERM; wait',
];
const names = async (): Promise<string[]> =>
  (await host.cli('ps', '--format', '{{.Names}}'))
    .split('\n')
    .filter((name) => name.startsWith('shop-'))
    .sort();
const spread = async (): Promise<Map<string, number>> => {
  const all = await host.cli('exec', 'client', 'sh', '-c', 'for i in $(seq 30); do wget -qO- http://shop/; done');
  const counts = new Map<string, number>();
  for (const line of all.split('\n')) counts.set(line, (counts.get(line) ?? 0) + 1);
  return counts;
};

describe('a service with replicas', () => {
  test('runs as many as it was told, and balances over them', async () => {
    const flags = [
      '--name',
      'shop',
      '--network',
      'web',
      '--port',
      '80',
      '--replicas',
      '3',
      '-e',
      'WHAT=first',
      ...HEALTH,
    ];
    expect(await host.cli('service', 'create', ...flags, 'busybox', ...SERVE)).toBe('shop');
    expect(await names()).toEqual(['shop-1', 'shop-2', 'shop-3']);
    expect((await spread()).size).toBe(3);
    expect(await host.cli('service', 'ls')).toMatch(/shop .* 3\/3/);
    expect(await host.cli('service', 'ps', 'shop')).toMatch(/shop-1 [\s\S]*shop-2 [\s\S]*shop-3 .*Up/);
    const tasks = await host.cli('exec', 'client', 'nslookup', '-type=a', 'tasks.shop');
    expect(tasks.match(/^Address(?: \d+)?: *10\.20\./gm)).toHaveLength(3);
  });

  test('one that dies is started again, one that is removed is made anew', async () => {
    const before = await host.detail('shop-1');
    process.kill(before.pid!, 'SIGKILL');
    await eventually(async () => {
      const { pid, phase } = await host.detail('shop-1');
      return phase === 'running' && pid !== before.pid;
    });
    await host.cli('rm', '-f', 'shop-2');
    await eventually(async () => (await names()).length === 3 && (await spread()).size === 3);
  });

  test('more and fewer, another image: no connection fails', async () => {
    const asking =
      'n=0; bad=0; while [ ! -e /stop ]; do timeout 3 wget -qO- http://shop/ >/dev/null || bad=$((bad+1)); n=$((n+1)); done; echo $n $bad';
    const load = host.cli('exec', 'client', 'sh', '-c', asking);
    expect(await host.cli('service', 'scale', 'shop=5')).toBe('shop');
    expect(await names()).toHaveLength(5);
    await host.cli('service', 'scale', 'shop=2');
    await eventually(async () => (await names()).length === 2);
    await host.cli('service', 'update', 'shop', '--image', 'shop:2');
    await eventually(async () => (await host.cli('service', 'ps', 'shop')).match(/shop:2/g)?.length === 2);
    await host.cli('exec', 'client', 'touch', '/stop');
    const [asked, failed] = (await load).split(' ').map(Number);
    expect(failed).toBe(0);
    expect(asked).toBeGreaterThan(50);
  });

  test('what its replicas wrote is told with their names', async () => {
    await host.cli(
      'service',
      'create',
      '--name',
      'talk',
      '--network',
      'web',
      '--replicas',
      '2',
      '--detach',
      '--stop-timeout',
      '1s',
      'busybox',
      'sh',
      '-c',
      'echo hello; sleep 600',
    );
    await eventually(
      async () =>
        (await host.cli('service', 'logs', 'talk')).split('\n').sort().join() === 'talk-1 | hello,talk-2 | hello',
    );
    const following = host.spawn([`${projectRoot()}/bin/sluice`, 'service', 'logs', '-f', 'talk'], {
      env: { SLUICE_HOST: `unix://${host.socket}` },
    });
    await eventually(() => following.output().includes('talk-2 | hello'));
    await host.cli('service', 'scale', 'talk=3');
    await eventually(() => following.output().includes('talk-3 | hello'));
    expect(following.output().match(/talk-1 [|] hello/g)).toHaveLength(1);
    process.kill((await host.detail('talk-1')).pid!, 'SIGKILL');
    await eventually(() => following.output().match(/talk-1 [|] hello/g)?.length === 2);
    await host.cli('service', 'update', 'talk', '--replicas', '0', '--wait-timeout', '20s');
    await host.cli('service', 'rm', 'talk');
    expect(await following.exited).toBe(0);
  });

  test('replicas that no node may take are said, and placed when one may', async () => {
    const far = ['--name', 'far', '--network', 'web', '--replicas', '2', '--replicas-max-per-node', '1'];
    const made = await host.sluice(['service', 'create', ...far, '--wait-timeout', '3s', 'busybox', 'sleep', '1000']);
    expect(made).toMatchObject({ code: 1, stderr: expect.stringContaining('1 of 2 has no place') });
    const { stderr } = await host.sluice(['service', 'ps', 'far']);
    expect(stderr).toMatch(/1 of 2 has no place: .* runs 1, as many as it may \(Unplaced\)/);
    expect(await host.cli('service', 'inspect', 'far')).toContain('Unplaced');
    await host.cli('service', 'scale', 'far=1');
    await eventually(
      async () => !(await host.cli('service', 'inspect', 'far', '--format', 'json')).includes('Unplaced'),
    );
    await host.cli('service', 'rm', 'far');
  });

  test('a program that is not there is said, and the service stays to be mended', async () => {
    const made = await host.sluice(['service', 'create', '--name', 'bad', '--network', 'web', 'busybox', 'nosuch']);
    expect(made.code).toBe(1);
    expect(made.stderr).toContain('bad-1');
    expect(await host.cli('service', 'ls')).toMatch(/bad .*ReplicaFailed/);
    expect((await host.sluice(['service', 'scale', 'nosuch=1'])).code).toBe(1);
    await host.cli('service', 'create', '--name', 'plain', '--network', 'web', '--backend', '10.20.0.77');
    expect(await host.sluice(['service', 'scale', 'plain=2'])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('service.noreplicas'),
    });
  });

  test('a daemon killed between any two steps finishes what was begun', async () => {
    for (const [at, count] of [
      ['replica.stored', 3],
      ['replica.leaving', 1],
      ['service.withdrawn', 1],
    ] as const) {
      await host.daemon.stop();
      const { exited } = await host.daemon.start({ env: { SLUICE_FAULT: at } });
      const step =
        at === 'service.withdrawn' ? ['service', 'rm', '-d', 'shop'] : ['service', 'scale', '-d', `shop=${count}`];
      await host.sluice(step);
      await exited;
      await host.daemon.start();
      if (at !== 'service.withdrawn') await eventually(async () => (await names()).length === count);
    }
    await eventually(async () => (await names()).length === 0);
    await eventually(async () => !(await host.cli('service', 'ls')).includes('shop'));
  });

  test('it goes with all it ran', async () => {
    await host.cli('service', 'rm', 'bad', 'plain');
    await host.cli('rm', '-f', 'client');
    await eventually(
      async () => (await host.cli('ps', '-aq')) === '' && (await host.cli('sandbox', 'ls', '-q')) === '',
    );
    expect(await host.cli('volume', 'ls', '-q')).toBe('');
  });
});
