/** Bars, rows, command line and what a result looks like. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { barsOf, parseBar, readBars } from '../../bench/bars.ts';
import { describeMachine, type Machine, versionOf } from '../../bench/machine.ts';
import { parseCommand } from '../../bench/main.ts';
import { connectDocker } from '../../bench/peers/docker.ts';
import { plot, ticks } from '../../bench/plot.ts';
import {
  digits,
  reportRow,
  reportSkip,
  type SuiteReport,
  toMarkdown,
  toText,
  writeReport,
} from '../../bench/report.ts';
import { type Round, resultOf, twinOf } from '../../bench/round.ts';
import { seededRandom } from '../../bench/stats.ts';
import type { Row } from '../../bench/suite.ts';
import { SUITES } from '../../bench/suites/suites.ts';

const RATIO: Row = {
  id: 'test/speed/direct',
  kind: 'ratio',
  better: 'higher',
  unit: 'req/s',
  family: 'speed',
  metric: 'rate',
  peer: 'direct',
  what: 'speed.',
};
const SIZE: Row = { ...RATIO, id: 'test/size/none', kind: 'absolute', better: 'lower', unit: 'MB', peer: undefined };

const rounds: readonly Round[] = Array.from(
  { length: 16 },
  (_, at) =>
    new Map([
      ['ours', { rate: 990 + (at % 3), failed: at === 0 ? 2 : 0 }],
      ['direct', { rate: 1_000, failed: 0 }],
      [twinOf('direct'), { rate: 1_000 + (at % 2), failed: 0 }],
    ]),
);
const machine: Machine = { kernel: '6.18.0', cpu: 'CPU', cpus: 2, memoryGB: 24, load: 0, versions: { wrk: '4.1.0' } };
const report: SuiteReport = {
  suite: 'test',
  date: '2026-01-02T03:04:05.000Z',
  quick: false,
  machine,
  commit: '0123456789ab',
  seed: 1,
  given: { direct: 'the address' },
  rows: [
    reportRow(resultOf(RATIO, 0.98, rounds, seededRandom(1), true)!),
    reportRow(resultOf(SIZE, 150, rounds, seededRandom(1), true)!, { 'kernel maps MB': 12.5 }),
    reportSkip({ ...RATIO, id: 'test/speed/docker', peer: 'docker' }, null, 'no Docker daemon runs here'),
  ],
};

describe('bars', () => {
  it('are a direction, a number and a unit', () => {
    expect(parseBar('a/b/c', '>= 0.98')).toEqual({ value: 0.98, better: 'higher', unit: '' });
    expect(parseBar('a/b/c', '<= 250 ns')).toEqual({ value: 250, better: 'lower', unit: 'ns' });
    for (const wrong of ['0.98', '> 0.98', '>= x', '>= 1 2 3'])
      expect(() => parseBar('a/b/c', wrong)).toThrow(/a\/b\/c/);
  });

  it('the table fits the rows: each bar has one, in the same unit and direction', () => {
    const rows = SUITES.flatMap((suite) => suite.rows);
    const table = readBars();
    expect(Object.keys(table).length).toBeGreaterThan(0);
    expect(Object.keys(barsOf(rows, table)).sort()).toEqual(Object.keys(table).sort());
  });

  it('one that does not fit its row is an error', () => {
    const bar = { value: 1, better: 'lower', unit: '' } as const;
    expect(() => barsOf([RATIO], { [RATIO.id]: bar })).toThrow(/test\/speed\/direct/);
    expect(() => barsOf([SIZE], { [SIZE.id]: bar })).toThrow(/test\/size\/none/);
    expect(barsOf([SIZE], { [SIZE.id]: { ...bar, unit: 'MB' } })).toEqual({ [SIZE.id]: 1 });
  });
});

describe('suites', () => {
  it('their rows have ids of three words that say suite and peer, and a family', () => {
    const ids = SUITES.flatMap(({ rows }) => rows.map(({ id }) => id));
    expect(new Set(ids).size).toBe(ids.length);
    for (const suite of SUITES) {
      expect(suite.rows.length).toBeGreaterThan(0);
      for (const row of suite.rows) {
        const [name, what, peer, ...rest] = row.id.split('/');
        expect([name, what !== '', rest]).toEqual([suite.name, true, []]);
        // What is compared with itself at another size has no peer, though it has two arms.
        expect(peer).toBe(row.deviation ? 'none' : (row.peer ?? 'none'));
        expect(Object.keys(suite.families)).toContain(row.family);
        expect(row.what).toMatch(/\.$/);
      }
    }
  });
});

describe('the command line', () => {
  it('a suite, all of its rows or some', () => {
    const { suite, rows, quick, json } = parseCommand(['attach', '--quick', '--row', 'attach/sandbox-rate/none']);
    expect([suite.name, rows.map(({ id }) => id), quick, json]).toEqual([
      'attach',
      ['attach/sandbox-rate/none'],
      true,
      false,
    ]);
    expect(parseCommand(['balance', '--json']).rows.length).toBeGreaterThan(5);
  });
  it.each([
    [[], /suites: balance/],
    [['nonsense'], /suites: balance/],
    [['attach', 'balance'], /suites: balance/],
    [['attach', '--row', 'balance/keepalive/direct'], /attach has no row balance\/keepalive\/direct; it has: attach/],
    [['attach', '--fast'], /--fast/],
  ])('%j is refused', (words, message) => {
    expect(() => parseCommand(words)).toThrow(message);
  });
});

describe('a result', () => {
  it('has every field of a row, and the raw samples', () => {
    const [ratio, size, skipped] = report.rows;
    expect(ratio).toMatchObject({
      id: 'test/speed/direct',
      kind: 'ratio',
      unit: 'req/s',
      better: 'higher',
      ours: 991,
      peer: 1_000,
      peerName: 'direct',
      value: 0.991,
      ratio: 0.991,
      bar: 0.98,
      rounds: 16,
      verdict: 'pass',
      failed: { ours: 2, peer: 0 },
      control: { ratio: expect.closeTo(0.9995, 3) },
    });
    expect(ratio!.low).toBeLessThanOrEqual(0.991);
    expect(ratio!.high).toBeGreaterThanOrEqual(0.991);
    expect(ratio!.samples.ours).toHaveLength(16);
    expect(ratio!.samples.control).toHaveLength(16);
    expect(size).toMatchObject({ peerName: null, peer: null, ratio: null, value: 991, verdict: 'fail' });
    expect(size!.apart).toEqual({ 'kernel maps MB': 12.5 });
    expect(skipped).toMatchObject({ verdict: 'skipped', why: 'no Docker daemon runs here', value: null, rounds: 0 });
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });

  it('as a table', () => {
    const text = toText(report).split('\n');
    expect(text).toHaveLength(4);
    expect(text[1]).toMatch(
      /^test\/speed\/direct +991 req\/s +1,000 req\/s +0\.991 +≥ 0\.98 .* pass; failed: ours 2, peer 0/,
    );
    expect(text[2]).toMatch(/991 MB +– +991 MB +≤ 150 MB .* fail/);
    expect(text[3]).toMatch(/skipped: no Docker daemon runs here$/);
    const markdown = toMarkdown(report);
    expect(markdown).toContain('| test/speed/direct | 991 req/s | 1,000 req/s | 0.991 | ≥ 0.98 |');
    expect(markdown).toContain('Linux 6.18.0, 2 × CPU');
    expect(markdown).toContain('kernel maps MB 12.5');
    expect(markdown).toContain('the address');
    expect(markdown).not.toContain('smoke');
    expect(toMarkdown({ ...report, quick: true })).toContain('nothing here is a claim');
  });

  it('as a picture: every row that has a value, inside the frame', () => {
    const svg = plot(report);
    expect(svg).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
    expect(svg).toContain('test/speed/direct');
    expect(svg).toContain('test/size/none');
    expect(svg).not.toContain('test/speed/docker');
    const width = Number(/width="(\d+)"/.exec(svg)![1]);
    for (const [, x] of svg.matchAll(/c?x1?="([\d.]+)"/g)) {
      expect(Number(x)).toBeGreaterThanOrEqual(0);
      expect(Number(x)).toBeLessThanOrEqual(width);
    }
    expect(svg).not.toMatch(/NaN|Infinity|undefined/);
    const nothing = plot({ ...report, rows: report.rows.slice(2) });
    expect(nothing).toContain('</svg>');
    expect(ticks(0.09, 9)).toEqual([0.1, 0.2, 0.5, 1, 2, 5]);
    expect(ticks(0.8, 1.6)).toEqual([0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6]);
    expect(ticks(0.97, 1.05)).toEqual([0.97, 0.98, 0.99, 1, 1.01, 1.02, 1.03, 1.04, 1.05]);
    expect(ticks(0.4, 3)).toEqual([0.5, 1, 1.5, 2, 2.5, 3]);
  });

  it('as three files', () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
    try {
      const files = writeReport(join(folder, 'results'), 'test.quick', report);
      expect(files.map((file) => file.split('/').at(-1))).toEqual([
        'test.quick.json',
        'test.quick.md',
        'test.quick.svg',
      ]);
      expect(JSON.parse(readFileSync(files[0]!, 'utf8'))).toEqual(report);
      expect(readFileSync(files[1]!, 'utf8')).toContain('](test.quick.svg)');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('numbers keep three digits', () => {
    const texts = [0.98412, 12_345, 1.02, 0.00012345, 0, 999.9, null].map(digits);
    expect(texts).toEqual(['0.984', '12,300', '1.02', '0.000123', '0', '1000', '–']);
  });
});

describe('the machine', () => {
  it('is described, an absent program as absent', () => {
    expect(describeMachine()).toMatchObject({
      cpus: expect.any(Number),
      versions: { node: expect.stringMatching(/^\d+\./) },
    });
    expect(versionOf(['no-such-program', '-v'], /(\S+)/)).toBe('absent');
  });
});

describe('Docker as a peer', () => {
  const socket = join(tmpdir(), `sluice-docker-${process.pid}.sock`);
  const calls: string[] = [];
  const server = createServer((request, response) => {
    calls.push(`${request.method} ${request.url}`);
    request.resume().on('end', () => {
      if (request.url === '/version') response.end('{"Version":"27.0"}');
      else if (request.method === 'POST') response.writeHead(201).end('{"Id":"abc"}');
      else response.writeHead(204).end();
    });
  });
  afterEach(() => void server.close());

  it('absent, and there', async () => {
    expect(await connectDocker(socket)).toBeNull();
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const docker = await connectDocker(socket);
    expect(docker!.given).toBe('Docker 27.0, by its API');
    const remove = await docker!.createNetwork('n');
    await remove();
    expect(calls).toEqual(['GET /version', 'POST /networks/create', 'DELETE /networks/abc']);
  });
});
