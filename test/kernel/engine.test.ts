import { execFileSync, spawn } from 'node:child_process';
import { hash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type {
  ContainerState,
  ExecPlan,
  LogLine,
  LogOptions,
  OutputChunk,
  Streams,
} from '../../src/contracts/runtime.ts';
import { isSluiceError } from '../../src/errors.ts';
import type { ContainerSpec } from '../../src/model/container.ts';
import { EngineBed } from './engine-bed.ts';

let bed: EngineBed;
beforeAll(async () => {
  bed = new EngineBed();
  await bed.start();
});
afterAll(() => bed.close());

const ended = (id: string): Promise<ContainerState> => bed.ended(id);
const logs = (id: string): Promise<string> => bed.logs(id);

async function text(output: AsyncIterable<OutputChunk>): Promise<string> {
  let all = '';
  for await (const { stream, data } of output) all += (stream === 'stderr' ? '!' : '') + Buffer.from(data).toString();
  return all;
}

/** Runs to its end; what it wrote. */
async function run(
  command: readonly string[],
  ...rest: [Parameters<EngineBed['plan']>[1]?, Parameters<EngineBed['plan']>[2]?]
) {
  const plan = bed.plan(command, ...rest);
  await bed.runtime.create(plan);
  await bed.runtime.start(plan.id);
  const state = await ended(plan.id);
  const said = await logs(plan.id);
  await bed.runtime.delete(plan.id);
  return { ...state, said };
}

/** Runs until `use` is done with it. */
async function running<T>(
  command: readonly string[],
  use: (id: string, pid: number) => Promise<T>,
  ...rest: [Parameters<EngineBed['plan']>[1]?, Parameters<EngineBed['plan']>[2]?]
): Promise<T> {
  const plan = bed.plan(command, ...rest);
  await bed.runtime.create(plan);
  const { pid } = await bed.runtime.start(plan.id);
  try {
    return await use(plan.id, pid!);
  } finally {
    await bed.runtime.delete(plan.id);
  }
}

const FOREVER = ['sh', '-c', 'trap "exit 5" TERM; while :; do sleep 0.05; done'];
const EXEC: ExecPlan = { args: [], env: [], tty: false, privileged: false, stdin: false };

async function exec(id: string, args: readonly string[], plan: Partial<ExecPlan> = {}, input?: string) {
  const process = await bed.runtime.exec(id, { ...EXEC, args, ...plan });
  if (input !== undefined) {
    await process.write(Buffer.from(input));
    process.closeInput();
  }
  const said = await text(process.output);
  return { code: await process.exit, said };
}

/** Reads until the text is there. */
async function untilSaid(streams: Streams, wanted: string): Promise<string> {
  let all = '';
  for await (const { data } of streams.output) {
    all += Buffer.from(data).toString();
    if (all.includes(wanted)) return all;
  }
  throw new Error(`"${wanted}" was not said: ${all}`);
}

const code = (error: unknown): string => (isSluiceError(error) ? error.code : String(error));
const refusal = (work: Promise<unknown>): Promise<string> => work.then(() => 'it went well', code);

describe('a life', () => {
  test('its output, its errors and its exit status; nothing of it stays', async () => {
    const { exitCode, said } = await run(['sh', '-c', 'echo hello; echo oops >&2; hostname; id -u; exit 3']);
    expect({ exitCode, said }).toEqual({ exitCode: 3, said: expect.stringContaining('hello\n') });
    expect(said.split('\n').sort()).toEqual(['', '!oops', '0', 'box', 'hello']);
    expect(bed.traces()).toEqual([]);
  });

  test('created, started, ended: by a signal it handles, and by one that nobody can', async () => {
    await running(FOREVER, async (id) => {
      expect(await bed.runtime.state(id)).toMatchObject({ state: 'running', generation: 1, pid: expect.any(Number) });
      await sleep(100);
      await bed.runtime.kill(id, 'SIGTERM');
      expect(await ended(id)).toMatchObject({ exitCode: 5, generation: 1, oomKilled: false });
      // The dead take no harm.
      await bed.runtime.kill(id, 'SIGKILL');
    });
    await running(FOREVER, async (id) => {
      await bed.runtime.kill(id, 'SIGKILL', { all: true });
      expect(await ended(id)).toMatchObject({ exitCode: 137 });
    });
    expect(bed.traces()).toEqual([]);
  });

  test('what is not there is 127, what is no program 126, and nothing stays', async () => {
    for (const [command, wanted] of [
      [['nowhere'], 'runtime.notfound'],
      [['/bin/nowhere'], 'runtime.notfound'],
      [['/bin/plain'], 'runtime.notexecutable'],
      [['/data'], 'runtime.notexecutable'],
    ] as const) {
      const plan = bed.plan(command);
      const made = await refusal(bed.runtime.create(plan));
      expect(made === 'it went well' ? await refusal(bed.runtime.start(plan.id)) : made, String(command)).toBe(wanted);
      await bed.runtime.delete(plan.id);
    }
    expect(bed.traces()).toEqual([]);
  });

  test.each([
    ['an unknown user', { user: 'nobody-here' }],
    ['an unknown group', { user: 'root:nogroup' }],
    [
      'a missing mount source',
      { mounts: [{ type: 'bind', source: '/nowhere', target: '/x', readOnly: false, options: {} }] },
    ],
    ['more memory than there is', { memoryBytes: 2 ** 50 }],
    ['more processors than there are', { cpus: 4096 }],
    ['a capability that is none', { capAdd: ['FLY'] }],
    ['a device that is none', { devices: [{ source: '/etc/passwd', target: '/dev/x', access: 'rwm' }] }],
    ['a security option that is none', { securityOpt: ['selinux=yes'] }],
  ] as const)('%s is refused before anything is made', async (_what, spec) => {
    const plan = bed.plan(['true'], spec as Partial<ContainerSpec>);
    expect(await refusal(bed.runtime.create(plan))).toBe('runtime.spec');
    expect(await bed.runtime.state(plan.id)).toBeNull();
    expect(bed.traces()).toEqual([]);
  });

  test('a later generation takes the place of an earlier one, and the log goes on', async () => {
    const plan = bed.plan(['sh', '-c', 'echo one; sleep 100']);
    await bed.runtime.create(plan);
    await bed.runtime.start(plan.id);
    await sleep(100);
    const again = { ...plan, spec: { ...plan.spec, generation: 2, command: ['echo', 'two'] } };
    await bed.runtime.create(again);
    await bed.runtime.start(plan.id);
    expect(await ended(plan.id)).toMatchObject({ generation: 2, exitCode: 0 });
    expect(await logs(plan.id)).toBe('one\ntwo\n');
    await bed.runtime.delete(plan.id, { keepLogs: true });
    expect(await bed.runtime.state(plan.id)).toBeNull();
    await bed.runtime.delete(plan.id);
    expect(bed.traces()).toEqual([]);
  });

  test('paused and resumed', async () => {
    await running(['sh', '-c', 'while :; do echo tick; sleep 0.02; done'], async (id) => {
      await bed.runtime.pause(id);
      const before = await logs(id);
      await sleep(200);
      expect(await logs(id)).toBe(before);
      await bed.runtime.resume(id);
      await sleep(200);
      expect((await logs(id)).length).toBeGreaterThan(before.length);
    });
  });
});

describe('an init', () => {
  /** States of what has the container's first process as its parent, but for that itself. */
  const orphans = async (id: string): Promise<string[]> => {
    const { said } = await exec(id, ['sh', '-c', 'cat /proc/[0-9]*/stat 2>/dev/null']);
    // The command, in brackets, then the state and the parent.
    return [...said.matchAll(/^\d+ \(([^)]*)\) (\S) 1 /gm)].map(([, name, state]) => `${name} ${state}`);
  };
  /** Leaves a child of its own behind as an orphan that ends at once, and waits for none. */
  const NEGLECTFUL = ['sh', '-c', '(sh -c "sleep 0.1; exit 3" &); exec sleep 1000'];

  test('reaps what nobody waits for; without one it stays a zombie', async () => {
    await running(NEGLECTFUL, async (id) => {
      while (!(await orphans(id)).includes('sh Z')) await sleep(20);
      await sleep(200);
      expect(await orphans(id)).toContain('sh Z');
    });
    await running(
      NEGLECTFUL,
      async (id) => {
        while ((await orphans(id)).includes('sh S')) await sleep(20);
        await sleep(200);
        expect(await orphans(id)).toEqual(['sleep S']);
      },
      { init: true },
    );
    expect(bed.traces()).toEqual([]);
  });

  test('passes signals on to a program that is none of the kernel`s first process, and its status back', async () => {
    await running(['sleep', '1000'], async (id) => {
      // As process 1 it is deaf to what it does not handle.
      await bed.runtime.kill(id, 'SIGTERM');
      await sleep(300);
      expect(await bed.runtime.state(id)).toMatchObject({ state: 'running' });
    });
    await running(
      ['sleep', '1000'],
      async (id) => {
        await sleep(100);
        await bed.runtime.kill(id, 'SIGTERM');
        expect(await ended(id)).toMatchObject({ exitCode: 143 });
      },
      { init: true },
    );
    await running(
      ['sh', '-c', 'trap "exit 6" HUP; echo set; while :; do sleep 0.05; done'],
      async (id) => {
        while ((await logs(id)) === '') await sleep(10);
        await bed.runtime.kill(id, 'SIGHUP');
        expect(await ended(id)).toMatchObject({ exitCode: 6 });
      },
      { init: true },
    );
    expect((await run(['sh', '-c', 'exit 42'], { init: true })).exitCode).toBe(42);
    expect(bed.traces()).toEqual([]);
  });
});

describe('without the daemon', () => {
  test('it goes on; its exit status and time are true although nobody saw them; its log is whole', async () => {
    const plan = bed.plan(['sh', '-c', 'sleep 0.3; echo late; exit 7']);
    const other = bed.plan(FOREVER);
    for (const each of [plan, other]) {
      await bed.runtime.create(each);
      await bed.runtime.start(each.id);
    }
    await bed.runtime.close();
    await sleep(1_200);
    const noticed: ContainerState[] = [];
    const before = Date.now();
    await bed.start();
    bed.runtime.onExit((state) => noticed.push(state));
    expect(noticed).toEqual([expect.objectContaining({ id: plan.id, exitCode: 7, state: 'exited' })]);
    expect(before - Date.parse(noticed[0]!.exitedAt!)).toBeGreaterThan(500);
    expect(await logs(plan.id)).toBe('late\n');
    expect(await bed.runtime.state(other.id)).toMatchObject({ state: 'running' });
    await bed.runtime.kill(other.id, 'SIGTERM');
    await ended(other.id);
    expect(noticed).toHaveLength(2);
    for (const each of [plan, other]) await bed.runtime.delete(each.id);
    expect(bed.traces()).toEqual([]);
  });

  test('a monitor that is killed takes its container along, and it is noticed', async () => {
    await running(FOREVER, async (id, pid) => {
      const monitor = Number(/^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]);
      process.kill(monitor, 'SIGKILL');
      expect(await ended(id)).toMatchObject({ exitCode: 137 });
    });
    expect(bed.traces()).toEqual([]);
  });

  test('what a killed daemon left half made is taken apart', async () => {
    const plan = bed.plan(FOREVER);
    await bed.runtime.create(plan);
    await bed.runtime.start(plan.id);
    // As if it had died before it wrote down what it made.
    rmSync(join(bed.folder, 'containers', plan.id, 'state.json'));
    await bed.start();
    expect(await bed.runtime.list()).toEqual([]);
    expect(bed.traces()).toEqual([]);
    // An earlier life's log it keeps, until the container is deleted.
    await bed.runtime.delete(plan.id);
  });
});

describe('numbers that are others by now', () => {
  test('whoever has the number of a process or monitor of a half-made container is left alone', async () => {
    const stranger = spawn('sleep', ['1000'], { stdio: 'ignore' });
    const plan = bed.plan(FOREVER);
    const folder = join(bed.folder, 'containers', plan.id);
    mkdirSync(folder);
    writeFileSync(join(folder, 'plan.json'), JSON.stringify(plan));
    for (const name of ['pid', 'monitor.pid']) writeFileSync(join(folder, name), String(stranger.pid));
    await bed.start();
    expect(await bed.runtime.list()).toEqual([]);
    expect(stranger.exitCode ?? stranger.signalCode).toBeNull();
    stranger.kill('SIGKILL');
    await bed.runtime.delete(plan.id);
  });

  test('an end that the monitor wrote before the machine went down is told as it was', async () => {
    const plan = bed.plan(['sh', '-c', 'exit 9']);
    await bed.runtime.create(plan);
    const state = join(bed.folder, 'containers', plan.id, 'state.json');
    const created = readFileSync(state, 'utf8');
    await bed.runtime.start(plan.id);
    const { exitedAt } = await ended(plan.id);
    await bed.runtime.close();
    writeFileSync(state, JSON.stringify({ ...JSON.parse(created), boot: 'another', startedAt: exitedAt }));
    await bed.start();
    expect(await bed.runtime.state(plan.id)).toMatchObject({ state: 'exited', exitCode: 9, exitedAt });
    await bed.runtime.delete(plan.id);
  });

  test('signals by name and number; one that is none is refused', async () => {
    await running(['sh', '-c', 'trap "exit 6" 37; echo set; while :; do sleep 0.05; done'], async (id) => {
      expect(await refusal(bed.runtime.kill(id, 'SIGFOO'))).toBe('runtime.spec');
      while ((await logs(id)) === '') await sleep(10);
      await bed.runtime.kill(id, 'RTMIN+3');
      expect(await ended(id)).toMatchObject({ exitCode: 6 });
    });
    await running(FOREVER, async (id) => {
      await bed.runtime.kill(id, '9');
      expect(await ended(id)).toMatchObject({ exitCode: 137 });
    });
  });
});

describe('streams', () => {
  test('attached before its first instruction: input, output, end of input', async () => {
    const plan = bed.plan(['sh', '-c', 'echo ready; cat; echo end >&2'], { stdin: true });
    await bed.runtime.create(plan);
    const streams = await bed.runtime.attach(plan.id);
    await bed.runtime.start(plan.id);
    await streams.write(Buffer.from('to and fro\n'));
    await sleep(200);
    streams.detach();
    expect(await bed.runtime.state(plan.id)).toMatchObject({ state: 'running' });
    const again = await bed.runtime.attach(plan.id);
    await again.write(Buffer.from('once more\n'));
    expect(await untilSaid(again, 'once more\n')).toBe('once more\n');
    await bed.runtime.kill(plan.id, 'SIGKILL');
    await ended(plan.id);
    expect(await logs(plan.id)).toBe('ready\nto and fro\nonce more\n');
    await bed.runtime.delete(plan.id);
  });

  test('a terminal of its own, with a size', async () => {
    const plan = bed.plan(['sh', '-c', 'read line; stty size; tty'], { tty: true, stdin: true });
    await bed.runtime.create(plan);
    const streams = await bed.runtime.attach(plan.id);
    await bed.runtime.start(plan.id);
    await sleep(100);
    streams.resize(101, 37);
    await sleep(100);
    await streams.write(Buffer.from('go\n'));
    expect(await untilSaid(streams, 'pts')).toContain('37 101\r\n');
    await ended(plan.id);
    await bed.runtime.delete(plan.id);
  });

  test('a log that is followed, its last lines, and since when', async () => {
    await running(['sh', '-c', 'for i in 1 2 3; do echo line $i; sleep 0.2; done; printf part; exit 0'], async (id) => {
      const all: LogLine[] = [];
      for await (const line of bed.runtime.logs(id, { follow: true, signal: AbortSignal.timeout(10_000) }))
        all.push(line);
      expect(all.map(({ text: words }) => words)).toEqual(['line 1\n', 'line 2\n', 'line 3\n', 'part']);
      const read = async (options: Partial<LogOptions>) => {
        const found: string[] = [];
        const signal = new AbortController().signal;
        for await (const line of bed.runtime.logs(id, { follow: false, signal, ...options })) found.push(line.text);
        return found;
      };
      expect(await read({ tail: 2 })).toEqual(['line 3\n', 'part']);
      expect(await read({ since: Date.parse(all[1]!.time) })).toHaveLength(3);
      expect(await read({ until: Date.parse(all[0]!.time) })).toHaveLength(1);
      expect(await read({ tail: 0 })).toEqual([]);
    });
  });
});

describe('exec', () => {
  test('output, input, exit status, user and folder; 127 and 126', async () => {
    await running(FOREVER, async (id) => {
      expect(await exec(id, ['sh', '-c', 'echo in; echo err >&2; exit 4'])).toMatchObject({ code: 4 });
      expect(await exec(id, ['cat'], { stdin: true }, 'given\n')).toEqual({ code: 0, said: 'given\n' });
      const who = await exec(id, ['sh', '-c', 'id -u; id -G; echo $HOME; echo $PWD; echo $X'], {
        user: 'web',
        workdir: '/tmp',
        env: ['X=y'],
      });
      expect(who.said).toBe('1000\n1000 44\n/data\n/tmp\ny\n');
      expect(await exec(id, ['nowhere'])).toMatchObject({ code: 127 });
      expect(await exec(id, ['/bin/plain'])).toMatchObject({ code: 126 });
    });
  });

  test('a terminal, with a size that changes, and a signal', async () => {
    await running(FOREVER, async (id) => {
      const shell = await bed.runtime.exec(id, { ...EXEC, args: ['sh'], tty: true, stdin: true });
      shell.resize(120, 40);
      await sleep(100);
      await shell.write(Buffer.from('stty size; exit 9\n'));
      expect(await text(shell.output)).toContain('40 120\r\n');
      expect(await shell.exit).toBe(9);
      const sleeper = await bed.runtime.exec(id, { ...EXEC, args: ['sleep', '100'] });
      await sleep(300);
      sleeper.kill('SIGKILL');
      expect(await sleeper.exit).toBe(137);
    });
  });
});

describe('looking', () => {
  test('processes and what they use', async () => {
    await running(
      FOREVER,
      async (id, pid) => {
        expect(await bed.runtime.processes(id)).toContainEqual({ pid, user: 'root', command: FOREVER.join(' ') });
        const { cpuNs, memoryBytes, pids, memoryLimit } = await bed.runtime.stats(id);
        expect(cpuNs).toBeGreaterThan(0);
        expect(memoryBytes).toBeGreaterThan(0);
        expect(pids).toBeGreaterThanOrEqual(1);
        expect(memoryLimit).toBe(64 << 20);
      },
      { memoryBytes: 64 << 20 },
    );
  });

  test('files in and out', async () => {
    const tar = async function* (from: string, name: string) {
      yield execFileSync('tar', ['-C', from, '-c', name]);
    };
    const plan = bed.plan(FOREVER);
    await bed.runtime.create(plan);
    await bed.runtime.start(plan.id);
    writeFileSync(join(bed.folder, 'note'), 'a note');
    await bed.runtime.copyIn(plan.id, plan.rootfs, '/data', tar(bed.folder, 'note'));
    expect((await exec(plan.id, ['cat', '/data/note'])).said).toBe('a note');
    const chunks: Uint8Array[] = [];
    for await (const chunk of bed.runtime.copyOut(plan.id, plan.rootfs, '/data/note')) chunks.push(chunk);
    expect(execFileSync('tar', ['-xO', 'note'], { input: Buffer.concat(chunks) }).toString()).toBe('a note');
    const missing = async (): Promise<void> => {
      for await (const _ of bed.runtime.copyOut(plan.id, plan.rootfs, '/nowhere')) break;
    };
    expect(await refusal(missing())).toBe('runtime.notfound');
    expect(await refusal(bed.runtime.copyIn(plan.id, plan.rootfs, '/nowhere', tar(bed.folder, 'note')))).toBe(
      'runtime.notfound',
    );
    await bed.runtime.kill(plan.id, 'SIGKILL');
    await ended(plan.id);
    // Stopped: its file system as it lies there.
    const again: Uint8Array[] = [];
    for await (const chunk of bed.runtime.copyOut(plan.id, plan.rootfs, '/data')) again.push(chunk);
    expect(execFileSync('tar', ['-t'], { input: Buffer.concat(again) }).toString()).toContain('data/note');
    await bed.runtime.delete(plan.id);
  });
});

describe('limits', () => {
  test('memory: the one who takes too much is killed, and it is told', async () => {
    const { exitCode, oomKilled } = await run(
      [
        'sh',
        '-c',
        'head -c 64m /dev/zero | tail -c 60m | wc -c & wait; dd if=/dev/zero of=/dev/shm/x bs=1M count=60; exit 0',
      ],
      {
        memoryBytes: 24 << 20,
      },
    );
    expect(exitCode === 137 || oomKilled).toBe(true);
  });

  test('processes: a bomb ends at the limit', async () => {
    const { said } = await run(['sh', '-c', 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done; wait'], {
      pidsMax: 6,
    });
    expect(said).toContain("can't fork");
  });
});

describe('strict by default', () => {
  const cannot: [string, string][] = [
    ['mount', 'mount -t tmpfs none /tmp'],
    ['make a user namespace', 'unshare -U true'],
    ['make a mount namespace', 'unshare -m true'],
    ['read the kernel memory', 'head -c 1 /proc/kcore | wc -c | grep -qx 1'],
    ['write kernel settings', 'echo 1 > /proc/sys/kernel/panic'],
    ['write to the bus', 'echo x > /proc/sysrq-trigger'],
    ['write cgroups', 'mkdir /sys/fs/cgroup/x 2>/dev/null || mkdir /sys/fs/cgroup/memory/x'],
    ['open a disk', 'mknod /tmp/sda b 8 0 && head -c 1 /tmp/sda'],
    ['set the clock', 'date -s 2000-01-01 >/dev/null 2>&1; date | grep -q 2000'],
    ['load a module', 'insmod /bin/plain'],
    ['see the host', 'test -e /proc/1/root/usr/bin/apt-get'],
  ];
  test.each(cannot)('it cannot %s', async (_what, command) => {
    expect((await run(['sh', '-c', `(${command}) && echo ESCAPED; true`])).said).not.toContain('ESCAPED');
  });

  test('capabilities, no new privileges, a filter; a user other than root has none', async () => {
    const status = 'grep -E "^(CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status';
    const fields = async (spec: Partial<ContainerSpec>): Promise<string> =>
      (await run(['sh', '-c', status], spec)).said.replace(/\t/g, '').replace(/\n/g, ' ').trim();
    expect(await fields({})).toBe('CapEff:00000000a80425fb CapBnd:00000000a80425fb NoNewPrivs:1 Seccomp:2');
    expect(await fields({ user: 'web' })).toBe(
      'CapEff:0000000000000000 CapBnd:00000000a80425fb NoNewPrivs:1 Seccomp:2',
    );
    expect(await fields({ capDrop: ['ALL'], capAdd: ['NET_RAW'] })).toContain('CapEff:0000000000002000');
    expect(await fields({ securityOpt: ['no-new-privileges=false', 'seccomp=unconfined'] })).toMatch(
      /NoNewPrivs:0 Seccomp:0$/,
    );
    const own = /^CapBnd:\s*(\w+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))![1];
    expect(await fields({ privileged: true })).toBe(`CapEff:${own} CapBnd:${own} NoNewPrivs:0 Seccomp:0`);
  });

  test.each([false, true])(
    'the programs that run it are out of its reach by /proc (privileged: %s)',
    async (privileged) => {
      const programs = ['runc', 'crun', 'conmon'].flatMap((name) =>
        ['/usr/bin', '/usr/sbin'].map((folder) => join(folder, name)).filter((path) => existsSync(path)),
      );
      const now = (): string[] => programs.map((path) => hash('sha256', readFileSync(path)));
      const before = now();
      expect(programs.length).toBeGreaterThan(1);
      // What the runtime executes at last is then itself: a copy, or a file that nobody can open for writing.
      const again = run(['/proc/self/exe', '--version'], { privileged }).then(
        ({ exitCode }) => exitCode,
        () => 'refused',
      );
      const write =
        'for exe in /proc/[0-9]*/exe /proc/self/exe; do (echo evil >>$exe) 2>/dev/null && echo "WROTE $exe"; done';
      const script = "printf '#!/proc/self/exe\\n' >/tmp/x; chmod +x /tmp/x; /tmp/x 2>/dev/null";
      expect((await run(['sh', '-c', `${write}; ${script}; true`], { privileged })).said).not.toContain('WROTE');
      await again;
      expect(now()).toEqual(before);
    },
  );

  test('a user namespace: root inside is nobody outside', async () => {
    const plan = bed.plan(['sh', '-c', 'id -u; cat /proc/self/uid_map; sleep 100'], {}, { shift: 1 << 20 });
    execFileSync('chown', ['-R', `${1 << 20}:${1 << 20}`, plan.rootfs]);
    await bed.runtime.create(plan);
    const { pid } = await bed.runtime.start(plan.id);
    await sleep(200);
    expect((await logs(plan.id)).split(/\s+/).filter(Boolean)).toEqual(['0', '0', String(1 << 20), '65536']);
    expect(/^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]).toBe(String(1 << 20));
    await bed.runtime.delete(plan.id);
  });

  test('a read-only root, mounts of all kinds, links in their targets lead nowhere outside', async () => {
    const host = join(bed.folder, 'host');
    mkdirSync(host, { recursive: true });
    writeFileSync(join(host, 'file'), 'from the host');
    const plan = bed.plan(
      [
        'sh',
        '-c',
        'touch /x; cat /in/file; touch /in/y; touch /vol/z && echo made; touch /t/t && echo temp; cat /evil/file',
      ],
      {
        readOnly: true,
        mounts: [
          { type: 'bind', source: host, target: '/in', readOnly: true, options: {} },
          { type: 'volume', source: 'v', target: '/vol', readOnly: false, options: {} },
          { type: 'tmpfs', target: '/t', readOnly: false, options: { size: '1m' } },
          { type: 'bind', source: host, target: '/evil', readOnly: true, options: {} },
        ],
      },
      { volumes: { v: host } },
    );
    const outside = join(bed.folder, 'outside');
    mkdirSync(outside);
    symlinkSync(outside, join(plan.rootfs, 'evil'));
    for (const name of ['in', 'vol', 't']) mkdirSync(join(plan.rootfs, name));
    await bed.runtime.create(plan);
    await bed.runtime.start(plan.id);
    await ended(plan.id);
    const said = await logs(plan.id);
    expect(said).toContain('from the host');
    expect(said).toContain('made\n');
    expect(said).toContain('temp\n');
    expect(said.match(/Read-only file system/g)).toHaveLength(2);
    expect(readdirSync(outside)).toEqual([]);
    await bed.runtime.delete(plan.id);
  });

  test('a copy follows no link out of the container, neither way', async () => {
    const plan = bed.plan(FOREVER);
    const outside = join(bed.folder, 'secret');
    mkdirSync(outside, { recursive: true });
    writeFileSync(join(outside, 'key'), 'secret');
    symlinkSync(outside, join(plan.rootfs, 'way'));
    await bed.runtime.create(plan);
    await bed.runtime.start(plan.id);
    const out = async (): Promise<void> => {
      for await (const _ of bed.runtime.copyOut(plan.id, plan.rootfs, '/way/key')) break;
    };
    expect(await refusal(out())).toBe('runtime.notfound');
    const evil = async function* () {
      yield execFileSync('sh', [
        '-c',
        `mkdir -p ${bed.folder}/t/way && echo x > ${bed.folder}/t/way/planted && tar -C ${bed.folder}/t -c way/planted`,
      ]);
    };
    await bed.runtime.copyIn(plan.id, plan.rootfs, '/', evil()).catch(() => undefined);
    const climb = async function* () {
      yield execFileSync('sh', [
        '-c',
        `tar -C ${bed.folder}/t -P -c --transform 's,^way,../../..${outside},' way/planted`,
      ]);
    };
    await bed.runtime.copyIn(plan.id, plan.rootfs, '/', climb()).catch(() => undefined);
    expect(readdirSync(outside)).toEqual(['key']);
    await bed.runtime.delete(plan.id);
  });
});

test('nothing is left of all this', async () => {
  expect(await bed.runtime.list()).toEqual([]);
  expect(bed.traces()).toEqual([]);
  expect(readdirSync(join(bed.folder, 'containers'))).toEqual(['exits']);
  expect(readdirSync(join(bed.folder, 'containers/exits'))).toEqual([]);
});
