/**
 * The lab of `sluice lab`: it stands when the command that made it has ended. There is one on a machine, its folder is its state:
 * `lab.json` says which hosts it has. Its Redis runs in the namespace `outside`, so that a host can be cut off from it alone.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SluiceError } from '../errors.ts';
import { probe } from './daemon.ts';
import { cutOff, type Fault, faultsOf, heal, limitRate } from './fault.ts';
import { hostsOf, type LabHost, type Station, wireHosts } from './lab.ts';
import { claimLab, killGroup, labCgroup, labFolder, labTraces, removeLab } from './owner.ts';
import { LabRedis, sharedStore } from './redis.ts';

/** No process id: the sweep of what dead owners left does not touch it. */
const ID = 'standing';
const HOSTS_MAX = 32;
const START_MS_MAX = 30_000;

export interface StandingOptions {
  readonly hosts: number;
  readonly mtu: number;
  /** Bits a second that each host can send. */
  readonly rate?: number;
}

export interface HostState {
  readonly name: string;
  readonly address: string;
  readonly socket: string;
  /** Its daemon answers. */
  readonly answers: boolean;
  readonly faults: readonly Fault[];
}

export interface StandingLab {
  readonly hosts: readonly LabHost[];
  readonly outside: Station;
  /** By its name; fails with `object.notfound`. */
  host(name: string): LabHost;
}

const marker = (): string => join(labFolder(ID), 'lab.json');
const instanceOf = (index: number): string => `lab${String(index).padStart(2, '0')}`;
const built = (names: readonly string[]): StandingLab => hostsOf(ID, names, instanceOf);

/** The lab that stands; fails with `object.notfound` when there is none. */
export function standingLab(): StandingLab {
  if (!existsSync(marker())) throw new SluiceError('object.notfound', 'there is no lab; "sluice lab up" makes one');
  return built((JSON.parse(readFileSync(marker(), 'utf8')) as { hosts: string[] }).hosts);
}

/** Makes the lab, its Redis and its daemons. What fails leaves nothing. */
export async function raise({ hosts, mtu, rate }: StandingOptions): Promise<StandingLab> {
  if (!Number.isInteger(hosts) || hosts < 1 || hosts > HOSTS_MAX)
    throw new SluiceError('request.invalid', `a lab has 1 to ${HOSTS_MAX} hosts, not ${hosts}`);
  if (!Number.isInteger(mtu) || mtu < 1280 || mtu > 65_535)
    throw new SluiceError('request.invalid', `an underlay has an MTU from 1280 to 65535, not ${mtu}`);
  if (existsSync(labFolder(ID)))
    throw new SluiceError('object.exists', 'a lab stands already; "sluice lab down" removes it');
  const names = Array.from({ length: hosts }, (_, index) => `h${index + 1}`);
  claimLab(ID);
  try {
    await mkdir(labCgroup(ID));
    wireHosts(ID, names, mtu);
    writeFileSync(marker(), JSON.stringify({ hosts: names }));
    const lab = built(names);
    await new LabRedis(lab.outside, { folder: join(labFolder(ID), 'redis'), outlives: true }).start();
    if (rate !== undefined) for (const host of lab.hosts) await limitRate(host, rate);
    // One after the other: the first founds the cluster.
    for (const host of lab.hosts) await startOn(host);
    return lab;
  } catch (error) {
    await removeLab(ID);
    throw error;
  }
}

/** Removes the lab, or what is left of one. Returns what could still be found, nothing unless something is broken. */
export async function takeDown(): Promise<string[]> {
  await removeLab(ID);
  return labTraces(ID);
}

/** The host is lost: its processes die at once, and its network answers nobody. */
export async function killHost(host: LabHost): Promise<void> {
  await cutOff(host);
  await killGroup(host.cgroupRoot);
}

/** Ends all faults, and starts the daemons that do not run. */
export async function healAll(lab: StandingLab): Promise<void> {
  for (const host of lab.hosts) await heal(host);
  await Promise.all(
    lab.hosts.map(async (host) => {
      if ((await probe(host.socket, '/v1/version')) === null) await startOn(host);
    }),
  );
}

/** What each host is like now. */
export function stateOf(lab: StandingLab): Promise<HostState[]> {
  return Promise.all(
    lab.hosts.map(async (host) => ({
      name: host.name,
      address: host.address,
      socket: host.socket,
      answers: (await probe(host.socket, '/v1/version')) === 200,
      faults: await faultsOf(host),
    })),
  );
}

async function startOn(host: LabHost): Promise<void> {
  await host.daemon.start({ settings: sharedStore(host), outlives: true, readyTimeoutMs: START_MS_MAX });
}
