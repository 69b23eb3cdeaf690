/**
 * Many datagrams in one system call, in memory that both sides see: what is received into a slot can be changed there and sent back to its
 * sender. A quarter of dgram's cost a datagram. By hand: recvmmsg(2), sendmmsg(2).
 */
import koffi from 'koffi';
import { kernelError, lastErrno, libc } from './libc.ts';
import { u32 } from './netlink/message.ts';

const lib = koffi.load(null);
const recvmmsg = lib.func('int recvmmsg(int fd, void *messages, unsigned int count, int flags, void *timeout)');
const sendmmsg = lib.func('int sendmmsg(int fd, void *messages, unsigned int count, int flags)');

const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;
const SO_RCVBUFFORCE = 33;
const EINTR = 4;
const EAGAIN = 11;

/** struct sockaddr_in, struct iovec, struct mmsghdr on 64-bit Linux, and offsets in the last. */
const NAME_BYTES = 16;
const IOV_BYTES = 16;
const HEADER_BYTES = 64;
const AT = { name: 0, nameLength: 8, iov: 16, iovCount: 24, flags: 48, length: 56 } as const;

/** One for all sockets of a thread, since each visit receives, answers and sends before the next. IPv4 only. */
export class DatagramBatch {
  /** Where received datagrams lie; a slot's content is the caller's until the next `receive`. */
  readonly slots: readonly Buffer[];
  /** Keeps the memory that the buffers below show. */
  readonly #memory: unknown;
  readonly #base: bigint;
  readonly #view: DataView;
  readonly #names: Buffer;
  readonly #received: Buffer;
  readonly #staged: Buffer;
  readonly #namesAt: number;
  readonly #receivedAt: number;
  readonly #stagedAt: number;
  readonly #stagedIovAt: number;
  readonly #slotBytes: number;
  #count = 0;

  constructor(count: number, slotBytes: number) {
    this.#slotBytes = slotBytes;
    this.#namesAt = count * slotBytes;
    const receivedIovAt = this.#namesAt + count * NAME_BYTES;
    this.#stagedIovAt = receivedIovAt + count * IOV_BYTES;
    this.#receivedAt = this.#stagedIovAt + count * IOV_BYTES;
    this.#stagedAt = this.#receivedAt + count * HEADER_BYTES;
    const bytes = this.#stagedAt + count * HEADER_BYTES;
    this.#memory = koffi.alloc('uint8_t', bytes);
    this.#base = koffi.address(this.#memory);
    const memory = koffi.view(this.#memory, bytes);
    new Uint8Array(memory).fill(0);
    this.#view = new DataView(memory);
    this.#names = Buffer.from(memory, this.#namesAt, count * NAME_BYTES);
    this.#received = Buffer.from(memory, this.#receivedAt, count * HEADER_BYTES);
    this.#staged = Buffer.from(memory, this.#stagedAt, count * HEADER_BYTES);
    this.slots = Array.from({ length: count }, (_, i) => Buffer.from(memory, i * slotBytes, slotBytes));
    for (let i = 0; i < count; i++) {
      this.#header(this.#receivedAt + i * HEADER_BYTES, i, receivedIovAt + i * IOV_BYTES);
      this.#iov(receivedIovAt + i * IOV_BYTES, i, slotBytes);
      this.#header(this.#stagedAt + i * HEADER_BYTES, i, this.#stagedIovAt + i * IOV_BYTES);
    }
  }

  /** How many datagrams were received, 0 when there are none; fails with the socket's error, such as ECONNABORTED after `ss -K`. */
  receive(fd: number): number {
    this.#count = 0;
    for (let i = 0; i < this.slots.length; i++)
      this.#view.setUint32(this.#receivedAt + i * HEADER_BYTES + AT.nameLength, NAME_BYTES, true);
    const count = recvmmsg(fd, this.#received, this.slots.length, MSG_DONTWAIT, null) as number;
    if (count >= 0) return count;
    const errno = lastErrno();
    if (errno === EAGAIN || errno === EINTR) return 0;
    throw kernelError(errno, 'recvmmsg');
  }

  /** Octets of the datagram in a slot; more than the slot holds when it was cut. */
  length(slot: number): number {
    const at = this.#receivedAt + slot * HEADER_BYTES;
    const cut = (this.#view.getUint32(at + AT.flags, true) & MSG_TRUNC) !== 0;
    return cut ? this.#slotBytes + 1 : this.#view.getUint32(at + AT.length, true);
  }

  /** The sender's port. */
  port(slot: number): number {
    return this.#view.getUint16(this.#namesAt + slot * NAME_BYTES + 2);
  }

  /** A copy of the sender's address for `sendDatagram`. */
  sender(slot: number): Uint8Array {
    return Uint8Array.from(this.#names.subarray(slot * NAME_BYTES, (slot + 1) * NAME_BYTES));
  }

  /** The first `length` octets of the slot go back to its sender with the next `flush`. */
  stage(slot: number, length: number): void {
    const at = this.#stagedAt + this.#count * HEADER_BYTES;
    const iovAt = this.#stagedIovAt + this.#count * IOV_BYTES;
    this.#view.setBigUint64(at + AT.name, this.#base + BigInt(this.#namesAt + slot * NAME_BYTES), true);
    this.#iov(iovAt, slot, length);
    this.#count++;
  }

  /** Sends what is staged; returns how many datagrams the kernel did not take. */
  flush(fd: number): number {
    let lost = 0;
    let done = 0;
    let again = true;
    while (done < this.#count) {
      const sent = sendmmsg(fd, this.#staged.subarray(done * HEADER_BYTES), this.#count - done, MSG_DONTWAIT) as number;
      if (sent > 0) {
        done += sent;
        continue;
      }
      // The error may be an old one of the socket's, told once: the same datagram goes through the second time.
      if (!again) {
        lost++;
        done++;
      }
      again = !again;
    }
    this.#count = 0;
    return lost;
  }

  #header(at: number, slot: number, iovAt: number): void {
    this.#view.setBigUint64(at + AT.name, this.#base + BigInt(this.#namesAt + slot * NAME_BYTES), true);
    this.#view.setUint32(at + AT.nameLength, NAME_BYTES, true);
    this.#view.setBigUint64(at + AT.iov, this.#base + BigInt(iovAt), true);
    this.#view.setBigUint64(at + AT.iovCount, 1n, true);
  }

  #iov(at: number, slot: number, length: number): void {
    this.#view.setBigUint64(at, this.#base + BigInt(slot * this.#slotBytes), true);
    this.#view.setBigUint64(at + 8, BigInt(length), true);
  }
}

/** One datagram to an address that `DatagramBatch.sender` gave; false when the kernel does not take it. */
export function sendDatagram(fd: number, bytes: Uint8Array, length: number, to: Uint8Array): boolean {
  const send = (): boolean => Number(libc.sendto(fd, bytes, length, MSG_DONTWAIT, to, to.length)) >= 0;
  return send() || send();
}

/** Octets of waiting datagrams, their bookkeeping included; beyond rmem_max, as root may. `sysctl net.core.rmem_max` */
export function setReceiveBuffer(fd: number, bytes: number): void {
  // The kernel doubles the value for its own overhead.
  if (libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, u32(bytes / 2), 4) < 0)
    throw kernelError(lastErrno(), 'setsockopt(SO_RCVBUFFORCE)');
}

/** Port that an IPv4 socket is bound to; 0 when it is bound to none, as after some ways of destroying it. */
export function boundPort(fd: number): number {
  const address = Buffer.alloc(NAME_BYTES);
  if (libc.getsockname(fd, address, Buffer.from([NAME_BYTES, 0, 0, 0])) < 0)
    throw kernelError(lastErrno(), 'getsockname');
  return address.readUInt16BE(2);
}

/** Whether a TCP socket still listens; one that `ss -K` destroyed does not. */
export function isListening(fd: number): boolean {
  const value = Buffer.alloc(4);
  if (libc.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, value, Buffer.from([4, 0, 0, 0])) < 0)
    throw kernelError(lastErrno(), 'getsockopt(SO_ACCEPTCONN)');
  return value.readUInt32LE(0) === 1;
}
