/** `sluice lab …`: a cluster of hosts in namespaces of this machine, to try things on and to break. */
import { join } from 'node:path';
import { SluiceError } from '../../errors.ts';
import { partition as cut, lose } from '../../lab/fault.ts';
import { argvAt } from '../../lab/place.ts';
import { healAll, killHost, raise, standingLab, stateOf, takeDown } from '../../lab/standing.ts';
import { command, type Group, UsageError } from '../command/command.ts';
import { commandLine, integer, one, type Reader, text, word } from '../command/flag.ts';
import { installRoot } from '../install.ts';
import { type Column, listFlags, printList } from '../print/listing.ts';

const OURS = 125;
const HOSTS = 3;
const MTU = 1500;
const BITS: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };

/** Bits a second of `100mbit`, `1gbit`. */
export const bitRate: Reader<number> = (given) => {
  const [, number, unit] = /^(\d+(?:\.\d+)?)(bit|kbit|mbit|gbit)$/i.exec(given) ?? [];
  const bits = Number(number) * (BITS[unit?.toLowerCase() ?? ''] ?? Number.NaN);
  if (!(bits >= 8)) throw new UsageError(`"${given}" is not a rate such as 100mbit or 1gbit`);
  return bits;
};

/** 5 of `5%`, `5`; 0 to 100. */
export function percentage(given: string): number {
  const percent = /^\d+(\.\d+)?%?$/.test(given) ? Number.parseFloat(given) : Number.NaN;
  if (!(percent <= 100)) throw new UsageError(`"${given}" is not a share such as 5%`);
  return percent;
}

const hostWord = word('name: h1, h2 …');

const up = command({
  summary: 'Make the lab: hosts with a daemon each, and a Redis that they share',
  about:
    'Hosts are network namespaces on one underlay, with a cgroup, state and pins of their own; the network of this machine is not touched. ' +
    'The lab stands until "sluice lab down" or a reboot. Its Redis listens at 198.18.0.1:6379 inside it.',
  examples: ['sluice lab up --hosts 5 --rate 1gbit'],
  flags: {
    hosts: one('N', integer, 'Hosts: h1 … hN', { absent: String(HOSTS) }),
    mtu: one('N', integer, 'MTU of the underlay', { absent: String(MTU) }),
    rate: one('RATE', bitRate, 'What each host can send: 100mbit, 1gbit', { absent: 'no limit' }),
  },
  args: {},
  async run({ terminal }, { hosts = HOSTS, mtu = MTU, rate }) {
    const lab = await raise({ hosts, mtu, rate });
    terminal.out(lab.hosts.map(({ name }) => `${name}\n`).join(''));
  },
});

type HostRow = Awaited<ReturnType<typeof stateOf>>[number];
const hostColumns: readonly Column<HostRow>[] = [
  { title: 'HOST', field: 'Name', of: ({ name }) => name },
  { title: 'ADDRESS', field: 'Address', of: ({ address }) => address },
  { title: 'DAEMON', field: 'Daemon', of: ({ answers }) => (answers ? 'ready' : 'down') },
  { title: 'FAULTS', field: 'Faults', of: ({ faults }) => faults.join(', ') || '-', shrink: true },
  { title: 'API', field: 'Api', of: ({ socket }) => `unix://${socket}`, shrink: true },
];

const ls = command({
  summary: 'List the hosts and their faults',
  aliases: ['list'],
  flags: listFlags,
  args: {},
  async run(context, flags) {
    const hosts = (await stateOf(standingLab())).map((host) => ({ ...host, id: host.name }));
    await printList(context, hosts, hostColumns, flags);
  },
});

const exec = command({
  summary: 'Run a program on a host of the lab',
  about:
    'Inside, "sluice" asks the daemon of that host. The exit status is that of the program; 125 is a failure of ours.',
  examples: [
    'sluice lab exec h1 sluice network create --driver overlay mesh',
    'sluice lab exec h2 ping -c1 198.18.0.11',
  ],
  flags: {},
  args: { host: hostWord, command: commandLine('program and its arguments') },
  failure: OURS,
  async run({ env }, _, { host, command }) {
    const { netnsPath, cgroup, socket } = standingLab().host(host);
    const [, ...args] = argvAt({ netnsPath, cgroup }, command);
    const path = `${join(installRoot(), 'bin')}:${env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin'}`;
    process.execve!('/bin/sh', ['sh', ...args], { ...env, PATH: path, SLUICE_HOST: `unix://${socket}` });
    throw new SluiceError('internal', 'execve returned');
  },
});

const partition = command({
  summary: 'Cut a host off from everything, from Redis, or from another host',
  examples: ['sluice lab partition h2', 'sluice lab partition h2 --from redis', 'sluice lab partition h2 --from h3'],
  flags: { from: one('PEER', text, 'redis, or a host', { absent: 'everything' }) },
  args: { host: hostWord },
  async run(_, { from }, { host }) {
    const lab = standingLab();
    if (from === host) throw new UsageError(`--from: ${host} cannot be cut off from itself`);
    await cut(lab.host(host), from === undefined || from === 'redis' ? from : lab.host(from));
  },
});

const loss = command({
  summary: 'Lose a share of what arrives at a host; 0% ends it',
  examples: ['sluice lab loss h2 5%'],
  flags: {},
  args: { host: hostWord, share: word('5%') },
  async run(_, __, { host, share }) {
    await lose(standingLab().host(host), percentage(share));
  },
});

const heal = command({
  summary: 'End all faults; hosts that were killed come back',
  flags: {},
  args: {},
  async run() {
    await healAll(standingLab());
  },
});

const kill = command({
  summary: 'Lose a host: all that runs on it dies, and its network answers nobody',
  flags: {},
  args: { host: hostWord },
  async run(_, __, { host }) {
    await killHost(standingLab().host(host));
  },
});

const down = command({
  summary: 'Remove the lab and all that is in it',
  flags: {},
  args: {},
  async run() {
    const left = await takeDown();
    if (left.length > 0)
      throw new SluiceError('kernel.failed', `of the lab there is still: ${left.join('; ')}`, { left });
  },
});

export const lab: Group = {
  summary: 'A cluster to try things on, inside this machine',
  commands: { up, ls, exec, partition, loss, heal, kill, down },
};
