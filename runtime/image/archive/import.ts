/** A plain file system as a tar becomes an image of one layer. */

import type { Clock } from '../../../src/clock.ts';
import type { Image, ImageConfig, TransferOptions } from '../../../src/contracts/image.ts';
import type { Catalog } from '../catalog.ts';
import type { Layers } from '../layer/layers.ts';
import { configOf, MEDIA } from '../manifest.ts';
import { hostPlatform, parsePlatform } from '../platform.ts';
import type { Blobs } from '../store/blobs.ts';
import { compressionOf } from './compression.ts';
import { layerType, makeManifest } from './load.ts';

interface Store {
  readonly blobs: Blobs;
  readonly catalog: Catalog;
  readonly layers: Layers;
  readonly clock: Clock;
}

/** See `Images.import`. The tarball is kept as it came, compressed or not. `name`: in full, with a tag. */
export async function importTarball(
  { blobs, catalog, layers, clock }: Store,
  tarball: AsyncIterable<Uint8Array>,
  name: string | null,
  options: TransferOptions & { readonly changes?: Partial<ImageConfig> },
): Promise<Image> {
  const writer = await blobs.writer();
  try {
    let head = Buffer.alloc(0);
    for await (const chunk of tarball) {
      options.signal.throwIfAborted();
      if (head.length < 16) head = Buffer.concat([head, chunk.subarray(0, 16)]);
      await writer.write(chunk);
      options.onProgress?.({ type: 'status', what: 'archive', text: 'reading', current: writer.size });
    }
    const mediaType = layerType(compressionOf(head));
    const blob = await writer.seal();
    return await catalog.bringing([blob.digest], async () => {
      await writer.commit();
      const source = { path: blobs.path(blob.digest), digest: blob.digest };
      const { diffId } = await layers.ensure(source, null, { signal: options.signal });
      return catalog.bringing([diffId], async () => {
        const created = new Date(clock.now()).toISOString();
        const { os, architecture, variant } = options.platform ? parsePlatform(options.platform) : hostPlatform();
        const configuration = {
          created,
          architecture,
          ...(variant ? { variant } : {}),
          os,
          config: configOf(options.changes ?? {}),
          rootfs: { type: 'layers', diff_ids: [diffId] },
          history: [{ created, comment: 'imported from a tarball' }],
        };
        const config = await blobs.put(Buffer.from(JSON.stringify(configuration)));
        return catalog.bringing([config.digest], () => {
          const bytes = makeManifest({ mediaType: MEDIA.ociConfig, ...config }, [{ mediaType, ...blob }]);
          const manifest = { bytes, mediaType: MEDIA.ociManifest };
          const names = name === null ? [] : [name];
          return catalog.admit({ manifest, names, digests: [], what: name ?? 'the imported image' }, options);
        });
      });
    });
  } finally {
    await writer.abandon();
  }
}
