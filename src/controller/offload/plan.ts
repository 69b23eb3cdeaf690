/**
 * How hosts reach each other to test their checksums: pure. Everything follows from a node's tunnel end point and the VXLAN port, so that
 * nothing has to be agreed upon.
 */
import { createHash } from 'node:crypto';
import { deriveMac } from '../../model/id.ts';
import { canonicalAddress, familyOf, formatAddress, parseAddress, toBytes } from '../../model/ip.ts';

/** Discard (RFC 863): nobody listens there, and what comes to it by the device is refused before anybody could (firewall/vxlan.ts). */
export const PROBE_PORT = 9;
/** The least that IPv6 works with: a SYN needs no more, and no underlay is too narrow for it. */
export const PROBE_MTU = 1280;

/** `sluic` in a unique local prefix (RFC 4193), then the UDP port: two daemons of one host have two. */
export const probePrefix = (port: number): string => canonicalAddress(`fd73:6c75:6963:${port.toString(16)}::`);

/** Address of the host's end: its IPv4 end point, or 64 bits of what its IPv6 one hashes to. */
export function probeAddress(vtep: string, port: number): string {
  const host = familyOf(vtep) === 4 ? parseAddress(vtep).value : hashOf(vtep).readBigUInt64BE();
  return formatAddress(6, parseAddress(probePrefix(port)).value + host);
}

/** MAC of the host's end: on this one VXLAN network there is nobody else. */
export const probeMac = (vtep: string): string =>
  familyOf(vtep) === 4 ? deriveMac('', vtep) : deriveMac(hashOf(vtep).toString('hex', 8));

const hashOf = (vtep: string): Buffer => createHash('sha256').update(toBytes(vtep)).digest();

/** Who was not heard with the offload on, was before, and was again after: `doubtful` was not, so something else may have been in the way. */
export function judge(
  asked: readonly string[],
  heard: ReadonlySet<string>,
  again: ReadonlySet<string>,
): { readonly spoilt: string[]; readonly doubtful: string[] } {
  const lost = asked.filter((node) => !heard.has(node));
  return { spoilt: lost.filter((node) => again.has(node)), doubtful: lost.filter((node) => !again.has(node)) };
}

/** What was found, in words, with what helps. `devices`: where the offload is off. */
export function describeSpoilt(nodes: readonly string[], probe: string, devices: string): string {
  const which = nodes.length === 1 ? `node ${nodes[0]}` : `nodes ${nodes.join(', ')}`;
  return `TCP to ${which} gets through the overlay only with checksums made in software: something by which this host's VXLAN packets leave, most likely the network card, gets the inner ones wrong. Tx checksum offload, and segmentation offload with it, was switched off on ${devices}; that costs throughput. To mend it: update the driver or firmware of the card; \`ip link del ${probe}\` has it tested anew`;
}
