import { describe, expect, test } from 'vitest';
import { changesOf } from '../../src/cli/image/change.ts';
import { rowsOf } from '../../src/cli/image/image.ts';
import { agoText, bytesText } from '../../src/cli/print/amount.ts';
import { Bars, barOf } from '../../src/cli/print/bars.ts';
import type { Image } from '../../src/model/image/image.ts';
import { catcher } from '../terminal.ts';

test.each([
  [0, '0B'],
  [999, '999B'],
  [1000, '1kB'],
  [1234, '1.23kB'],
  [999_499, '999kB'],
  [999_500, '1MB'],
  [120_000_000, '120MB'],
  [7.5e9, '7.5GB'],
])('%d bytes are %s', (bytes, text) => {
  expect(bytesText(bytes)).toBe(text);
});

test.each([
  [1, '1 second ago'],
  [90, '90 seconds ago'],
  [150, '2 minutes ago'],
  [3 * 86_400, '3 days ago'],
  [15 * 86_400, '2 weeks ago'],
  [800 * 86_400, '2 years ago'],
  [-5, '0 seconds ago'],
])('%d seconds: %s', (seconds, text) => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  expect(agoText(new Date(now - seconds * 1000).toISOString(), now)).toBe(text);
});
test('what has no time', () => {
  for (const none of ['', '1970-01-01T00:00:00Z', 'x']) expect(agoText(none, 1e12)).toBe('N/A');
});

describe('lines of a Dockerfile', () => {
  test('become an image’s configuration', () => {
    const lines = [
      'CMD ["/bin/a", "b"]',
      'entrypoint date -u',
      'ENV A=1',
      'ENV B 2',
      'LABEL k="v w"',
      'EXPOSE 80 53/udp',
    ];
    expect(
      changesOf([...lines, 'VOLUME /a /b', 'VOLUME ["/c"]', 'USER 1:2', 'WORKDIR /w', 'STOPSIGNAL SIGINT']),
    ).toEqual({
      command: ['/bin/a', 'b'],
      entrypoint: ['/bin/sh', '-c', 'date -u'],
      env: ['A=1', 'B=2'],
      labels: { k: 'v w' },
      ports: ['80/tcp', '53/udp'],
      volumes: ['/a', '/b', '/c'],
      user: '1:2',
      workdir: '/w',
      stopSignal: 'SIGINT',
    });
    expect(changesOf([])).toBeUndefined();
  });
  test.each(['RUN x', 'CMD', 'CMD [1]', 'CMD ["a"', 'EXPOSE http', 'ENV =1', ''])('%j is none', (line) => {
    expect(() => changesOf([line])).toThrow(expect.objectContaining({ name: 'Error' }));
  });
});

test('an image has a row a name, and one without any', () => {
  const image = (names: string[], digests: string[] = []) => ({ id: 'sha256:ab', names, digests }) as unknown as Image;
  const rows = rowsOf([
    image(['docker.io/library/a:1', '127.0.0.1:5000/b/c:2']),
    image([], ['ghcr.io/d/e@sha256:x']),
    image([]),
  ]);
  expect(rows.map(({ repository, tag }) => `${repository} ${tag}`)).toEqual([
    'a 1',
    '127.0.0.1:5000/b/c 2',
    'ghcr.io/d/e <none>',
    '<none> <none>',
  ]);
});

describe('bars', () => {
  const layer = `sha256:${'0123456789ab'.repeat(5)}0000`;
  test('show how far it is', () => {
    const at = (current: number) => barOf({ type: 'layer', what: layer, text: 'downloading', current, total: 1000 });
    expect(at(0)).toBe(`0123456789ab downloading  [>${' '.repeat(29)}] 0B/1kB`);
    expect(at(500)).toBe(`0123456789ab downloading  [${'='.repeat(15)}>${' '.repeat(14)}] 500B/1kB`);
    expect(at(1000)).toBe(`0123456789ab downloading  [${'='.repeat(30)}] 1kB/1kB`);
    expect(barOf({ type: 'status', what: 'x', text: 'resolving' })).toBe('x resolving');
  });
  test('are written over where that can be', async () => {
    const terminal = catcher({ live: true, columns: 60 });
    const bars = new Bars(terminal);
    bars.show({ type: 'layer', what: layer, text: 'downloading', current: 1, total: 2 });
    await new Promise((resolve) => setTimeout(resolve, 120));
    bars.show({ type: 'layer', what: layer, text: 'done' });
    bars.end();
    const { err } = terminal.said();
    expect(err.split('\u001b[1A')).toHaveLength(2);
    expect(err.split('\n')[0]!.replace('\r\u001b[K', '').length).toBeLessThan(60);
    expect(err.endsWith('\r\u001b[K0123456789ab done\n')).toBe(true);
  });
  test('and lines of news elsewhere, with nothing of a stranger’s that a terminal obeys', () => {
    const terminal = catcher();
    const bars = new Bars(terminal);
    for (const current of [1, 2, 3]) bars.show({ type: 'layer', what: layer, text: 'downloading', current, total: 3 });
    for (const text of ['done', 'done']) bars.show({ type: 'layer', what: layer, text });
    bars.show({ type: 'status', what: '\u001b[2J', text: 'resolving' });
    bars.end();
    expect(terminal.said().err).toBe('0123456789ab: done\n [2J: resolving\n');
  });
});
