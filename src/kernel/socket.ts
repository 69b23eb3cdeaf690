/**
 * A netlink socket. The kernel handles a request inside sendto(2): the answer is queued when it returns, so a round trip is
 * synchronous and needs no event loop. Extended acknowledgements and strict dumps are on.
 */
import { timed } from '../metrics.ts';
import { check, kernelError, lastErrno, libc } from './libc.ts';
import { frame, type Message, messages, NLM_F, NLMSG_DONE, NLMSG_ERROR, readError, u32 } from './message.ts';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const SOL_SOCKET = 1;
const SOL_NETLINK = 270;
const SO_RCVBUFFORCE = 33;
const SO_RCVBUF = 8;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const EAGAIN = 11;
const EINTR = 4;
const ENOENT = 2;

/** Receive buffer: room for the acknowledgements of a full batch. */
const RCVBUF_BYTES = 4 << 20;
/** Bytes of requests in one send. */
const BATCH_BYTES_MAX = 60_000;
/** A dump that was interrupted by a change is begun anew this often. */
const DUMP_ATTEMPTS_MAX = 8;

export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;

const KERNEL = Buffer.alloc(12);
KERNEL.writeUInt16LE(AF_NETLINK, 0);
const ON = u32(1);

/** One buffer for all sockets: a receive and the reading of it are one synchronous stretch. */
const buffer = Buffer.alloc(1 << 17);

export interface Request {
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
  /** What is tried, for the error. */
  readonly what: string;
}

export class NetlinkSocket implements Disposable {
  readonly fd: number;
  readonly #subsystem: string;
  #seq = 1;

  /** Call it inside the namespace that the socket is to live in. */
  constructor(protocol: number, subsystem: string) {
    this.#subsystem = subsystem;
    this.fd = check(libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol), 'socket(AF_NETLINK)');
    try {
      check(libc.bind(this.fd, KERNEL, 12), 'bind(AF_NETLINK)');
    } catch (error) {
      libc.close(this.fd);
      throw error;
    }
    for (const option of [NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK])
      libc.setsockopt(this.fd, SOL_NETLINK, option, ON, 4);
    if (libc.setsockopt(this.fd, SOL_SOCKET, SO_RCVBUFFORCE, u32(RCVBUF_BYTES), 4) < 0)
      libc.setsockopt(this.fd, SOL_SOCKET, SO_RCVBUF, u32(RCVBUF_BYTES), 4);
  }

  /** One change; fails with the kernel's answer. */
  change(request: Request): void {
    const [error] = this.batch([request]);
    if (error) throw error;
  }

  /** Many changes, as few sends as fit; an entry is null where the change succeeded. Later ones are done although an earlier one failed. */
  batch(requests: readonly Request[]): (Error | null)[] {
    const results: (Error | null)[] = [];
    let at = 0;
    while (at < requests.length) {
      const first = this.#seq;
      const frames: Buffer[] = [];
      let bytes = 0;
      while (at + frames.length < requests.length) {
        const { type, flags, payload } = requests[at + frames.length]!;
        const next = frame(type, flags | NLM_F.ACK, this.#seq, payload);
        if (frames.length > 0 && bytes + next.length > BATCH_BYTES_MAX) break;
        frames.push(next);
        bytes += next.length;
        this.#seq++;
      }
      const chunk = requests.slice(at, at + frames.length);
      timed(this.#subsystem, chunk.length > 1 ? 'batch' : 'change', () => {
        this.#send(Buffer.concat(frames), chunk[0]!.what);
        results.push(...this.#acknowledgements(first, chunk));
      });
      at += frames.length;
    }
    return results;
  }

  /** Answers to one question that is no dump. Null when the kernel says that there is no such thing. */
  get(request: Request): Message | null {
    const seq = this.#seq++;
    return timed(this.#subsystem, 'get', () => {
      this.#send(frame(request.type, request.flags | NLM_F.ACK, seq, request.payload), request.what);
      let found: Message | null = null;
      for (;;) {
        for (const message of this.#receive(request.what)) {
          if (message.seq !== seq) continue;
          if (message.type !== NLMSG_ERROR) {
            found = { ...message, data: Buffer.from(message.data) };
            continue;
          }
          const { errno, words } = readError(message);
          if (errno === ENOENT || errno === 19) return null;
          if (errno) throw kernelError(errno, request.what, words);
          return found;
        }
      }
    });
  }

  /** Everything that the kernel has; begun anew when it changed meanwhile. */
  dump(request: Request): Message[] {
    return timed(this.#subsystem, 'dump', () => {
      for (let attempt = 1; ; attempt++) {
        const result = this.#dumpOnce(request);
        if (result.whole || attempt === DUMP_ATTEMPTS_MAX) return result.found;
      }
    });
  }

  [Symbol.dispose](): void {
    libc.close(this.fd);
  }

  #dumpOnce({ type, flags, payload, what }: Request): { found: Message[]; whole: boolean } {
    const seq = this.#seq++;
    this.#send(frame(type, flags | NLM_F.DUMP, seq, payload), what);
    const found: Message[] = [];
    let whole = true;
    for (;;) {
      for (const message of this.#receive(what)) {
        if (message.seq !== seq) continue;
        if (message.flags & NLM_F.DUMP_INTR) whole = false;
        if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
          const { errno, words } = readError(message);
          // Nothing of that kind, or the device went while it was asked for.
          if (errno === ENOENT || errno === 19) return { found: [], whole: true };
          if (errno === EINTR) whole = false;
          else if (errno) throw kernelError(errno, what, words);
          return { found, whole };
        }
        found.push({ ...message, data: Buffer.from(message.data) });
      }
    }
  }

  #send(data: Buffer, what: string): void {
    if (Number(libc.sendto(this.fd, data, data.length, 0, KERNEL, KERNEL.length)) < 0)
      throw kernelError(lastErrno(), what);
  }

  #acknowledgements(first: number, requests: readonly Request[]): (Error | null)[] {
    const results: (Error | null)[] = [];
    while (results.length < requests.length) {
      for (const message of this.#receive(requests[0]!.what)) {
        const index = message.seq - first;
        if (message.type !== NLMSG_ERROR || index < 0 || index >= requests.length) continue;
        const { errno, words } = readError(message);
        results[index] = errno ? kernelError(errno, requests[index]!.what, words) : null;
      }
    }
    return results;
  }

  #receive(what: string): Message[] {
    const length = Number(libc.recv(this.fd, buffer, buffer.length, MSG_DONTWAIT | MSG_TRUNC));
    if (length < 0) {
      const errno = lastErrno();
      // The answer is queued when the request returns: an empty queue means it was lost.
      throw kernelError(errno, what, errno === EAGAIN ? 'the kernel gave no answer' : '');
    }
    if (length > buffer.length) throw kernelError(90, what, `an answer of ${length} bytes was cut`);
    return [...messages(buffer, length)];
  }
}
