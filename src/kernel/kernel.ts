/** The Linux kernel behind its contract. */
import { type Clock, systemClock } from '../clock.ts';
import type { Kernel, LinkEvent, Namespace } from '../contracts/kernel.ts';
import { KernelCgroups } from './cgroup.ts';
import { peerOf } from './fd.ts';
import { KernelFeatures } from './features.ts';
import { openMonitor } from './monitor.ts';
import { ensureBpffs } from './mount.ts';
import { KernelNamespaces } from './netns.ts';
import { openNft } from './nft.ts';
import { KernelSockets } from './sockdiag.ts';

export interface KernelOptions {
  readonly clock?: Clock;
  /** Path of a namespace that plays host instead of the process's own. */
  readonly host?: string;
}

export function createKernel({ clock = systemClock, host }: KernelOptions = {}): Kernel {
  const namespaces = new KernelNamespaces(host);
  return {
    namespaces,
    host: namespaces.host,
    cgroups: new KernelCgroups(clock),
    sockets: new KernelSockets(),
    features: new KernelFeatures(namespaces),
    nft: (namespace: Namespace = namespaces.host) => openNft(namespace),
    monitor: (namespace: Namespace, groups: readonly LinkEvent['type'][], onEvent, onLoss) =>
      openMonitor(namespace, groups, onEvent, onLoss),
    ensureBpffs,
    peer: peerOf,
    [Symbol.dispose]: () => namespaces[Symbol.dispose](),
  };
}
