/** The fake's sockets: those that a test put there. */
import type { Namespace, SocketFilter, SocketInfo, Sockets } from '../../contracts/kernel.ts';
import { canonicalAddress } from '../../model/ip.ts';
import type { World } from './world.ts';

const TIME_WAIT = 6;
const LISTEN = 10;
const STATES_DEFAULT = ~((1 << TIME_WAIT) | (1 << LISTEN));

export class FakeSockets implements Sockets {
  readonly #world: World;
  readonly #open = new Map<string, SocketInfo[]>();

  constructor(world: World) {
    this.#world = world;
  }

  add(namespace: Namespace, socket: SocketInfo): void {
    this.#open.set(namespace.identity, [...(this.#open.get(namespace.identity) ?? []), socket]);
  }

  list(namespace: Namespace, filter: SocketFilter): SocketInfo[] {
    this.#world.attempt('sockets.list');
    const { protocol, remotePort, states = STATES_DEFAULT } = filter;
    const remote = filter.remote && canonicalAddress(filter.remote);
    return (this.#open.get(namespace.identity) ?? [])
      .filter(
        (one) =>
          one.protocol === protocol &&
          (states & (1 << one.state)) !== 0 &&
          (remote === undefined || one.remote === remote) &&
          (remotePort === undefined || one.remotePort === remotePort),
      )
      .map((one) => (filter.storageFd === undefined || protocol === 'udp' ? { ...one, storage: undefined } : one));
  }

  destroy(namespace: Namespace, socket: SocketInfo): boolean {
    this.#world.attempt('sockets.destroy');
    const open = this.#open.get(namespace.identity) ?? [];
    const left = open.filter(({ cookie }) => cookie !== socket.cookie);
    this.#open.set(namespace.identity, left);
    return left.length < open.length;
  }
}
