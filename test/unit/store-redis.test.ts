import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ensureGuarded, nameOf, parseRedisUrl } from '../../src/store/redis/url.ts';
import { follows, merge } from '../../src/store/redis/watch.ts';
import { makeFolder } from '../folder.ts';

describe('the URL of a Redis', () => {
  test('host, port, database, login', () => {
    expect(parseRedisUrl('redis://r1')).toMatchObject({ hosts: [{ host: 'r1', port: 6379 }], db: 0, cluster: false });
    expect(parseRedisUrl('redis://u:p%40ss@[fd00::1]:7000/3')).toMatchObject({
      hosts: [{ host: 'fd00::1', port: 7000 }],
      db: 3,
      username: 'u',
      password: 'p@ss',
    });
    expect(parseRedisUrl('redis+unix:///run/r.sock')).toMatchObject({ hosts: [], path: '/run/r.sock' });
  });

  test('Sentinels, a Cluster, replicas', () => {
    expect(parseRedisUrl('redis://s1,s2:1,[::1]/0?sentinel=main&replicas=2')).toMatchObject({
      hosts: [
        { host: 's1', port: 26379 },
        { host: 's2', port: 1 },
        { host: '::1', port: 26379 },
      ],
      sentinel: 'main',
      replicas: 2,
    });
    expect(parseRedisUrl('redis://a,b?cluster')).toMatchObject({ cluster: true, hosts: [{ port: 6379 }, {}] });
  });

  test('files for what is secret', () => {
    const file = join(makeFolder('url'), 'password');
    writeFileSync(file, 'from file\n');
    expect(parseRedisUrl(`rediss://r1?passwordFile=${file}&ca=${file}`)).toMatchObject({
      password: 'from file',
      tls: { ca: Buffer.from('from file\n') },
    });
  });

  test.each([
    'http://r1',
    'redis://',
    'redis://a,b',
    'redis://a,b?cluster&replicas=1',
    'redis://a b',
    'redis://a:0',
    'redis://a/x',
    'redis://a?nonsense=1',
    'redis://a/1?cluster',
    'redis://a?cluster&sentinel=b',
    'redis://:%zz@a',
    'redis+unix://relative',
    'redis://secret:secret@a?passwordFile=/nonexistent',
  ])('%s is refused, without a word of the password', (url) => {
    let error: unknown;
    try {
      parseRedisUrl(url);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'config.invalid' });
    expect((error as Error).message).not.toContain('secret');
  });

  test('off this machine it takes TLS and a password', () => {
    const guard = (url: string, insecure = false) => ensureGuarded(parseRedisUrl(url), insecure);
    for (const url of [
      'redis://127.0.0.1',
      'redis://localhost',
      'redis://[::1]',
      'redis+unix:///r.sock',
      'rediss://:p@r1',
    ])
      guard(url);
    for (const url of [
      'redis://r1',
      'redis://:p@r1',
      'rediss://r1',
      'redis://127.0.0.1,r1?cluster',
      'redis://127.evil.org',
    ])
      expect(() => guard(url)).toThrow(/loopback/);
    guard('redis://r1', true);
    expect(nameOf(parseRedisUrl('redis://u:secret@r1?sentinel=main'))).toBe('main of r1:26379');
  });
});

describe('pages of several streams', () => {
  const logged = (revision: number) =>
    [`${revision}-0`, ['entries', `[{"key":"k","value":${revision},"revision":${revision}}]`, 'actor', '']] as const;
  const revisions = (...pages: number[][]) => {
    const { changes, whole } = merge(
      pages.map((page) => page.map(logged)),
      3,
    );
    return [changes.map(({ revision }) => revision), whole];
  };

  test('are one, in order, each change once', () => {
    expect(revisions([1, 4], [2, 4])).toEqual([[1, 2, 4], true]);
    expect(revisions([], [])).toEqual([[], true]);
  });
  test('end where a full one ends', () => {
    expect(revisions([1, 2, 5], [4, 6])).toEqual([[1, 2, 4, 5], false]);
    expect(revisions([1, 2, 5], [3, 4, 6])).toEqual([[1, 2, 3, 4, 5], false]);
  });
});

describe('what a wait brings', () => {
  const entry = (revision: number, after: number, run = 'r') =>
    [`${revision}-0`, ['entries', '[]', 'actor', '', 'after', `${after}`, 'run', run]] as const;

  test('follows what is known where every stream goes on without a gap, by the same server', () => {
    expect(follows([[entry(7, 3), entry(9, 7)], [entry(8, 5)]], 5, 'r')).toBe(true);
    // Something between was trimmed, or is on a server that is gone.
    expect(follows([[entry(7, 6)]], 5, 'r')).toBe(false);
    expect(follows([[entry(7, 5), entry(9, 8)]], 5, 'r')).toBe(false);
    expect(follows([[entry(7, 5), entry(8, 7, 'another')]], 5, 'r')).toBe(false);
    // An older version says nothing.
    expect(follows([[['7-0', ['entries', '[]', 'actor', '']]]], 5, 'r')).toBe(false);
  });
});
