/** What all peers have in common. */
import type { Place } from '../../src/lab/place.ts';

export interface Peer {
  /** Version and configuration, for the result. */
  readonly given: string;
  stop(): Promise<void>;
}

export interface ProxyOptions {
  /** Where its files go. */
  readonly folder: string;
  /** Where it listens. */
  readonly address: string;
  readonly port: number;
  /** `10.0.0.2:80` each. */
  readonly backends: readonly string[];
  /** From where a connection through it is tried before it counts as started. */
  readonly client: Place;
}
