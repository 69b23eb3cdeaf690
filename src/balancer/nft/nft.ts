/**
 * Published ports in the kernel: one nft table, rewritten in one transaction when it must be and left alone when it is right. What it was made
 * from lies in the run directory, so that a daemon that comes back goes on with all of it, and withdraws what nobody wants when it knows better.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Repair } from '../../contracts/dataplane.ts';
import type { Kernel, Nft } from '../../contracts/kernel.ts';
import type { PublishedPort, Publisher } from '../../contracts/publisher.ts';
import { isSluiceError, SluiceError } from '../../errors.ts';
import type { Difference } from '../../model/diagnosis/diff.ts';
import { publishTable } from '../../model/mark.ts';
import { tableDifferences } from '../../model/nft/difference.ts';
import { digestTable } from '../../model/nft/digest.ts';
import { isWildcard, overlap, renderPublish, SLOTS } from './table.ts';

export interface NftPublisherOptions {
  readonly kernel: Pick<Kernel, 'nft' | 'conntrack' | 'host'>;
  readonly instance: string;
  readonly runDir: string;
}

interface Written {
  readonly owners: Readonly<Record<string, readonly PublishedPort[]>>;
  /** Of what the kernel made of it. */
  readonly digest: string;
}

const LOOPBACK = { '0.0.0.0': '127.0.0.1', '::': '::1' } as const;

class NftPublisher implements Publisher {
  readonly #kernel: NftPublisherOptions['kernel'];
  readonly #nft: Nft;
  readonly #instance: string;
  readonly #table: string;
  readonly #file: string;
  readonly #owners = new Map<string, readonly PublishedPort[]>();
  #digest = '';

  constructor({ kernel, instance, runDir }: NftPublisherOptions) {
    this.#kernel = kernel;
    this.#nft = kernel.nft();
    this.#instance = instance;
    this.#table = `inet ${publishTable(instance)}`;
    this.#file = join(runDir, 'publish.json');
    const before = this.#read();
    if (!before) return;
    this.#digest = before.digest;
    for (const [owner, ports] of Object.entries(before.owners)) this.#owners.set(owner, ports);
  }

  capabilities() {
    return { form: 'nft', backendsMax: SLOTS } as const;
  }

  ensure(owner: string, ports: readonly PublishedPort[]): void {
    const before = this.#owners.get(owner) ?? [];
    if (JSON.stringify(before) === JSON.stringify(ports)) return;
    for (const [other, theirs] of this.#owners) {
      const taken = other === owner ? undefined : ports.find((port) => theirs.some((their) => overlap(port, their)));
      if (taken)
        throw new SluiceError(
          'port.inuse',
          `port ${taken.port}/${taken.protocol} of this host is published by ${other}`,
          {
            owner: other,
            port: taken.port,
            protocol: taken.protocol,
          },
        );
    }
    if (ports.length > 0) this.#owners.set(owner, ports);
    else this.#owners.delete(owner);
    try {
      this.#write();
    } catch (error) {
      if (before.length > 0) this.#owners.set(owner, before);
      else this.#owners.delete(owner);
      throw error;
    }
    const has = (all: readonly PublishedPort[], one: PublishedPort): boolean =>
      all.some((other) => JSON.stringify(other) === JSON.stringify(one));
    this.#forget([...before.filter((port) => !has(ports, port)), ...ports.filter((port) => !has(before, port))]);
  }

  remove(owner: string): void {
    this.ensure(owner, []);
  }

  published(): ReadonlyMap<string, readonly PublishedPort[]> {
    return new Map(this.#owners);
  }

  prune(keep: ReadonlySet<string>): number {
    const strays = [...this.#owners.keys()].filter((owner) => !keep.has(owner));
    for (const owner of strays) this.remove(owner);
    return strays.length;
  }

  audit(): Repair[] {
    const present = this.#nft.list(`table ${this.#table}`);
    if (this.#owners.size === 0) {
      if (present) this.off();
      return [];
    }
    if (present && digestTable(present) === this.#digest) return [];
    this.#write();
    const what = `nft table ${this.#table} had been ${present ? 'changed' : 'removed'} and was written anew`;
    return [{ object: 'published', id: this.#table, what }];
  }

  compare(): Difference[] {
    const present = this.#nft.list(`table ${this.#table}`);
    if (this.#owners.size > 0) return tableDifferences(this.#table, this.#digest, present);
    const command = `nft list table ${this.#table}`;
    return present ? [{ what: `nft table ${this.#table}`, have: 'there', command }] : [];
  }

  off(): void {
    this.#owners.clear();
    this.#write();
  }

  close(): void {
    this.#nft[Symbol.dispose]();
  }

  #write(): void {
    const ports = [...this.#owners].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, all]) => all);
    if (ports.length === 0) this.#delete();
    else this.#nft.apply(renderPublish(this.#instance, ports));
    this.#digest = ports.length === 0 ? '' : digestTable(this.#nft.list(`table ${this.#table}`) ?? []);
    // Whole or not at all: half of it would be taken for all.
    const content: Written = { owners: Object.fromEntries(this.#owners), digest: this.#digest };
    writeFileSync(`${this.#file}.new`, JSON.stringify(content));
    renameSync(`${this.#file}.new`, this.#file);
  }

  #delete(): void {
    try {
      this.#nft.apply(`delete table ${this.#table}`);
    } catch (error) {
      if (!isSluiceError(error, 'kernel.notfound')) throw error;
    }
  }

  /** Connections that were translated otherwise, or not at all. */
  #forget(ports: readonly PublishedPort[]): void {
    const { conntrack, host } = this.#kernel;
    const local = (family: '0.0.0.0' | '::'): string[] => [
      LOOPBACK[family],
      ...host.netlink
        .addresses()
        .flatMap(({ cidr }) => (cidr.includes(':') === (family === '::') ? cidr.split('/')[0]! : [])),
    ];
    for (const { address, protocol, port } of ports) {
      const addresses = new Set(isWildcard(address) ? local(address as '0.0.0.0') : [address]);
      conntrack.remove(host, { protocol, addresses, port });
    }
  }

  #read(): Written | null {
    try {
      return JSON.parse(readFileSync(this.#file, 'utf8')) as Written;
    } catch {
      // Absent, or spoilt by somebody: everything is published anew, which takes as long as the containers take to be looked at.
      return null;
    }
  }
}

/** Goes on with what an earlier life had published. */
export const createNftPublisher = (options: NftPublisherOptions): Publisher => new NftPublisher(options);
