/**
 * How this node's kernel differs from what should be, object by object. Nothing is repaired: what the controllers would do is played through
 * (rehearsal.ts), and tables that are compared as a whole are compared.
 */
import { join } from 'node:path';
import type { Drift } from '../../contracts/dataplane.ts';
import { hasInventory, type NetworkDriver } from '../../contracts/driver.ts';
import type { Kernel } from '../../contracts/kernel.ts';
import { SluiceError, toSluiceError } from '../../errors.ts';
import type { PeerDifference } from '../../model/answer.ts';
import type { DiffAnswer, Difference, DiffItem, DiffKind, DiffQuery } from '../../model/diagnosis/diff.ts';
import { shortId } from '../../model/id.ts';
import { publishTable, vxlanTable } from '../../model/mark.ts';
import type { Network } from '../../model/network.ts';
import type { Kind, Obj } from '../../model/object.ts';
import { placeOfSandbox } from '../container/place.ts';
import type { Firewall } from '../firewall/firewall.ts';
import type { PublishController } from '../publish/publish.ts';
import type { ServiceController } from '../service/service.ts';
import type { Spaces } from '../spaces.ts';
import { compareEndpoint } from './endpoint.ts';
import { compareNetwork, type NetworkParts, peerDifference, type TunnelPlace } from './network.ts';
import { Rehearsal } from './rehearsal.ts';

/** A driver of our own over a kernel in which nothing is done; null for one of somebody else's, whose verbs nobody knows to be harmless. */
export type Rehearse = (driver: string, kernel: Kernel) => NetworkDriver | null;

export interface DifferParts extends NetworkParts {
  readonly rehearse: Rehearse;
  readonly drivers: readonly NetworkDriver[];
  readonly firewall: Pick<Firewall, 'compare'>;
  readonly spaces: Pick<Spaces, 'get' | 'path'>;
  readonly services: Pick<ServiceController, 'compare' | 'setsOf'>;
  readonly published: Pick<PublishController, 'compare'>;
}

/** The shortest abbreviation of an id. */
const REF_MIN = 4;
/** Kinds in the order in which one rests upon another. */
const ORDER = ['host', 'firewall', 'network', 'sandbox', 'endpoint', 'service', 'container'] as const;

interface Findings {
  readonly items: DiffItem[];
  readonly skipped: { kind: DiffKind; name: string; reason: string }[];
  readonly compared: Partial<Record<DiffKind, number>>;
  readonly drifts: readonly Drift[];
}

export class Differ {
  readonly #parts: DifferParts;

  constructor(parts: DifferParts) {
    this.#parts = parts;
  }

  /** All, those of one kind, or one. `object.notfound`, `object.ambiguous`. */
  async diff({ kind, name }: DiffQuery): Promise<DiffAnswer> {
    const { context } = this.#parts;
    const findings: Findings = { items: [], skipped: [], compared: {}, drifts: context.dataplane.compare() };
    for (const each of ORDER) if (kind === undefined || kind === each) await this.#kind(each, name, findings);
    // What a network's traffic goes through is a part of it.
    if (kind === 'network') await this.#kind('firewall', undefined, findings);
    const { items, skipped, compared } = findings;
    return { node: context.node, compared, items, skipped };
  }

  /** What is amiss with one object of this node. What its controllers would fail with is amiss, too. */
  async of(object: Obj, drifts: readonly Drift[]): Promise<readonly Difference[]> {
    try {
      return (await this.#differences(object, drifts)) ?? [];
    } catch (error) {
      return [{ what: toSluiceError(error).message }];
    }
  }

  /** A network's devices, apart from the entries of single peers, and how those differ; `place` null: no tunnel is there. */
  async tunnel(network: Network): Promise<{
    readonly devices: readonly Difference[];
    readonly place: TunnelPlace | null;
    readonly peers: readonly PeerDifference[];
  }> {
    const rehearsal = new Rehearsal();
    const driver = this.#driver(network, rehearsal);
    if (!driver) return { devices: [], place: null, peers: [] };
    try {
      const place = await compareNetwork(this.#parts, network, driver, rehearsal);
      const { differences } = place ? await this.#parts.peers.inspect(network.id) : { differences: [] };
      return { devices: rehearsal.differences, place, peers: differences };
    } catch (error) {
      return { devices: [...rehearsal.differences, { what: toSluiceError(error).message }], place: null, peers: [] };
    }
  }

  /** The guard of the VXLAN port. */
  guard(): readonly Difference[] {
    const table = `inet ${vxlanTable(this.#parts.context.instance)}`;
    return this.#parts.firewall.compare().find((one) => one.table === table)?.differences ?? [];
  }

  async #kind(kind: DiffKind, name: string | undefined, findings: Findings): Promise<void> {
    if (kind === 'firewall') this.#firewall(name, findings);
    else if (kind === 'host') await this.#host(findings);
    else {
      const all = [...this.#parts.context.world.all(kind as 'network').values()] as Obj[];
      for (const object of name === undefined ? all : [find(kind as Kind, all, name)])
        await this.#object(object, findings);
    }
  }

  async #object(object: Obj, { items, skipped, compared, drifts }: Findings): Promise<void> {
    const { tracker } = this.#parts.context;
    const { id, name } = object;
    const kind = object.kind as DiffKind;
    const skip = (reason: string): void => void skipped.push({ kind, name, reason });
    if (object.removing) return skip('it is being removed');
    const status = tracker.get(object.kind, id);
    const error =
      status?.state === 'error' && status.error
        ? { code: status.error.code, message: status.error.message }
        : undefined;
    let differences: readonly Difference[] | null;
    try {
      differences = await this.#differences(object, drifts);
    } catch (reason) {
      // What the controllers would fail with.
      const { code, message } = toSluiceError(reason);
      items.push({ kind, id, name, differences: [{ what: message }], error: { code, message } });
      compared[kind] = (compared[kind] ?? 0) + 1;
      return;
    }
    if (differences === null) return skip('its driver is not one of the built-in ones');
    compared[kind] = (compared[kind] ?? 0) + 1;
    if (differences.length > 0) items.push({ kind, id, name, differences, error });
  }

  /** Null: it cannot be compared. */
  async #differences(object: Obj, drifts: readonly Drift[]): Promise<readonly Difference[] | null> {
    const { context, services, published, spaces, peers } = this.#parts;
    const { world } = context;
    const own = (of: Drift['object']): Difference[] =>
      drifts.filter((drift) => drift.object === of && drift.id === object.id).map(driftDifference);
    const rehearsal = new Rehearsal();
    switch (object.kind) {
      case 'network': {
        const network = object as Network;
        const driver = this.#driver(network, rehearsal);
        if (!driver) return null;
        const place = await compareNetwork(this.#parts, network, driver, rehearsal);
        const { differences } = place ? await peers.inspect(network.id) : { differences: [] };
        return [...rehearsal.differences, ...differences.map((one) => peerDifference(one, place!)), ...own('network')];
      }
      case 'endpoint': {
        const endpoint = world.endpoints.get(object.id)!;
        const network = world.networks.get(endpoint.spec.network);
        const sandbox = world.sandboxes.get(endpoint.spec.sandbox);
        if (!network || !sandbox) return [{ what: 'its network and sandbox', want: 'known to this node' }];
        const driver = this.#driver(network, rehearsal);
        if (!driver) return null;
        const driverOf = (other: Network) => this.#driver(other, rehearsal) ?? undefined;
        await compareEndpoint({ context, spaces, driverOf }, endpoint, { network, sandbox, driver }, rehearsal);
        return [...rehearsal.differences, ...own('endpoint')];
      }
      case 'sandbox':
        return [...this.#sandbox(object.id), ...own('sandbox')];
      case 'service': {
        const sets = services.setsOf(object.id);
        const amiss = drifts.filter(({ set }) => set !== undefined && sets.includes(set)).map(driftDifference);
        return [...services.compare(world.services.get(object.id)!), ...amiss];
      }
      case 'container': {
        const container = world.containers.get(object.id)!;
        return placeOfSandbox(context, container.spec.sandbox).named ? published.compare(container) : [];
      }
      default:
        return [];
    }
  }

  #sandbox(id: string): Difference[] {
    const { context, spaces } = this.#parts;
    const { kernel, cgroupBase, world } = context;
    const sandbox = world.sandboxes.get(id)!;
    if (sandbox.spec.origin === 'host') return [];
    const path = spaces.path(sandbox);
    const found: Difference[] = [];
    if (!kernel.namespaces.exists(path))
      found.push({ what: `network namespace ${path}`, want: 'there', command: `ls -l ${path}` });
    const cgroup = join(cgroupBase, id);
    if (sandbox.spec.origin === 'own' && kernel.cgroups.id(cgroup) === null)
      found.push({ what: `cgroup ${cgroup}`, want: 'there', command: `mkdir ${cgroup}` });
    return found;
  }

  #firewall(name: string | undefined, { items, compared }: Findings): void {
    const { context, firewall } = this.#parts;
    const tables = [
      ...firewall.compare(),
      { table: `inet ${publishTable(context.instance)}`, differences: context.publisher.compare() },
    ].filter(({ table }) => name === undefined || table === name || table === `inet ${name}`);
    if (tables.length === 0)
      throw new SluiceError('object.notfound', `there is no nft table ${name} of ours`, { name });
    for (const { table, differences } of tables) {
      compared.firewall = (compared.firewall ?? 0) + 1;
      if (differences.length > 0) items.push({ kind: 'firewall', name: table, differences });
    }
  }

  /** Programs that serve all, and what bears our mark and belongs to nobody. */
  async #host({ items, compared, drifts }: Findings): Promise<void> {
    const { context, drivers, services } = this.#parts;
    const { world, node } = context;
    const sets = new Set([...world.services.keys()].flatMap((id) => services.setsOf(id)));
    const isOthers = ({ object, id, set }: Drift): boolean =>
      (object === 'sandbox' && world.sandboxes.has(id)) ||
      (object === 'endpoint' && world.endpoints.has(id)) ||
      (set !== undefined && sets.has(set));
    const differences = drifts.filter((drift) => !isOthers(drift)).map(driftDifference);
    for (const driver of drivers) {
      if (!hasInventory(driver)) continue;
      const found = await driver.inventory();
      const stray = (what: string, id: string): Difference => ({
        what: `links of ${what} ${shortId(id)}, which is no more`,
        have: 'there',
        command: `ip -d link | grep -B1 ${id}`,
      });
      differences.push(
        ...found.networks.filter((id) => !world.networks.has(id)).map((id) => stray('network', id)),
        ...found.endpoints.filter((id) => !world.endpoints.has(id)).map((id) => stray('endpoint', id)),
      );
    }
    compared.host = 1;
    // Two drivers that switch on the host list the same links.
    const once = [...new Map(differences.map((one) => [one.what, one])).values()];
    if (once.length > 0) items.push({ kind: 'host', name: node, differences: once });
  }

  #driver(network: Network, rehearsal: Rehearsal): NetworkDriver | null {
    return this.#parts.rehearse(network.spec.driver, rehearsal.kernel(this.#parts.context.kernel));
  }
}

const driftDifference = ({ what, is, look }: Drift): Difference => ({
  what,
  want: is === 'foreign' ? undefined : is === 'missing' ? 'there' : 'as it was programmed',
  have: is === 'missing' ? undefined : is === 'foreign' ? 'there' : 'altered',
  command: look,
});

/** By name, id, or the beginning of one. */
export function find(kind: Kind, all: readonly Obj[], name: string): Obj {
  const named = all.filter((object) => object.name === name || object.id === name);
  const found = named.length > 0 || name.length < REF_MIN ? named : all.filter(({ id }) => id.startsWith(name));
  if (found.length === 1) return found[0]!;
  if (found.length === 0) throw new SluiceError('object.notfound', `this node has no ${kind} ${name}`, { kind, name });
  const ids = found.map(({ id }) => shortId(id));
  throw new SluiceError('object.ambiguous', `${name} fits several: ${ids.join(', ')}`, { kind, name, ids });
}
