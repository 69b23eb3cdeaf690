/** Probes: the health of backends, from the node that owns them, whether the kernels of other hosts answer, and whether they refuse. */
export interface Probe {
  readonly backend: string;
  readonly kind: 'tcp' | 'http' | 'exec';
  readonly address: string;
  readonly port: number;
  readonly timeoutMs: number;
}
export interface Prober {
  /** Resolves to null when healthy, else to the reason in words. Never rejects. */
  probe(probe: Probe, signal: AbortSignal): Promise<string | null>;
}

/** Whether another host's kernel answers, whatever has become of its daemon. */
export interface PeerProber {
  /**
   * Never rejects. Undefined: this host could not ask (no route, its own link is down, out of memory), which says nothing about the other.
   * `bytes`: size of the whole packet, which nobody may cut; one that is too large for this host's own link is not answered.
   */
  answers(address: string, timeoutMs: number, bytes?: number): Promise<boolean | undefined>;
}

/** Whether connections are refused where nobody listens: a packet there and one back that only TCP's own checksum lets pass. */
export interface RefusalProber {
  /** Never rejects. False: nothing was heard in `timeoutMs`, or something else. `from`: address of this host. */
  refused(from: string, to: string, port: number, timeoutMs: number): Promise<boolean>;
}
