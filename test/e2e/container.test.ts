/** Containers end to end: the compiled daemon and command line, crun or runc under conmon, an image of busybox. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { projectRoot } from '../../src/lab/daemon.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { type ContainerHost, openContainerHost } from './container-host.ts';
import { eventually } from './harness.ts';
import { PYTHON } from './traffic.ts';

let host: ContainerHost;
beforeAll(async () => {
  host = await openContainerHost('box');
  await host.cli('network', 'create', '--subnet', '10.20.0.0/24', 'web');
});
afterAll(() => host.close());

const run = (...words: string[]) => host.sluice(['run', '--rm', '--network', 'web', ...words]);

describe('run', () => {
  test('in its own namespaces, on its network, found by name', async () => {
    const id = await host.cli(
      'run',
      '-d',
      '--name',
      'api',
      '--network',
      'web',
      'busybox',
      'httpd',
      '-f',
      '-p',
      '80',
      '-h',
      '/etc',
    );
    expect(id).toMatch(/^[0-9a-f]{64}$/);
    const got = await run('busybox', 'wget', '-qO-', 'http://api/passwd');
    expect(got).toMatchObject({ code: 0, stdout: expect.stringContaining('root:x:0:0') });
    const inside = await run(
      '--hostname',
      'inner',
      '-e',
      'A=1',
      '-w',
      '/tmp',
      '-u',
      'web',
      '--add-host',
      'gate:10.9.9.9',
      'busybox',
      'sh',
      '-c',
      'hostname; pwd; id -un; echo $A; grep gate /etc/hosts; cat /etc/resolv.conf; ls /proc | grep -c "^[0-9]"',
    );
    expect(inside.stdout.split('\n').slice(0, 5)).toEqual(['inner', '/tmp', 'web', '1', '10.9.9.9\tgate']);
    expect(inside.stdout).toContain('nameserver 127.0.0.11');
    // The shell, ls and grep.
    expect(Number(inside.stdout.trimEnd().split('\n').at(-1))).toBeLessThanOrEqual(3);
    await host.cli('rm', '-f', 'api');
    // Busybox's own limit, `wget -T`, ends the static program with SIGSEGV.
    expect((await run('busybox', 'timeout', '2', 'wget', '-qO-', 'http://api/')).code).toBe(1);
  });

  test('output and exit status are its own; 127, 126 and 125 are not', async () => {
    expect(await run('busybox', 'sh', '-c', 'echo out; echo err >&2; exit 42')).toEqual({
      code: 42,
      stdout: 'out\n',
      stderr: 'err\n',
    });
    expect((await run('busybox', 'nosuch')).code).toBe(127);
    expect((await run('busybox', '/etc/passwd')).code).toBe(126);
    expect((await run('--pull', 'never', 'nosuch:1', 'true')).code).toBe(125);
    expect((await run('-v', '/nosuch/folder:/x', 'busybox', 'true')).code).toBe(125);
    expect((await run('-u', 'nobody-here', 'busybox', 'true')).code).toBeGreaterThanOrEqual(125);
    const piped = await host.sluice(['run', '--rm', '-i', '--network', 'none', 'busybox', 'wc', '-c'], {
      input: 'x'.repeat(100_000),
    });
    expect(piped).toMatchObject({ code: 0, stdout: '100000\n' });
    await eventually(async () => (await host.cli('ps', '-aq')) === '');
  });

  test('limits hold', async () => {
    const memory = await run(
      '--memory',
      '16m',
      'busybox',
      'sh',
      '-c',
      'dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?',
    );
    expect(memory.stdout.trim() === '0').toBe(false);
    const processes = await run(
      '--pids-limit',
      '5',
      'busybox',
      'sh',
      '-c',
      'for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait',
    );
    expect(processes.stderr).toMatch(/can't fork|Resource temporarily unavailable/);
    expect((await run('--read-only', 'busybox', 'touch', '/x')).code).toBe(1);
    expect((await run('--read-only', '--tmpfs', '/run:size=1m', 'busybox', 'touch', '/run/x')).code).toBe(0);
    expect((await run('--cap-drop', 'ALL', 'busybox', 'chown', 'web', '/etc/passwd')).code).toBe(1);
  });

  test('the environment of a file, and what comes later wins', async () => {
    const file = join(host.folder, 'env');
    writeFileSync(file, '# of the shop\nA=of the file\n\nB=b=c\nHOME\nSLUICE_TEST_ABSENT\n');
    const inside = await run('--env-file', file, '-e', 'A=given', 'busybox', 'env');
    const lines = inside.stdout.split('\n');
    expect(lines).toEqual(expect.arrayContaining(['A=given', 'B=b=c', `HOME=${process.env.HOME}`]));
    expect(inside.stdout).not.toMatch(/of the file|SLUICE_TEST_ABSENT/);
    expect(await run('--env-file', join(host.folder, 'nosuch'), 'busybox', 'env')).toMatchObject({
      code: 125,
      stderr: expect.stringContaining('--env-file: ENOENT'),
    });
  });

  test('a device of the host, as far as it was given', async () => {
    // Opened, never written to.
    const use = 'test -c /dev/log && exec 3>/dev/log && echo writes; exec 4</dev/log && echo reads';
    const given = await run('--device', '/dev/kmsg:/dev/log:w', 'busybox', 'sh', '-c', use);
    expect(given).toMatchObject({ stdout: 'writes\n', stderr: expect.stringContaining('Operation not permitted') });
    // Not given: a node of it can be made, and is of no use.
    const made = await run('busybox', 'sh', '-c', 'mknod /log c 1 11 && echo made; exec 3>/log && echo writes');
    expect(made).toMatchObject({ stdout: 'made\n', stderr: expect.stringContaining('Operation not permitted') });
    for (const source of ['/etc/passwd', '/dev/nosuch'])
      expect(await run('--device', source, 'busybox', 'true')).toMatchObject({
        code: 125,
        stderr: expect.stringContaining(source),
      });
  });

  test("the image's own settings hold", async () => {
    await host.image(
      'server:1',
      {
        Entrypoint: ['echo', 'entry'],
        Cmd: ['cmd'],
        Env: ['PATH=/bin', 'WHO=image'],
        User: 'web',
        WorkingDir: '/home',
        Volumes: { '/data': {} },
      },
      { 'data/kept': 'from the image\n' },
    );
    expect((await run('server:1')).stdout).toBe('entry cmd\n');
    expect((await run('server:1', 'own')).stdout).toBe('entry own\n');
    await host.cli('run', '-d', '--name', 'plain', '--network', 'web', 'server:1');
    expect(await host.cli('ps', '-a', '--format', '{{.Names}} {{.Command}}')).toBe('plain "echo entry cmd"');
    expect(await host.cli('inspect', '--format', '{{json .Status.Detail.Args}}', 'plain')).toBe(
      '["echo","entry","cmd"]',
    );
    await host.cli('rm', '-fv', 'plain');
    const own = await run('--entrypoint', 'sh', 'server:1', '-c', 'id -un; pwd; echo $WHO; cat /data/kept');
    expect(own.stdout).toBe('web\n/home\nimage\nfrom the image\n');
    await eventually(async () => (await host.cli('volume', 'ls', '-q')) === '');
  });

  test('what goes with its process is gone when the command ends: its name and its volume are free', async () => {
    for (let n = 0; n < 5; n++) {
      await host.cli('run', '--rm', '--name', 'brief', '--network', 'none', '-v', 'held:/held', 'busybox', 'true');
      expect(await host.cli('ps', '-aq')).toBe('');
      await host.cli('volume', 'rm', 'held');
    }
  });
});

describe('a life', () => {
  test('stop, start, restart, kill, wait, rename, logs', async () => {
    const loop = 'trap "echo asked; exit 7" TERM; echo began; while :; do sleep 0.1; done';
    await host.cli('run', '-d', '--name', 'life', '--network', 'web', 'busybox', 'sh', '-c', loop);
    await eventually(async () => (await host.cli('logs', 'life')) === 'began');
    await host.cli('stop', 'life');
    expect(await host.cli('wait', 'life')).toBe('7');
    expect(await host.cli('logs', 'life')).toBe('began\nasked');
    await host.cli('start', 'life');
    expect((await host.detail('life')).phase).toBe('running');
    await host.cli('rename', 'life', 'other');
    expect((await run('busybox', 'nslookup', 'other')).code).toBe(0);
    await eventually(async () => (await host.cli('logs', 'other')).match(/began/g)?.length === 2);
    await host.cli('restart', 'other');
    await host.cli('kill', 'other');
    expect(await host.cli('wait', 'other')).toBe('137');
    expect(await host.cli('ps', '-a', '--format', '{{.Names}} {{.Status}}')).toMatch(/^other Exited \(137\)/);
    await host.cli('rm', 'other');
  });

  test('restart policies start it again, as often as they say', async () => {
    const counting = ['-v', 'count:/count', 'busybox', 'sh', '-c', 'echo x >> /count/lives; exit 3'];
    await host.cli('run', '-d', '--name', 'again', '--network', 'none', '--restart', 'on-failure:2', ...counting);
    await eventually(
      async () => (await host.detail('again')).restarts === 2 && (await host.detail('again')).phase === 'exited',
    );
    expect(await host.detail('again')).toMatchObject({ exitCode: 3 });
    const lives = await run('-v', 'count:/count', 'busybox', 'cat', '/count/lives');
    expect(lives.stdout).toBe('x\nx\nx\n');
    await host.cli('rm', 'again');
    await host.cli('volume', 'rm', 'count');
  });

  test('health: of a server that is well, and then is not', async () => {
    await host.cli(
      'run',
      '-d',
      '--name',
      'well',
      '--network',
      'none',
      '--health-cmd',
      'test -e /tmp/well',
      '--health-interval',
      '100ms',
      '--health-retries',
      '2',
      '--health-start-period',
      '20s',
      'busybox',
      'sleep',
      '100',
    );
    expect((await host.detail('well')).health).toBe('starting');
    await host.cli('exec', 'well', 'touch', '/tmp/well');
    await eventually(async () => (await host.detail('well')).health === 'healthy');
    expect(await host.cli('ps')).toContain('(healthy)');
    await host.cli('exec', 'well', 'rm', '/tmp/well');
    await eventually(async () => (await host.detail('well')).health === 'unhealthy');
    await host.cli('rm', '-f', 'well');
  });
});

describe('reaching inside', () => {
  const sandboxId = async (name: string): Promise<string> =>
    (await host.json<[{ id: string }]>('sandbox', 'inspect', name))[0].id;

  test('exec, top, stats, cp', async () => {
    await host.cli('run', '-d', '--name', 'box', '--network', 'web', '-e', 'A=1', 'busybox', 'sleep', '100');
    expect(
      await host.sluice(['exec', '-e', 'B=2', '-w', '/tmp', 'box', 'sh', '-c', 'echo $A$B; pwd; exit 5']),
    ).toMatchObject({ code: 5, stdout: '12\n/tmp\n' });
    expect((await host.sluice(['exec', '-i', 'box', 'cat'], { input: 'typed' })).stdout).toBe('typed');
    expect((await host.sluice(['exec', 'box', 'nosuch'])).code).toBe(127);
    // A program of the host in the container's sandbox, where v2 has the controllers as where v1 has them.
    expect(await host.cli('sandbox', 'exec', 'box', 'cat', '/proc/self/cgroup')).toContain(await sandboxId('box'));
    expect(await host.cli('top', 'box')).toMatch(/sleep 100/);
    expect(await host.cli('stats', '--no-stream', 'box')).toMatch(/box .*KiB|MiB/);
    mkdirSync(join(host.folder, 'tree/sub'), { recursive: true });
    writeFileSync(join(host.folder, 'tree/sub/file'), 'text');
    await host.cli('cp', join(host.folder, 'tree'), 'box:/home/');
    expect(await host.cli('exec', 'box', 'cat', '/home/tree/sub/file')).toBe('text');
    await host.cli('exec', 'box', 'sh', '-c', 'echo more > /home/tree/more; ln -s /etc/passwd /home/tree/link');
    await host.cli('cp', 'box:/home/tree', join(host.folder, 'back'));
    expect(readdirSync(join(host.folder, 'back')).sort()).toEqual(['link', 'more', 'sub']);
    expect(readFileSync(join(host.folder, 'back/more'), 'utf8')).toBe('more\n');
    expect((await host.sluice(['cp', 'box:/nosuch', host.folder])).stderr).toContain('there is no /nosuch');
    await host.cli('rm', '-f', 'box');
  });

  test('a terminal: its size, ctrl-c, the keys that let go, attached again', async () => {
    const cli = JSON.stringify([join(projectRoot(), 'bin/sluice')]);
    const script = join(host.folder, 'terminal.py');
    writeFileSync(
      script,
      `
import fcntl, json, os, pty, select, struct, sys, termios, time
pid, fd = pty.fork()
if pid == 0:
    cli = ${cli}
    os.execvp(cli[0], cli + sys.argv[1].split(' '))
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 101, 0, 0))
seen = b''
limit = 15 * ${slowness()}
def until(text):
    global seen
    end = time.time() + limit
    while text not in seen:
        if time.time() > end: sys.exit('no %r in %r' % (text, seen))
        if select.select([fd], [], [], 0.1)[0]:
            try: seen += os.read(fd, 65536)
            except OSError: break
    if text not in seen: sys.exit('ended without %r: %r' % (text, seen))
    seen = seen[seen.index(text) + len(text):]
for step in json.loads(sys.argv[2]):
    if 'see' in step: until(step['see'].encode())
    if 'size' in step: fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', step['size'][0], step['size'][1], 0, 0)); os.kill(pid, 28)
    time.sleep(step.get('wait', 0))
    if 'type' in step: os.write(fd, step['type'].encode())
end = time.time() + limit
while time.time() < end:
    if select.select([fd], [], [], 0.1)[0]:
        try:
            more = os.read(fd, 65536)
            if not more: break
            seen += more
        except OSError: break
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print('status', code if code != 1 else seen)
`,
    );
    const terminal = async (words: string, steps: readonly object[]) => {
      const env = { SLUICE_HOST: `unix://${host.socket}`, TERM: 'xterm' };
      return host.must([PYTHON, script, words, JSON.stringify(steps)], { env, timeoutMs: 40_000 });
    };
    const out = await terminal('run -it --name term --network none busybox sh', [
      { see: '# ' },
      { type: 'stty size; tty\n' },
      { see: '33 101' },
      { see: '/dev/pts/0' },
      { size: [44, 155] },
      { type: 'sleep 1; stty size\n' },
      { see: '44 155' },
      { type: 'sleep 100\n' },
      { see: 'sleep 100' },
      { wait: 0.5, type: '\u0003' },
      { see: '# ' },
      { type: 'X=kept\n\u0010\u0011' },
    ]);
    expect(out.trim()).toBe('status 0');
    expect((await host.detail('term')).phase).toBe('running');
    const back = await terminal('attach term', [
      { type: 'echo $X-still\n' },
      { see: 'kept-still' },
      { type: 'exit 9\n' },
    ]);
    expect(back.trim()).toBe('status 9');
    const inside = await terminal('run --rm -it --network none busybox sh', [{ see: '# ' }, { type: 'exit 3\n' }]);
    expect(inside.trim()).toBe('status 3');
    await host.cli('rm', 'term');
  });

  test('what a container has is gone with it', async () => {
    await host.cli('run', '-d', '--name', 'gone', '--network', 'web', 'busybox', 'sleep', '100');
    const [{ id, spec }] = await host.json<[{ id: string; spec: { sandbox: string } }]>('container', 'inspect', 'gone');
    expect(readFileSync('/proc/mounts', 'utf8')).toContain(id);
    await host.cli('rm', '-f', 'gone');
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(id);
    expect(existsSync(join(host.runDir, 'netns', spec.sandbox))).toBe(false);
    expect(existsSync(join(host.stateDir, 'containers', id))).toBe(false);
    expect(await host.cli('sandbox', 'ls', '-q')).toBe('');
  });
});
