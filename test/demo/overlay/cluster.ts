/** The cluster of the demo: who is in it, and what is asked of it again and again. */
import type { LabRedis } from '../../../src/lab/redis.ts';
import { type ConnectResult, startConnect } from '../../../src/load/load.ts';
import type { NodeState } from '../../../src/model/node.ts';
import type { Actor } from '../actor.ts';

/** New connections a second from each host that puts load on the service. */
export const RATE = 200;
/** Milliseconds after which a connection that is not answered has failed. */
const TIMEOUT_MS = 1_000;
/** Beside its page each container answers here with its digit; a program that forks for every request could not keep up. */
export const TAG_PORT = 81;

/** One host with its container. */
export interface Member extends Actor {
  /** `web1` */
  readonly container: string;
  /** The container's address on the overlay. */
  readonly address: string;
  /** What its load server answers: `1`. */
  readonly tag: string;
  /** A shell command in the container; not shown. */
  shell(command: string): Promise<string>;
}

export interface Cluster {
  readonly redis: LabRedis;
  readonly members: readonly [Member, Member, Member];
  /** Of the service `shop`. */
  readonly vip: string;
}

export function createMember(actor: Actor, number: number, address: string): Member {
  const container = `web${number}`;
  return {
    ...actor,
    container,
    address,
    tag: String(number),
    shell: (command) => actor.inside(container, command),
  };
}

/** Connections to the service from the containers of some hosts, until they are stopped. */
export async function startLoads(members: readonly Member[], vip: string) {
  // Room for all that wait in vain for a host that is lost.
  const options = { rate: RATE, concurrency: 256, timeoutMs: TIMEOUT_MS, seconds: 0 };
  const loads = await Promise.all(
    members.map(async (member) =>
      startConnect(await member.placeOf(member.container), { address: vip, port: TAG_PORT, ...options }),
    ),
  );
  return { stop: (): Promise<ConnectResult[]> => Promise.all(loads.map((load) => load.stop())) };
}

/** What a host knows of another. */
export async function stateOf({ host }: Pick<Actor, 'host'>, other: string): Promise<NodeState | undefined> {
  return (await host.client.nodes.list()).find(({ name }) => name === other)?.session.state;
}

/** Whether a name is one address, says the resolver of a container, asked once. */
export async function resolves(from: Member, name: string, address: string): Promise<boolean> {
  const answer = await from.shell(`nslookup -type=a ${name}`);
  return answer.split('\n').includes(`Address: ${address}`);
}

/** What is served under a name, or nothing; asked once. */
export const page = (from: Member, name: string): Promise<string> => from.shell(`timeout 1 wget -qO- http://${name}/`);

/** Whether a page is that of a host's container. */
export const isFrom = ({ container, host }: Member, text: string): boolean => text === `${container} on ${host.name}`;

/** Over how many backends a host balances a service. */
export const backendsOf = async ({ host }: Pick<Actor, 'host'>, service: string): Promise<number> =>
  Number((await host.client.services.get(service)).status?.detail.backends ?? 0);
