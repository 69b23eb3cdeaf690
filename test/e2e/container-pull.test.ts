/** An image by way of a registry: loaded, pushed, removed, and pulled by the container that wants it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { busyboxArchive } from '../../src/lab/busybox.ts';
import { withHost } from './harness.ts';

const PORT = 5000;

test('run pulls what is not here, and says so; --pull never does not', async () => {
  await withHost(
    async (host) => {
      const archive = join(host.runDir, 'busybox.tar');
      writeFileSync(archive, await busyboxArchive());
      const config = join(host.runDir, 'registry.json');
      const storage = { filesystem: { rootdirectory: join(host.runDir, 'registry') } };
      const http = { addr: `127.0.0.1:${PORT}`, secret: 'x' };
      writeFileSync(config, JSON.stringify({ version: '0.1', log: { level: 'error' }, storage, http }));
      const registry = host.spawn(['docker-registry', 'serve', config]);
      const name = `127.0.0.1:${PORT}/shop/busybox`;
      await host.cli('load', '-i', archive);
      await host.cli('image', 'tag', 'busybox', name);
      await host.must(
        `for n in $(seq 100); do busybox wget -qO- http://127.0.0.1:${PORT}/v2/ && exit; sleep 0.1; done; exit 1`,
      );
      await host.cli('push', name);
      await host.cli('rmi', name, 'busybox');
      const never = await host.sluice(['run', '--rm', '--pull', 'never', '--network', 'none', name, 'true']);
      expect(never).toMatchObject({ code: 125, stderr: expect.stringContaining('image.notfound') });
      const first = await host.sluice(['run', '--rm', '--network', 'none', name, 'echo', 'ran']);
      expect(first).toMatchObject({ code: 0, stdout: 'ran\n' });
      expect(first.stderr).toContain(`image ${name} is not here; pulling it`);
      expect(first.stderr).toContain(`pulled ${name}:latest`);
      expect(await host.sluice(['run', '--rm', '--network', 'none', name, 'echo', 'again'])).toEqual({
        code: 0,
        stdout: 'again\n',
        stderr: '',
      });
      // One that a container was made of stays while that is there.
      await host.cli('create', '--name', 'user', '--network', 'none', name);
      expect((await host.sluice(['rmi', name])).code).toBe(1);
      await host.cli('rm', 'user');
      await host.cli('rmi', name);
      await registry.stop();
    },
    { name: 'pull' },
  );
});
