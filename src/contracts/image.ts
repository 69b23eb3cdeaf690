/**
 * Images as the rest of Sluice sees them; runtime/image holds the implementation. References are Docker's: `busybox` is
 * `docker.io/library/busybox:latest`; an id is `sha256:…` of the configuration, and any unambiguous prefix of its hex names it too.
 */
import type { Image, ImageConfig, ImageProgress } from '../model/image/image.ts';

export type { Image, ImageConfig, ImageProgress } from '../model/image/image.ts';

export interface TransferOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: ImageProgress) => void;
  /** `linux/amd64`; the host's by default. A mismatch is `image.platform`, which names both. */
  readonly platform?: string;
}

/** All verbs fail with `image.*` codes; nothing half-done stays behind, whatever happens in between. */
export interface Images {
  /** By reference, id or prefix of an id; null when it is not here. */
  get(reference: string): Promise<Image | null>;
  list(): Promise<readonly Image[]>;
  pull(reference: string, options: TransferOptions): Promise<Image>;
  push(reference: string, options: TransferOptions): Promise<{ readonly digest: string }>;
  /** An OCI layout or docker archive as a tar stream, plain, gzip or zstd. */
  load(archive: AsyncIterable<Uint8Array>, options: TransferOptions): Promise<readonly Image[]>;
  /** A docker archive (which holds an OCI layout too) of the images. */
  save(references: readonly string[], signal: AbortSignal): AsyncIterable<Uint8Array>;
  import(
    tarball: AsyncIterable<Uint8Array>,
    reference: string | null,
    options: TransferOptions & { readonly changes?: Partial<ImageConfig> },
  ): Promise<Image>;
  tag(reference: string, name: string): Promise<void>;
  /** Removes a name, and the image with its last one; `image.inuse` unless `force` while `users` holds its id. */
  remove(
    reference: string,
    options: { readonly force?: boolean; readonly users: ReadonlySet<string> },
  ): Promise<{ readonly untagged: readonly string[]; readonly deleted: readonly string[] }>;
  /** What no name and no user holds: images, blobs, unpacked layers. Bytes given back. */
  prune(options: { readonly all: boolean; readonly users: ReadonlySet<string> }): Promise<{
    readonly deleted: readonly string[];
    readonly bytes: number;
  }>;
  history(
    reference: string,
  ): Promise<
    readonly { readonly created: string; readonly by: string; readonly size: number; readonly comment: string }[]
  >;
  /** Checks and keeps credentials for a registry. */
  login(registry: string, user: string, password: string): Promise<void>;
  logout(registry: string): Promise<void>;

  /**
   * The container's root: an overlay of the image's layers with a writable layer of its own, mounted at the returned absolute path. Mounted
   * already: kept. The image cannot be removed while it is mounted. `shift`: first id of a user namespace's range, whose root owns the files.
   */
  mount(imageId: string, container: string, options?: { readonly shift?: number }): Promise<string>;
  /** Unmounts; the writable layer stays. Absent succeeds. */
  unmount(container: string): Promise<void>;
  /** Removes the writable layer too. Absent succeeds. */
  removeRoot(container: string): Promise<void>;
  /** Containers that have a writable layer here: what nobody knows is pruned by the caller. */
  roots(): Promise<readonly string[]>;
}
