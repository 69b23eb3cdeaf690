/** Networks that span hosts, as the shortcut past their bridges knows them: which tunnel is whose, and where each MAC's frames leave. */
import type { DataplaneEndpoint, DataplaneSegment, Drift, Repair } from '../contracts/dataplane.ts';
import { isSluiceError } from '../errors.ts';
import { checkId } from './input.ts';
import { NUMBER, SEGMENT, STATION, STATION_DIRECT, STATION_KEY, STATION_QUEUED } from './maps/layout.ts';
import { Table } from './maps/table.ts';

type Station = Pick<DataplaneEndpoint, 'mac' | 'hostIfindex' | 'tunnel' | 'queued'>;

export class Segments {
  readonly #segments: Table<{ number: number }, { number: number; flags: number; id: string }>;
  readonly #stations: Table<{ tunnel: number; mac: string }, { ifindex: number; flags: number }>;
  /** Network → tunnel. */
  readonly #tunnels = new Map<string, number>();
  /** Tunnel → the MACs behind it. */
  readonly #behind = new Map<number, Set<string>>();
  /** Networks whose stations were seen to have its flags in this life: an earlier one may have ended in the middle of them. */
  readonly #aligned = new Set<string>();

  constructor(fdOf: (map: string) => number) {
    this.#segments = new Table('segments', fdOf('segments'), NUMBER, SEGMENT);
    this.#stations = new Table('stations', fdOf('stations'), STATION_KEY, STATION);
    for (const [{ number: tunnel }, { id }] of this.#segments.entries()) this.#tunnels.set(id, tunnel);
    for (const [{ tunnel, mac }, { ifindex }] of this.#stations.entries())
      if (ifindex === tunnel) this.#behindOf(tunnel).add(mac);
  }

  ensure({ id, number, tunnel, direct }: DataplaneSegment): void {
    checkId('network', id);
    const before = this.#tunnels.get(id);
    if (before !== undefined && before !== tunnel) this.remove(id);
    const flags = direct ? STATION_DIRECT : 0;
    const changed = this.#segments.put({ number: tunnel }, { number, flags, id });
    this.#tunnels.set(id, tunnel);
    if (!changed && this.#aligned.has(id)) return;
    for (const [key, { ifindex, flags: before }] of this.#stations.entries())
      if (key.tunnel === tunnel) this.#stations.put(key, { ifindex, flags: flags | (before & STATION_QUEUED) });
    this.#aligned.add(id);
  }

  get(id: string): { readonly number: number; readonly tunnel: number } | undefined {
    const tunnel = this.#tunnels.get(id);
    const held = tunnel === undefined ? undefined : this.#segments.get({ number: tunnel });
    return held && { number: held.number, tunnel: tunnel! };
  }

  /** The stations first, by which the shortcut ends: what is left when this life ends in the middle is found by the network. */
  remove(id: string): void {
    const tunnel = this.#tunnels.get(id);
    if (tunnel === undefined) return;
    for (const key of this.#stations.keys()) if (key.tunnel === tunnel) this.#stations.delete(key);
    this.#behind.delete(tunnel);
    this.#segments.delete({ number: tunnel });
    this.#tunnels.delete(id);
    this.#aligned.delete(id);
  }

  ids(): string[] {
    return [...this.#tunnels.keys()];
  }

  numbers(): number[] {
    return this.ids().flatMap((id) => this.get(id)?.number ?? []);
  }

  /** An endpoint of this host; `before`: what it was. */
  place({ mac, tunnel, hostIfindex, queued }: Station, before: Station | undefined): void {
    if (before && (before.mac !== mac || before.tunnel !== tunnel)) this.displace(before);
    if (!tunnel) return;
    this.#putStation({ tunnel, mac }, hostIfindex, queued ? STATION_QUEUED : 0);
    this.#behind.get(tunnel)?.delete(mac);
  }

  /** It leaves, unless the MAC is somebody else's by now. */
  displace({ mac, tunnel, hostIfindex }: Station): void {
    if (tunnel && this.#stations.get({ tunnel, mac })?.ifindex === hostIfindex) this.#stations.delete({ tunnel, mac });
  }

  sync(tunnel: number, macs: ReadonlySet<string>): void {
    const behind = this.#behind.get(tunnel) ?? new Set();
    this.change(tunnel, {
      come: [...macs].filter((mac) => !behind.has(mac)),
      gone: [...behind].filter((mac) => !macs.has(mac)),
    });
  }

  change(tunnel: number, { come, gone }: { readonly come: readonly string[]; readonly gone: readonly string[] }): void {
    const behind = this.#behindOf(tunnel);
    for (const mac of gone) if (behind.delete(mac)) this.#stations.delete({ tunnel, mac });
    for (const mac of come) {
      if ((this.#stations.get({ tunnel, mac })?.ifindex ?? tunnel) !== tunnel) continue;
      if (!this.#putStation({ tunnel, mac }, tunnel)) return;
      behind.add(mac);
    }
  }

  behind(tunnel: number): ReadonlySet<string> {
    return new Set(this.#behind.get(tunnel));
  }

  audit(): Repair[] {
    const segments = this.#segments.mend();
    const stations = this.#stations.mend();
    this.#segments.evict(segments);
    this.#stations.evict(stations);
    return this.#describe(segments, stations).map(({ object, id, what, is }) => ({
      object,
      id,
      what: `${what} was ${is}`,
    }));
  }

  compare(): Drift[] {
    return this.#describe(this.#segments.drifts(), this.#stations.drifts());
  }

  #describe(
    segments: ReturnType<Table<{ number: number }, unknown>['drifts']>,
    stations: ReturnType<Table<{ tunnel: number; mac: string }, unknown>['drifts']>,
  ): Drift[] {
    const networks = new Map([...this.#tunnels].map(([id, tunnel]) => [tunnel, id]));
    const of = (tunnel: number) => ({ object: 'network', id: networks.get(tunnel) ?? `tunnel ${tunnel}` }) as const;
    return [
      ...segments.map(({ key, was }): Drift => {
        return {
          ...of(key.number),
          what: 'its shortcut past the bridge',
          is: was,
          look: 'bpftool map dump name segments',
        };
      }),
      ...stations.map(({ key, was }): Drift => {
        return {
          ...of(key.tunnel),
          what: `where frames for ${key.mac} leave`,
          is: was,
          look: 'bpftool map dump name stations',
        };
      }),
    ];
  }

  /** False when the map is full: the bridge serves whoever has no room in it. */
  #putStation(key: { tunnel: number; mac: string }, ifindex: number, more = 0): boolean {
    try {
      const direct = this.#segments.get({ number: key.tunnel })?.flags ?? 0;
      this.#stations.put(key, { ifindex, flags: direct | more });
      return true;
    } catch (error) {
      if (isSluiceError(error) && error.details.name === 'E2BIG') return false;
      throw error;
    }
  }

  #behindOf(tunnel: number): Set<string> {
    const behind = this.#behind.get(tunnel) ?? new Set<string>();
    this.#behind.set(tunnel, behind);
    return behind;
  }
}
