/** What becomes of a container: the decision as a table, the pauses of the policy, health, names, and the flags' readers. */
import { describe, expect, test } from 'vitest';
import { readPlace, targetOf } from '../../src/cli/container/cp.ts';
import { spanOf } from '../../src/cli/container/look.ts';
import { KeyWatch, readKeys } from '../../src/cli/container/stream.ts';
import {
  envLines,
  readBytes,
  readDevice,
  readMount,
  readRestart,
  readVolume,
  wordsOf,
} from '../../src/cli/container/words.ts';
import type { ContainerState } from '../../src/contracts/runtime.ts';
import { type Action, decide, livedLong, pauseOf, placeOf } from '../../src/controller/container/decide.ts';
import { hostsText } from '../../src/controller/container/files.ts';
import { type Record as Health, judge, programOf } from '../../src/controller/container/health.ts';
import { encodeFrame, FRAME_BYTES_MAX, FrameReader } from '../../src/model/container/frame.ts';
import type { Container, ContainerDetail, ContainerSpec } from '../../src/model/container.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';

const spec = (change: Partial<ContainerSpec> = {}): ContainerSpec =>
  ({
    wanted: 'running',
    generation: 2,
    restart: { name: 'no', retriesMax: 0 },
    autoRemove: false,
    addHosts: [],
    ...change,
  }) as ContainerSpec;
const state = (change: Partial<ContainerState> = {}): ContainerState => ({
  id: 'x',
  state: 'running',
  generation: 2,
  ...change,
});
const policy = (name: ContainerSpec['restart']['name'], retriesMax = 0) => ({ restart: { name, retriesMax } });

describe('decide', () => {
  const table: [string, Partial<ContainerSpec>, ContainerState | null, Partial<ContainerDetail>, boolean, Action][] = [
    ['new', {}, null, {}, true, { do: 'run', again: false }],
    ['only created', { wanted: 'created' }, null, {}, true, { do: 'rest', phase: 'created' }],
    [
      'created and left there by a daemon that died',
      {},
      state({ state: 'created' }),
      {},
      true,
      { do: 'run', again: false },
    ],
    ['runs', {}, state(), {}, true, { do: 'rest', phase: 'running' }],
    ['runs in an earlier life', {}, state({ generation: 1 }), {}, true, { do: 'stop' }],
    [
      'ended in an earlier life',
      {},
      state({ state: 'exited', generation: 1, exitCode: 0 }),
      {},
      true,
      { do: 'run', again: false },
    ],
    ['runs and should not', { wanted: 'stopped' }, state(), {}, true, { do: 'stop' }],
    [
      'stopped',
      { wanted: 'stopped' },
      state({ state: 'exited', exitCode: 143 }),
      {},
      true,
      { do: 'rest', phase: 'exited' },
    ],
    ['stopped before it began', { wanted: 'stopped' }, null, {}, true, { do: 'rest', phase: 'created' }],
    [
      'stopped and goes',
      { wanted: 'stopped', autoRemove: true },
      state({ state: 'exited' }),
      {},
      true,
      { do: 'remove' },
    ],
    ['ended', {}, state({ state: 'exited', exitCode: 3 }), {}, true, { do: 'rest', phase: 'exited' }],
    ['ended and goes', { autoRemove: true }, state({ state: 'exited', exitCode: 0 }), {}, true, { do: 'remove' }],
    [
      'always, the pause goes on',
      policy('always'),
      state({ state: 'exited', exitCode: 0 }),
      {},
      false,
      { do: 'pause' },
    ],
    [
      'always, the pause is over',
      policy('always'),
      state({ state: 'exited', exitCode: 0 }),
      {},
      true,
      { do: 'run', again: true },
    ],
    [
      'on-failure and well',
      policy('on-failure'),
      state({ state: 'exited', exitCode: 0 }),
      {},
      true,
      { do: 'rest', phase: 'exited' },
    ],
    [
      'on-failure and not',
      policy('on-failure'),
      state({ state: 'exited', exitCode: 1 }),
      {},
      true,
      { do: 'run', again: true },
    ],
    [
      'on-failure, tries used up',
      policy('on-failure', 2),
      state({ state: 'exited', exitCode: 1 }),
      { generation: 2, restarts: 2 },
      true,
      { do: 'rest', phase: 'exited' },
    ],
    [
      'the host went down with it',
      {},
      null,
      { generation: 2, phase: 'running' },
      true,
      { do: 'rest', phase: 'exited' },
    ],
    [
      'the host went down with it, unless-stopped',
      policy('unless-stopped'),
      null,
      { generation: 2, phase: 'running' },
      true,
      { do: 'run', again: true },
    ],
    [
      'the start failed for good',
      {},
      state({ state: 'created' }),
      { generation: 2, phase: 'exited', exitCode: 127, failure: { code: 'runtime.notfound', message: '' } },
      true,
      { do: 'rest', phase: 'exited' },
    ],
    [
      'the start of an earlier life failed',
      {},
      null,
      { generation: 1, phase: 'exited', failure: { code: 'runtime.failed', message: '' } },
      true,
      { do: 'run', again: false },
    ],
  ];
  test.each(table)('%s', (_, change, actual, detail, due, action) => {
    expect(decide({ spec: spec(change), state: actual, detail, due })).toEqual(action);
  });
});

test('pauses double from 100 ms to a minute; a life of ten seconds begins anew', () => {
  expect([1, 2, 3, 10, 11, 99].map(pauseOf)).toEqual([100, 200, 400, 51_200, 60_000, 60_000]);
  const life = (seconds: number) => ({
    startedAt: '2026-01-01T00:00:00.000Z',
    exitedAt: new Date(Date.UTC(2026, 0, 1) + seconds * 1_000).toISOString(),
  });
  expect([life(9.999), life(10)].map(livedLong)).toEqual([false, true]);
  expect(livedLong({})).toBe(false);
});

test('a container has a name while it lives, and a place among backends while it is well', () => {
  const place = (detail: Partial<ContainerDetail>, change: Partial<ContainerSpec> = {}) => {
    const { named, serving } = placeOf(spec(change), detail);
    return `${named ? 'named' : 'nameless'} ${serving ? 'serving' : 'idle'}`;
  };
  expect(place({})).toBe('named idle');
  expect(place({ phase: 'running', generation: 2 })).toBe('named serving');
  expect(place({ phase: 'running', generation: 2, health: 'starting' })).toBe('named idle');
  expect(place({ phase: 'running', generation: 2, health: 'unhealthy' })).toBe('named idle');
  expect(place({ phase: 'running', generation: 2, health: 'healthy' })).toBe('named serving');
  expect(place({ phase: 'restarting', generation: 2 })).toBe('named idle');
  expect(place({ phase: 'exited', generation: 2 })).toBe('nameless idle');
  expect(place({ phase: 'exited', generation: 1 })).toBe('named idle');
  expect(place({ phase: 'exited', generation: 2 }, { wanted: 'stopped' })).toBe('nameless idle');
});

test('health: consecutive results; failures of the start period do not count', () => {
  const walk = (results: string, aged: (n: number) => boolean, retries = 2): string => {
    let record: Health = { health: 'starting', failures: 0 };
    return [...results]
      .map((result, n) => {
        record = judge(record, result === '+', aged(n), retries);
        return record.health[0];
      })
      .join('');
  };
  expect(walk('--', () => true)).toBe('su');
  expect(walk('----+-', (n) => n > 3)).toBe('sssshh');
  expect(walk('----', (n) => n > 1)).toBe('sssu');
  expect(walk('+-+--+', () => true)).toBe('hhhhuh');
  expect(programOf({ test: ['CMD-SHELL', 'wget -q x'] } as never)).toEqual(['/bin/sh', '-c', 'wget -q x']);
  expect(programOf({ test: ['CMD', 'true', '-x'] } as never)).toEqual(['true', '-x']);
  expect(programOf({ test: ['NONE'] } as never)).toBeNull();
});

test('/etc/hosts: localhost, what was added, and its own name at its addresses', () => {
  const container = {
    id: 'ab'.repeat(32),
    spec: spec({ hostname: 'box.example', addHosts: ['gate:10.0.0.1', 'six:fd00::1'] }),
  };
  const endpoints = [{ spec: { addresses: ['10.20.0.2/24', 'fd00:20::2/64'] } }] as unknown as Endpoint[];
  const text = hostsText(container as unknown as Container, endpoints);
  expect(text.split('\n')[0]).toBe('127.0.0.1\tlocalhost');
  expect(text).toContain('\n10.0.0.1\tgate\nfd00::1\tsix\n10.20.0.2\tbox.example box\nfd00:20::2\tbox.example box\n');
  const plain = hostsText({ ...container, spec: spec() } as unknown as Container, endpoints);
  expect(plain).toContain('10.20.0.2\tabababababab\n');
});

describe('frames', () => {
  test('arrive whole however they are cut', () => {
    const bytes = Buffer.concat([encodeFrame(4, 'one'), encodeFrame(3), encodeFrame(5, Buffer.alloc(1000, 7))]);
    for (const step of [1, 3, 8, 9, 2000]) {
      const reader = new FrameReader();
      const frames = [];
      for (let at = 0; at < bytes.length; at += step) frames.push(...reader.push(bytes.subarray(at, at + step)));
      expect(frames.map(({ type, data }) => [type, data.length])).toEqual([
        [4, 3],
        [3, 0],
        [5, 1000],
      ]);
    }
  });
  test('one that is too long is refused', () => {
    const head = Buffer.alloc(8);
    head.writeUInt32BE(FRAME_BYTES_MAX + 1, 4);
    expect(() => [...new FrameReader().push(head)]).toThrow(RangeError);
  });
});

describe('detach keys', () => {
  const type = (...chunks: string[]) => {
    const keys = new KeyWatch(readKeys('ctrl-p,ctrl-q'));
    let passed = '';
    for (const chunk of chunks) {
      const { pass, detach } = keys.push(Buffer.from(chunk));
      passed += Buffer.from(pass).toString();
      if (detach) return `${passed}|`;
    }
    return passed;
  };
  test('let go, in one piece or two; what only began like them is passed on', () => {
    expect(type('ls\n')).toBe('ls\n');
    expect(type('a\x10\x11b')).toBe('a|');
    expect(type('a\x10', '\x11')).toBe('a|');
    expect(type('\x10x\x10\x10\x11')).toBe('\x10x\x10|');
    expect(type('\x10', 'ls')).toBe('\x10ls');
  });
  test('none are watched for when none are given, and nonsense is refused', () => {
    expect(new KeyWatch([]).push(Buffer.from('\x10\x11'))).toMatchObject({ detach: false });
    expect(readKeys('a,ctrl-[')).toEqual([97, 27]);
    expect(() => readKeys('ctrl-pq')).toThrow('is not a character');
  });
});

describe('values of flags', () => {
  test('sizes, policies, devices', () => {
    expect(['512m', '1g', '64k', '1048576', '1.5GiB'].map(readBytes)).toEqual([
      2 ** 29,
      2 ** 30,
      65_536,
      1_048_576,
      1_610_612_736,
    ]);
    expect(() => readBytes('much')).toThrow('is not a size');
    expect(readRestart('on-failure:3')).toEqual({ name: 'on-failure', retriesMax: 3 });
    expect(() => readRestart('always:3')).toThrow();
    expect(readDevice('/dev/fuse')).toEqual({ source: '/dev/fuse', target: '/dev/fuse', access: 'rwm' });
    expect(readDevice('/dev/sda:/dev/xvda:r')).toEqual({ source: '/dev/sda', target: '/dev/xvda', access: 'r' });
  });
  test('mounts in both spellings', () => {
    expect(readVolume('/srv:/data:ro')).toEqual({
      type: 'bind',
      source: '/srv',
      target: '/data',
      readOnly: true,
      options: {},
    });
    expect(readVolume('pages:/www')).toEqual({
      type: 'volume',
      source: 'pages',
      target: '/www',
      readOnly: false,
      options: {},
    });
    expect(readVolume('/www')).toEqual({ type: 'volume', target: '/www', readOnly: false, options: {} });
    expect(readVolume('./here:/x')).toMatchObject({ type: 'bind', source: `${process.cwd()}/here` });
    for (const wrong of ['pages:www', 'a:/b:c:d', 'pages:/x:odd', ':/x']) expect(() => readVolume(wrong)).toThrow();
    expect(readMount('type=tmpfs,target=/run,tmpfs-size=64m')).toEqual({
      type: 'tmpfs',
      target: '/run',
      readOnly: false,
      options: { size: '64m' },
    });
    expect(readMount('type=bind,src=/a,dst=/b,readonly')).toEqual({
      type: 'bind',
      source: '/a',
      target: '/b',
      readOnly: true,
      options: {},
    });
    expect(() => readMount('type=bind,src=/a')).toThrow('target');
    expect(() => readMount('target=/a,odd=1')).toThrow('odd');
  });
  test('environment files, words, spans', () => {
    expect(envLines('# c\nA=1\n\n  B=two words\nHOME_OF\nGONE\n', { HOME_OF: 'x' })).toEqual([
      'A=1',
      'B=two words',
      'HOME_OF=x',
    ]);
    expect(wordsOf(`sh -c "echo \\"a b\\"" 'c d'`)).toEqual(['sh', '-c', 'echo "a b"', 'c d']);
    expect([0, 1_000, 61_000, 7_200_000, 172_800_000].map(spanOf)).toEqual([
      '0 seconds',
      '1 second',
      '1 minute',
      '2 hours',
      '2 days',
    ]);
  });
  test('where a copy comes to lie', () => {
    expect(readPlace('web:/www')).toEqual({ container: 'web', path: '/www' });
    expect(readPlace('./a:b')).toEqual({ path: './a:b' });
    const from = { path: '/a/b', kind: 'directory', contents: false } as const;
    expect(targetOf(from, { path: '/t', kind: 'directory', folder: false })).toBe('/t/b');
    expect(targetOf({ ...from, contents: true }, { path: '/t', kind: 'directory', folder: false })).toBe('/t');
    expect(targetOf(from, { path: '/t/new', kind: null, folder: false })).toBe('/t/new');
    expect(() => targetOf(from, { path: '/t', kind: 'file', folder: false })).toThrow('is a file');
    expect(() => targetOf({ ...from, kind: 'file' }, { path: '/t', kind: null, folder: true })).toThrow('no folder');
  });
});
