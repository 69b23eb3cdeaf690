/**
 * Open connections that came by a VIP. TCP sockets carry their storage in socket diagnostics; connected UDP ones do not, so they have
 * a map by cookie. By hand: `ss -tan dst BACKEND`, `ss -K`.
 */
import type { DataplaneBackend } from '../contracts/dataplane.ts';
import type { Namespace, SocketInfo, Sockets } from '../contracts/kernel.ts';
import { mapLookup } from '../kernel/bpf/bpf.ts';
import { canonicalAddress } from '../model/ip.ts';
import { COOKIE, SOCKET_STATE, TRANSLATION, UDP_PEER } from './maps/layout.ts';

const AT_TRANSLATIONS = SOCKET_STATE.offsets.translations!;
const AT_SET = TRANSLATION.offsets.set!;
const AT_NUMBER = TRANSLATION.offsets.number!;

/** Whether a socket's storage says that a VIP led it to this backend. Read in place: there may be thousands. */
export function ledTo(storage: Uint8Array, backend: number): boolean {
  const bytes = Buffer.from(storage.buffer, storage.byteOffset, storage.byteLength);
  for (let at = AT_TRANSLATIONS; at + TRANSLATION.size <= bytes.length; at += TRANSLATION.size)
    if (bytes.readUInt32LE(at + AT_SET) !== 0 && bytes.readUInt32LE(at + AT_NUMBER) === backend) return true;
  return false;
}

export class Flows {
  readonly #sockets: Sockets;
  readonly #storage: number;
  readonly #udpPeers: number;

  constructor(sockets: Sockets, fdOf: (map: string) => number) {
    this.#sockets = sockets;
    this.#storage = fdOf('sockets');
    this.#udpPeers = fdOf('udp_peers');
  }

  list(backend: DataplaneBackend, namespace: Namespace): SocketInfo[] {
    const at = { remote: canonicalAddress(backend.address), remotePort: backend.port || undefined };
    const tcp = this.#sockets.list(namespace, { protocol: 'tcp', storageFd: this.#storage, ...at });
    const udp = this.#sockets.list(namespace, { protocol: 'udp', ...at });
    return [
      ...tcp.filter(({ storage }) => storage && ledTo(storage, backend.number)),
      ...udp.filter(({ cookie }) => this.#peerOf(cookie) === backend.number),
    ];
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

  #peerOf(cookie: bigint): number | undefined {
    const value = mapLookup(this.#udpPeers, COOKIE.encode({ cookie }), UDP_PEER.size);
    return value?.readUInt32LE(UDP_PEER.offsets.number!);
  }
}
