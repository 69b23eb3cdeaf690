/**
 * Whether a host's kernel answers: one ICMP echo request, one answer. The kernel sends it, whatever the daemons there do. Raw sockets, since
 * `net.ipv4.ping_group_range` shuts root out of the others by default. By hand: `ping -c 1 -W 1 ADDRESS`.
 */
import { constants } from 'node:os';
import type { Clock } from '../../clock.ts';
import type { PeerProber } from '../../contracts/prober.ts';
import { familyOf, toBytes } from '../../model/ip.ts';
import { check, lastErrno, libc, SOCK_CLOEXEC, SOCK_NONBLOCK } from '../libc.ts';
import { pollReadable } from '../poll.ts';

const SOCK_RAW = 3;
const MSG_DONTWAIT = 0x40;
const TOKEN_BYTES = 16;
const HEADER_BYTES = 8;

/** What the two families differ in. Filters let nothing in but echo replies: a bit set keeps that type out. */
const FAMILIES = {
  4: {
    domain: 2,
    protocol: 1,
    request: 8,
    reply: 0,
    header: 20,
    whole: [0, 10],
    level: 255,
    filter: (): Buffer => u32s([0xfffffffe]),
  },
  6: {
    domain: 10,
    protocol: 58,
    request: 128,
    reply: 129,
    header: 40,
    whole: [41, 23],
    level: 58,
    filter: (): Buffer => icmp6Filter(129),
  },
} as const;
/** ICMP_FILTER and ICMP6_FILTER. */
const FILTER = 1;
/** IP_PMTUDISC_PROBE of IP_MTU_DISCOVER and IPV6_MTU_DISCOVER (`whole`): sent whole whatever the kernel has learnt of the path, and not to be cut. */
const PROBE = 3;

/** Nobody has the address on this host's own link; the packet is larger than that link takes. Other refusals tell of this host alone. */
const NOT_THERE: ReadonlySet<number> = new Set([constants.errno.EHOSTUNREACH, constants.errno.EMSGSIZE]);

interface Open extends Disposable {
  readonly fd: number;
}

export class Echo implements PeerProber, Disposable {
  readonly #clock: Clock;
  readonly #sockets = new Map<4 | 6, Open>();
  /** Those who wait, by token. */
  readonly #waiting = new Map<string, () => void>();
  #sequence = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Sends one request, from the process's own namespace. */
  answers(address: string, timeoutMs: number, bytes = 0): Promise<boolean | undefined> {
    const family = familyOf(address);
    const token = Buffer.from(this.#clock.random(TOKEN_BYTES));
    const key = token.toString('hex');
    return new Promise((resolve) => {
      const end = (answered: boolean | undefined): void => {
        timer.cancel();
        this.#waiting.delete(key);
        resolve(answered);
      };
      const timer = this.#clock.after(timeoutMs, () => end(false));
      this.#waiting.set(key, () => end(true));
      try {
        const errno = this.#send(family, address, token, bytes);
        if (errno !== 0) end(NOT_THERE.has(errno) ? false : undefined);
      } catch {
        // A host without this family, or whose own limits are reached: nothing can be asked.
        end(undefined);
      }
    });
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets.values()) socket[Symbol.dispose]();
    this.#sockets.clear();
  }

  /** 0, or the error number with which the kernel refuses it. */
  #send(family: 4 | 6, address: string, token: Uint8Array, bytes: number): number {
    const { request, domain, header } = FAMILIES[family];
    const message = Buffer.alloc(Math.max(HEADER_BYTES + TOKEN_BYTES, bytes - header));
    message.writeUInt8(request, 0);
    message.writeUInt16BE(++this.#sequence & 0xffff, 6);
    message.set(token, HEADER_BYTES);
    // Over IPv6 the kernel does it, which knows the source address.
    if (family === 4)
      message.writeUInt16BE(checksum(message.length % 2 ? Buffer.concat([message, Buffer.alloc(1)]) : message), 2);
    const to = Buffer.alloc(family === 4 ? 16 : 28);
    to.writeUInt16LE(domain, 0);
    to.set(toBytes(address), family === 4 ? 4 : 8);
    const { fd } = this.#open(family);
    return Number(libc.sendto(fd, message, message.length, MSG_DONTWAIT, to, to.length)) >= 0 ? 0 : lastErrno();
  }

  #open(family: 4 | 6): Open {
    const known = this.#sockets.get(family);
    if (known) return known;
    const { domain, protocol, level, filter, whole } = FAMILIES[family];
    const fd = check(libc.socket(domain, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol), 'socket(SOCK_RAW, ICMP)');
    const bits = filter();
    const probe = Buffer.alloc(4);
    probe.writeInt32LE(PROBE);
    try {
      check(libc.setsockopt(fd, level, FILTER, bits, bits.length), 'setsockopt(ICMP_FILTER)');
      check(libc.setsockopt(fd, whole[0], whole[1], probe, probe.length), 'setsockopt(IP_MTU_DISCOVER)');
    } catch (error) {
      libc.close(fd);
      throw error;
    }
    const polling = pollReadable(fd, () => this.#receive(fd, family));
    const socket: Open = {
      fd,
      [Symbol.dispose]() {
        polling[Symbol.dispose]();
        libc.close(fd);
      },
    };
    this.#sockets.set(family, socket);
    return socket;
  }

  /** Every raw socket of the host gets every answer: the token says which are ours. */
  #receive(fd: number, family: 4 | 6): void {
    const buffer = Buffer.alloc(2048);
    for (;;) {
      const length = Number(libc.recv(fd, buffer, buffer.length, MSG_DONTWAIT));
      if (length < 0) return;
      // IPv4 comes with its header.
      const at = family === 4 ? (buffer[0]! & 0xf) * 4 : 0;
      if (length < at + HEADER_BYTES + TOKEN_BYTES || buffer[at] !== FAMILIES[family].reply) continue;
      const token = buffer.subarray(at + HEADER_BYTES, at + HEADER_BYTES + TOKEN_BYTES);
      this.#waiting.get(token.toString('hex'))?.();
    }
  }
}

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += bytes.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function u32s(values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, i * 4);
  return bytes;
}

const icmp6Filter = (type: number): Buffer =>
  u32s(Array.from({ length: 8 }, (_, word) => (word === type >>> 5 ? ~(1 << (type & 31)) >>> 0 : 0xffffffff)));
