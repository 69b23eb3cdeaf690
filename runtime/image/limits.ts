import type { UnpackLimits } from './layer/unpack.ts';

/** What one image may ask of this host. */
export interface ImageLimits extends UnpackLimits {
  /** Bytes of an archive that is loaded, decompressed. */
  readonly archiveBytesMax: number;
}

/** Above all that is known in the wild (machine-learning images have layers of 30 GiB), below what fills any disk. */
export const IMAGE_LIMITS: ImageLimits = {
  layerBytesMax: 128 * 1024 ** 3,
  entriesMax: 4_000_000,
  archiveBytesMax: 256 * 1024 ** 3,
};
