/**
 * Change notifications of a namespace over netlink multicast, read on the event loop. Nothing depends on them alone: messages are lost when
 * the queue overruns, which is noticed by the socket's drop counter and told, and the audit looks at everything anyway.
 * By hand: `ip monitor`, `nft monitor`.
 */
import type { LinkEvent, Monitor, Namespace } from '../../contracts/kernel.ts';
import { check, libc, SOL_SOCKET } from '../libc.ts';
import { pollReadable } from '../poll.ts';
import { attrs, type Message, messages, u32 } from './message.ts';
import { NETLINK_NETFILTER, NETLINK_ROUTE, openNetlink } from './socket.ts';

const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_NO_ENOBUFS = 5;
const SO_MEMINFO = 55;
/** Index of the drop counter in SO_MEMINFO, and the words of it. */
const SK_MEMINFO_DROPS = 8;
const SK_MEMINFO_WORDS = 9;
const MSG_DONTWAIT = 0x40;
const RTA_OIF = 4;
/** Some 1,500 messages that nobody has read yet. */
const RCVBUF_BYTES = 1 << 20;
/** Datagrams read in one turn of the event loop. */
const TURN_MAX = 256;

/** RTNLGRP_*, of both families where there are two. */
const GROUPS: Readonly<Record<Exclude<LinkEvent['type'], 'nft'>, readonly number[]>> = {
  link: [1],
  neighbour: [3],
  address: [5, 9],
  route: [7, 11],
};
const NFNLGRP_NFTABLES = 7;

/** RTM_NEW* of each kind; RTM_DEL* is one more. */
const KINDS: Readonly<Record<number, LinkEvent['type']>> = { 16: 'link', 20: 'address', 24: 'route', 28: 'neighbour' };

const buffer = Buffer.alloc(1 << 16);

/** What an rtnetlink message tells, null for one of no interest. */
export function parseEvent({ type, data }: Pick<Message, 'type' | 'data'>): LinkEvent | null {
  const kind = KINDS[type & ~3];
  const removed = (type & 3) === 1;
  if (!kind || (type & 3) > 1 || data.length < 8) return null;
  if (kind !== 'route') return { type: kind, removed, ifindex: data.readInt32LE(4) };
  return { type: kind, removed, ifindex: attrs(data, 12).get(RTA_OIF)?.readInt32LE() ?? 0 };
}

class Subscription implements Disposable {
  readonly #fd: number;
  readonly #poll: Disposable;
  readonly #take: (messages: Iterable<Message>) => void;
  readonly #onLoss: (count: number) => void;
  #drops: number;
  #closed = false;

  constructor(
    protocol: number,
    groups: readonly number[],
    rcvbuf: number,
    take: (messages: Iterable<Message>) => void,
    onLoss: (count: number) => void,
  ) {
    this.#take = take;
    this.#onLoss = onLoss;
    this.#fd = openNetlink(protocol, rcvbuf);
    try {
      // Without this an overrun is a socket error, and libuv stops polling.
      const set = (option: number, value: number): number =>
        libc.setsockopt(this.#fd, SOL_NETLINK, option, u32(value), 4);
      check(set(NETLINK_NO_ENOBUFS, 1), 'setsockopt(NETLINK_NO_ENOBUFS)');
      for (const group of groups) check(set(NETLINK_ADD_MEMBERSHIP, group), `join netlink group ${group}`);
      this.#drops = this.#dropped();
      this.#poll = pollReadable(this.#fd, () => this.#read());
    } catch (error) {
      libc.close(this.#fd);
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll[Symbol.dispose]();
    libc.close(this.#fd);
  }

  #read(): void {
    // A consumer may close the monitor from its callback.
    for (let turn = 0; turn < TURN_MAX && !this.#closed; turn++) {
      const length = Number(libc.recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT));
      if (length <= 0) break;
      this.#take(messages(buffer, length));
    }
    if (this.#closed) return;
    const drops = this.#dropped();
    const lost = drops - this.#drops;
    this.#drops = drops;
    if (lost !== 0) this.#onLoss(lost);
  }

  #dropped(): number {
    const value = Buffer.alloc(4 * SK_MEMINFO_WORDS);
    check(libc.getsockopt(this.#fd, SOL_SOCKET, SO_MEMINFO, value, u32(value.length)), 'getsockopt(SO_MEMINFO)');
    return value.readUInt32LE(4 * SK_MEMINFO_DROPS);
  }
}

export interface MonitorOptions {
  /** Receive buffer in bytes. */
  readonly rcvbuf?: number;
}

export function openMonitor(
  namespace: Namespace,
  groups: readonly LinkEvent['type'][],
  onEvent: (event: LinkEvent) => void,
  onLoss: () => void,
  { rcvbuf = RCVBUF_BYTES }: MonitorOptions = {},
): Monitor {
  let losses = 0;
  const lost = (count: number): void => {
    losses += count;
    onLoss();
  };
  const opened = new DisposableStack();
  const takeRoute = (received: Iterable<Message>): void => {
    for (const message of received) {
      const event = parseEvent(message);
      if (event && !opened.disposed) onEvent(event);
    }
  };
  // A transaction has a message an object: one event a datagram says all that an event can say.
  const takeNft = (): void => onEvent({ type: 'nft', ifindex: 0, removed: false });
  namespace.run(() => {
    try {
      const route = groups.flatMap((group) => (group === 'nft' ? [] : GROUPS[group]));
      if (route.length > 0) opened.use(new Subscription(NETLINK_ROUTE, route, rcvbuf, takeRoute, lost));
      if (groups.includes('nft'))
        opened.use(new Subscription(NETLINK_NETFILTER, [NFNLGRP_NFTABLES], rcvbuf, takeNft, lost));
    } catch (error) {
      opened.dispose();
      throw error;
    }
  });
  return {
    get losses() {
      return losses;
    },
    [Symbol.dispose]: () => opened.dispose(),
  };
}
