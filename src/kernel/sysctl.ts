/** Network settings below /proc/sys/net, of the namespace that the thread is in. By hand: `nsenter --net=PATH sysctl net.…`. */
import { readFileSync, writeFileSync } from 'node:fs';
import { SluiceError } from '../errors.ts';
import { timed } from '../metrics.ts';
import { fsError } from './libc.ts';

/** Settings of one interface; its name may have dots, what stands around it has none. */
const OF_DEVICE = /^(net\.ipv[46]\.(?:conf|neigh)|net\.mpls\.conf)\.(.+)\.([^.]+)$/;

/** `net.ipv6.conf.eth0.100.forwarding` → `/proc/sys/net/ipv6/conf/eth0.100/forwarding` */
export function sysctlPath(name: string): string {
  if (!/^net(\.[^./\0]+)+$/.test(name))
    throw new SluiceError('request.invalid', `sysctl "${name}": only names below net. belong to a namespace`, {
      sysctl: name,
    });
  const device = OF_DEVICE.exec(name);
  const words = device ? [...device[1]!.split('.'), device[2]!, device[3]!] : name.split('.');
  return `/proc/sys/${words.join('/')}`;
}

/** `what`: `read sysctl NAME` or `set sysctl NAME=VALUE`. A kernel without it answers `kernel.notfound`. */
function attempt<T>(what: string, fn: () => T): T {
  try {
    return timed('sysctl', what.startsWith('set') ? 'set' : 'get', fn);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw fsError(error, what, code === 'ENOENT' ? 'there is no such sysctl' : '');
  }
}

export function writeSysctl(name: string, value: string): void {
  const path = sysctlPath(name);
  attempt(`set sysctl ${name}=${value}`, () => writeFileSync(path, value));
}

export function readSysctl(name: string): string {
  const path = sysctlPath(name);
  return attempt(`read sysctl ${name}`, () => readFileSync(path, 'utf8')).trim();
}
