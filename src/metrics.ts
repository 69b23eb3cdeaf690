/** The prom-client registry and what the daemon counts in it. BPF counters are read when /metrics is. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export const registry = new Registry();
// Of the event loop's delay a sample this often, milliseconds: each wakes an idle daemon.
collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 500 });

const registers = [registry];
/** Seconds: from a netlink request (10 µs) to a slow nft transaction (1 s). */
const buckets = [0.00001, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1];

export const objects = new Gauge({
  name: 'sluice_objects',
  help: 'Objects by kind and state',
  labelNames: ['kind', 'state'],
  registers,
});
export const reconciles = new Counter({
  name: 'sluice_reconciles_total',
  help: 'Reconciliations by kind and result',
  labelNames: ['kind', 'result'],
  registers,
});
export const reconcileSeconds = new Histogram({
  name: 'sluice_reconcile_seconds',
  help: 'Duration of one reconciliation',
  labelNames: ['kind'],
  buckets,
  registers,
});
export const repairs = new Counter({
  name: 'sluice_repairs_total',
  help: 'Things in the kernel found wrong and put right',
  labelNames: ['object'],
  registers,
});
export const kernelOps = new Histogram({
  name: 'sluice_kernel_op_seconds',
  help: 'netlink, nft, bpf and sock_diag operations',
  labelNames: ['subsystem', 'op'],
  buckets,
  registers,
});
export const kernelErrors = new Counter({
  name: 'sluice_kernel_errors_total',
  help: 'Failed kernel operations',
  labelNames: ['subsystem', 'op'],
  registers,
});
export const dnsQueries = new Counter({
  name: 'sluice_dns_queries_total',
  help: 'DNS questions by path (kernel, fast, slow, forward) and response code',
  labelNames: ['path', 'rcode'],
  registers,
});
export const dnsDropped = new Counter({
  name: 'sluice_dns_dropped_total',
  help: 'DNS packets refused by the guards, by reason',
  labelNames: ['reason'],
  registers,
});
export const balanced = new Gauge({
  name: 'sluice_service_connects',
  help: 'Connects and first datagrams by service, VIP, port and result (balanced, refused), read from BPF maps',
  labelNames: ['service', 'vip', 'port', 'result'],
  registers,
});
export const dropped = new Gauge({
  name: 'sluice_endpoint_drops',
  help: 'Frames dropped at the endpoint by reason, read from BPF maps',
  labelNames: ['endpoint', 'reason'],
  registers,
});
export const apiRequests = new Histogram({
  name: 'sluice_api_request_seconds',
  help: 'API requests',
  labelNames: ['method', 'route', 'status'],
  buckets: [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30],
  registers,
});

/** Times a synchronous kernel operation and counts its failure. */
export function timed<T>(subsystem: string, op: string, fn: () => T): T {
  const start = performance.now();
  try {
    return fn();
  } catch (error) {
    kernelErrors.inc({ subsystem, op });
    throw error;
  } finally {
    kernelOps.observe({ subsystem, op }, (performance.now() - start) / 1000);
  }
}
