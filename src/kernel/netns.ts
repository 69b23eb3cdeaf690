/**
 * Network namespaces. `setns(2)` changes the calling thread alone, so a visit is a synchronous stretch of the main thread: what it
 * opens lives in the namespace for ever, what finishes later does not. By hand: `ip netns add`, `nsenter --net=PATH`.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import type { Namespace, Namespaces, Netlink } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { check, errnoOf, kernelError, lastErrno, libc } from './libc.ts';
import { RouteNetlink } from './netlink.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './socket.ts';

const CLONE_NEWNET = 0x40000000;
const MS_BIND = 0x1000;
const MS_REC = 0x4000;
const MS_SHARED = 1 << 20;
const MNT_DETACH = 2;
/** Linux magic numbers of file systems (statfs f_type): nsfs, and proc for namespaces opened below /proc. */
const NSFS_MAGIC = 0x6e736673;
const PROC_MAGIC = 0x9fa0;
const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const EINVAL = 22;
const ENOENT = 2;

/** The namespace that this process was started in. */
const OWN_PATH = '/proc/thread-self/ns/net';
const ownFd = openSync(OWN_PATH, 'r');

/** Runs `fn` inside the namespace. When the way back fails the process ends: nothing else would be safe. */
export function withNetns<T>(fd: number, fn: () => T): T {
  check(libc.setns(fd, CLONE_NEWNET), 'setns');
  try {
    const result = fn();
    if (result instanceof Promise) throw new TypeError('a visit to a namespace must be synchronous');
    return result;
  } finally {
    if (libc.setns(ownFd, CLONE_NEWNET) < 0) process.abort();
  }
}

class OpenNamespace implements Namespace {
  readonly fd: number;
  readonly path: string;
  readonly identity: string;
  #cookie: bigint | undefined;
  #netlink: (Netlink & Disposable) | undefined;
  readonly #keep: boolean;
  readonly #onUse: (namespace: OpenNamespace) => void;

  constructor(path: string, fd: number, keep: boolean, onUse: (namespace: OpenNamespace) => void) {
    this.path = path;
    this.fd = fd;
    this.#keep = keep;
    this.#onUse = onUse;
    const { dev, ino } = fstatSync(fd);
    this.identity = `${dev}:${ino}`;
  }

  get cookie(): bigint {
    this.#cookie ??= this.run(() => {
      const socket = check(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
      try {
        const value = Buffer.alloc(8);
        const length = Buffer.from([8, 0, 0, 0]);
        check(libc.getsockopt(socket, SOL_SOCKET, SO_NETNS_COOKIE, value, length), 'getsockopt(SO_NETNS_COOKIE)');
        return value.readBigUInt64LE();
      } finally {
        libc.close(socket);
      }
    });
    return this.#cookie;
  }

  /** Opened at its first use; the kernel layer closes the least recently used ones. */
  get netlink(): Netlink {
    if (!this.#keep) this.#onUse(this);
    this.#netlink ??= new RouteNetlink(this.run(() => new NetlinkSocket(NETLINK_ROUTE, 'netlink')));
    return this.#netlink;
  }

  run<T>(fn: () => T): T {
    return withNetns(this.fd, fn);
  }

  setSysctl(name: string, value: string): void {
    const path = sysctlPath(name);
    try {
      this.run(() => writeFileSync(path, value));
    } catch (error) {
      throw sysctlError(error, name, value);
    }
  }

  getSysctl(name: string): string {
    try {
      return this.run(() => readFileSync(sysctlPath(name), 'utf8')).trim();
    } catch (error) {
      throw sysctlError(error, name);
    }
  }

  closeNetlink(): void {
    this.#netlink?.[Symbol.dispose]();
    this.#netlink = undefined;
  }

  [Symbol.dispose](): void {
    this.closeNetlink();
    closeSync(this.fd);
  }
}

/** `net.ipv6.conf.eth0.forwarding`; an interface name with dots keeps them between its neighbours `conf`/`neigh` and the last word. */
function sysctlPath(name: string): string {
  if (!name.startsWith('net.') || name.includes('..') || name.includes('/'))
    throw new SluiceError('request.invalid', `sysctl ${name}: only names below net. belong to a namespace`, {
      sysctl: name,
    });
  const device = /^(net\.ipv[46]\.(?:conf|neigh))\.(.+)\.([^.]+)$/.exec(name);
  const words = device ? [...device[1]!.split('.'), device[2]!, device[3]!] : name.split('.');
  return `/proc/sys/${words.join('/')}`;
}

function sysctlError(error: unknown, name: string, value?: string): SluiceError {
  const { code = '', errno } = error as NodeJS.ErrnoException;
  const what = value === undefined ? `read sysctl ${name}` : `set sysctl ${name}=${value}`;
  if (error instanceof SluiceError) return error;
  return kernelError(Math.abs(errno ?? 0), what, code === 'ENOENT' ? 'there is no such sysctl' : '');
}

/** Netlink sockets kept open at once: 1,000 sandboxes must not mean 1,000 more descriptors. */
const NETLINK_OPEN_MAX = 64;

export class KernelNamespaces implements Namespaces, Disposable {
  readonly host: Namespace;
  readonly #recent = new Set<OpenNamespace>();

  /** `hostPath`: another namespace than the process's own plays host (tests). */
  constructor(hostPath?: string) {
    this.host = new OpenNamespace(
      hostPath ?? '/proc/self/ns/net',
      openSync(hostPath ?? OWN_PATH, 'r'),
      true,
      () => undefined,
    );
  }

  ensure(path: string): Namespace {
    if (this.exists(path)) return this.open(path);
    shareMount(dirname(path));
    // A mount point without its mount is what a reboot or a crash leaves.
    if (!existsSync(path)) closeSync(openSync(path, 'a', 0o444));
    check(libc.unshare(CLONE_NEWNET), 'unshare(CLONE_NEWNET)');
    try {
      check(libc.mount(OWN_PATH, path, 'none', MS_BIND, null), `mount a namespace at ${path}`);
    } finally {
      if (libc.setns(ownFd, CLONE_NEWNET) < 0) process.abort();
    }
    const namespace = this.open(path);
    namespace.netlink.setLink(1, { up: true });
    return namespace;
  }

  open(path: string): Namespace {
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (error) {
      throw kernelError(Math.abs((error as NodeJS.ErrnoException).errno ?? 0), `open network namespace ${path}`);
    }
    const namespace = new OpenNamespace(path, fd, false, (used) => this.#touch(used));
    try {
      namespace.run(() => undefined);
    } catch (error) {
      namespace[Symbol.dispose]();
      throw errnoOf(error) === EINVAL
        ? kernelError(EINVAL, `open network namespace ${path}`, 'it is no network namespace')
        : error;
    }
    return namespace;
  }

  remove(path: string): void {
    // Mounted more than once is possible after crashes between mount and record.
    while (this.exists(path) && libc.umount2(path, MNT_DETACH) === 0);
    try {
      unlinkSync(path);
    } catch (error) {
      const { code, errno } = error as NodeJS.ErrnoException;
      if (code !== 'ENOENT') throw kernelError(Math.abs(errno ?? 0), `remove network namespace ${path}`);
    }
  }

  exists(path: string): boolean {
    const out = Buffer.alloc(256);
    if (libc.statfs(path, out) < 0) {
      const errno = lastErrno();
      if (errno === ENOENT) return false;
      throw kernelError(errno, `statfs ${path}`);
    }
    const type = Number(out.readBigInt64LE(0));
    return type === NSFS_MAGIC || type === PROC_MAGIC;
  }

  [Symbol.dispose](): void {
    for (const namespace of this.#recent) namespace.closeNetlink();
    this.#recent.clear();
    this.host[Symbol.dispose]();
  }

  #touch(namespace: OpenNamespace): void {
    this.#recent.delete(namespace);
    this.#recent.add(namespace);
    if (this.#recent.size <= NETLINK_OPEN_MAX) return;
    const [oldest] = this.#recent;
    this.#recent.delete(oldest!);
    oldest!.closeNetlink();
  }
}

/**
 * Makes the directory a shared mount point of its own, as `ip netns` does with /run/netns: an unmount of ours then reaches the copies
 * that other mount namespaces have of it, and a namespace ends when it is removed.
 */
function shareMount(dir: string): void {
  mkdirSync(dir, { recursive: true });
  if (libc.mount('', dir, 'none', MS_SHARED | MS_REC, null) === 0) return;
  if (lastErrno() !== EINVAL) throw kernelError(lastErrno(), `share ${dir}`);
  check(libc.mount(dir, dir, 'none', MS_BIND | MS_REC, null), `bind ${dir} on itself`);
  check(libc.mount('', dir, 'none', MS_SHARED | MS_REC, null), `share ${dir}`);
}
