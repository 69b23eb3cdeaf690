/** Container commands against the real API and controllers, over a runtime in memory. */
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pack } from 'tar-stream';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { packed, unpack } from '../../src/cli/container/archive.ts';
import { cpuShare, sizeText } from '../../src/cli/container/stats.ts';
import type { Input, Terminal } from '../../src/cli/print/terminal.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Container } from '../../src/model/container.ts';
import { unplacedKey } from '../../src/model/keys.ts';
import type { View } from '../../src/model/request.ts';
import type { Service } from '../../src/model/service.ts';
import { makeFolder } from '../folder.ts';
import { CliWorld } from './cli-world.ts';
import { type ContainerBed, openContainerBed } from './container-bed.ts';

const cli = new CliWorld();
let bed: ContainerBed;
beforeAll(async () => {
  bed = await openContainerBed(cli.world);
  cli.world.live = bed.live;
  await cli.open({
    wants: (request) => bed.streams.wants(request),
    accept: (...connection) => bed.streams.accept(...connection),
  });
  await cli.must('network create web --subnet 10.20.0.0/24');
  cli.world.images.put('busybox');
});
afterAll(async () => {
  await cli.close();
  await bed.close();
});
beforeEach(() => {
  bed.runtime.calls.length = 0;
  bed.runtime.program = () => ({ exitCode: 0 });
});

const view = async (name: string): Promise<View<Container>> =>
  (JSON.parse(await cli.must(['container', 'inspect', name])) as View<Container>[])[0]!;
/** When a container of the name runs, does this to it. */
async function meanwhile(name: string, act: (id: string) => void): Promise<void> {
  for (let n = 0; n < 500; n++) {
    const found = (await cli.world.state.containers.list()).find((one) => one.name === name);
    if (found && (await bed.runtime.state(found.id))?.state === 'running') return act(found.id);
    await sleep(5);
  }
  throw new Error(`${name} never ran`);
}
function typed(...chunks: string[]): Input & { readonly did: string[] } {
  const did: string[] = [];
  return {
    did,
    isTerminal: true,
    bytes: (async function* () {
      for (const chunk of chunks) yield Buffer.from(chunk);
    })(),
    raw: (on) => void did.push(`raw ${on}`),
    size: () => ({ columns: 100, rows: 30 }),
    onResize: () => () => void did.push('no more resizing'),
    close: () => void did.push('closed'),
  };
}

describe('run', () => {
  test('detached: prints the id when it runs; ps, inspect and rm know it by name', async () => {
    const out = await cli.must(
      'run -d --name api --network web --ip 10.20.0.9 -e A=1 -l team=shop busybox httpd -f -p 80',
    );
    expect(out).toMatch(/^[0-9a-f]{64}\n$/);
    const { spec, labels, status } = await view('api');
    expect(spec).toMatchObject({ command: ['httpd', '-f', '-p', '80'], env: ['A=1'], wanted: 'running' });
    expect([labels, status?.detail.phase]).toEqual([{ team: 'shop' }, 'running']);
    const ps = await cli.must('ps');
    expect(ps).toMatch(/^CONTAINER ID {2}IMAGE {4}COMMAND/);
    expect(ps).toMatch(/busybox {2}"httpd -f -p 80" +\S.* ago +Up \d+ seconds? +api\n/);
    expect(await cli.must('ps -q')).toBe(`${out.slice(0, 12)}\n`);
    expect(await cli.must('ps --filter label=team=shop --format {{.Names}}')).toBe('api\n');
    expect(await cli.must('ps --filter label=team=other -q')).toBe('');
    expect(JSON.parse(await cli.must('inspect api'))).toHaveLength(1);
    expect((await cli.sluice('sandbox rm api')).err).toContain('object.inuse');
    expect((await cli.sluice('rm api')).err).toContain('container.running');
    expect(await cli.must('rm -f api')).toBe('api\n');
    expect((await cli.sluice('rm api')).status).toBe(1);
    expect(await cli.must('rm -f api')).toBe('api\n');
  });

  test('ps shows what runs as Docker does, the image’s own words included; inspect shows all of it', async () => {
    cli.world.images.put('app', { entrypoint: ['/entry.sh'], command: ['serve', 'a b'] });
    await cli.must('run -d --name own --network web app');
    await cli.must('create --name short --network web --entrypoint /bin/cat app');
    await cli.must(['create', '--name', 'said', '--network', 'web', 'app', 'say "hi"\n']);
    await cli.must('create --name whole --network web --entrypoint /entry.sh app 12345678 0');
    bed.runtime.refuseStart(new SluiceError('runtime.notfound', 'no such program'));
    await cli.sluice('run -d --name never --network web --entrypoint /none app');
    const shown = async (...flags: string[]): Promise<Record<string, string>> => {
      const out = await cli.must(['ps', '-a', ...flags, '--format', '{{.Names}} {{.Command}}']);
      return Object.fromEntries(out.split('\n').flatMap((line) => (line ? [line.split(/ (.*)/s).slice(0, 2)] : [])));
    };
    expect(await shown()).toEqual({
      never: '"/none"',
      own: '"/entry.sh serve \'a …"',
      said: '"/entry.sh \'say \\"hi\\"…"',
      short: '"/bin/cat"',
      whole: '"/entry.sh 12345678 0"',
    });
    expect(await shown('--no-trunc')).toMatchObject({
      own: '"/entry.sh serve \'a b\'"',
      said: '"/entry.sh \'say \\"hi\\"\\n\'"',
    });
    expect(await cli.must('ps -a')).toContain(' app    "/entry.sh serve \'a …"  ');
    expect((await view('own')).status?.detail.args).toEqual(['/entry.sh', 'serve', 'a b']);
    expect((await view('short')).status?.detail.args).toEqual(['/bin/cat']);
    await cli.must('rm -f never own said short whole');
  });

  test('in the foreground: its output, its exit status, and nothing left with --rm', async () => {
    const acting = meanwhile('job', (id) => {
      bed.runtime.say(id, 'to out\n');
      bed.runtime.say(id, 'to err\n', 'stderr');
      bed.runtime.exit(id, 42);
    });
    const said = await cli.sluice('run --rm --name job --network web busybox work');
    await acting;
    expect(said).toEqual({ status: 42, out: 'to out\n', err: 'to err\n' });
    expect(await cli.must('ps -aq')).toBe('');
  });

  test.each([
    ['runtime.notfound', 127],
    ['runtime.notexecutable', 126],
    ['runtime.failed', 125],
  ] as const)('%s is exit status %i, detached or not', async (code, status) => {
    for (const flag of ['-d', '--rm']) {
      bed.runtime.refuseStart(new SluiceError(code, 'no such program'));
      const said = await cli.sluice(`run ${flag} --name gone --network web busybox nosuch`);
      expect(said).toMatchObject({ status, out: '' });
      expect(said.err).toContain(`no such program (${code})`);
      await cli.sluice('rm -f gone');
    }
  });

  test('an image that is not here, a name in use, words that make no sense', async () => {
    expect(await cli.sluice('run -d --network web absent true')).toMatchObject({ status: 125 });
    await cli.must('create --name one --network web busybox');
    expect((await cli.sluice('run -d --name one --network web busybox')).err).toContain('object.exists');
    await cli.must('rm one');
    for (const words of ['run --memory much busybox', 'run --restart never busybox', 'run', 'run -v a:b busybox']) {
      const said = await cli.sluice(words);
      expect(said.status, words).toBe(125);
      expect(said.err, words).toContain('Try "sluice run -h"');
    }
  });

  test('-P publishes what the image exposes', async () => {
    cli.world.images.put('open', { ports: ['80/tcp', '53/udp'] });
    await cli.must('create -P -p 8080:80 --name wide --network web open');
    expect((await view('wide')).spec.publish).toMatchObject([
      { target: 80, published: 8080, protocol: 'tcp' },
      { target: 53, protocol: 'udp' },
    ]);
    await cli.must('rm wide');
  });

  test('-it: raw, resized, typed through; the keys let go and it goes on', async () => {
    const input = typed('ls\n', '\x10\x11');
    const said = await cli.sluice('run -it --name term --network web busybox sh', { input: () => input });
    expect(said.status).toBe(0);
    const { id } = await view('term');
    expect(bed.runtime.input(id)).toBe('ls\n');
    expect(bed.runtime.calls).toContain('resize 100x30');
    expect(input.did).toEqual(['raw true', 'no more resizing', 'raw false', 'closed']);
    expect((await view('term')).status?.detail.phase).toBe('running');
    const again = typed('\x10\x11');
    expect((await cli.sluice('attach term', { input: () => again })).status).toBe(0);
    await cli.must('rm -f term');
  });

  test('signals go to the process', async () => {
    const listening = Promise.withResolvers<(name: string) => void>();
    const terminal: Partial<Terminal> = {
      onSignal(listener) {
        listening.resolve(listener);
        return () => undefined;
      },
    };
    const acting = listening.promise.then((signal) => signal('SIGINT'));
    const said = await cli.sluice('run --rm --name sig --network web busybox sleep 9', terminal);
    await acting;
    expect(said.status).toBe(130);
  });
});

describe('a life', () => {
  test('create, start, stop, restart, kill, wait, rename', async () => {
    await cli.must('create --name life --network web --stop-timeout 1s busybox');
    expect((await view('life')).spec.wanted).toBe('created');
    expect(await cli.must('wait life')).toBe('0\n');
    expect(await cli.must('start life')).toBe('life\n');
    expect(await cli.must('stop -t 100ms life')).toBe('life\n');
    // Whoever ended before may still be taken apart.
    const calls = bed.runtime.calls.filter((call) => call.split(' ')[1] === 'life');
    expect(calls).toEqual(['create life', 'start life', 'kill life SIGTERM']);
    expect(await cli.must('wait life')).toBe('143\n');
    expect(await cli.must('ps -a')).toMatch(/Exited \(143\) \d+ seconds? ago/);
    await cli.must('start life');
    await cli.must('restart life');
    expect((await view('life')).spec.generation).toBe(3);
    expect(await cli.must('rename life long-life')).toBe('long-life\n');
    const waiting = cli.must('wait long-life');
    await sleep(30);
    expect(await cli.must('kill -s INT long-life')).toBe('long-life\n');
    expect(await waiting).toBe('130\n');
    expect((await cli.sluice('kill long-life')).err).toContain('container.stopped');
    await cli.must('rm long-life');
  });

  test('start --attach shows what it writes and returns its exit status', async () => {
    await cli.must('create --name tell --network web busybox');
    const acting = meanwhile('tell', (id) => {
      bed.runtime.say(id, 'told\n');
      bed.runtime.exit(id, 9);
    });
    expect(await cli.sluice('start -a tell')).toEqual({ status: 9, out: 'told\n', err: '' });
    await acting;
    await cli.must('rm tell');
  });

  test('a client that lost the daemon comes back to the process, or to its end', async () => {
    const running = cli.sluice('run --rm --name lost --network web busybox sleep 9');
    let id = '';
    await meanwhile('lost', (found) => {
      id = found;
    });
    await sleep(20);
    await bed.stop();
    const { runtime } = bed;
    bed = await openContainerBed(cli.world, { runtime, folder: bed.context.stateDir });
    cli.world.live = bed.live;
    runtime.exit(id, 17);
    expect((await running).status).toBe(17);
  });
});

describe('looking and reaching inside', () => {
  beforeAll(async () => {
    await cli.must('run -d --name box --network web busybox');
  });
  afterAll(async () => {
    await cli.must('rm -f box');
  });

  test('exec: output, input, exit status, what it is run as', async () => {
    bed.runtime.program = (plan, input) => ({
      output: `${plan.args.join(' ')}|${plan.user}|${plan.workdir}|${plan.env.join()}|${input}`,
      exitCode: 3,
    });
    const plain = await cli.sluice('exec -u nobody -w /tmp -e A=1 box echo -n hi');
    expect(plain).toEqual({ status: 3, out: 'echo -n hi|nobody|/tmp|A=1|', err: '' });
    const fed = await cli.sluice('exec -i box cat', { input: () => typed('one ', 'two') });
    expect(fed).toMatchObject({ status: 3, out: 'cat|undefined|undefined||one two' });
    expect(await cli.sluice('exec nobox true')).toMatchObject({ status: 125 });
  });

  test('logs: all, the last, with times, followed to the end', async () => {
    const { id } = await view('box');
    for (const line of ['one\n', 'two\n', 'three\n']) bed.runtime.say(id, line);
    bed.runtime.say(id, 'bad\n', 'stderr');
    expect(await cli.sluice('logs box')).toEqual({ status: 0, out: 'one\ntwo\nthree\n', err: 'bad\n' });
    expect((await cli.sluice('logs --tail 2 box')).out).toBe('three\n');
    expect((await cli.sluice('logs -t --tail 2 box')).out).toMatch(/^\d{4}-\d\d-\d\dT\S+Z three\n$/);
    expect((await cli.sluice('logs --until 1h box')).out).toBe('');
    await cli.must('run -d --name brief --network web busybox');
    const following = cli.sluice('logs -f brief');
    await sleep(30);
    await meanwhile('brief', (brief) => {
      bed.runtime.say(brief, 'late\n');
      bed.runtime.exit(brief, 0);
    });
    expect((await following).out).toBe('late\n');
    await cli.must('rm brief');
  });

  test('top, stats, port, events', async () => {
    expect(await cli.must('top box')).toMatch(/^PID +USER +COMMAND\n\d+ +root +box\n$/);
    expect(await cli.must('stats --no-stream box')).toMatch(/box +0\.00% +2MiB \/ none +-- +0B \/ 0B +1\n/);
    expect(await cli.must('port box')).toBe('');
    expect([0, 1536, 1048576, 12.5 * 1048576].map(sizeText)).toEqual(['0B', '1.5KiB', '1MiB', '12.5MiB']);
    const at = (time: string, cpuNs: number) => ({ time, cpuNs }) as never;
    expect(cpuShare(at('2026-01-01T00:00:00Z', 0), at('2026-01-01T00:00:02Z', 1e9))).toBe(50);
  });

  test('the name of a noun works as well as the short form', async () => {
    expect(await cli.must('container ls -q')).toBe(await cli.must('ps -q'));
    expect(await cli.must('container top box')).toBe(await cli.must('top box'));
  });
});

test('volumes: made, listed, in use, removed', async () => {
  expect(await cli.must('volume create --label a=1 pages')).toBe('pages\n');
  const ls = await cli.must('volume ls');
  expect(ls).toMatch(/^DRIVER +NAME +MOUNTPOINT +STATE\nlocal +pages +\/.*\/volumes\/pages\/_data +ready\n$/);
  expect(await cli.must('volume inspect --format {{.Name}} pages')).toBe('pages\n');
  await cli.must('create --name user --network web -v pages:/www busybox');
  expect((await cli.sluice('volume rm pages')).err).toContain('is mounted by user');
  await cli.must('rm user');
  expect(await cli.must('volume prune --force')).toBe('');
  expect(await cli.must('volume prune --all --force')).toBe('pages\n');
  expect(await cli.must('volume ls -q')).toBe('');
});

describe('cp', () => {
  test('in: what is packed goes into the folder that the path names', async () => {
    await cli.must('create --name box --network web busybox');
    const folder = makeFolder('cp');
    writeFileSync(join(folder, 'a'), 'text');
    // The runtime in memory answers a path with its name, which is no archive: nothing is there.
    bed.runtime.copyOut = async function* () {
      yield* [];
    };
    const got: string[] = [];
    bed.runtime.copyIn = async (_, __, path, tar) => {
      let size = 0;
      for await (const bytes of tar) size += bytes.length;
      got.push(`${path} ${size % 512}`);
    };
    expect(await cli.sluice(['cp', join(folder, 'a'), 'box:/www/a'])).toMatchObject({ err: '', status: 0 });
    expect(got).toEqual(['/www 0']);
    bed.runtime.copyIn = async () => {
      throw new SluiceError('object.notfound', 'there is no /www in the container');
    };
    expect(await cli.sluice(['cp', join(folder, 'a'), 'box:/www/a'])).toMatchObject({ status: 1 });
    expect((await cli.sluice('cp a b')).status).toBe(2);
    await cli.must('rm box');
  });

  test('a tree that is packed and unpacked is the same; nothing is written through a link or outside', async () => {
    const from = makeFolder('cp');
    mkdirSync(join(from, 'sub'));
    writeFileSync(join(from, 'sub', 'file'), 'text', { mode: 0o640 });
    symlinkSync('sub/file', join(from, 'link'));
    const to = makeFolder('cp');
    await unpack(packed(from, 'tree'), join(to, 'copy'));
    expect(readFileSync(join(to, 'copy', 'link'), 'utf8')).toBe('text');
    expect(existsSync(join(to, 'copy', 'sub', 'file'))).toBe(true);
    await unpack(packed(join(from, 'sub', 'file'), 'x'), join(to, 'renamed'));
    expect(readFileSync(join(to, 'renamed'), 'utf8')).toBe('text');
    const hostile = (...entries: [string, 'symlink' | 'file', string][]) => {
      const archive = pack();
      for (const [name, type, content] of entries)
        if (type === 'symlink') archive.entry({ name, type, linkname: content });
        else archive.entry({ name, type }, content);
      archive.finalize();
      return archive as AsyncIterable<Uint8Array>;
    };
    const victim = makeFolder('cp');
    const through = hostile(['t/out', 'symlink', victim], ['t/out/file', 'file', 'bad']);
    mkdirSync(join(to, 'through'));
    await expect(unpack(through, join(to, 'through'))).rejects.toMatchObject({ code: 'request.invalid' });
    await expect(unpack(hostile(['t/../../x', 'file', 'bad']), join(to, 'through'))).rejects.toMatchObject({
      code: 'request.invalid',
    });
    expect(existsSync(join(victim, 'file'))).toBe(false);
  });
});

test('service logs --follow takes up replicas that come later and those that are started again', async () => {
  await cli.must('service create --detach --name talk --network web --replicas 2 busybox');
  const { id } = await cli.world.state.services.get('talk');
  const replica = async (slot: number): Promise<string> => {
    const request = {
      image: 'busybox',
      networks: [{ network: 'web' }],
      restart: { name: 'always' as const },
      start: true,
    };
    const made = await cli.world.state.containers.put(`talk-${slot}`, request, {
      replica: { service: id, slot, version: 1 },
    });
    await meanwhile(`talk-${slot}`, () => undefined);
    return made.object.id;
  };
  const first = await replica(1);
  bed.runtime.say(first, 'old\n');
  bed.runtime.say(first, 'one\n');
  const following = cli.sluice('service logs --follow --tail 1 talk');
  await sleep(200);
  const second = await replica(2);
  bed.runtime.say(second, 'two\n');
  await sleep(200);
  bed.runtime.exit(first, 1);
  await meanwhile('talk-1', () => undefined);
  await sleep(300);
  bed.runtime.say(first, 'again\n');
  await sleep(300);
  await cli.world.state.services.remove('talk');
  for (const name of ['talk-1', 'talk-2']) await cli.must(`rm -f ${name}`);
  const { status, out, err } = await following;
  expect({ status, err }).toEqual({ status: 0, err: '' });
  expect(out.split('\n').sort()).toEqual(['', 'talk-1 | again', 'talk-1 | one', 'talk-2 | two']);
});

test('replicas that have no place are said by service ps, inspect and ls', async () => {
  await cli.must(
    'service create --detach --name far --network web --replicas 2 --constraint node.name==nowhere busybox',
  );
  const { id } = await cli.world.state.services.get('far');
  expect((await cli.sluice('service ps far')).err).toBe('');
  const value = {
    service: id,
    message: '2 of 2 have no place: here does not satisfy it',
    since: '2026-01-01T00:00:00.000Z',
  };
  await cli.world.store.transact([{ op: 'put', key: unplacedKey(id), value }], { topics: [] });
  expect((await cli.sluice('service ps far')).err).toBe(
    'sluice: warning: 2 of 2 have no place: here does not satisfy it (Unplaced)\n',
  );
  const [inspected] = JSON.parse(await cli.must('service inspect far --format json')) as [View<Service>];
  expect(inspected.status?.conditions).toContainEqual(
    expect.objectContaining({ type: 'Unplaced', active: true, message: value.message }),
  );
  expect(await cli.must('service ls')).toMatch(/far .*\(.*Unplaced\)/);
  await cli.must('service rm --detach far');
});
