/**
 * A netlink socket. The kernel handles a request inside sendto(2): the answer is queued when it returns, so a round trip is
 * synchronous and needs no event loop. Extended acknowledgements and strict dumps are on.
 */
import type { SluiceError } from '../../errors.ts';
import { kernelErrors, kernelOps, timed } from '../../metrics.ts';
import { check, errnoOf, kernelError, lastErrno, libc, SOCK_CLOEXEC, SOCK_NONBLOCK, SOL_SOCKET } from '../libc.ts';
import {
  askAcknowledgement,
  frame,
  type Message,
  messages,
  NLM_F,
  NLMSG_DONE,
  NLMSG_ERROR,
  readError,
  u32,
} from './message.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOL_NETLINK = 270;
const SO_RCVBUF = 8;
const SO_RCVBUFFORCE = 33;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const ENOENT = 2;
const EINTR = 4;
const EIO = 5;
const EBADF = 9;
const EAGAIN = 11;
const ENODEV = 19;
const EMSGSIZE = 90;

/** Receive buffer: room for the refusals of a full batch. */
const RCVBUF_BYTES = 4 << 20;
/** Requests in one send. Should all be refused, their answers, 1 KiB of kernel memory each, must fit the receive buffer. */
const BATCH_MAX = 1000;
const BATCH_BYTES_MAX = 60_000;
/** A dump that a change interrupted is begun anew this often. */
const DUMP_ATTEMPTS_MAX = 20;

export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;
export const NETLINK_NETFILTER = 12;
export const NETLINK_GENERIC = 16;

/** struct sockaddr_nl of the kernel, and of a socket that lets the kernel choose its port. */
const NETLINK_ADDRESS = Buffer.alloc(12);
NETLINK_ADDRESS.writeUInt16LE(AF_NETLINK, 0);
const ON = u32(1);

/** One buffer for all sockets: a receive and the reading of it are one synchronous stretch. The kernel's dumps come in at most 32 KiB. */
const buffer = Buffer.alloc(1 << 17);

export interface Request {
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** What is tried, for the error. */
  readonly what: string;
}

/** A bound netlink socket in the namespace that the thread is in. Its receive buffer holds `rcvbuf` bytes, less without privilege. */
export function openNetlink(protocol: number, rcvbuf: number): number {
  const fd = check(libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol), 'socket(AF_NETLINK)');
  try {
    check(libc.bind(fd, NETLINK_ADDRESS, NETLINK_ADDRESS.length), 'bind(AF_NETLINK)');
    // Beyond rmem_max for who may, as much as is allowed for others.
    if (libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, u32(rcvbuf), 4) < 0)
      check(libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, u32(rcvbuf), 4), 'setsockopt(SO_RCVBUF)');
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/** Sends on a thread of the pool; what sendto(2) returned. The reason of a failure stays with that thread. */
function sendLater(fd: number, data: Buffer): Promise<number> {
  return new Promise((resolve, reject) => {
    const told = (error: Error | null, sent: number | bigint): void => (error ? reject(error) : resolve(Number(sent)));
    libc.sendto.async(fd, data, data.length, 0, NETLINK_ADDRESS, NETLINK_ADDRESS.length, told);
  });
}

export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  readonly #subsystem: string;
  #seq = 1;
  #closed = false;

  /** Call it inside the namespace that the socket is to live in. `subsystem` labels its metrics. */
  constructor(protocol: number, subsystem: string) {
    this.#subsystem = subsystem;
    this.#fd = openNetlink(protocol, RCVBUF_BYTES);
    for (const option of [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK])
      libc.setsockopt(this.#fd, SOL_NETLINK, option, ON, 4);
  }

  /** One change; fails with the kernel's answer. */
  change(request: Request): void {
    this.#only(request, []);
  }

  /** One removal; what is absent by one of these errno is removed. */
  remove(request: Request, absent: readonly number[]): void {
    this.#only(request, absent);
  }

  /** One removal that takes long, off the event loop. The socket serves nothing else until it is done. */
  async removeLater({ type, flags, payload, what }: Request, absent: readonly number[]): Promise<void> {
    const seq = this.#seq++;
    const data = frame(type, flags | NLM_F.ACK, seq, payload);
    const op = { subsystem: this.#subsystem, op: 'change-later' };
    const start = performance.now();
    try {
      if ((await sendLater(this.#fd, data)) < 0) throw kernelError(EIO, what, 'the request could not be sent');
      const [error] = this.#answers(seq, [{ type, flags, payload, what }]);
      if (error && !absent.includes(errnoOf(error))) throw error;
    } catch (error) {
      kernelErrors.inc(op);
      throw error;
    } finally {
      kernelOps.observe(op, (performance.now() - start) / 1_000);
    }
  }

  /** Many changes, as few sends as fit; an entry is null where the change succeeded. Later ones are done although an earlier one failed. */
  batch(requests: readonly Request[]): (SluiceError | null)[] {
    const results: (SluiceError | null)[] = [];
    while (results.length < requests.length) {
      const first = this.#seq;
      const frames: Buffer[] = [];
      let bytes = 0;
      for (const { type, flags, payload } of requests.slice(results.length, results.length + BATCH_MAX)) {
        const next = frame(type, flags, this.#seq, payload);
        if (frames.length > 0 && bytes + next.length > BATCH_BYTES_MAX) break;
        frames.push(next);
        bytes += next.length;
        this.#seq++;
      }
      askAcknowledgement(frames.at(-1)!);
      const chunk = requests.slice(results.length, results.length + frames.length);
      const answers = timed(this.#subsystem, chunk.length > 1 ? 'batch' : 'change', () => {
        this.#send(Buffer.concat(frames, bytes), chunk[0]!.what);
        return this.#answers(first, chunk);
      });
      results.push(...answers);
    }
    return results;
  }

  /** The answer to a question that is no dump: one message. Null when the kernel says that there is no such thing. */
  get<T>(request: Request, parse: (message: Message) => T): T | null {
    const seq = this.#seq++;
    return timed(this.#subsystem, 'get', () => {
      this.#send(frame(request.type, request.flags, seq, request.payload), request.what);
      for (;;) {
        for (const message of this.#receive(request.what)) {
          if (message.seq !== seq) continue;
          if (message.type !== NLMSG_ERROR) return parse(message);
          const { errno, words } = readError(message);
          if (errno === ENOENT || errno === ENODEV) return null;
          throw kernelError(errno, request.what, words);
        }
      }
    });
  }

  /**
   * Everything that the kernel has, whole: begun anew when it changed meanwhile. `parse` sees a view of the receive buffer, copies what it
   * keeps, and leaves out by undefined.
   */
  dump<T>(request: Request, parse: (message: Message) => T | undefined): T[] {
    return timed(this.#subsystem, 'dump', () => {
      for (let attempt = 1; attempt <= DUMP_ATTEMPTS_MAX; attempt++) {
        const found = this.#dumpOnce(request, parse);
        if (found) return found;
      }
      throw kernelError(EINTR, request.what, `changes interrupted it ${DUMP_ATTEMPTS_MAX} times`);
    });
  }

  /** An ioctl of the namespace's devices: any socket of it will do. Fills `argument`. */
  ioctl(request: number, argument: Buffer, what: string): void {
    timed(this.#subsystem, 'ioctl', () => check(libc.ioctlWith(this.#fd, request, argument), what));
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    libc.close(this.#fd);
  }

  #only(request: Request, forgiven: readonly number[]): void {
    const [error] = this.batch([request]);
    if (!error || forgiven.includes(errnoOf(error))) return;
    kernelErrors.inc({ subsystem: this.#subsystem, op: 'change' });
    throw error;
  }

  /** Null when it was interrupted. */
  #dumpOnce<T>({ type, flags, payload, what }: Request, parse: (message: Message) => T | undefined): T[] | null {
    const seq = this.#seq++;
    this.#send(frame(type, flags | NLM_F.DUMP, seq, payload), what);
    const found: T[] = [];
    let whole = true;
    for (;;) {
      for (const message of this.#receive(what)) {
        if (message.seq !== seq) continue;
        if (message.flags & NLM_F.DUMP_INTR) whole = false;
        if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
          const { errno, words } = readError(message);
          // Nothing of that kind, or the device went while it was asked for.
          if (errno === ENOENT || errno === ENODEV) return [];
          if (errno === EINTR) return null;
          if (errno) throw kernelError(errno, what, words);
          return whole ? found : null;
        }
        const one = parse(message);
        if (one !== undefined) found.push(one);
      }
    }
  }

  #send(data: Buffer, what: string): void {
    if (this.#closed) throw kernelError(EBADF, what, 'the netlink socket was closed');
    if (Number(libc.sendto(this.#fd, data, data.length, 0, NETLINK_ADDRESS, NETLINK_ADDRESS.length)) < 0)
      throw kernelError(lastErrno(), what);
  }

  /**
   * What became of the requests of one send. The kernel takes them in turn, tells every refusal, and success only of the last, which asked:
   * an answer each would cost a receive each.
   */
  #answers(first: number, requests: readonly Request[]): (SluiceError | null)[] {
    const results = Array<SluiceError | null>(requests.length).fill(null);
    const last = requests.length - 1;
    for (;;) {
      for (const message of this.#receive(requests[last]!.what)) {
        const index = message.seq - first;
        if (message.type !== NLMSG_ERROR || index < 0 || index > last) continue;
        const { errno, words } = readError(message);
        if (errno) results[index] = kernelError(errno, requests[index]!.what, words);
        if (index === last) return results;
      }
    }
  }

  /** Views of the one receive buffer, good until the next receive. */
  #receive(what: string): Iterable<Message> {
    const length = Number(libc.recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC));
    if (length < 0) {
      const errno = lastErrno();
      // The answer is queued when the request returns: an empty queue means it was lost.
      throw kernelError(errno, what, errno === EAGAIN ? 'the kernel gave no answer' : '');
    }
    if (length > buffer.length) throw kernelError(EMSGSIZE, what, `an answer of ${length} bytes was cut`);
    return messages(buffer, length);
  }
}
