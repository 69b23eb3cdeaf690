/** Probes: the health of backends, from the node that owns them, and whether the kernels of other hosts answer. */
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
