/** Flags of a new container, and the request that they make. */
import type { ContainerRequest } from '../../model/container/request.ts';
import { attachmentFlags, networkFlag, networksOf } from '../attachment.ts';
import { type FlagValues, UsageError } from '../command/command.ts';
import { duration, integer, many, one, pairs, text, toggle } from '../command/flag.ts';
import { publishFlag } from '../command/publish.ts';
import {
  envLines,
  envOf,
  readBytes,
  readDecimal,
  readDevice,
  readMount,
  readRestart,
  readTmpfs,
  readUlimit,
  readVolume,
  wordsOf,
} from './words.ts';

const { readFileSync } = process.getBuiltinModule('node:fs');

/** Docker allows an empty `--entrypoint ""`: none at all. */
const anyText = (given: string): string => given;

export const containerFlags = {
  name: one('NAME', text, 'Name of the container, in DNS as well', { absent: 'one is made up' }),
  network: networkFlag,
  ...attachmentFlags,
  publish: publishFlag,
  publishAll: toggle('Publish every port that the image exposes, each on a free one of the host', { short: 'P' }),
  interactive: toggle('Keep standard input open', { short: 'i' }),
  tty: toggle('Give it a terminal', { short: 't' }),
  env: many('KEY[=VALUE]', text, "Environment variable; without a value, this command's own", { short: 'e' }),
  envFile: many('FILE', text, 'File of KEY=VALUE lines'),
  volume: many('[SOURCE:]PATH[:ro]', readVolume, 'Mount a host path or a named volume', { short: 'v' }),
  mount: many('MOUNT', readMount, 'Mount: type=bind,source=…,target=…,readonly; also volume, tmpfs'),
  tmpfs: many('PATH[:OPTIONS]', readTmpfs, 'Mount a file system in memory, such as /run:size=64m'),
  device: many('PATH[:PATH][:rwm]', readDevice, 'Device of the host'),
  memory: one('SIZE', readBytes, 'Limit of memory, such as 512m', { short: 'm', absent: 'none' }),
  cpus: one('N', readDecimal, 'Limit of processors, such as 1.5', { absent: 'none' }),
  pidsLimit: one('N', integer, 'Limit of processes'),
  ulimit: many('NAME=SOFT[:HARD]', readUlimit, 'Resource limit, such as nofile=1024:2048'),
  readOnly: toggle('Mount its root read-only'),
  privileged: toggle('All capabilities and devices, nothing masked'),
  capAdd: many('CAP', text, 'Capability to add, or ALL'),
  capDrop: many('CAP', text, 'Capability to drop, or ALL'),
  securityOpt: many('OPTION', text, 'no-new-privileges=false, seccomp=unconfined|FILE, apparmor=…'),
  userns: one('auto|host', text, 'User namespace', { absent: 'host' }),
  sysctl: pairs('KEY=VALUE', 'Sysctl below net., set inside'),
  user: one('USER[:GROUP]', text, 'User that it runs as', { short: 'u', absent: "the image's" }),
  workdir: one('DIR', text, 'Working directory', { short: 'w', absent: "the image's" }),
  hostname: one('NAME', text, 'Host name', { absent: 'the beginning of its id' }),
  entrypoint: one('PROGRAM', anyText, "Program instead of the image's entrypoint"),
  init: toggle('A small init as process 1 that reaps and forwards signals'),
  dns: many('IP', text, 'Resolver for foreign names', { absent: "the host's" }),
  dnsSearch: many('DOMAIN', text, 'Search domain', { absent: "the host's" }),
  dnsOption: many('OPTION', text, 'Resolver option', { also: ['--dns-opt'] }),
  addHost: many('NAME:IP', text, 'Line of /etc/hosts'),
  label: pairs('KEY=VALUE', 'Label', { short: 'l' }),
  healthCmd: one('COMMAND', text, 'Shell command that tells whether it is well', { absent: "the image's check" }),
  healthInterval: one('TIME', duration, 'Between two checks', { absent: '30s' }),
  healthTimeout: one('TIME', duration, 'What takes longer has failed', { absent: '30s' }),
  healthRetries: one('N', integer, 'Failures in a row that make it unhealthy', { absent: '3' }),
  healthStartPeriod: one('TIME', duration, 'Time at the start in which failures do not count', { absent: '0s' }),
  noHealthcheck: toggle("Without the image's check"),
  restart: one('POLICY', readRestart, 'no, on-failure[:N], always or unless-stopped', { absent: 'no' }),
  rm: toggle('Remove it when it ends'),
  stopSignal: one('SIGNAL', text, 'Signal that asks it to end', { absent: "the image's, SIGTERM" }),
  stopTimeout: one('TIME', duration, 'Between that signal and SIGKILL', { absent: '10s' }),
};

export type ContainerFlags = FlagValues<typeof containerFlags>;

function environment({ env, envFile }: Pick<ContainerFlags, 'env' | 'envFile'>, own: NodeJS.ProcessEnv): string[] {
  const lines = envFile.flatMap((path) => {
    try {
      return envLines(readFileSync(path, 'utf8'), own);
    } catch (error) {
      throw error instanceof UsageError ? error : new UsageError(`--env-file: ${(error as Error).message}`);
    }
  });
  // What comes later wins.
  const all = [...lines, ...env.flatMap((given) => envOf(given, own) ?? [])];
  return [...new Map(all.map((line) => [line.slice(0, line.indexOf('=')), line])).values()];
}

function healthOf(flags: ContainerFlags): ContainerRequest['health'] {
  const { healthCmd, healthInterval, healthTimeout, healthRetries, healthStartPeriod, noHealthcheck } = flags;
  const check = {
    ...(healthCmd !== undefined && { test: ['CMD-SHELL', healthCmd] }),
    ...(healthInterval !== undefined && { intervalMs: healthInterval }),
    ...(healthTimeout !== undefined && { timeoutMs: healthTimeout }),
    ...(healthRetries !== undefined && { retries: healthRetries }),
    ...(healthStartPeriod !== undefined && { startPeriodMs: healthStartPeriod }),
  };
  if (!noHealthcheck) return Object.keys(check).length > 0 ? check : undefined;
  if (Object.keys(check).length > 0) throw new UsageError('--no-healthcheck and --health-… exclude each other');
  return { test: ['NONE'] };
}

/** Absent flags leave no trace in the request. */
export function containerRequest(
  flags: ContainerFlags,
  image: string,
  command: readonly string[],
  own: NodeJS.ProcessEnv,
): ContainerRequest {
  const networks = networksOf(flags.network, flags);
  const env = environment(flags, own);
  const mounts = [...flags.volume, ...flags.mount, ...flags.tmpfs];
  const resolver = {
    ...(flags.dns.length > 0 && { servers: flags.dns }),
    ...(flags.dnsSearch.length > 0 && { search: flags.dnsSearch }),
    ...(flags.dnsOption.length > 0 && { options: flags.dnsOption }),
  };
  const health = healthOf(flags);
  if (flags.userns !== undefined && flags.userns !== 'auto' && flags.userns !== 'host')
    throw new UsageError(`--userns: "${flags.userns}" is neither auto nor host`);
  return {
    image,
    ...(command.length > 0 && { command }),
    ...(flags.entrypoint !== undefined && { entrypoint: wordsOf(flags.entrypoint) }),
    ...(networks && { networks }),
    ...(flags.publish.length > 0 && { publish: flags.publish.flat() }),
    ...(flags.publishAll && { publishAll: true }),
    ...(env.length > 0 && { env }),
    ...(mounts.length > 0 && { mounts }),
    ...(flags.device.length > 0 && { devices: flags.device }),
    ...(flags.memory !== undefined && { memoryBytes: flags.memory }),
    ...(flags.cpus !== undefined && { cpus: flags.cpus }),
    ...(flags.pidsLimit !== undefined && flags.pidsLimit > 0 && { pidsMax: flags.pidsLimit }),
    ...(flags.ulimit.length > 0 && { ulimits: Object.fromEntries(flags.ulimit) }),
    ...(flags.readOnly && { readOnly: true }),
    ...(flags.privileged && { privileged: true }),
    ...(flags.capAdd.length > 0 && { capAdd: flags.capAdd }),
    ...(flags.capDrop.length > 0 && { capDrop: flags.capDrop }),
    ...(flags.securityOpt.length > 0 && { securityOpt: flags.securityOpt }),
    ...(flags.userns !== undefined && { userns: flags.userns as 'auto' | 'host' }),
    ...(flags.sysctl && { sysctls: flags.sysctl }),
    ...(flags.user !== undefined && { user: flags.user }),
    ...(flags.workdir !== undefined && { workdir: flags.workdir }),
    ...(flags.hostname !== undefined && { hostname: flags.hostname }),
    ...(flags.init && { init: true }),
    ...(Object.keys(resolver).length > 0 && { dns: resolver }),
    ...(flags.addHost.length > 0 && { addHosts: flags.addHost }),
    ...(flags.label && { labels: flags.label }),
    ...(health && { health }),
    ...(flags.restart && { restart: flags.restart }),
    ...(flags.rm && { autoRemove: true }),
    ...(flags.stopSignal !== undefined && { stopSignal: flags.stopSignal.toUpperCase() }),
    ...(flags.stopTimeout !== undefined && { stopTimeoutMs: flags.stopTimeout }),
    ...(flags.interactive && { stdin: true }),
    ...(flags.tty && { tty: true }),
  };
}
