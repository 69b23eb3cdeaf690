/** The fake's ports: held by us, or by whom a test says. */
import type { Ports } from '../../contracts/kernel.ts';
import { SluiceError } from '../../errors.ts';
import type { World } from './world.ts';

export class FakePorts implements Ports {
  /** `tcp/8080` → who has it. */
  readonly foreign = new Map<string, string>();
  readonly #held = new Map<string, Set<string>>();
  readonly #world: World;

  constructor(world: World) {
    this.#world = world;
  }

  /** What is held, sorted. */
  get held(): string[] {
    return [...this.#held].flatMap(([key, addresses]) => [...addresses].map((address) => `${address} ${key}`)).sort();
  }

  hold(protocol: 'tcp' | 'udp', address: string, port: number): Disposable | null {
    this.#world.attempt('ports.hold');
    const key = `${protocol}/${port}`;
    const by = this.foreign.get(key);
    const addresses = this.#held.get(key) ?? new Set<string>();
    if (by !== undefined || addresses.has(address))
      throw new SluiceError('port.inuse', `port ${port}/${protocol} of this host is in use by ${by ?? 'us'}`, { by });
    this.#held.set(key, addresses.add(address));
    return {
      [Symbol.dispose]() {
        addresses.delete(address);
      },
    };
  }
}
