/** An overlay made by hand with `ip` and `bridge`: what a host needs so that one namespace on it reaches another host's, and no more. */
import { basename } from 'node:path';
import type { LabHost } from '../../src/lab/lab.ts';
import type { Place } from '../../src/lab/place.ts';

/** A namespace behind a host; its link `mesh0` has the address. */
export interface Pod {
  readonly host: LabHost;
  readonly pod: LabHost;
  readonly address: string;
  readonly mac: string;
}

const VNI = 4242;
/** An underlay of 1500 without the 50 bytes of VXLAN over IPv4. */
export const OVERLAY_MTU = 1450;

const hostLines = ({ host, pod, mac }: Pod): string[] => [
  `link add br0 mtu ${OVERLAY_MTU} type bridge`,
  `link add vx0 mtu ${OVERLAY_MTU} type vxlan id ${VNI} dstport 4789 local ${host.address} nolearning ttl 64`,
  'link set vx0 master br0 up',
  `link add pod0 mtu ${OVERLAY_MTU} type veth peer name mesh0 mtu ${OVERLAY_MTU} address ${mac} netns ${basename(pod.netnsPath)}`,
  'link set pod0 master br0 up',
  'link set br0 up',
];

/** Wires two pods on two hosts, everything programmed ahead: same devices, flags, MTU and offloads as ours. */
export async function prepareVxlan(one: Pod, other: Pod, prefix: number): Promise<string> {
  const run = (at: LabHost, tool: 'ip' | 'bridge', lines: readonly string[]) =>
    at.must([tool, '-batch', '-'], { input: lines.map((line) => `${line}\n`).join('') });
  for (const [own, far] of [
    [one, other],
    [other, one],
  ] as const) {
    await run(own.host, 'ip', hostLines(own));
    await run(own.pod, 'ip', [`addr add ${own.address}/${prefix} dev mesh0`, 'link set mesh0 up']);
    await run(own.host, 'bridge', [
      'link set dev vx0 learning off flood off neigh_suppress on',
      'link set dev pod0 learning off',
      `fdb replace ${own.mac} dev pod0 master static`,
      `fdb replace ${far.mac} dev vx0 master static`,
      `fdb replace ${far.mac} dev vx0 self dst ${far.host.address} permanent`,
    ]);
    await run(own.host, 'ip', [
      `neigh replace ${own.address} lladdr ${own.mac} dev br0 nud permanent`,
      `neigh replace ${far.address} lladdr ${far.mac} dev br0 nud permanent`,
    ]);
  }
  return `bridge, veth and VXLAN made with ip and bridge on two hosts without a daemon:\n${hostLines(one).join('\n')}`;
}

/** The pod's namespace, in a cgroup of nobody. */
export const placeOfPod = ({ pod }: Pod): Place => ({ netnsPath: pod.netnsPath, cgroup: pod.cgroup });
