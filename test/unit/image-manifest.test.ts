import { describe, expect, test } from 'vitest';
import { compressionOf } from '../../runtime/image/archive/compression.ts';
import { chooseDescriptor, groupDescriptors } from '../../runtime/image/archive/load.ts';
import { historyOf } from '../../runtime/image/history.ts';
import {
  type Configuration,
  configOf,
  imageConfigOf,
  MEDIA,
  parseConfiguration,
  parseDocument,
} from '../../runtime/image/manifest.ts';
import { checkPlatform, choosePlatform, parsePlatform } from '../../runtime/image/platform.ts';
import { planRemoval } from '../../runtime/image/removal.ts';
import { type Entry, withEntry } from '../../runtime/image/store/index.ts';

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`;
const descriptor = (digit: string, extra: object = {}) => ({
  mediaType: MEDIA.ociManifest,
  digest: digest(digit),
  size: 1,
  ...extra,
});
const bytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));

describe('documents', () => {
  const layer = { ...descriptor('2'), mediaType: `${MEDIA.ociLayer}+gzip` };
  const manifest = { schemaVersion: 2, config: descriptor('1'), layers: [layer] };
  test('are told apart by their type, else by their shape', () => {
    expect(parseDocument(bytes(manifest), 'm').kind).toBe('manifest');
    expect(parseDocument(bytes({ schemaVersion: 2, manifests: [] }), 'm').kind).toBe('index');
    expect(parseDocument(bytes({ ...manifest, mediaType: MEDIA.dockerManifest }), 'm')).toMatchObject({
      mediaType: MEDIA.dockerManifest,
    });
  });
  test.each<[string, unknown]>([
    ['schema 1', { schemaVersion: 1, fsLayers: [] }],
    ['an unknown type', { ...manifest, mediaType: 'application/json' }],
    ['an artifact', { ...manifest, layers: [{ ...layer, mediaType: 'application/wasm' }] }],
    ['an encrypted layer', { ...manifest, layers: [{ ...layer, mediaType: `${MEDIA.ociLayer}+gzip+encrypted` }] }],
    ['a digest that is a path', { ...manifest, config: { ...descriptor('1'), digest: 'sha256:../../etc/passwd' } }],
    ['a negative size', { ...manifest, layers: [{ ...layer, size: -1 }] }],
    ['a size that is no integer', { ...manifest, layers: [{ ...layer, size: 1.5 }] }],
    ['no layers', { schemaVersion: 2, config: descriptor('1') }],
    ['501 layers', { ...manifest, layers: Array.from({ length: 501 }, () => layer) }],
    ['null', null],
  ])('refuses %s', (_, value) => {
    expect(() => parseDocument(bytes(value), 'm')).toThrow(expect.objectContaining({ code: 'image.manifest' }));
  });
  test('refuses a configuration whose layers are not the manifest’s', () => {
    const value = { os: 'linux', architecture: 'amd64', rootfs: { type: 'layers', diff_ids: [digest('3')] } };
    expect(parseConfiguration(bytes(value), 'c', 1).os).toBe('linux');
    expect(() => parseConfiguration(bytes(value), 'c', 2)).toThrow(/1 layers, the manifest 2/);
    expect(() => parseConfiguration(Buffer.from('{'), 'c')).toThrow(
      expect.objectContaining({ code: 'image.manifest' }),
    );
  });
});

test('a configuration as containers take it, and back', () => {
  const of = {
    User: '1:2',
    ExposedPorts: { 80: {}, '53/udp': {} },
    Env: ['A=b'],
    Entrypoint: null,
    Cmd: 'echo $A',
    Volumes: { '/data': {} },
    Healthcheck: { Test: ['CMD', 'true'], Interval: 5e9, Retries: 0 },
    StopSignal: 'SIGINT',
  };
  const config = imageConfigOf({ config: of } as unknown as Configuration);
  expect(config).toEqual({
    entrypoint: [],
    command: ['/bin/sh', '-c', 'echo $A'],
    env: ['A=b'],
    user: '1:2',
    workdir: '',
    stopSignal: 'SIGINT',
    health: { test: ['CMD', 'true'], intervalMs: 5000, timeoutMs: 30_000, retries: 3, startPeriodMs: 0 },
    volumes: ['/data'],
    ports: ['53/udp', '80/tcp'],
    labels: {},
  });
  expect(imageConfigOf({ config: configOf(config) } as unknown as Configuration)).toEqual(config);
});

describe('platforms', () => {
  const offer = (text: string) => ({ text, platform: parsePlatform(text) });
  test.each([
    ['linux/amd64', ['linux/arm64', 'linux/amd64'], 'linux/amd64'],
    ['linux/arm64', ['linux/amd64', 'linux/arm64/v8'], 'linux/arm64/v8'],
    ['linux/arm', ['linux/arm/v6', 'linux/arm/v7'], 'linux/arm/v7'],
    ['linux/arm/v6', ['linux/arm/v7', 'linux/arm/v6'], 'linux/arm/v6'],
    ['linux/amd64', ['linux/amd64/v3', 'linux/amd64'], 'linux/amd64'],
    ['linux/amd64', ['windows/amd64', 'linux/386'], undefined],
    ['linux/arm/v6', ['linux/arm/v7'], undefined],
    ['x86_64', ['linux/amd64'], 'linux/amd64'],
  ])('%s of %j', (wanted, offers, chosen) => {
    expect(choosePlatform(parsePlatform(wanted), offers.map(offer))?.text).toBe(chosen);
  });
  test('a mismatch names both', () => {
    const check = () => checkPlatform(parsePlatform('linux/amd64'), parsePlatform('linux/arm64'), 'x');
    expect(check).toThrow(
      expect.objectContaining({ code: 'image.platform', message: expect.stringMatching(/arm64.*amd64/) }),
    );
    expect(() => parsePlatform('a/b/c/d')).toThrow(/OS\/ARCHITECTURE/);
  });
  test('of a layout: by name, or one image where each has its own', () => {
    const platform = (text: string) => ({ platform: parsePlatform(text) });
    const named = (name: string) => ({ annotations: { 'org.opencontainers.image.ref.name': name } });
    const both = [descriptor('1', platform('linux/amd64')), descriptor('2', platform('linux/arm64'))];
    expect(groupDescriptors(both)).toHaveLength(1);
    expect(chooseDescriptor(parsePlatform('linux/arm64'), both, 'x').digest).toBe(digest('2'));
    expect(() => chooseDescriptor(parsePlatform('linux/s390x'), both, 'x')).toThrow(
      /linux\/amd64, linux\/arm64.*s390x/,
    );
    expect(groupDescriptors([descriptor('1'), descriptor('2')])).toHaveLength(2);
    expect(
      groupDescriptors([descriptor('1', named('a:1')), descriptor('2', named('b:1'))]).map(({ name }) => name),
    ).toEqual(['docker.io/library/a:1', 'docker.io/library/b:1']);
    // A tag alone says nothing of a name.
    expect(groupDescriptors([descriptor('1', named('latest'))])[0]!.name).toBeNull();
  });
});

describe('the index', () => {
  const entry = (digit: string, names: string[], digests: string[] = []): Entry => ({
    manifest: { mediaType: MEDIA.ociManifest, digest: digest(digit), size: 1 },
    id: digest(digit),
    names,
    digests,
  });
  test('a name belongs to one image', () => {
    const before = new Map([[digest('1'), entry('1', ['a:1', 'a:2'], ['a@x'])]]);
    const after = withEntry(before, entry('2', ['a:1'], ['a@y']));
    expect(after.get(digest('1'))).toMatchObject({ names: ['a:2'], digests: ['a@x'] });
    expect(after.get(digest('2'))).toMatchObject({ names: ['a:1'] });
    expect(withEntry(after, entry('2', ['b:1'])).get(digest('2'))).toMatchObject({
      names: ['a:1', 'b:1'],
      digests: ['a@y'],
    });
  });
  test('what a removal does', () => {
    const two = entry('1', ['a:1', 'a:2'], ['a@x']);
    expect(planRemoval({ entry: two, by: 'name', key: 'a:1' }, false)).toMatchObject({
      untagged: ['a:1'],
      next: { names: ['a:2'], digests: ['a@x'] },
    });
    expect(planRemoval({ entry: two, by: 'digest', key: 'a@x' }, false).next).toMatchObject({ digests: [] });
    const one = entry('1', ['a:1'], ['a@x']);
    expect(planRemoval({ entry: one, by: 'name', key: 'a:1' }, false)).toEqual({
      untagged: ['a:1', 'a@x'],
      next: null,
    });
    expect(() => planRemoval({ entry: two, by: 'id', key: two.id }, false)).toThrow(
      expect.objectContaining({ code: 'image.inuse' }),
    );
    expect(planRemoval({ entry: two, by: 'id', key: two.id }, true).next).toBeNull();
  });
});

test('history: the latest first, sizes with the steps that made layers', async () => {
  const configuration = {
    rootfs: { diff_ids: [digest('1'), digest('2'), digest('3')] },
    history: [
      { created_by: 'first' },
      { created_by: 'env', empty_layer: true },
      { created_by: 'second', comment: 'c' },
    ],
  } as unknown as Configuration;
  const steps = await historyOf(configuration, async (diffId) => ({ bytes: Number(diffId[7]) }) as never);
  expect(steps.map(({ by, size }) => [by, size])).toEqual([
    ['', 3],
    ['second', 2],
    ['env', 0],
    ['first', 1],
  ]);
});

test('compressions by their first bytes', () => {
  expect(compressionOf(Buffer.from([0x1f, 0x8b, 8]))).toBe('gzip');
  expect(compressionOf(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]))).toBe('zstd');
  expect(compressionOf(Buffer.from([0x52, 0x2a, 0x4d, 0x18]))).toBe('zstd');
  expect(compressionOf(Buffer.alloc(0))).toBe('none');
  for (const head of ['BZh9', '\xfd7zXZ\0'])
    expect(() => compressionOf(Buffer.from(head, 'latin1'))).toThrow(/bzip2|xz/);
});
