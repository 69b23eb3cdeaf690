/** A volume: a directory that outlives the containers that mount it. */
import type { Obj } from '../object.ts';

export interface VolumeSpec {
  readonly driver: 'local';
  /** Made for one container, without a name of anybody's choice: goes with `rm --volumes` and `--rm`. */
  readonly anonymous: boolean;
}

export type Volume = Obj<'volume', VolumeSpec>;

/** `Status.detail` of a volume. */
export interface VolumeDetail {
  /** Absolute path on the host. */
  readonly mountpoint: string;
}
