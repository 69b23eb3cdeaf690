/** What the threads that unpack are asked, and what they answer. */
import type { UnpackLimits } from './unpack.ts';

export interface UnpackJob {
  /** The layer as a tar: plain, gzip or zstd. */
  readonly blob: string;
  /** Digest of the tar decompressed that is expected, `sha256:…`; null: whatever it is. */
  readonly diffId: string | null;
  /** `check`: only compare the digest; the layer is there already. */
  readonly kind: 'unpack' | 'check';
  /** Directory for what is not whole yet, on the file system of `layers`. */
  readonly temporary: string;
  /** The layer becomes `layers/HEX`: its content in `diff`, what we know of it in `layer.json`. */
  readonly layers: string;
  readonly blobDigest: string;
  readonly limits: UnpackLimits;
}

export interface UnpackResult {
  readonly diffId: string;
  /** Bytes of its files. */
  readonly bytes: number;
  readonly entries: number;
  /** Extended attributes that the file system does not keep. */
  readonly lostXattrs: readonly string[];
}

export type ToWorker = { readonly type: 'run'; readonly job: UnpackJob } | { readonly type: 'abort' };
export type FromWorker =
  | { readonly type: 'progress'; readonly current: number }
  | { readonly type: 'done'; readonly result: UnpackResult }
  | {
      readonly type: 'failed';
      readonly code: string;
      readonly message: string;
      readonly details: Record<string, unknown>;
    };

/** `layer.json` of an unpacked layer. */
export interface LayerRecord extends UnpackResult {
  /** Digests of blobs that are known to hold it. */
  readonly blobs: readonly string[];
}

export const hexOf = (digest: string): string => digest.slice(digest.indexOf(':') + 1);
