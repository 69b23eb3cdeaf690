/** The envelope every stored object wears, and the status record that one writer owns beside it. */

export const KINDS = [
  'network',
  'sandbox',
  'endpoint',
  'service',
  'container',
  'volume',
  'assignment',
  'node',
] as const;
export type Kind = (typeof KINDS)[number];

/** Whether the record is an object of a kind that this version does not know: a newer one wrote it. */
export function isStranger(key: string, value: unknown): value is Obj {
  const { kind, id } = (value ?? {}) as Partial<Obj>;
  return typeof kind === 'string' && key === `${kind}/${id}` && !(KINDS as readonly string[]).includes(kind);
}

export interface Obj<K extends Kind = Kind, S = unknown> {
  readonly kind: K;
  /** 64 lower-case hex digits. */
  readonly id: string;
  /** Unique among its kind: on the owner for node-bound objects, in the cluster for others. */
  readonly name: string;
  /** The store revision of this object's last write; 0 before the first. */
  readonly revision: number;
  /**
   * Version of the spec's layout. A later one only adds: fields, values of a choice, kinds. A reader keeps what it does not know untouched
   * (src/desired/newer.ts), and works with the rest.
   */
  readonly schema: number;
  /** The node that owns it, null for what concerns the whole cluster. */
  readonly owner: string | null;
  readonly labels: Readonly<Record<string, string>>;
  /** ISO 8601. */
  readonly createdAt: string;
  /** Set when removal has begun: dependants may no longer be added, controllers take it apart. */
  readonly removing?: boolean;
  readonly spec: S;
}

export type State = 'pending' | 'ready' | 'error' | 'removing';

/** What a condition may be: the one list that the code, docs/generated/conditions.md and alerts go by. */
export const CONDITIONS = {
  ForwardBlocked:
    "Somebody else's chain drops what is forwarded (Docker, ufw, firewalld), so that this network reaches neither the outside nor, with `bridge-nf-call-iptables`, itself. The message names family, table and chain, and the rule that lets it through.",
  Repaired:
    'Something of the object was missing or wrong in the kernel (removed by hand, flushed, re-made) and was put right; the message says what, `count` how often. It stays, with its time, so that a cause can be found.',
  UnderlayBlocked:
    "The port on which the hosts exchange an overlay network's frames is closed by somebody else's chain; the message names it and the rule that opens the port.",
  UnderlayMtu:
    'Packets as large as those of overlay networks get lost on the way to another node, though the links of both hosts could take them; the message names the nodes, the largest size that gets through, and what helps.',
  ChecksumOffload:
    'TCP reaches another node through overlay networks only with checksums made in software: something on the way out of this host, most likely its network card, gets those inside VXLAN packets wrong. Tx checksum offload was switched off on the VXLAN devices; the message names the nodes, and how to have it tested anew.',
  ChecksumUntested:
    "It is not tested whether checksums inside VXLAN packets leave this host as they were meant, since the test's own VXLAN device cannot be made; the message says why. The networks do without it.",
  ReplicaFailed:
    'A replica of the service could not be made or started, or does not keep running; the message says which and why. It is tried again.',
  Unplaced:
    'Replicas of the service run nowhere, since no node may take them: by its constraints, by its limit for a node, or because nodes are drained or silent. The message says how many, and of each node why not. They are placed as soon as one can take them.',
  LoopbackOnly:
    "A chain of somebody else's (ufw, firewalld) drops by default what comes in, and nobody said who may use a published port: it is published on 127.0.0.1 and ::1 alone. `from=any` or `from=CIDR` lets strangers in.",
  NameTaken:
    'When the store was lost another object of the kind was given the name before this one was put back: it works as before and answers to its id alone. It has its name again as soon as the other one is removed.',
  VniTaken:
    'When the store was lost another network was given the VNI before this one was put back: both work, but no host can take part in both. The message names the other one; either is to be made anew.',
  Unencrypted: 'Frames of this overlay network cross the underlay in the clear.',
} as const satisfies Readonly<Record<string, string>>;

export type ConditionType = keyof typeof CONDITIONS;

export interface Condition {
  /** One of {@link CONDITIONS}; of a newer daemon perhaps one that this version does not know. */
  readonly type: string;
  readonly active: boolean;
  /** One sentence for a person, with the fix where there is one. */
  readonly message: string;
  /** ISO 8601 of the last change of `active`. */
  readonly since: string;
  /** How often it has become active. */
  readonly count: number;
}

/** Written only by the node named in it, keyed by (kind, id, node). */
export interface Status {
  readonly kind: Kind;
  readonly id: string;
  readonly node: string;
  readonly state: State;
  /** The object revision that `state` speaks of. */
  readonly observed: number;
  readonly conditions: readonly Condition[];
  /** Code and message of the last failure while `state` is `error`, and when it is tried again (ISO 8601). */
  readonly error?: { readonly code: string; readonly message: string; readonly retryAt?: string };
  /** What the drivers and the data plane report: interface names, ifindex, counters … Kind-specific, documented in each kind's file. */
  readonly detail: Readonly<Record<string, unknown>>;
}
