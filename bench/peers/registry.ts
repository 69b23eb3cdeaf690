/** A registry on loopback with one image in it, and skopeo with tar as what fetches and unpacks that image without us. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { SluiceError } from '../../src/errors.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import type { Station } from '../../src/lab/lab.ts';
import type { Background } from '../../src/lab/place.ts';
import { versionOf } from '../machine.ts';

const run = promisify(execFile);
const LIMIT_MS = 120_000;
const ADDRESS = '127.0.0.1:5000';
const OCI = 'application/vnd.oci.image';

/** What the layers hold: programs and sources as real images have them, and the same for everybody who installed this version. */
const LAYERS = [
  ['node_modules/node/bin'],
  ['node_modules/typescript', 'node_modules/vitest', 'node_modules/fast-check'],
  ['node_modules/zod', 'node_modules/hono', 'node_modules/ioredis'],
  ['src', 'test'],
] as const;

export interface PullBed {
  /** `127.0.0.1:5000/bench:1` */
  readonly image: string;
  readonly given: string;
  /** skopeo copies the image into a new folder, tar unpacks its layers, some at once. */
  skopeo(): Promise<void>;
  /** Removes what `skopeo` made. */
  clear(): void;
  close(): Promise<void>;
}

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** An OCI layout with one image of the layers, gzip as registries have them. */
async function makeLayout(dir: string): Promise<{ readonly bytes: number; readonly layers: number }> {
  const blobs = join(dir, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const put = (value: object, mediaType: string) => {
    const bytes = Buffer.from(JSON.stringify(value));
    const hex = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(blobs, hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const layers: { mediaType: string; digest: string; size: number }[] = [];
  const diffIds: string[] = [];
  for (const paths of LAYERS) {
    const file = join(dir, 'layer.tar');
    await run('tar', ['-C', projectRoot(), '-cf', file, '--owner=0', '--group=0', '--sort=name', ...paths]);
    diffIds.push(`sha256:${await digestOf(file)}`);
    await run('gzip', ['-n', file], { timeout: LIMIT_MS });
    const hex = await digestOf(`${file}.gz`);
    layers.push({
      mediaType: `${OCI}.layer.v1.tar+gzip`,
      digest: `sha256:${hex}`,
      size: statSync(`${file}.gz`).size,
    });
    await rename(`${file}.gz`, join(blobs, hex));
  }
  const architecture = { x64: 'amd64', arm64: 'arm64' }[process.arch as 'x64' | 'arm64'];
  const rootfs = { type: 'layers', diff_ids: diffIds };
  const config = put({ architecture, os: 'linux', rootfs, config: { Cmd: ['true'] } }, `${OCI}.config.v1+json`);
  const type = `${OCI}.manifest.v1+json`;
  const manifest = put({ schemaVersion: 2, mediaType: type, config, layers }, type);
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(join(dir, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [manifest] }));
  return { bytes: layers.reduce((sum, { size }) => sum + size, 0), layers: layers.length };
}

/** On the host's own loopback, where its daemon reaches it too. */
async function serve(host: Station, dir: string): Promise<Background> {
  const storage = { filesystem: { rootdirectory: join(dir, 'registry') }, cache: { blobdescriptor: 'inmemory' } };
  const http = { addr: ADDRESS, secret: 'bench' };
  const file = join(dir, 'registry.json');
  writeFileSync(file, JSON.stringify({ version: '0.1', log: { level: 'error' }, storage, http }));
  const registry = host.spawn(['docker-registry', 'serve', file]);
  try {
    await host.must(`for n in $(seq 100); do busybox wget -qO- http://${ADDRESS}/v2/ && exit; sleep 0.1; done; exit 1`);
    return registry;
  } catch (error) {
    await registry.stop();
    throw new SluiceError('internal', `docker-registry does not serve: ${registry.output()}`, {}, error);
  }
}

interface Manifest {
  readonly layers: readonly { readonly digest: string }[];
}

const skopeo = (host: Station, ...args: string[]) =>
  host.must(['skopeo', 'copy', '--quiet', ...args], { timeoutMs: LIMIT_MS });

/** Fetched and unpacked: each layer into a folder of its own, as overlayfs takes them. */
async function copyAndUnpack(host: Station, image: string, dir: string): Promise<void> {
  await skopeo(host, '--src-tls-verify=false', `docker://${image}`, `dir:${dir}`);
  const { layers } = JSON.parse(readFileSync(join(dir, 'manifest.json'), 'utf8')) as Manifest;
  await Promise.all(
    layers.map(async ({ digest }, at) => {
      const to = join(dir, `layer-${at}`);
      mkdirSync(to);
      await run('tar', ['-C', to, '-xzpf', join(dir, digest.replace('sha256:', ''))], { timeout: LIMIT_MS });
    }),
  );
  // Ours is on the disk when it says that it is done.
  await run('sync', ['--file-system', dir], { timeout: LIMIT_MS });
}

export async function openPullBed(host: Station, dir: string): Promise<PullBed> {
  const layout = join(dir, 'layout');
  const { bytes, layers } = await makeLayout(layout);
  const registry = await serve(host, dir);
  const image = `${ADDRESS}/bench:1`;
  const copy = join(dir, 'copy');
  const close = async (): Promise<void> => void (await registry.stop());
  try {
    await skopeo(host, '--dest-tls-verify=false', `oci:${layout}`, `docker://${image}`);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    image,
    given:
      `skopeo ${versionOf(['skopeo', '--version'], /version (\S+)/)} copies into a folder, tar and gzip unpack the ${layers} layers ` +
      `(${(bytes / 1e6).toFixed(0)} MB) at once, then the file system is synchronized, as ours is`,
    skopeo: () => copyAndUnpack(host, image, copy),
    clear: () => rmSync(copy, { recursive: true, force: true }),
    close,
  };
}
