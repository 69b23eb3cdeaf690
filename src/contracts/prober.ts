/** Health of backends, probed from the node that owns them. The health checks proper come with the balancer's own issue. */
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
