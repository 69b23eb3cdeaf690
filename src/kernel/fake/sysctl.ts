/** Settings of a fake namespace: those that are read somewhere have their kernel default, others begin as 0. */
import { kernelError } from '../libc.ts';
import { sysctlPath } from '../sysctl.ts';
import type { Space } from './space.ts';

const ENOENT = 2;
/** Folders of /proc/sys/net on a host where nobody has loaded br_netfilter: `bridge` comes with that. */
const FAMILIES = ['core', 'ipv4', 'ipv6', 'unix', 'netfilter', 'mpls'];
const DEFAULTS: Readonly<Record<string, string>> = {
  'net.ipv4.ip_unprivileged_port_start': '1024',
  'net.ipv4.ip_local_port_range': '32768\t60999',
  accept_ra: '1',
  accept_dad: '1',
};

function check(space: Space, name: string, what: string): void {
  const words = sysctlPath(name).slice('/proc/sys/net/'.length).split('/');
  const known = FAMILIES.includes(words[0]!);
  const device = words.length === 4 && (words[1] === 'conf' || words[1] === 'neigh') ? words[2]! : 'all';
  if (!known || !(device === 'all' || device === 'default' || space.byName(device)))
    throw kernelError(ENOENT, what, 'there is no such sysctl');
}

export function writeSetting(space: Space, name: string, value: string): void {
  space.world.attempt('setSysctl');
  check(space, name, `set sysctl ${name}=${value}`);
  space.sysctls.set(name, value.trim());
}

export function readSetting(space: Space, name: string): string {
  space.world.attempt('getSysctl');
  check(space, name, `read sysctl ${name}`);
  return space.sysctls.get(name) ?? DEFAULTS[name] ?? DEFAULTS[name.slice(name.lastIndexOf('.') + 1)] ?? '0';
}
