/** A container: an image run as a process tree in a sandbox of its own. The sandbox (a CNM object like any other) bears its name. */
import type { Obj } from './object.ts';
import type { Protocol } from './service.ts';

export interface MountSpec {
  /** `bind`: `source` is a host path. `volume`: `source` is a volume's name. `tmpfs`: none. */
  readonly type: 'bind' | 'volume' | 'tmpfs';
  readonly source?: string;
  /** Absolute path inside. */
  readonly target: string;
  readonly readOnly: boolean;
  /** `size`, `mode` of a tmpfs; `propagation`, `nocopy`. */
  readonly options: Readonly<Record<string, string>>;
}

export interface DeviceSpec {
  readonly source: string;
  readonly target: string;
  /** Letters of `rwm`. */
  readonly access: string;
}

/** `test`: `['CMD', …]`, `['CMD-SHELL', text]` or `['NONE']`, as an image has it. */
export interface HealthSpec {
  readonly test: readonly string[];
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly retries: number;
  readonly startPeriodMs: number;
}

export interface RestartSpec {
  readonly name: 'no' | 'on-failure' | 'always' | 'unless-stopped';
  /** `on-failure` only; 0: no limit. */
  readonly retriesMax: number;
}

/** A published port: `-p [IP:][HOSTPORT:]PORT[/udp]`, `--publish published=,target=,protocol=,mode=,from=`. */
export interface PublishSpec {
  /** Absent: the setting `publishAddress`. */
  readonly address?: string;
  /** Port of the host; persisted before use when it was chosen automatically. */
  readonly published: number;
  readonly target: number;
  readonly protocol: Protocol;
  readonly mode: 'host' | 'ingress';
  /** CIDRs that may connect; `any` is explicit, absent is the host's default. */
  readonly from?: readonly string[] | 'any';
}

/** Whose replica a container is. */
export interface ReplicaOf {
  /** Id of the service. */
  readonly service: string;
  /** From 1 on; its name is `SERVICE-SLOT`. */
  readonly slot: number;
  /** Of {@link ReplicaSpec} that it was made from. */
  readonly version: number;
}

export interface ContainerSpec {
  /** As it was asked for, `busybox:1.36`. */
  readonly image: string;
  /** `sha256:…` of the image's configuration: what runs, wherever the name points later. */
  readonly imageId: string;
  /** Id of its sandbox. */
  readonly sandbox: string;
  /** Absent: the image's. Empty: none. */
  readonly entrypoint?: readonly string[];
  /** Absent: the image's (unless the entrypoint was replaced). */
  readonly command?: readonly string[];
  /** `KEY=value`, over the image's. */
  readonly env: readonly string[];
  readonly user?: string;
  readonly workdir?: string;
  readonly hostname?: string;
  readonly tty: boolean;
  /** Standard input is kept open. */
  readonly stdin: boolean;
  /** Standard input ends with the first caller that is attached to it. */
  readonly stdinOnce?: boolean;
  readonly mounts: readonly MountSpec[];
  readonly devices: readonly DeviceSpec[];
  /** Bytes; absent: no limit. */
  readonly memoryBytes?: number;
  readonly cpus?: number;
  readonly pidsMax?: number;
  readonly readOnly: boolean;
  readonly privileged: boolean;
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  /** `no-new-privileges=false`, `seccomp=unconfined|PATH`, `apparmor=…`, `systempaths=unconfined`. */
  readonly securityOpt: readonly string[];
  readonly userns: 'host' | 'auto';
  /** A minimal init as PID 1 that reaps and forwards signals. */
  readonly init: boolean;
  /** `NAME:IP` lines of /etc/hosts. */
  readonly addHosts: readonly string[];
  readonly ulimits: Readonly<Record<string, { readonly soft: number; readonly hard: number }>>;
  /** Absent: the image's, else SIGTERM. */
  readonly stopSignal?: string;
  readonly stopTimeoutMs: number;
  readonly restart: RestartSpec;
  /** Absent: the image's. */
  readonly health?: HealthSpec;
  /** `--rm`: goes with its process. */
  readonly autoRemove: boolean;
  readonly publish: readonly PublishSpec[];
  /** What the user wants: the controller makes it so. `stopped` also holds over a restart of daemon and host for `unless-stopped`. */
  readonly wanted: 'created' | 'running' | 'stopped';
  /** Counts explicit starts and restarts: a process that ran under an earlier number is replaced. */
  readonly generation: number;
  /** Time that the last stop or restart gave it, where that was not `stopTimeoutMs`. */
  readonly stopWithinMs?: number;
  readonly replica?: ReplicaOf;
  /** What another front end wrote and reads back; never interpreted. */
  readonly foreign?: Readonly<Record<string, unknown>>;
}

export type Container = Obj<'container', ContainerSpec>;

/** A published port as it is now; `0.0.0.0` and `::` are all addresses of the host. */
export interface ShownPort {
  readonly address: string;
  readonly published: number;
  readonly target: number;
  readonly protocol: Protocol;
}

/** `Status.detail` of a container. */
export interface ContainerDetail {
  readonly phase: 'created' | 'running' | 'restarting' | 'exited';
  /** What it runs: entrypoint and command, the image's where the spec has none. Absent: its image is not here. */
  readonly args?: readonly string[];
  /** Of the spec that this speaks of. */
  readonly generation: number;
  readonly pid?: number;
  readonly exitCode?: number;
  readonly oomKilled?: boolean;
  /** ISO 8601 */
  readonly startedAt?: string;
  readonly finishedAt?: string;
  /** By the policy, in this generation. */
  readonly restarts: number;
  /** Why a start failed for good. */
  readonly failure?: { readonly code: string; readonly message: string };
  readonly health?: 'starting' | 'healthy' | 'unhealthy';
  /** While it runs. */
  readonly ports?: readonly ShownPort[];
}

/** Ranges of 65,536 ids for user namespaces, well above the host's own users. */
const FIRST_RANGE = 8_192;
const RANGES = 49_152;

/** First id outside of the container's own user namespace, which follows from its id; undefined: it has none. */
export const shiftOf = ({ id, spec }: Pick<Container, 'id' | 'spec'>): number | undefined =>
  spec.userns === 'auto' ? (FIRST_RANGE + (Number.parseInt(id.slice(0, 8), 16) % RANGES)) * 65_536 : undefined;
