/**
 * The two sockets of a sandbox on 127.0.0.11, UDP and TCP on one port of its own. Whoever is root inside can destroy them (`ss -K`): a UDP
 * socket then tells ECONNABORTED and may lose its port, a listener turns into a dead descriptor. Both are noticed by the event loop and
 * made anew at once; `check` notices it too, should no event have come.
 */
import { Socket } from 'node:net';
import type { Clock, Timer } from '../clock.ts';
import type { Namespace } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import { boundPort, type DatagramBatch, isListening, setReceiveBuffer } from '../kernel/datagram.ts';
import { errnoOf } from '../kernel/libc.ts';
import { pollReadable } from '../kernel/poll.ts';
import { acceptFd, closeFd, tcpListenerIn, udpSocketIn } from '../kernel/socket-in.ts';
import { dnsDropped } from '../metrics.ts';
import { RESOLVER_ADDRESS } from './resolv.ts';

const EADDRINUSE = 98;
const EMFILE = 24;
const ENFILE = 23;
/** Receives of one turn of the event loop: a sandbox that asks without end leaves time to the others. */
const ROUNDS_MAX = 4;
/** Connections taken in one turn. */
const ACCEPTS_MAX = 32;
/** Sockets of one sandbox are made anew at most every so often, milliseconds: destroying them in a loop buys no more of our time. */
const REMAKE_MS = 10;
/** A listener rests for so long when the process has no descriptors left. */
const EXHAUSTED_MS = 100;
/** A small question takes 768 octets of it, so 1,300 may wait while the daemon is busy; the default holds 277. */
const RECEIVE_BUFFER_BYTES = 1 << 20;
/** Ports tried before giving up. */
const PORTS_TRIED_MAX = 128;

/** What a sandbox's sockets need of the outside. */
export interface Listener {
  /** A datagram of `length` octets lies in the batch's `slot`; staging an answer is the callee's. */
  datagram(slot: number, length: number): void;
  connection(socket: Socket): void;
  /** They were destroyed and stand again, maybe on another port. */
  remade(port: number): void;
  /** They could not be made anew; `check` tries again. */
  failed(error: unknown): void;
}

/** `ip_local_port_range` as numbers: ports that the kernel gives to outgoing connections, which ours must not be one of. */
export function ephemeralRange(text: string): readonly [low: number, high: number] {
  const [low = 32_768, high = 60_999] = text.trim().split(/\s+/).map(Number);
  return [low, high];
}

/** Ports to try: the earlier one, then those above the ephemeral range, then those below, from a random one on. */
export function* candidatePorts(
  [low, high]: readonly [number, number],
  random: number,
  earlier: number | undefined,
): Generator<number> {
  const outside = (port: number): boolean => port < low || port > high;
  if (earlier !== undefined && earlier >= 1024 && earlier <= 65_535 && outside(earlier)) yield earlier;
  // Programs' own ports are low ones: below the range ours come last.
  for (const [from, to] of [
    [Math.max(high + 1, 1024), 65_535],
    [1024, Math.min(low - 1, 65_535)],
  ] as const) {
    const count = to - from + 1;
    for (let index = 0; index < count; index++) yield from + ((random + index) % count);
  }
}

export class SandboxSockets {
  #namespace: Namespace;
  readonly #clock: Clock;
  readonly #batch: DatagramBatch;
  readonly #listener: Listener;
  #port = 0;
  #udp = -1;
  #tcp = -1;
  #udpPoll: Disposable | undefined;
  #tcpPoll: Disposable | undefined;
  #rest: Timer | undefined;
  #remake: Timer | undefined;
  #remadeAt = Number.NEGATIVE_INFINITY;
  #reading = false;
  #closed = false;

  /** Opens them, on `earlier` when it is free; `read` begins to listen to them. Fails with `kernel.failed` when no port is. */
  constructor(
    namespace: Namespace,
    clock: Clock,
    batch: DatagramBatch,
    listener: Listener,
    earlier: number | undefined,
  ) {
    this.#namespace = namespace;
    this.#clock = clock;
    this.#batch = batch;
    this.#listener = listener;
    this.#open(earlier);
  }

  /** The namespace as its owner has it open now; the one before may be closed. */
  set namespace(namespace: Namespace) {
    this.#namespace = namespace;
  }

  get namespace(): Namespace {
    return this.#namespace;
  }

  get port(): number {
    return this.#port;
  }

  /** Descriptor of the UDP socket, for late answers. */
  get udp(): number {
    return this.#udp;
  }

  /** Makes anew what is not what it was; true when it had to. Fails when it cannot. */
  check(): boolean {
    if (this.#udpStands() && this.#tcpStands()) return false;
    this.#makeAnew();
    return true;
  }

  /** Reads, or lets questions and connections wait in the kernel until there is something to answer them from. */
  read(reading: boolean): void {
    this.#reading = reading;
    if (reading) this.#watch();
    else this.#unwatch();
  }

  close(): void {
    this.#closed = true;
    this.#remake?.cancel();
    this.#releaseUdp();
    this.#releaseTcp();
  }

  #udpStands(): boolean {
    return this.#udp >= 0 && boundPort(this.#udp) === this.#port;
  }

  #tcpStands(): boolean {
    return this.#tcp >= 0 && isListening(this.#tcp);
  }

  #open(earlier: number | undefined): void {
    const range = ephemeralRange(this.#namespace.getSysctl('net.ipv4.ip_local_port_range'));
    const random = Buffer.from(this.#clock.random(2)).readUInt16LE(0);
    let tried = 0;
    for (const port of candidatePorts(range, random, earlier)) {
      if (++tried > PORTS_TRIED_MAX) break;
      if (this.#openAt(port)) return;
    }
    throw new SluiceError(
      'kernel.failed',
      `open the resolver's sockets on ${RESOLVER_ADDRESS} in ${this.#namespace.path}: ${tried} ports outside ${range.join('-')} tried, all in use (EADDRINUSE)`,
      { namespace: this.#namespace.path, tried },
    );
  }

  /** Opens those that are missing; false, and none left, when the port is not free for both. */
  #openAt(port: number): boolean {
    try {
      if (this.#udp < 0) {
        this.#udp = udpSocketIn(this.#namespace, RESOLVER_ADDRESS, port);
        setReceiveBuffer(this.#udp, RECEIVE_BUFFER_BYTES);
      }
      if (this.#tcp < 0) this.#tcp = tcpListenerIn(this.#namespace, RESOLVER_ADDRESS, port);
    } catch (error) {
      this.#releaseUdp();
      this.#releaseTcp();
      if (errnoOf(error) === EADDRINUSE) return false;
      throw error;
    }
    this.#port = port;
    if (this.#reading) this.#watch();
    return true;
  }

  #watch(): void {
    if (this.#udp >= 0) this.#udpPoll ??= pollReadable(this.#udp, () => this.#receive());
    if (this.#tcp >= 0) this.#tcpPoll ??= pollReadable(this.#tcp, () => this.#accept());
  }

  #unwatch(): void {
    this.#rest?.cancel();
    this.#udpPoll?.[Symbol.dispose]();
    this.#udpPoll = undefined;
    this.#tcpPoll?.[Symbol.dispose]();
    this.#tcpPoll = undefined;
  }

  #receive(): void {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      let count: number;
      try {
        count = this.#batch.receive(this.#udp);
      } catch {
        // ECONNABORTED: destroyed. A socket that was bound by number keeps its port through it (udp_abort); another is made anew.
        if (this.#udpStands()) continue;
        this.#releaseUdp();
        this.#schedule();
        return;
      }
      for (let slot = 0; slot < count; slot++) this.#listener.datagram(slot, this.#batch.length(slot));
      const lost = this.#batch.flush(this.#udp);
      if (lost > 0) dnsDropped.inc({ reason: 'unsent' }, lost);
      if (count < this.#batch.slots.length) return;
    }
  }

  #accept(): void {
    for (let taken = 0; taken < ACCEPTS_MAX; taken++) {
      let fd: number | null;
      try {
        fd = acceptFd(this.#tcp);
      } catch (error) {
        const errno = errnoOf(error);
        if (errno === EMFILE || errno === ENFILE) this.#restListener();
        else if (!this.#tcpStands()) {
          // Let go of it now: a dead listener is readable for ever.
          this.#releaseTcp();
          this.#schedule();
        }
        return;
      }
      if (fd === null) return;
      this.#listener.connection(new Socket({ fd, readable: true, writable: true, allowHalfOpen: true }));
    }
  }

  /** The connection that cannot be taken stays readable: without a rest the event loop would do nothing else. */
  #restListener(): void {
    this.#tcpPoll?.[Symbol.dispose]();
    this.#tcpPoll = undefined;
    this.#rest = this.#clock.after(EXHAUSTED_MS, () => this.#watch());
  }

  /** At once, or as soon as the last time is long enough ago. */
  #schedule(): void {
    this.#remake?.cancel();
    const wait = this.#remadeAt + REMAKE_MS - this.#clock.monotonic();
    const attempt = (): void => {
      try {
        this.#makeAnew();
      } catch (error) {
        this.#listener.failed(error);
      }
    };
    if (wait <= 0) attempt();
    else this.#remake = this.#clock.after(wait, attempt);
  }

  /** What stands stays: questions that wait in a good UDP socket are not lost with a listener. */
  #makeAnew(): void {
    if (this.#closed) return;
    this.#remake?.cancel();
    this.#remadeAt = this.#clock.monotonic();
    if (!this.#udpStands()) this.#releaseUdp();
    if (!this.#tcpStands()) this.#releaseTcp();
    if (!this.#openAt(this.#port)) this.#open(undefined);
    this.#listener.remade(this.#port);
  }

  #releaseUdp(): void {
    this.#udpPoll?.[Symbol.dispose]();
    this.#udpPoll = undefined;
    if (this.#udp >= 0) closeFd(this.#udp);
    this.#udp = -1;
  }

  #releaseTcp(): void {
    this.#rest?.cancel();
    this.#tcpPoll?.[Symbol.dispose]();
    this.#tcpPoll = undefined;
    if (this.#tcp >= 0) closeFd(this.#tcp);
    this.#tcp = -1;
  }
}
