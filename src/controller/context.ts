/** What every controller is given. */
import type { Clock } from '../clock.ts';
import type { Dataplane } from '../contracts/dataplane.ts';
import type { DriverNetwork, NetworkDriver } from '../contracts/driver.ts';
import type { Images } from '../contracts/image.ts';
import type { Kernel } from '../contracts/kernel.ts';
import type { NameServer } from '../contracts/names.ts';
import type { Publisher } from '../contracts/publisher.ts';
import type { Runtime } from '../contracts/runtime.ts';
import type { Desired } from '../desired/desired.ts';
import type { Logger } from '../log.ts';
import type { Network } from '../model/network.ts';
import type { Sandbox } from '../model/sandbox.ts';
import type { Tracker } from './tracker.ts';
import type { World } from './world.ts';

export interface Context {
  readonly instance: string;
  readonly node: string;
  readonly runDir: string;
  readonly stateDir: string;
  /** Absolute path of the cgroup below which the sandboxes' cgroups are made. */
  readonly cgroupBase: string;
  readonly kernel: Kernel;
  readonly dataplane: Dataplane;
  readonly publisher: Publisher;
  readonly names: NameServer;
  readonly runtime: Runtime;
  readonly images: Images;
  readonly desired: Desired;
  readonly drivers: { get(name: string): NetworkDriver };
  readonly world: World;
  readonly tracker: Tracker;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Text of a sandbox's /etc/resolv.conf. */
  readonly resolvConf: (sandbox: Sandbox) => string;
  /** Whether of all nodes it is this one that takes back addresses that nobody has any more. Default: it is. */
  readonly collects?: () => boolean;
}

export const netnsPath = (context: Pick<Context, 'runDir'>, sandboxId: string): string =>
  `${context.runDir}/netns/${sandboxId}`;
export const sandboxDir = (context: Pick<Context, 'runDir'>, sandboxId: string): string =>
  `${context.runDir}/sandbox/${sandboxId}`;
/** Where the data of the local volume driver lies. */
export const volumeDir = (context: Pick<Context, 'stateDir'>, name: string): string =>
  `${context.stateDir}/volumes/${name}`;

/** A network as its driver sees it. */
export function driverNetwork(network: Network): DriverNetwork {
  const { spec } = network;
  return {
    id: network.id,
    name: network.name,
    subnets: spec.subnets.map(({ cidr, gateway }) => ({ cidr, gateway })),
    internal: spec.internal,
    ipv4: spec.ipv4,
    ipv6: spec.ipv6,
    mtu: spec.mtu,
    vni: spec.vni,
    options: spec.options,
  };
}
