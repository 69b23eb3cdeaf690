import { expect, test } from 'vitest';
import { FAR } from '../../src/lab/lab.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { eventually, type TestHost, withHost } from './harness.ts';
import { sandbox } from './traffic.ts';

const DOCKER = [
  'iptables -w -N DOCKER-USER',
  'iptables -w -P FORWARD DROP',
  'iptables -w -A FORWARD -j DOCKER-USER',
  'iptables -w -A DOCKER-USER -j RETURN',
  'echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables || true',
].join(' && ');
const chain = async (host: TestHost): Promise<string[]> =>
  (await host.must('iptables -w -S DOCKER-USER')).trim().split('\n');

test('beside Docker two accepts are kept in its chain with the setting, and taken out without it', async () => {
  await withHost(
    async (host) => {
      await host.must(DOCKER);
      for (const flags of [[], ['--driver', 'overlay']]) {
        const made = await host.sluice(['network', 'create', ...flags, '--subnet', '10.90.0.0/24', 'web']);
        expect(made.code).toBe(0);
        // On a slow machine it is also told that it takes long, which is no warning.
        const said = slowness() > 1 ? made.stderr.replace(/^sluice: waiting until .*\n/gm, '') : made.stderr;
        expect(said).toBe('');
        const [a, b] = [await sandbox(host, 'a', '--network', 'web'), await sandbox(host, 'b', '--network', 'web')];
        expect(await a.ping(b.ipv4!)).toBe(true);
        expect(await a.ping(FAR.ipv4)).toBe(true);
        await host.cli('sandbox', 'rm', 'a', 'b');
        await host.cli('network', 'rm', 'web');
      }
      // Docker's own tool still reads its chain; ours stand before what was there.
      const own = (lines: readonly string[]) => lines.filter((line) => line.includes('ACCEPT'));
      const before = await chain(host);
      expect(own(before)).toHaveLength(2);
      expect(before.at(-1)).toBe('-A DOCKER-USER -j RETURN');
      await host.must('iptables -w -D DOCKER-USER 1');
      await eventually(async () => own(await chain(host)).length === 2, 10_000);
      expect(await chain(host)).toEqual(before);
      await host.daemon.stop();
      await host.daemon.start({ settings: { manageDockerUser: false } });
      await eventually(async () => own(await chain(host)).length === 0);
      const blocked = await host.sluice(['network', 'create', '--driver', 'overlay', 'mesh']);
      expect(blocked.stderr).toContain('ForwardBlocked');
      expect(blocked.stderr).toContain('iptables -I DOCKER-USER -i sl+ -j ACCEPT');
    },
    { name: 'docker', settings: { manageDockerUser: true } },
  );
});
