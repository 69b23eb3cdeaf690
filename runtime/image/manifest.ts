/** Manifests, indexes and configurations as the OCI image specification and Docker's schema 2 have them: read, judged, made. Pure. */
import { z } from 'zod';
import type { ImageConfig } from '../../src/contracts/image.ts';
import { SluiceError } from '../../src/errors.ts';
import type { HealthSpec } from '../../src/model/container.ts';
import { DIGEST } from './reference.ts';

export const MEDIA = {
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  dockerIndex: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
} as const;

/** What we ask registries for. */
export const MANIFEST_TYPES = [MEDIA.ociIndex, MEDIA.ociManifest, MEDIA.dockerIndex, MEDIA.dockerManifest] as const;

/** Manifests and indexes; the specification asks registries for 4 MiB. */
export const MANIFEST_BYTES_MAX = 4 * 1024 * 1024;
export const CONFIG_BYTES_MAX = 8 * 1024 * 1024;
/** More than overlayfs stacks. */
const LAYERS_MAX = 500;

const LAYER_TYPE =
  /^application\/vnd\.(?:oci\.image\.layer(?:\.nondistributable)?\.v1\.tar(?:\+(?:gzip|zstd))?|docker\.image\.rootfs(?:\.foreign)?\.diff\.tar(?:\.(?:gzip|zstd))?)$/;

const digest = z.string().regex(DIGEST, 'not a sha256 digest');
const platform = z.looseObject({ os: z.string(), architecture: z.string(), variant: z.string().optional() });
const descriptor = z.looseObject({
  mediaType: z.string(),
  digest,
  size: z.int().nonnegative(),
  platform: platform.optional(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
export type Descriptor = z.infer<typeof descriptor>;

const manifest = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  config: descriptor,
  layers: z.array(descriptor).max(LAYERS_MAX),
});
export type Manifest = z.infer<typeof manifest>;

const index = z.looseObject({
  schemaVersion: z.literal(2),
  mediaType: z.string().optional(),
  manifests: z.array(descriptor).max(10_000),
});
export type Index = z.infer<typeof index>;

const texts = z.array(z.string()).nullish();
const keys = z.record(z.string(), z.unknown()).nullish();
const config = z.looseObject({
  os: z.string().min(1),
  architecture: z.string().min(1),
  variant: z.string().optional(),
  created: z.string().nullish(),
  config: z
    .looseObject({
      User: z.string().nullish(),
      ExposedPorts: keys,
      Env: texts,
      Entrypoint: z.union([texts, z.string()]),
      Cmd: z.union([texts, z.string()]),
      Volumes: keys,
      WorkingDir: z.string().nullish(),
      Labels: z.record(z.string(), z.string()).nullish(),
      StopSignal: z.string().nullish(),
      Healthcheck: z
        .looseObject({
          Test: texts,
          Interval: z.number().nullish(),
          Timeout: z.number().nullish(),
          StartPeriod: z.number().nullish(),
          Retries: z.number().nullish(),
        })
        .nullish(),
    })
    .nullish(),
  rootfs: z.looseObject({ type: z.literal('layers'), diff_ids: z.array(digest).max(LAYERS_MAX).nullish() }),
  history: z
    .array(
      z.looseObject({
        created: z.string().nullish(),
        created_by: z.string().nullish(),
        comment: z.string().nullish(),
        empty_layer: z.boolean().nullish(),
      }),
    )
    .nullish(),
});
export type Configuration = z.infer<typeof config>;

const refuse = (what: string, why: string): SluiceError =>
  new SluiceError('image.manifest', `${what} is not understood: ${why}`);

function parseAs<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [first] = parsed.error.issues;
  throw refuse(what, `${first?.path.join('.') ?? ''}: ${first?.message ?? ''}`);
}

/** The value of JSON text; fails with `image.manifest`. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  try {
    return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
  } catch (error) {
    throw refuse(what, (error as Error).message);
  }
}

export type Document =
  | { readonly kind: 'index'; readonly index: Index; readonly mediaType: string }
  | { readonly kind: 'manifest'; readonly manifest: Manifest; readonly mediaType: string };

/** A manifest or an index, by what it says of itself, else by its shape. `what` names it in errors. */
export function parseDocument(bytes: Uint8Array, what: string): Document {
  const value = parseJson(bytes, what) as Record<string, unknown> | null;
  if (typeof value !== 'object' || value === null) throw refuse(what, 'it is no object');
  if (value.schemaVersion === 1) throw refuse(what, "it is of Docker's schema 1, which registries gave up in 2020");
  const said = typeof value.mediaType === 'string' ? value.mediaType : undefined;
  const isIndex = said === MEDIA.ociIndex || said === MEDIA.dockerIndex || (!said && Array.isArray(value.manifests));
  if (isIndex) return { kind: 'index', index: parseAs(index, value, what), mediaType: said ?? MEDIA.ociIndex };
  if (said && said !== MEDIA.ociManifest && said !== MEDIA.dockerManifest) throw refuse(what, `its type is ${said}`);
  const parsed = parseAs(manifest, value, what);
  for (const layer of parsed.layers) {
    if (!LAYER_TYPE.test(layer.mediaType)) throw refuse(what, `a layer is of the type ${layer.mediaType}`);
  }
  return { kind: 'manifest', manifest: parsed, mediaType: said ?? MEDIA.ociManifest };
}

/** The configuration; fails also where it does not have one diff id a layer. */
export function parseConfiguration(bytes: Uint8Array, what: string, layers?: number): Configuration {
  const parsed = parseAs(config, parseJson(bytes, what), what);
  const count = parsed.rootfs.diff_ids?.length ?? 0;
  if (layers !== undefined && count !== layers) throw refuse(what, `it names ${count} layers, the manifest ${layers}`);
  return parsed;
}

export const diffIdsOf = (configuration: Configuration): readonly string[] => configuration.rootfs.diff_ids ?? [];

/** `CMD ls -l` of the shell form, which some builders leave as one text. */
const wordsOf = (value: readonly string[] | string | null | undefined): readonly string[] =>
  typeof value === 'string' ? ['/bin/sh', '-c', value] : (value ?? []);

/** Docker counts in nanoseconds; 0 or absent is its default. */
function healthOf(check: NonNullable<NonNullable<Configuration['config']>['Healthcheck']>): HealthSpec | undefined {
  if (!check.Test || check.Test.length === 0) return undefined;
  const ms = (nanoseconds: number | null | undefined, otherwise: number): number =>
    nanoseconds ? Math.max(1, Math.round(nanoseconds / 1e6)) : otherwise;
  return {
    test: check.Test,
    intervalMs: ms(check.Interval, 30_000),
    timeoutMs: ms(check.Timeout, 30_000),
    retries: check.Retries || 3,
    startPeriodMs: ms(check.StartPeriod, 0),
  };
}

export function imageConfigOf({ config: of }: Configuration): ImageConfig {
  const health = of?.Healthcheck ? healthOf(of.Healthcheck) : undefined;
  return {
    entrypoint: wordsOf(of?.Entrypoint),
    command: wordsOf(of?.Cmd),
    env: of?.Env ?? [],
    user: of?.User ?? '',
    workdir: of?.WorkingDir ?? '',
    ...(of?.StopSignal ? { stopSignal: of.StopSignal } : {}),
    ...(health ? { health } : {}),
    volumes: Object.keys(of?.Volumes ?? {}).sort(),
    // A port alone means TCP; builders differ in whether they write it.
    ports: Object.keys(of?.ExposedPorts ?? {})
      .map((port) => (port.includes('/') ? port : `${port}/tcp`))
      .sort(),
    labels: of?.Labels ?? {},
  };
}

/** The configuration's own part of an image made here. */
export function configOf(changes: Partial<ImageConfig>): NonNullable<Configuration['config']> {
  const object = (words: readonly string[] | undefined) =>
    words && words.length > 0 ? Object.fromEntries(words.map((word) => [word, {}])) : undefined;
  const { health } = changes;
  return {
    Entrypoint: changes.entrypoint ? [...changes.entrypoint] : undefined,
    Cmd: changes.command ? [...changes.command] : undefined,
    Env: changes.env ? [...changes.env] : undefined,
    User: changes.user,
    WorkingDir: changes.workdir,
    StopSignal: changes.stopSignal,
    Volumes: object(changes.volumes),
    ExposedPorts: object(changes.ports),
    Labels: changes.labels ? { ...changes.labels } : undefined,
    Healthcheck: health && {
      Test: [...health.test],
      Interval: health.intervalMs * 1e6,
      Timeout: health.timeoutMs * 1e6,
      StartPeriod: health.startPeriodMs * 1e6,
      Retries: health.retries,
    },
  };
}
