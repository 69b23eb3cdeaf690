/**
 * Change notifications of a namespace over netlink multicast, read on the event loop. Nothing depends on them alone: messages are lost when
 * the queue overruns, which is noticed by the socket's drop counter and told, and the audit looks at everything anyway.
 */
import koffi from 'koffi';
import type { LinkEvent, Monitor, Namespace } from '../contracts/kernel.ts';
import { check, lastErrno, libc } from './libc.ts';
import { type Message, messages, u32 } from './message.ts';

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC_NONBLOCK = 3 | 0o2000000 | 0o4000;
const NETLINK_ROUTE = 0;
const NETLINK_NETFILTER = 12;
const SOL_SOCKET = 1;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_NO_ENOBUFS = 5;
const SO_RCVBUFFORCE = 33;
const SO_MEMINFO = 55;
/** Index of the drop counter in SO_MEMINFO. */
const SK_MEMINFO_DROPS = 8;
const MSG_DONTWAIT = 0x40;
const RCVBUF_BYTES = 1 << 20;
/** Datagrams read in one turn of the event loop. */
const TURN_MAX = 256;

/** RTNLGRP_* */
const GROUPS: Readonly<Record<Exclude<LinkEvent['type'], 'nft'>, readonly number[]>> = {
  link: [1],
  neighbour: [3],
  address: [5, 9],
  route: [7, 11],
};
const NFNLGRP_NFTABLES = 7;

const buffer = Buffer.alloc(1 << 16);

/** koffi's poll handle: documented nowhere, found by use. The callback is called with (status, events). */
interface PollHandle {
  start(options: { readable: boolean }, callback: (status: number) => void): void;
  close(): void;
}
const poll = (
  koffi as unknown as {
    node: { poll(fd: number, options: { readable: boolean }, callback: (status: number) => void): PollHandle };
  }
).node.poll;

/** Calls `onReadable` from the event loop whenever the descriptor can be read. Ends with `dispose`; the descriptor stays open. */
export function pollReadable(fd: number, onReadable: () => void): Disposable {
  let handle: PollHandle | undefined;
  const callback = (status: number): void => {
    // An exception that leaves a poll callback wedges the process: leave the callback first.
    setImmediate(() => {
      if (!handle) return;
      onReadable();
      // An error condition on the descriptor makes libuv stop the handle.
      if (status < 0 && handle) handle.start({ readable: true }, callback);
    });
  };
  handle = poll(fd, { readable: true }, callback);
  return {
    [Symbol.dispose](): void {
      handle?.close();
      handle = undefined;
    },
  };
}

class Subscription implements Disposable {
  readonly #fd: number;
  readonly #poll: Disposable;
  readonly #take: (message: Message) => void;
  readonly #onLoss: (count: number) => void;
  #drops: number;

  constructor(
    protocol: number,
    groups: readonly number[],
    take: (message: Message) => void,
    onLoss: (count: number) => void,
  ) {
    this.#take = take;
    this.#onLoss = onLoss;
    this.#fd = check(libc.socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, protocol), 'socket(AF_NETLINK)');
    const address = Buffer.alloc(12);
    address.writeUInt16LE(AF_NETLINK, 0);
    check(libc.bind(this.#fd, address, 12), 'bind(AF_NETLINK)');
    libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, u32(RCVBUF_BYTES), 4);
    // Without this an overrun is a socket error, and libuv stops polling.
    libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_NO_ENOBUFS, u32(1), 4);
    for (const group of groups)
      check(
        libc.setsockopt(this.#fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, u32(group), 4),
        `join netlink group ${group}`,
      );
    this.#drops = this.#dropped();
    this.#poll = pollReadable(this.#fd, () => this.#read());
  }

  [Symbol.dispose](): void {
    this.#poll[Symbol.dispose]();
    libc.close(this.#fd);
  }

  #read(): void {
    for (let turn = 0; turn < TURN_MAX; turn++) {
      const length = Number(libc.recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT));
      if (length <= 0) break;
      for (const message of messages(buffer, length)) this.#take(message);
    }
    const drops = this.#dropped();
    if (drops === this.#drops) return;
    const lost = drops - this.#drops;
    this.#drops = drops;
    this.#onLoss(lost);
  }

  #dropped(): number {
    const value = Buffer.alloc(36);
    if (libc.getsockopt(this.#fd, SOL_SOCKET, SO_MEMINFO, value, u32(36)) < 0)
      throw new Error(`getsockopt(SO_MEMINFO): errno ${lastErrno()}`);
    return value.readUInt32LE(SK_MEMINFO_DROPS * 4);
  }
}

/** What an rtnetlink message tells, null for one of no interest. */
export function parseEvent({ type, data }: Pick<Message, 'type' | 'data'>): LinkEvent | null {
  // RTM_NEW*, RTM_DEL* of link 16, address 20, route 24, neighbour 28.
  const kinds: Readonly<Record<number, LinkEvent['type']>> = {
    16: 'link',
    20: 'address',
    24: 'route',
    28: 'neighbour',
  };
  const base = type & ~3;
  const kind = kinds[base];
  if (!kind || type - base > 1) return null;
  return { type: kind, removed: type === base + 1, ifindex: kind === 'route' ? 0 : data.readInt32LE(4) };
}

export function openMonitor(
  namespace: Namespace,
  groups: readonly LinkEvent['type'][],
  onEvent: (event: LinkEvent) => void,
  onLoss: () => void,
): Monitor {
  let losses = 0;
  const lost = (count: number): void => {
    losses += count;
    onLoss();
  };
  const subscriptions = namespace.run(() => {
    const opened: Subscription[] = [];
    const route = groups.flatMap((group) => (group === 'nft' ? [] : GROUPS[group]));
    if (route.length > 0) {
      const take = (message: Message): void => {
        const event = parseEvent(message);
        if (event) onEvent(event);
      };
      opened.push(new Subscription(NETLINK_ROUTE, route, take, lost));
    }
    if (groups.includes('nft'))
      opened.push(
        new Subscription(
          NETLINK_NETFILTER,
          [NFNLGRP_NFTABLES],
          () => onEvent({ type: 'nft', ifindex: 0, removed: false }),
          lost,
        ),
      );
    return opened;
  });
  return {
    get losses() {
      return losses;
    },
    [Symbol.dispose](): void {
      for (const subscription of subscriptions) subscription[Symbol.dispose]();
    },
  };
}
