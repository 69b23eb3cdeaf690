/** What of the host a container is never given, by whatever name it is asked for. */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { realSources } from '../../runtime/engine/spec/rootfs.ts';
import type { MountSpec } from '../../src/model/container.ts';
import { makeFolder } from '../folder.ts';

const folder = makeFolder('sources');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const at = (...names: string[]): string => join(folder, ...names);
for (const name of ['state/store', 'run', 'data/run', 'statement']) mkdirSync(at(name), { recursive: true });
writeFileSync(at('api.sock'), '');
symlinkSync('state', at('link'));
symlinkSync('../link/store', at('data/further'));
const OWN = [at('state'), at('run'), at('api.sock'), at('absent')];

const bind = (source: string): MountSpec => ({ type: 'bind', source, target: '/x', readOnly: true, options: {} });
const given = (source: string, privileged = false) =>
  realSources({ mounts: [bind(source)], privileged }, OWN)[0]!.source;

test.each(
  [
    'state',
    'state/store',
    'state/../state/store',
    'link',
    'link/store',
    'data/further',
    'data/../run',
    'api.sock',
    '../' + 'state',
  ].map((name) => (name.startsWith('../') ? `${at('data')}/${name}` : `${folder}/${name}`)),
)('%s is refused', (source) => {
  expect(() => given(source)).toThrow(expect.objectContaining({ code: 'runtime.spec' }));
  expect(() => given(source)).toThrow("the daemon's own");
});

test('what only looks like it is given, with its links taken', () => {
  expect(given(at('data/run'))).toBe(at('data/run'));
  expect(given(at('statement'))).toBe(at('statement'));
  symlinkSync('data', at('there'));
  expect(given(at('there/run'))).toBe(at('data/run'));
});

test.each(['/', folder, at('there/..')])(
  '%s, in which the daemon keeps things, only for who is privileged',
  (source) => {
    expect(() => given(source)).toThrow(/holds the daemon's own .*--privileged/);
    expect(given(source, true)).not.toBe('');
    expect(() => given(at('state'), true)).toThrow("the daemon's own");
  },
);

test('what is missing is said; other kinds of mounts have no source to look at', () => {
  expect(() => given(at('nowhere'))).toThrow('is missing');
  expect(() => given(at('api.sock/below'))).toThrow('is missing');
  const volume: MountSpec = { type: 'volume', source: 'state', target: '/x', readOnly: false, options: {} };
  expect(realSources({ mounts: [volume], privileged: false }, OWN)).toEqual([volume]);
});
