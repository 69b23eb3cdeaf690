/**
 * Faults of a lab's hosts, as nft tables in their namespaces: no netem, and nothing that a daemon of ours owns. They stand before
 * everything else, in both directions, so that tunnels, probes and the store's connection meet them alike.
 */
import { SluiceError } from '../errors.ts';
import type { Station } from './lab.ts';

/** Names of the tables; `rate` belongs to the wiring and is not healed. */
export type Fault = 'partition' | 'loss' | 'dead';
const FAULTS: readonly Fault[] = ['partition', 'loss', 'dead'];
const tableOf = (fault: Fault | 'rate'): string => `lab_${fault}`;

/** Where the lab's Redis listens. */
export const REDIS = { address: '198.18.0.1', port: 6379 } as const;

/** A table with one chain for what arrives at eth0 and one for what leaves by it. Pure. */
export function faultTable(fault: Fault | 'rate', arriving: readonly string[], leaving: readonly string[]): string {
  const table = `inet ${tableOf(fault)}`;
  const rules = [
    ...arriving.map((rule) => `add rule ${table} arriving iifname eth0 ${rule}`),
    ...leaving.map((rule) => `add rule ${table} leaving oifname eth0 ${rule}`),
  ];
  return `${[
    `add table ${table}`,
    `add chain ${table} arriving { type filter hook prerouting priority -500; }`,
    `add chain ${table} leaving { type filter hook postrouting priority -500; }`,
    ...rules,
  ].join('\n')}\n`;
}

/** Every packet from and to `peer`, or all of them; partitions add up. */
export async function partition(host: Station, peer?: Station | 'redis'): Promise<void> {
  if (peer === undefined) return apply(host, faultTable('partition', ['drop'], ['drop']));
  if (peer === 'redis') {
    const { address, port } = REDIS;
    return apply(
      host,
      faultTable(
        'partition',
        [`ip saddr ${address} tcp sport ${port} drop`],
        [`ip daddr ${address} tcp dport ${port} drop`],
      ),
    );
  }
  const { address, address6 } = peer;
  return apply(
    host,
    faultTable(
      'partition',
      [`ip saddr ${address} drop`, `ip6 saddr ${address6} drop`],
      [`ip daddr ${address} drop`, `ip6 daddr ${address6} drop`],
    ),
  );
}

/** Drops `percent` of what arrives at the host, at random; 0 ends it. */
export async function lose(host: Station, percent: number): Promise<void> {
  await lift(host, 'loss');
  const share = Math.round(percent * 100);
  if (share > 0) await apply(host, faultTable('loss', [`numgen random mod 10000 <= ${share - 1} drop`], []));
}

/** The host is gone from the network. */
export const cutOff = (host: Station): Promise<void> => apply(host, faultTable('dead', ['drop'], ['drop']));

/** What leaves the host beyond `bits` a second is dropped. */
export async function limitRate(host: Station, bits: number): Promise<void> {
  const bytes = Math.max(1, Math.round(bits / 8));
  // A hundredth of a second, and no less than a few segments of the largest size.
  const burst = Math.max(262_144, Math.round(bytes / 100));
  await apply(host, faultTable('rate', [], [`limit rate over ${bytes} bytes/second burst ${burst} bytes drop`]));
}

/** Faults that the host has now. */
export async function faultsOf(host: Station): Promise<Fault[]> {
  const tables = (await host.must(['nft', 'list', 'tables'])).split('\n');
  return FAULTS.filter((fault) => tables.includes(`table inet ${tableOf(fault)}`));
}

/** Ends all faults of the host. */
export async function heal(host: Station): Promise<void> {
  for (const fault of await faultsOf(host)) await lift(host, fault);
}

async function lift(host: Station, fault: Fault): Promise<void> {
  // Added first, so that the absent one is no failure.
  const table = `inet ${tableOf(fault)}`;
  await apply(host, `add table ${table}\ndelete table ${table}\n`);
}

async function apply(host: Station, rules: string): Promise<void> {
  const { code, stderr } = await host.exec(['nft', '-f', '-'], { input: rules });
  if (code !== 0) throw new SluiceError('kernel.failed', `nft on ${host.name}: ${stderr.trim()}`, { host: host.name });
}
