/**
 * Network namespaces. `setns(2)` changes the calling thread alone, so a visit is a synchronous stretch of the main thread: what it
 * opens lives in the namespace for ever, what finishes later does not. By hand: `ip netns add`, `nsenter --net=PATH`.
 */
import { closeSync, constants, fstatSync, openSync, stat, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Namespace, Namespaces, Netlink } from '../contracts/kernel.ts';
import { timed } from '../metrics.ts';
import { check, fsError, kernelError, lastErrno, libc, SOCK_CLOEXEC, SOL_SOCKET } from './libc.ts';
import { bindMount, fileSystem, NSFS_MAGIC, shareDirectory, unmount } from './mount.ts';
import { RouteNetlink } from './netlink/netlink.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './netlink/socket.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';

const CLONE_NEWNET = 0x40000000;
/** _IO(0xb7, 3): the CLONE_NEW* flag of a namespace's kind. */
const NS_GET_NSTYPE = 0xb703;
const SO_NETNS_COOKIE = 71;
const AF_INET = 2;
const SOCK_DGRAM = 2;
const EBADF = 9;
const EINVAL = 22;
/** The loopback device is a namespace's first link. */
const LOOPBACK = 1;

/** The namespace that this thread was started in. */
const OWN_PATH = '/proc/thread-self/ns/net';
const ownFd = openSync(OWN_PATH, 'r');
/** Where the thread is now: visits nest. */
let current = ownFd;

// libuv's threads are born with the first asynchronous call and stay in the namespace where that happens: let it be this one.
stat('/', () => undefined);

function synchronously<T>(fn: () => T): T {
  const result = fn();
  if (typeof (result as PromiseLike<unknown> | null | undefined)?.then === 'function')
    throw new TypeError('a visit to a network namespace must be synchronous');
  return result;
}

/** Runs `fn` elsewhere. When the way back fails the process ends: nothing else would be safe. */
function visit<T>(fd: number, fn: () => T): T {
  const before = current;
  current = fd;
  try {
    return synchronously(fn);
  } finally {
    current = before;
    if (libc.setns(before, CLONE_NEWNET) < 0) {
      writeSync(2, `cannot return to the network namespace of before (errno ${lastErrno()}): the process ends\n`);
      process.abort();
    }
  }
}

/** Runs a synchronous `fn` inside the namespace of an open descriptor. */
export function withNetns<T>(fd: number, fn: () => T): T {
  if (fd === current) return synchronously(fn);
  check(libc.setns(fd, CLONE_NEWNET), 'enter a network namespace');
  return visit(fd, fn);
}

/** Runs a synchronous `fn` in a new namespace, which ends with it unless `fn` mounts it somewhere or opens something in it. */
export function inNewNetns<T>(fn: () => T): T {
  check(libc.unshare(CLONE_NEWNET), 'unshare(CLONE_NEWNET)');
  return visit(current, () => {
    // Visits from in here come back to here.
    const here = openSync(OWN_PATH, 'r');
    current = here;
    try {
      return fn();
    } finally {
      closeSync(here);
    }
  });
}

class OpenNamespace implements Namespace {
  readonly fd: number;
  readonly path: string;
  readonly identity: string;
  readonly netlink: Netlink;
  readonly #recent: Set<OpenNamespace>;
  #cookie: bigint | undefined;
  #socket: NetlinkSocket | undefined;
  #closed = false;

  /** `recent`: namespaces with an open netlink socket, the least recently used one first. */
  constructor(path: string, fd: number, recent: Set<OpenNamespace>) {
    this.path = path;
    this.fd = fd;
    this.#recent = recent;
    const { dev, ino } = fstatSync(fd);
    this.identity = `${dev}:${ino}`;
    this.netlink = new RouteNetlink(
      () => this.#openSocket(),
      () => this.run(() => new NetlinkSocket(NETLINK_ROUTE, 'netlink')),
      () => this.closeSocket(),
    );
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

  run<T>(fn: () => T): T {
    // The number of a closed descriptor may be another namespace's by now.
    if (this.#closed) throw kernelError(EBADF, `enter network namespace ${this.path}`, 'it was closed');
    return withNetns(this.fd, fn);
  }

  setSysctl(name: string, value: string): void {
    this.run(() => writeSysctl(name, value));
  }

  getSysctl(name: string): string {
    return this.run(() => readSysctl(name));
  }

  closeSocket(): void {
    this.#recent.delete(this);
    this.#socket?.[Symbol.dispose]();
    this.#socket = undefined;
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.closeSocket();
    closeSync(this.fd);
  }

  /** The namespace's rtnetlink socket, opened at its first use and again after it was closed for lack of use. */
  #openSocket(): NetlinkSocket {
    this.#recent.delete(this);
    this.#socket ??= this.run(() => new NetlinkSocket(NETLINK_ROUTE, 'netlink'));
    this.#recent.add(this);
    if (this.#recent.size > SOCKETS_MAX) {
      const [oldest] = this.#recent;
      oldest!.closeSocket();
    }
    return this.#socket;
  }
}

/** Netlink sockets kept open at once: 1,000 sandboxes must not mean 1,000 more descriptors. */
const SOCKETS_MAX = 64;

export class KernelNamespaces implements Namespaces, Disposable {
  readonly host: Namespace;
  readonly #recent = new Set<OpenNamespace>();

  /** `hostPath`: another namespace than the process's own plays host. */
  constructor(hostPath?: string) {
    this.host = hostPath
      ? this.open(hostPath)
      : new OpenNamespace('/proc/self/ns/net', openSync(OWN_PATH, 'r'), this.#recent);
  }

  ensure(path: string): Namespace {
    return timed('netns', 'ensure', () => {
      if (!this.exists(path)) this.#make(path);
      const namespace = this.open(path);
      try {
        // Of an adopted one, too: a daemon may have died before it came to this.
        namespace.netlink.setLink(LOOPBACK, { up: true });
        return namespace;
      } catch (error) {
        namespace[Symbol.dispose]();
        throw error;
      }
    });
  }

  open(path: string): Namespace {
    const what = `open network namespace ${path}`;
    let fd: number;
    try {
      // The path may be anybody's choice: a FIFO must not hold us.
      fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (error) {
      throw fsError(error, what);
    }
    if (libc.ioctl(fd, NS_GET_NSTYPE) !== CLONE_NEWNET) {
      closeSync(fd);
      throw kernelError(EINVAL, what, 'it is no network namespace');
    }
    return new OpenNamespace(path, fd, this.#recent);
  }

  remove(path: string): void {
    timed('netns', 'remove', () => {
      // Mounted more than once is possible when two made it at the same time.
      while (this.exists(path)) unmount(path);
      try {
        unlinkSync(path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw fsError(error, `remove ${path}`);
      }
    });
  }

  exists(path: string): boolean {
    return fileSystem(path) === NSFS_MAGIC;
  }

  [Symbol.dispose](): void {
    for (const namespace of [...this.#recent]) namespace.closeSocket();
    this.host[Symbol.dispose]();
  }

  #make(path: string): void {
    shareDirectory(dirname(path));
    try {
      // A mount point without its mount, which a reboot or a crash leaves, serves as well.
      closeSync(openSync(path, constants.O_RDONLY | constants.O_CREAT, 0o444));
    } catch (error) {
      throw fsError(error, `make network namespace ${path}`);
    }
    inNewNetns(() => bindMount(OWN_PATH, path));
  }
}
