/** What callers PUT for containers and volumes, and what is answered beside the objects; schema.ts validates it. */
import type { ContainerSpec, HealthSpec, MountSpec, PublishSpec, RestartSpec } from '../container.ts';
import type { SandboxRequest } from '../request.ts';

export interface MountRequest {
  readonly type: MountSpec['type'];
  /** A volume without one is anonymous: made for this container alone. */
  readonly source?: string;
  readonly target: string;
  readonly readOnly?: boolean;
  readonly options?: Readonly<Record<string, string>>;
}

export type PublishRequest = Pick<PublishSpec, 'address' | 'target' | 'from'> & {
  /** Absent: a free one. */
  readonly published?: number;
  /** Default `tcp`. */
  readonly protocol?: PublishSpec['protocol'];
  /** Default `host`. */
  readonly mode?: 'host';
};

export type ContainerRequest = Partial<
  Omit<
    ContainerSpec,
    | 'image'
    | 'imageId'
    | 'sandbox'
    | 'mounts'
    | 'restart'
    | 'health'
    | 'publish'
    | 'wanted'
    | 'generation'
    | 'stopWithinMs'
    | 'replica'
  >
> &
  Pick<SandboxRequest, 'networks' | 'sysctls' | 'dns' | 'labels'> & {
    /** Name, id, or the beginning of an id; it must be here: `image.notfound`. */
    readonly image: string;
    readonly mounts?: readonly MountRequest[];
    readonly publish?: readonly PublishRequest[];
    /** Also every port that the image exposes and `publish` does not name, each on a free one. */
    readonly publishAll?: boolean;
    /** Default `no`. */
    readonly restart?: Partial<RestartSpec>;
    /** What is absent is the image's, then Docker's defaults. */
    readonly health?: Partial<HealthSpec>;
    /** Also start it. */
    readonly start?: boolean;
  };

/** What a service runs several of. */
export type ReplicaTemplate = Omit<ContainerRequest, 'networks' | 'publish' | 'publishAll' | 'start' | 'autoRemove'>;

export interface RenameRequest {
  readonly name: string;
}

export interface VolumeRequest {
  /** Default and only: `local`. */
  readonly driver?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

/** How a container's process ended. */
export interface ExitAnswer {
  readonly exitCode: number;
  readonly oomKilled: boolean;
  /** ISO 8601; absent when it never ran. */
  readonly exitedAt?: string;
}

export interface ProcessAnswer {
  readonly pid: number;
  readonly user: string;
  readonly command: string;
}

export interface StatsAnswer {
  /** ISO 8601 of the reading. */
  readonly time: string;
  readonly cpuNs: number;
  readonly memoryBytes: number;
  readonly memoryLimit?: number;
  readonly pids: number;
  readonly readBytes: number;
  readonly writeBytes: number;
}

/** First frame of a stream to a container's process (frame.ts). */
export interface ExecRequest {
  readonly args: readonly string[];
  readonly env?: readonly string[];
  readonly user?: string;
  readonly workdir?: string;
  readonly tty?: boolean;
  readonly privileged?: boolean;
  readonly stdin?: boolean;
  /** Size of the terminal from the beginning. */
  readonly columns?: number;
  readonly rows?: number;
}

export interface AttachRequest {
  /** Starts it, its streams attached before the first instruction. */
  readonly start?: boolean;
  readonly stdin?: boolean;
  readonly columns?: number;
  readonly rows?: number;
}

/** A tar stream follows, to be unpacked into the directory. */
export interface ArchiveRequest {
  readonly path: string;
}

/** A line of what a container wrote. */
export interface LogAnswer {
  /** ISO 8601 with nanoseconds. */
  readonly time: string;
  readonly stream: 'stdout' | 'stderr';
  /** With its line break, unless it was written in parts. */
  readonly text: string;
}
