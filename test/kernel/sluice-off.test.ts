/** bin/sluice-off, against things made by hand in a network and mount namespace of the test's own. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { slowness } from '../../src/lab/slowness.ts';
import { ID, Stage, sweep } from './off-stage.ts';

const LIMIT_MS = 2_000 * slowness();

let stage: Stage;
beforeAll(sweep);
afterAll(sweep);
beforeEach(async () => {
  stage = await Stage.open();
});
afterEach(() => stage.close());

const settle = async (look: () => boolean): Promise<void> => {
  for (let i = 0; i < 200 && !look(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(look()).toBe(true);
};

describe('sluice-off', () => {
  test('takes what bears the mark, leaves everything else', () => {
    stage.makeSandboxes(3);
    stage.inside(`
      ip link add foreign0 type veth peer name foreign1
      ip link add other0 type bridge && ip link set other0 alias sluice:${stage.instance}x:network:${ID}
      ip link add doomed0 type bridge && ip link set doomed0 group 23581
      nft add table inet sluice-${stage.instance}-policy; nft add table inet sluice-${stage.instance}-balancer
      nft add table ip6 sluice-${stage.instance}-more
      nft add table inet sluice-admin; nft add table inet sluice-${stage.instance}x-policy; nft add table ip filter
      ip link set sl0 up; ip route add 10.50.0.0/20 dev sl0 table 5100001; ip rule add fwmark 0x100000/0x3ff00000 table 5100001
      ip link set other0 up; ip route add 10.51.0.0/20 dev other0 table 5100002; ip rule add fwmark 0x200000/0x3ff00000 table 5100002
      nft add chain ip filter DOCKER-USER
      nft add rule ip filter DOCKER-USER iifname '"sl*"' counter accept comment '"sluice:${stage.instance}"'
      nft add rule ip filter DOCKER-USER counter return
      mkdir -p ${stage.at('bpf')}/${stage.instance}/v1/links ${stage.at('bpf')}/${stage.instance}/v1/maps ${stage.at('bpf')}/${stage.instance}x/v1/links
      for pin in links/connect4 links/veth-1-ff links/lo-1-ff maps/stages maps/backends; do : >${stage.at('bpf')}/${stage.instance}/v1/$pin; done
      : >${stage.at('bpf')}/${stage.instance}x/v1/links/connect4`);
    mkdirSync(join(stage.cgroups, `sluice-${stage.instance}`, ID), { recursive: true });
    mkdirSync(join(stage.cgroups, `sluice-${stage.instance}x`));
    mkdirSync(stage.at('run/netns-of-others'));

    const result = stage.off();
    expect(result).toMatchObject({ status: 0 });
    expect(result.said).toContain('3 namespaces, 4 links, 3 hooks, 3 nft tables, 4 cgroups');
    expect(result.ms).toBeLessThan(LIMIT_MS);
    expect(stage.inside('ip -o link | sed "s/^[0-9]*: \\([^:@]*\\).*/\\1/" | sort | tr "\\n" " "')).toBe(
      'doomed0 foreign0 foreign1 lo other0 ',
    );
    expect(stage.inside('ip rule').match(/lookup 510\d+/g)).toEqual(['lookup 5100002']);
    const docker = stage.inside('nft list chain ip filter DOCKER-USER');
    expect(docker).not.toContain('accept');
    expect(docker).toContain('return');
    expect(stage.inside('nft list tables').trim().split('\n').sort()).toEqual([
      'table inet sluice-admin',
      `table inet sluice-${stage.instance}x-policy`,
      'table ip filter',
    ]);
    expect(stage.inside(`cat /proc/self/mountinfo`)).not.toContain(stage.at('run'));
    expect(readdirSync(stage.at('run/netns'))).toEqual([]);
    expect(readdirSync(stage.at('bpf'))).toEqual([`${stage.instance}x`]);
    expect(existsSync(stage.at('bpf', `${stage.instance}x`, 'v1/links/connect4'))).toBe(true);
    expect(readdirSync(stage.cgroups).filter((name) => name.startsWith('sluice-'))).toEqual([
      `sluice-${stage.instance}x`,
    ]);
    expect(existsSync(stage.at('run/netns-of-others'))).toBe(true);
    expect(existsSync(stage.at('state/sluice.db'))).toBe(true);

    const again = stage.off();
    expect(again).toMatchObject({ status: 0 });
    expect(again.said).toContain('nothing was there');
  });

  test('a hundred sandboxes are gone within the limit, their links included', () => {
    stage.makeSandboxes(100);
    const result = stage.off();
    expect(result.said).toContain('100 namespaces, ');
    expect(result.ms).toBeLessThan(LIMIT_MS);
    expect(stage.inside('ip -o link | wc -l').trim()).toBe('1');
  });

  test('links of a sandbox in which a program lives on go by their group', () => {
    stage.makeSandboxes(2);
    const child = stage.start(['nsenter', `--net=${stage.at('run/netns/n0')}`, 'sleep', '600'], true);
    stage.inside('sleep 0.2');
    expect(stage.off().said).toContain('3 links');
    expect(stage.inside('ip -o link | wc -l').trim()).toBe('1');
    expect(child.exitCode).toBe(null);
  });

  test('stops the daemon that holds the lock, and nobody whose number stands in a stale file', async () => {
    const bystander = stage.start(['sleep', '600']);
    writeFileSync(stage.at('run/sluiced.pid'), `${bystander.pid}\n`);
    const daemon = stage.start([
      'sh',
      '-c',
      `exec 9>>${stage.at('state/lock')}; echo $$ >${stage.at('state/lock')}; exec sleep 600`,
    ]);
    const line = `${daemon.pid}\n`;
    await settle(() => execFileSync('cat', [stage.at('state/lock')], { encoding: 'utf8' }) === line);
    expect(stage.off().said).toContain('daemon stopped');
    await settle(() => daemon.signalCode !== null);
    expect(daemon.signalCode).toBe('SIGTERM');
    expect(bystander.signalCode).toBe(null);
  });

  test('a daemon that does not end is killed, within the limit', async () => {
    const daemon = stage.start([
      'sh',
      '-c',
      `trap "" TERM; exec 9>>${stage.at('state/lock')}; while :; do sleep 0.1; done`,
    ]);
    writeFileSync(stage.at('run/sluiced.pid'), `${daemon.pid}\n`);
    await settle(() => readdirSync(`/proc/${daemon.pid}/fd`).includes('9'));
    const result = stage.off();
    expect(result.said).toContain('daemon stopped');
    expect(result.ms).toBeLessThan(LIMIT_MS);
    await settle(() => daemon.signalCode === 'SIGKILL');
  });

  test('what runs in a cgroup stays and is told; --force ends it', async () => {
    const sandbox = join(stage.cgroups, `sluice-${stage.instance}`, ID);
    mkdirSync(sandbox, { recursive: true });
    const program = stage.start(['sh', '-c', `echo 0 >${sandbox}/cgroup.procs; exec sleep 600`]);
    await settle(() => execFileSync('cat', [join(sandbox, 'cgroup.procs')]).length > 0);
    const result = stage.off();
    expect(result).toMatchObject({ status: 0 });
    expect(result.said).toMatch(new RegExp(`1 cgroup in .* stay: programs run there \\(${program.pid} \\)`));
    expect(existsSync(sandbox)).toBe(true);
    expect(stage.off('--force').said).toContain('1 cgroup');
    expect(existsSync(join(stage.cgroups, `sluice-${stage.instance}`))).toBe(false);
    await settle(() => program.signalCode === 'SIGKILL');
  });

  test('--purge deletes the data, but only of a directory that a daemon had', () => {
    mkdirSync(stage.at('run/sandbox', ID));
    writeFileSync(stage.at('run/sandbox', ID, 'resolv.conf'), '');
    expect(stage.off('--purge').said).toContain('data deleted');
    expect(readdirSync(stage.folder).sort()).toEqual(['bpf']);
    mkdirSync(stage.at('precious'));
    writeFileSync(stage.at('precious/thesis'), '');
    const spared = stage.off(
      '--purge',
      '--instance',
      stage.instance,
      '--state-dir',
      stage.at('precious'),
      '--cgroup-root',
      stage.cgroups,
    );
    expect(spared.said).toContain('no daemon had its state there');
    expect(readdirSync(stage.at('precious'))).toEqual(['thesis']);
  });

  test('settings: damaged ones still serve, those of another instance refuse, nonsense is refused', () => {
    writeFileSync(
      stage.at('run/settings.json'),
      `{"instance":"${stage.instance}","bpffs":"${stage.at('bpf')}", "cgroupRoot": "${stage.cgroups}", "sta`,
    );
    mkdirSync(join(stage.cgroups, `sluice-${stage.instance}`, ID), { recursive: true });
    expect(stage.off('--state-dir', stage.at('state')).said).toContain(`instance ${stage.instance}: 1 cgroup`);
    expect(stage.off('--instance', 'somebody')).toMatchObject({ status: 1 });
    expect(stage.off('--instance', 'somebody').said).toContain(`run directory of instance ${stage.instance}`);
    rmSync(stage.at('run/settings.json'));
    expect(stage.off('--instance', '../../etc').said).toContain('is no instance');
    expect(stage.off('--instance', stage.instance, '--state-dir', '/').said).toContain("no directory of Sluice's");
    expect(stage.off('--nonsense')).toMatchObject({ status: 2 });
    expect(stage.off('--help')).toMatchObject({ status: 0 });
  });
});
