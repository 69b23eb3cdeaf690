/** The Linux kernel behind its contract. */
import { type Clock, systemClock } from '../clock.ts';
import type { Kernel, LinkEvent, Namespace } from '../contracts/kernel.ts';
import { KernelCgroups } from './cgroup.ts';
import { peerOf } from './fd.ts';
import { KernelFeatures } from './features.ts';
import { KernelPorts } from './hold/hold.ts';
import { ensureBpffs } from './mount.ts';
import { KernelConntrack } from './netlink/conntrack.ts';
import { openMonitor } from './netlink/monitor.ts';
import { KernelSockets } from './netlink/sockdiag.ts';
import { KernelNamespaces } from './netns.ts';
import { openNft } from './nft.ts';

export interface KernelOptions {
  readonly clock?: Clock;
  /** Path of a namespace that plays host instead of the process's own. */
  readonly host?: string;
}

/** Opens nothing but the host's namespace; netlink sockets, libnftables and probes come with their first use. */
export function createKernel({ clock = systemClock, host }: KernelOptions = {}): Kernel {
  const namespaces = new KernelNamespaces(host);
  const sockets = new KernelSockets();
  const cgroups = new KernelCgroups(clock);
  return {
    namespaces,
    host: namespaces.host,
    cgroups,
    sockets,
    conntrack: new KernelConntrack(),
    ports: new KernelPorts(namespaces.host, sockets),
    features: new KernelFeatures(cgroups),
    nft: (namespace: Namespace = namespaces.host) => openNft(namespace),
    monitor: (namespace: Namespace, groups: readonly LinkEvent['type'][], onEvent, onLoss) =>
      openMonitor(namespace, groups, onEvent, onLoss),
    ensureBpffs,
    peer: peerOf,
    [Symbol.dispose]() {
      sockets[Symbol.dispose]();
      namespaces[Symbol.dispose]();
    },
  };
}
