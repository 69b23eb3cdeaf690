/** Schemas of images for requests and for the OpenAPI document. */
import { z } from '@hono/zod-openapi';
import type { Image, ImageConfig, ImageStep, ImagesPruned, ImagesRemoved } from '../../model/image/image.ts';
import type { Shape } from '../../model/schema.ts';

/** What it means is for src/contracts/image.ts to say; here only what nobody's name has. */
export const reference = z
  .string()
  .min(1)
  .max(512)
  .regex(/^[\x21-\x7e]+$/, 'a name of an image has no blanks')
  .openapi({ description: 'Name, digest, id, or the beginning of an id.', example: 'busybox:1.36' });
export const platform = z
  .string()
  .max(64)
  .optional()
  .openapi({ description: 'OS/ARCHITECTURE[/VARIANT]; absent: the host’s.', example: 'linux/arm64' });

const text = z.string().max(4096);
const words = z.array(z.string().max(65_536)).max(4096);
const health = z.strictObject({
  test: words,
  intervalMs: z.int().positive(),
  timeoutMs: z.int().positive(),
  retries: z.int().positive(),
  startPeriodMs: z.int().nonnegative(),
});
const config = {
  entrypoint: words,
  command: words,
  env: words,
  user: text,
  workdir: text,
  stopSignal: text.optional(),
  health: health.optional(),
  volumes: words,
  ports: words,
  labels: z.record(z.string(), z.string()),
} satisfies Shape<ImageConfig>;

/** What an import may say of how its image runs. */
export const changes = z.strictObject(config).partial().openapi('ImageChanges');

export const image: z.ZodType<Image> = z
  .object({
    id: z.string().openapi({ description: '`sha256:…` of the configuration.' }),
    names: z.array(z.string()),
    digests: z.array(z.string()),
    os: z.string(),
    architecture: z.string(),
    variant: z.string().optional(),
    created: z.string(),
    size: z.number().openapi({ description: 'Bytes of the layers unpacked.' }),
    layers: z.array(z.string()),
    config: z.object(config),
  } satisfies Shape<Image>)
  .openapi('Image');

export const step: z.ZodType<ImageStep> = z
  .object({
    created: z.string(),
    by: z.string(),
    size: z.number(),
    comment: z.string(),
  } satisfies Shape<ImageStep>)
  .openapi('ImageStep');

export const imagesRemoved: z.ZodType<ImagesRemoved> = z
  .object({ untagged: z.array(z.string()), deleted: z.array(z.string()) } satisfies Shape<ImagesRemoved>)
  .openapi('ImagesRemoved');
export const imagesPruned: z.ZodType<ImagesPruned> = z
  .object({ deleted: z.array(z.string()), bytes: z.number() } satisfies Shape<ImagesPruned>)
  .openapi('ImagesPruned');

export const transferRequest = z.strictObject({ reference, platform }).openapi('TransferRequest');
export const pushRequest = z.strictObject({ reference }).openapi('PushRequest');
export const tagRequest = z.strictObject({ name: reference }).openapi('TagRequest');
export const loginRequest = z
  .strictObject({ user: z.string().min(1).max(256), password: z.string().max(65_536) })
  .openapi('LoginRequest');
