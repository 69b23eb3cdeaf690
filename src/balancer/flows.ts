/**
 * Open connections that came by a VIP, by their socket's cookie. Those that the map had no room for carry the same in their
 * storage, which socket diagnostics show of TCP. By hand: `ss -tan dst BACKEND`, `ss -K`.
 */
import type { DataplaneBackend } from '../contracts/dataplane.ts';
import type { Namespace, SocketInfo, Sockets } from '../contracts/kernel.ts';
import { mapDelete, mapEntries, mapLookup } from '../kernel/bpf/bpf.ts';
import { canonicalAddress } from '../model/ip.ts';
import { COOKIE, PEER } from './maps/layout.ts';

/** Number of the backend that a VIP led to, 0 for none. Read in place: there may be thousands. */
function backendOf(peer: Uint8Array | null | undefined): number {
  if (!peer) return 0;
  const bytes = Buffer.from(peer.buffer, peer.byteOffset, peer.byteLength);
  return bytes.readUInt32LE(PEER.offsets.set!) === 0 ? 0 : bytes.readUInt32LE(PEER.offsets.number!);
}

export class Flows {
  readonly #sockets: Sockets;
  readonly #peers: number;
  readonly #overflow: number;

  constructor(sockets: Sockets, fdOf: (map: string) => number) {
    this.#sockets = sockets;
    this.#peers = fdOf('peers');
    this.#overflow = fdOf('peers_overflow');
  }

  list(backend: DataplaneBackend, namespace: Namespace): SocketInfo[] {
    const at = { remote: canonicalAddress(backend.address), remotePort: backend.port || undefined };
    return [
      ...this.#sockets.list(namespace, { protocol: 'tcp', storageFd: this.#overflow, ...at }),
      ...this.#sockets.list(namespace, { protocol: 'udp', ...at }),
    ].filter(({ cookie, storage }) => {
      const peer = mapLookup(this.#peers, COOKIE.encode({ cookie }), PEER.size);
      return (backendOf(peer) || backendOf(storage)) === backend.number;
    });
  }

  count(backend: DataplaneBackend, namespaces: readonly Namespace[]): number {
    return namespaces.reduce((sum, namespace) => sum + this.list(backend, namespace).length, 0);
  }

  /** How many there were to reset; one that ended by itself meanwhile is not counted. */
  reset(backend: DataplaneBackend, namespaces: readonly Namespace[]): number {
    let count = 0;
    for (const namespace of namespaces)
      for (const socket of this.list(backend, namespace)) if (this.#sockets.destroy(namespace, socket)) count++;
    return count;
  }

  /** Forgets sockets of namespaces that are no sandbox's any more: nobody tells of their end. */
  sweep(live: ReadonlySet<bigint>): void {
    for (const [cookie, peer] of mapEntries(this.#peers))
      if (!live.has(peer.readBigUInt64LE(PEER.offsets.netns!))) mapDelete(this.#peers, cookie);
  }
}
