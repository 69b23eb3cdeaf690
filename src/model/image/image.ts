/** An image as callers see it; src/contracts/image.ts says what can be done with one. */
import type { HealthSpec } from '../container.ts';

/** What of an OCI image configuration makes a container; absent parts are empty. */
export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly user: string;
  readonly workdir: string;
  readonly stopSignal?: string;
  readonly health?: HealthSpec;
  /** Absolute paths. */
  readonly volumes: readonly string[];
  /** `80/tcp` */
  readonly ports: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

export interface Image {
  /** `sha256:…` of the configuration. */
  readonly id: string;
  /** Full references, `docker.io/library/busybox:latest`, sorted. */
  readonly names: readonly string[];
  /** Digests of manifests that led here, `docker.io/library/busybox@sha256:…`. */
  readonly digests: readonly string[];
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  /** ISO 8601 */
  readonly created: string;
  /** Bytes of the layers unpacked. */
  readonly size: number;
  /** Diff ids, lowest first. */
  readonly layers: readonly string[];
  readonly config: ImageConfig;
}

/** One step of a pull, push or load, as the progress bars show it. */
export interface ImageProgress {
  readonly type: 'status' | 'layer';
  /** Digest of the layer, or the reference. */
  readonly what: string;
  readonly text:
    | 'waiting'
    | 'downloading'
    | 'uploading'
    | 'verifying'
    | 'unpacking'
    | 'exists'
    | 'done'
    | (string & {});
  readonly current?: number;
  readonly total?: number;
}

/** One step of what made an image, the latest first. */
export interface ImageStep {
  /** ISO 8601, empty where it is not told. */
  readonly created: string;
  readonly by: string;
  /** Bytes of its layer, 0 for a step that made none. */
  readonly size: number;
  readonly comment: string;
}

/** What a removal or a prune took. */
export interface ImagesRemoved {
  readonly untagged: readonly string[];
  /** Ids. */
  readonly deleted: readonly string[];
}
export interface ImagesPruned {
  readonly deleted: readonly string[];
  /** Given back to the disk. */
  readonly bytes: number;
}
