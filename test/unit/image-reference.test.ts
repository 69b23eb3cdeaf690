import { describe, expect, test } from 'vitest';
import { familiarName, fullName, parseReference } from '../../runtime/image/reference.ts';

const DIGEST = `sha256:${'ab'.repeat(32)}`;

describe('names of images', () => {
  test.each([
    ['busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['busybox:1.36', 'docker.io/library/busybox:1.36', 'busybox:1.36'],
    ['library/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['docker.io/busybox', 'docker.io/library/busybox:latest', 'busybox:latest'],
    ['index.docker.io/a/b', 'docker.io/a/b:latest', 'a/b:latest'],
    ['a/b/c:T_1.x-y', 'docker.io/a/b/c:T_1.x-y', 'a/b/c:T_1.x-y'],
    ['localhost/x', 'localhost/x:latest', 'localhost/x:latest'],
    ['localhost:5000/x', 'localhost:5000/x:latest', 'localhost:5000/x:latest'],
    ['127.0.0.1:5000/a/b:2', '127.0.0.1:5000/a/b:2', '127.0.0.1:5000/a/b:2'],
    ['[::1]:5000/a', '[::1]:5000/a:latest', '[::1]:5000/a:latest'],
    ['ghcr.io/o/r', 'ghcr.io/o/r:latest', 'ghcr.io/o/r:latest'],
    ['MYHOST/r', 'MYHOST/r:latest', 'MYHOST/r:latest'],
    [`busybox@${DIGEST}`, `docker.io/library/busybox@${DIGEST}`, `busybox@${DIGEST}`],
    [`quay.io/a/b:1@${DIGEST}`, `quay.io/a/b@${DIGEST}`, `quay.io/a/b@${DIGEST}`],
    ['a__b', 'docker.io/library/a__b:latest', 'a__b:latest'],
  ])('%s', (text, full, familiar) => {
    expect(fullName(parseReference(text))).toBe(full);
    expect(familiarName(full)).toBe(familiar);
    // What we print is a name for the same again.
    expect(fullName(parseReference(familiar))).toBe(full);
  });

  test.each([
    '',
    ':tag',
    'a:',
    'a:b:c',
    'UPPER',
    'a/Upper',
    'a//b',
    '/a',
    'a/',
    '../etc',
    'a/../b',
    'a b',
    'a@sha256:short',
    `a@md5:${'ab'.repeat(16)}`,
    'a:-x',
    `a:${'t'.repeat(129)}`,
    'f'.repeat(256),
    'ab'.repeat(32),
    'host:99999999/x',
    'a\n',
    'http://a/b',
  ])('refuses %j', (text) => {
    expect(() => parseReference(text)).toThrow(expect.objectContaining({ code: 'image.reference' }));
  });
});
