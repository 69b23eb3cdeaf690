/** Images by the command line, on a daemon with its threads compiled as they are installed, and a registry beside it. */
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import type { Background } from '../../src/lab/place.ts';
import { slowness } from '../../src/lab/slowness.ts';
import type { Image } from '../../src/model/image/image.ts';
import { makeFolder } from '../folder.ts';
import { tarOf } from '../kernel/image-bed.ts';
import { eventually, openHost, type TestHost } from './harness.ts';

const REGISTRY = '127.0.0.1:5000';
const SLUICE = join(projectRoot(), 'bin', 'sluice');
const dir = makeFolder('image-e2e');
const at = (name: string): string => join(dir, name);
let host: TestHost;
let registry: Background;

beforeAll(async () => {
  host = await openHost({ name: 'image' });
  mkdirSync(at('registry'));
  // YAML takes JSON.
  const config = {
    version: '0.1',
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: at('registry') } },
    http: { addr: REGISTRY, secret: 'x' },
  };
  writeFileSync(at('config.yml'), JSON.stringify(config));
  registry = host.spawn(['docker-registry', 'serve', at('config.yml')]);
  writeFileSync(
    at('small.tar'),
    await tarOf([
      { name: 'hello', content: 'world' },
      { name: 'big', content: Buffer.alloc(2_000_000) },
    ]),
  );
  await eventually(
    async () => (await host.exec(['socat', '-u', '/dev/null', `TCP:${REGISTRY}`])).code === 0,
    10_000,
    100,
  );
});
afterAll(async () => {
  await registry.stop('SIGKILL');
  await host.close();
  rmSync(dir, { recursive: true });
});

const inStore = (name: string): string[] => readdirSync(join(host.stateDir, 'images', name));
/** What a failing command says. */
const refused = async (...args: string[]): Promise<string> => {
  const { code, stderr, stdout } = await host.sluice(args);
  expect([code, stdout]).toEqual([1, '']);
  return stderr;
};

describe('an image', () => {
  const name = `${REGISTRY}/team/app:1`;
  let id: string;

  test('is imported, listed, described', async () => {
    id = await host.cli(
      'image',
      'import',
      '-q',
      '-c',
      'CMD ["/hello", "you"]',
      '-c',
      'EXPOSE 80 53/udp',
      at('small.tar'),
      'app:1',
    );
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    const [image] = await host.json<Image[]>('image', 'ls');
    expect(image).toMatchObject({ id, names: ['docker.io/library/app:1'], size: 2_000_005 });
    const [header, row] = (await host.cli('images')).split('\n');
    expect(header).toMatch(/^REPOSITORY\s+TAG\s+IMAGE ID\s+CREATED\s+SIZE$/);
    expect(row).toMatch(new RegExp(`^app\\s+1\\s+${id.slice(7, 19)}\\s+\\d+ seconds? ago\\s+2MB$`));
    expect(await host.cli('images', '-q')).toBe(id.slice(7, 19));
    expect(await host.cli('images', '--format', '{{.Repository}}:{{.Tag}} {{.Size}}')).toBe('app:1 2MB');
    const [shown] = await host.json<Image[]>('image', 'inspect', 'app:1');
    expect(shown!.config).toMatchObject({ command: ['/hello', 'you'], ports: ['53/udp', '80/tcp'] });
    expect(await host.cli('image', 'history', 'app:1')).toMatch(/2MB\s+imported from a tarball/);
  });

  test('is pushed, removed, pulled; what happens is said on standard error', async () => {
    await host.cli('image', 'tag', 'app:1', name);
    const pushed = await host.sluice(['push', name]);
    expect(pushed).toMatchObject({ code: 0, stdout: expect.stringMatching(/^sha256:[0-9a-f]{64}\n$/) });
    expect(pushed.stderr).toMatch(/^[0-9a-f]{12}: done$/m);
    expect((await host.cli('rmi', 'app:1', name)).split('\n')).toEqual(['app:1', name]);
    expect(await host.cli('images', '-q')).toBe('');
    expect([...inStore('blobs/sha256'), ...inStore('layers'), ...inStore('tmp')]).toEqual([]);
    const pulled = await host.sluice(['pull', name]);
    expect(pulled).toMatchObject({ code: 0, stdout: `${name}\n` });
    expect(pulled.stderr).toMatch(/resolving[\s\S]*done/);
    expect((await host.json<Image[]>('image', 'ls'))[0]!.id).toBe(id);
    expect((await host.sluice(['pull', '-q', name])).stderr).toBe('');
  });

  test('is saved and loaded, by file and by pipe', async () => {
    await host.cli('image', 'save', '-o', at('saved.tar'), name);
    const { code } = await host.exec(
      `set -e; sluice=${SLUICE}; export SLUICE_HOST=unix://${host.socket}
       "$sluice" image save ${name} | cmp - ${at('saved.tar')}
       "$sluice" rmi ${name}; gzip -c ${at('saved.tar')} | "$sluice" load`,
    );
    expect(code).toBe(0);
    expect((await host.json<Image[]>('image', 'ls'))[0]).toMatchObject({ id, names: [name] });
    expect(await host.cli('load', '-q', '-i', at('saved.tar'))).toBe(id);
    expect((await host.exec(['skopeo', 'inspect', '--config', `docker-archive:${at('saved.tar')}`])).code).toBe(0);
  });

  test('outlives kill -9 of the daemon', async () => {
    await host.daemon.kill('SIGKILL');
    await host.daemon.start();
    expect((await host.json<Image[]>('image', 'inspect', id.slice(7, 15)))[0]).toMatchObject({ id, names: [name] });
  });

  test('errors have codes, and a status of 1', async () => {
    expect(await refused('pull', '-q', `${REGISTRY}/no/such`)).toMatch(
      /does not have the manifest.*\(image\.notfound\)/,
    );
    expect(await refused('pull', '-q', 'UPPER')).toMatch(/\(image\.reference\)/);
    expect(await refused('pull', '-q', '--platform', 'linux/s390x', name)).toMatch(
      /(?:amd|arm)64.*s390x.*\(image\.platform\)/,
    );
    expect(await refused('image', 'inspect', 'nothing')).toMatch(/\(image\.notfound\)/);
    expect(await refused('load', '-q', '-i', at('small.tar'))).toMatch(/neither an OCI layout.*\(image\.archive\)/);
    expect(await refused('login', '-u', 'me', '-p', 'x', '127.0.0.1:1')).toMatch(/\(image\.registry\)/);
    expect(await refused('load', '-i', '/no/such/file')).toMatch(/no such file/);
    expect(await refused('image', 'save', '-o', '/no/such/file', name)).toMatch(/no such file/);
  });

  test('prune asks, and takes what has no name', async () => {
    await host.cli('image', 'import', '-q', at('small.tar'));
    const { stdout } = await host.sluice(['image', 'prune', '-f']);
    expect(stdout).toMatch(/^sha256:[0-9a-f]{64}\n\S+ given back\n$/);
    await host.cli('image', 'prune', '-af');
    expect([...inStore('blobs/sha256'), ...inStore('layers'), ...inStore('tmp')]).toEqual([]);
  });
});

describe('a large archive', () => {
  beforeAll(async () => {
    const files = Array.from({ length: 6_000 }, (_, index) => ({
      name: `d${index % 50}/f${index}`,
      content: Buffer.alloc(10_000, index),
    }));
    writeFileSync(at('large.tar'), await tarOf(files));
    expect(statSync(at('large.tar')).size).toBeGreaterThan(60_000_000);
  });

  test('does not keep the daemon from answering', async () => {
    let done = false;
    const importing = host.cli('image', 'import', '-q', at('large.tar'), 'large:1').finally(() => {
      done = true;
    });
    const times: number[] = [];
    while (!done) {
      const start = performance.now();
      await host.client.version();
      times.push(performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await importing;
    times.sort((a, b) => a - b);
    expect(times.length).toBeGreaterThan(10);
    expect(times[Math.floor(times.length * 0.95)]).toBeLessThan(250 * slowness());
    await host.cli('rmi', 'large:1');
  });

  test('is not half there after kill -9 in the middle, nor after its sender went away', async () => {
    const middle = (): boolean => inStore('tmp').some((entry) => entry.startsWith('layer-'));
    const killed = host.sluice(['image', 'import', '-q', at('large.tar'), 'large:1']);
    await eventually(middle, 10_000, 5);
    await host.daemon.kill('SIGKILL');
    expect((await killed).stderr).toMatch(/\(daemon\.unreachable\)/);
    await host.daemon.start();
    await eventually(() => inStore('tmp').length === 0);
    expect(inStore('layers')).toEqual([]);
    const sender = host.spawn([
      'sh',
      '-c',
      `SLUICE_HOST=unix://${host.socket} exec ${SLUICE} image import -q ${at('large.tar')} large:1`,
    ]);
    await eventually(middle, 10_000, 5);
    await sender.stop('SIGINT');
    await eventually(() => inStore('tmp').length === 0);
    await eventually(() => [...inStore('layers'), ...inStore('blobs/sha256')].length <= 1);
    expect(await host.json<Image[]>('image', 'ls')).toEqual([]);
    await host.cli('image', 'prune', '-af');
    expect([...inStore('layers'), ...inStore('blobs/sha256')]).toEqual([]);
    expect(readFileSync(join(host.stateDir, 'images/oci-layout'), 'utf8')).toContain('1.0.0');
  });
});
