/**
 * Published ports on `::1`. nftables cannot translate them, since the kernel drops an answer that becomes `::1` on its way in: instead a socket of
 * the host that connects there is given its backend by the balancer, as those of sandboxes are that ask for a service.
 */
import { type DataplaneBackend, type DataplaneFrontend, HOST_VIEW } from '../../contracts/dataplane.ts';
import type { PublishedPort } from '../../contracts/publisher.ts';
import type { Context } from '../context.ts';

const LOOPBACK6 = '::1';
/** Begins the keys of numbers that were given for the host's view. */
export const HOST_KEYS = 'host/';

interface Programmed {
  /** Of the set's number. */
  readonly key: string;
  readonly frontend: DataplaneFrontend;
  /** By the keys of their numbers. */
  readonly backends: ReadonlyMap<string, DataplaneBackend>;
}

export class LoopbackPorts {
  readonly #context: Context;
  readonly #programmed = new Map<string, readonly Programmed[]>();
  /** Whether all that was published before is known to be wanted or not: an earlier life's host is served until then. */
  #synced = false;
  /** Keys that may have a number and no user. */
  readonly #unused = { set: new Set<string>(), backend: new Set<string>() };

  constructor(context: Context) {
    this.#context = context;
  }

  async load(): Promise<void> {
    const { numbers } = this.#context.desired;
    for (const space of ['set', 'backend'] as const)
      for (const key of (await numbers.all(space)).keys()) if (key.startsWith(HOST_KEYS)) this.#unused[space].add(key);
  }

  /** What the owner publishes on `::1` and on every IPv6 address. */
  async ensure(owner: string, ports: readonly PublishedPort[]): Promise<void> {
    const { desired, dataplane } = this.#context;
    const next: Programmed[] = [];
    for (const { address, port, protocol, backends: published } of ports) {
      if (address !== '::' && address !== LOOPBACK6) continue;
      const key = `${HOST_KEYS}${owner}/${port}/${protocol}`;
      const backends = new Map<string, DataplaneBackend>();
      for (const backend of published) {
        const own = `${key}/${backend.address}/${backend.port}`;
        const number = await desired.numbers.allocate('backend', own);
        backends.set(own, { number, address: backend.address, port: backend.port });
      }
      const set = await desired.numbers.allocate('set', key);
      next.push({ key, frontend: { view: HOST_VIEW, address: LOOPBACK6, port, protocol, set }, backends });
    }
    if (next.length > 0) dataplane.serveHost(true);
    for (const { frontend, backends } of next) {
      dataplane.ensureBackends(frontend.set, [...backends.values()]);
      dataplane.ensureFrontend(frontend);
    }
    const before = this.#programmed.get(owner) ?? [];
    for (const { backends } of before) for (const key of backends.keys()) this.#unused.backend.add(key);
    this.#take(before.filter(({ key }) => !next.some((one) => one.key === key)));
    if (next.length > 0) this.#programmed.set(owner, next);
    else this.#programmed.delete(owner);
    this.#settle();
  }

  withdraw(owner: string): void {
    this.#take(this.#programmed.get(owner) ?? []);
    if (this.#programmed.delete(owner)) this.#settle();
  }

  /** All that should be in the kernel's maps, for prune. */
  wanted(): { readonly frontends: readonly DataplaneFrontend[]; readonly sets: readonly number[] } {
    const frontends = [...this.#programmed.values()].flat().map(({ frontend }) => frontend);
    return { frontends, sets: frontends.map(({ set }) => set) };
  }

  /** Owners that are no more. */
  prune(keep: ReadonlySet<string>): void {
    for (const owner of [...this.#programmed.keys()]) if (!keep.has(owner)) this.withdraw(owner);
  }

  /** Once everybody is known: gives the numbers of sets back that nobody uses, and leaves a host alone that an earlier life served. */
  async collect(): Promise<void> {
    this.#synced = true;
    this.#settle();
    const programmed = [...this.#programmed.values()].flat();
    const used = {
      set: new Set(programmed.map(({ key }) => key)),
      backend: new Set(programmed.flatMap(({ backends }) => [...backends.keys()])),
    };
    for (const space of ['set', 'backend'] as const) {
      const unused = [...this.#unused[space]].filter((key) => !used[space].has(key));
      this.#unused[space].clear();
      for (const key of unused) await this.#context.desired.numbers.release(space, key);
    }
  }

  #take(stale: readonly Programmed[]): void {
    const { dataplane, kernel } = this.#context;
    for (const { key, frontend, backends } of stale) {
      dataplane.removeFrontend(frontend);
      dataplane.removeBackends(frontend.set);
      // Whoever still talks to what has ended learns of it at once.
      for (const [own, backend] of backends) {
        dataplane.reset(backend, [kernel.host]);
        this.#unused.backend.add(own);
      }
      this.#unused.set.add(key);
    }
  }

  #settle(): void {
    if (this.#synced && this.#programmed.size === 0) this.#context.dataplane.serveHost(false);
  }
}
