/** What must hold in a cluster: always, when it is quiet, and when everything was taken away. */

import type { Beat } from '../../src/cluster/judgement.ts';
import type { Lease } from '../../src/contracts/driver.ts';
import type { Op } from '../../src/contracts/store.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { beatPrefix, leasePrefix, objectPrefix } from '../../src/model/keys.ts';
import type { Network } from '../../src/model/network.ts';
import type { Kind, Obj, Status } from '../../src/model/object.ts';
import type { Sandbox } from '../../src/model/sandbox.ts';
import type { Service } from '../../src/model/service.ts';
import type { SimHost } from './host.ts';
import type { SimServer } from './server.ts';

const vxlanOf = (network: string): string => `sx${network.slice(0, 12)}`;
const bare = (address: string): string => address.split('/')[0]!;

export class Checks {
  readonly #server: SimServer;
  readonly #hosts: readonly SimHost[];
  readonly #broken: (what: string) => void;
  /** Highest epoch of a sign of life, by node. */
  readonly #epochs = new Map<string, number>();
  /** Endpoints that were programmed, by host; until somebody asks for their end, or their host is wiped. */
  readonly #standing = new Map<string, { readonly host: SimHost; readonly sandbox: string }>();
  /** Sandboxes whose end was asked for since it was quiet last: the request may be on its way. */
  readonly #going = new Set<string>();
  /** `host/endpoint` that a host could forward to. */
  readonly #forwarded = new Set<string>();

  constructor(server: SimServer, hosts: readonly SimHost[], broken: (what: string) => void) {
    this.#server = server;
    this.#hosts = hosts;
    this.#broken = broken;
  }

  /** Somebody asked for the end of the sandbox: it may go from now on. */
  asked(sandbox: string): void {
    this.#going.add(sandbox);
    for (const [id, standing] of this.#standing) if (standing.sandbox === sandbox) this.#release(id);
  }

  /** The host's kernel began anew. */
  wiped(host: SimHost): void {
    for (const [id, standing] of this.#standing) if (standing.host === host) this.#standing.delete(id);
    this.tampered(host);
  }

  /** Somebody deleted entries on the host. */
  tampered(host: SimHost): void {
    for (const key of this.#forwarded) if (key.startsWith(`${host.name}/`)) this.#forwarded.delete(key);
  }

  /** The store took a write: no sign of life comes under a session that has ended. */
  written(ops: readonly Op[]): void {
    for (const op of ops) {
      if (op.op !== 'put' || !op.key.startsWith(beatPrefix)) continue;
      const { epoch } = op.value as Beat;
      const known = this.#epochs.get(op.key) ?? 0;
      if (epoch < known) this.#broken(`${op.key}: a sign of life of epoch ${epoch} after one of ${known}`);
      this.#epochs.set(op.key, Math.max(known, epoch));
    }
  }

  /** No address twice, nothing withdrawn without cause. `whole`: nothing of what is desired is waiting to be put back into the store. */
  async always(whole: boolean): Promise<void> {
    const endpoints = await this.#list<Endpoint>('endpoint');
    for (const { id, spec } of endpoints) if (spec.contested) this.#standing.delete(id);
    if (whole) await this.#addresses(endpoints);
    const ids = new Map(endpoints.map((endpoint) => [endpoint.id, endpoint]));
    for (const [id, { host, sandbox }] of this.#standing) {
      if (whole && !ids.has(id))
        this.#broken(`endpoint ${id.slice(0, 12)} of ${sandbox} is gone, which nobody asked for`);
      else if (!host.kernel.host.netlink.link(`sv${id.slice(0, 12)}`))
        this.#broken(`the link of ${sandbox} on ${host.name} is gone, which nobody asked for`);
    }
    if (!whole) return;
    for (const key of this.#forwarded) {
      const [name, id] = key.split('/') as [string, string];
      const target = ids.get(id);
      const host = this.#hosts.find((each) => each.name === name)!;
      const isJoined = endpoints.some(
        ({ owner, removing, spec }) => owner === name && !removing && spec.network === target?.spec.network,
      );
      // It is to go, or the host has left its network.
      if (!target || target.removing || !this.#standing.has(id) || !isJoined) this.#forwarded.delete(key);
      else if (!this.#forwards(host).has(target.spec.mac))
        this.#broken(`${name} no longer forwards to ${target.name}, and nobody asked for that`);
    }
    this.#note(endpoints);
  }

  /** Everything is as it was asked to be. */
  async quiet(): Promise<void> {
    this.#going.clear();
    const [endpoints, sandboxes, services, networks] = [
      await this.#list<Endpoint>('endpoint'),
      await this.#list<Sandbox>('sandbox'),
      await this.#list<Service>('service'),
      await this.#list<Network>('network'),
    ];
    for (const object of [...endpoints, ...sandboxes, ...services, ...networks])
      if (object.removing) this.#broken(`${object.kind} ${object.name} is still being removed`);
    const statuses = this.#server.list<Status>('status/').map(({ value }) => value);
    for (const endpoint of endpoints) {
      if (endpoint.spec.contested) continue;
      const status = statuses.find(({ id, node }) => id === endpoint.id && node === endpoint.owner);
      if (status?.state !== 'ready')
        this.#broken(`endpoint ${endpoint.name} is ${status?.state ?? 'unseen'}: ${status?.error?.message}`);
    }
    const standing = endpoints.filter(({ spec }) => !spec.contested);
    for (const host of this.#hosts) this.#hostIsRight(host, { endpoints: standing, sandboxes, services });
    await this.#addresses(endpoints);
    const owners = new Set([...endpoints, ...services, ...networks].map(({ id }) => id));
    for (const { value } of this.#server.list<Lease>(leasePrefix()))
      if (!owners.has(value.owner)) this.#broken(`${value.address} is leased to nobody (${value.owner.slice(0, 12)})`);
    this.#note(endpoints);
  }

  /** Nothing is left of what there was. */
  async empty(): Promise<void> {
    for (const prefix of [
      'network/',
      'sandbox/',
      'endpoint/',
      'service/',
      'lease/',
      'pool/',
      'vni/',
      'name/sandbox/',
    ]) {
      const items = this.#server.list(prefix);
      if (items.length > 0) this.#broken(`left in the store: ${items.map(({ key }) => key).join(', ')}`);
    }
    for (const host of this.#hosts) {
      const links = host.kernel.host.netlink.links().filter(({ name }) => name !== 'lo');
      if (links.length > 0) this.#broken(`left on ${host.name}: ${links.map(({ name }) => name).join(', ')}`);
      for (const [map, entries] of Object.entries(host.pinned))
        if (/^(?:sandboxes|endpoints|frontends|sets)$/.test(map) && entries.size > 0)
          this.#broken(`left in the ${map} of ${host.name}: ${JSON.stringify([...entries.values()])}`);
    }
  }

  async #addresses(endpoints: readonly Endpoint[]): Promise<void> {
    const holders = new Map<string, string>();
    const leases = new Map(
      this.#server.list<Lease>(leasePrefix()).map(({ value }) => [`${value.pool}/${value.address}`, value.owner]),
    );
    const networks = new Map((await this.#list<Network>('network')).map((network) => [network.id, network]));
    const services = await this.#list<Service>('service');
    const held: [Obj, string, string][] = [
      ...endpoints
        .filter(({ spec }) => !spec.contested)
        .flatMap((each) => each.spec.addresses.map((at): [Obj, string, string] => [each, each.spec.network, bare(at)])),
      ...services.flatMap((each) => each.spec.vips.map((at): [Obj, string, string] => [each, each.spec.network, at])),
    ];
    for (const [object, network, address] of held) {
      const key = `${network}/${address}`;
      const other = holders.get(key);
      if (other) this.#broken(`${address} is held twice: by ${other} and by ${object.name}`);
      holders.set(key, object.name);
      const pool = networks.get(network)?.spec.subnets[0]?.pool;
      if (pool && !object.removing && leases.get(`${pool}/${address}`) !== object.id)
        this.#broken(`${address} of ${object.kind} ${object.name} is not leased to it`);
    }
  }

  #hostIsRight(
    host: SimHost,
    all: { endpoints: readonly Endpoint[]; sandboxes: readonly Sandbox[]; services: readonly Service[] },
  ): void {
    const { life, name, kernel, pinned } = host;
    if (!life?.synced) {
      this.#broken(`the daemon of ${name} does not run`);
      return;
    }
    const own = all.endpoints.filter(({ owner }) => owner === name);
    const { netlink } = kernel.host;
    const ports = netlink.links().filter((link) => link.name.startsWith('sv'));
    const wanted = own.map(({ id }) => `sv${id.slice(0, 12)}`);
    same(
      ports.map((link) => link.name),
      wanted,
      (what) => this.#broken(`links of endpoints on ${name}: ${what}`),
    );
    same(
      [...pinned.endpoints.keys()],
      own.map(({ id }) => id),
      (what) => this.#broken(`guarded endpoints on ${name}: ${what}`),
    );
    const spaces = all.sandboxes.filter(({ owner }) => owner === name);
    for (const sandbox of spaces)
      if (!kernel.namespaces.exists(`${host.runDir}/netns/${sandbox.id}`))
        this.#broken(`${sandbox.name} has no namespace on ${name}`);
    for (const network of new Set(own.map(({ spec }) => spec.network))) {
      const members = all.endpoints.filter(({ spec }) => spec.network === network);
      const remote = members.filter(({ owner }) => owner !== name);
      const device = netlink.link(vxlanOf(network));
      if (!device) {
        this.#broken(`network ${network.slice(0, 12)} has no tunnel on ${name}`);
        continue;
      }
      const fdb = netlink
        .fdb(device.ifindex)
        .filter(({ dst, mac }) => dst !== undefined && mac !== '00:00:00:00:00:00');
      const at = (owner: string | null): string => this.#hosts.find((each) => each.name === owner)!.address;
      same(
        fdb.map(({ mac, dst }) => `${mac}@${dst}`),
        remote.map(({ spec, owner }) => `${spec.mac}@${at(owner)}`),
        (what) => this.#broken(`forwarding entries of ${network.slice(0, 12)} on ${name}: ${what}`),
      );
      for (const service of all.services.filter(({ spec }) => spec.network === network)) {
        const boxes = service.spec.backends.flatMap((backend) => ('sandbox' in backend ? [backend.sandbox] : []));
        const expected = members
          .filter(({ spec }) => boxes.includes(spec.sandbox))
          .map(({ spec }) => bare(spec.addresses[0]!));
        const set = [...pinned.frontends.values()].find(({ address }) => service.spec.vips.includes(address))?.set;
        const found = (set === undefined ? [] : (pinned.sets.get(set) ?? [])).map(({ address }) => address);
        same(found, expected, (what) => this.#broken(`backends of ${service.name} on ${name}: ${what}`));
        const resolved = life.names
          .records()
          .filter((record) => record.name === service.name)
          .flatMap(({ a = [] }) => a);
        if (!resolved.includes(service.spec.vips[0]!)) this.#broken(`${service.name} does not resolve on ${name}`);
      }
    }
    for (const other of this.#hosts) {
      const { state } = life.membership.sessionOf(other.name);
      if (state !== 'ready') this.#broken(`${name} takes ${other.name} for ${state}`);
    }
  }

  /** What stands now has to go on standing. */
  #note(endpoints: readonly Endpoint[]): void {
    for (const endpoint of endpoints) {
      const host = this.#hosts.find(({ name }) => name === endpoint.owner);
      if (
        endpoint.removing ||
        endpoint.spec.contested ||
        !host?.kernel.host.netlink.link(`sv${endpoint.id.slice(0, 12)}`)
      )
        continue;
      const sandbox = endpoint.name.split('.')[0]!;
      if (this.#going.has(sandbox)) continue;
      this.#standing.set(endpoint.id, { host, sandbox });
    }
    for (const host of this.#hosts) {
      const forwards = this.#forwards(host);
      for (const { id, owner, removing, spec } of endpoints)
        if (owner !== host.name && !removing && forwards.has(spec.mac)) this.#forwarded.add(`${host.name}/${id}`);
    }
  }

  #forwards(host: SimHost): Set<string> {
    const { netlink } = host.kernel.host;
    return new Set(
      netlink.fdb().flatMap(({ dst, mac }) => (dst !== undefined && mac !== '00:00:00:00:00:00' ? [mac] : [])),
    );
  }

  #release(id: string): void {
    this.#standing.delete(id);
  }

  async #list<O extends Obj>(kind: Kind): Promise<O[]> {
    return this.#server.list<O>(objectPrefix(kind)).map(({ value, revision }) => ({ ...value, revision }));
  }
}

function same(found: readonly string[], wanted: readonly string[], broken: (what: string) => void): void {
  const [a, b] = [found.toSorted().join(', '), wanted.toSorted().join(', ')];
  if (a !== b) broken(`are ${a || 'none'}, should be ${b || 'none'}`);
}
