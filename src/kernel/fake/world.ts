/** What all parts of the fake kernel share: namespaces by descriptor, planned failures, and notifications. */
import type { Clock } from '../../clock.ts';
import type { LinkEvent } from '../../contracts/kernel.ts';
import type { SluiceError } from '../../errors.ts';
import { kernelError } from '../libc.ts';
import { Space } from './space.ts';

/** Fake descriptors stand where no real one does: one that reaches the true kernel is refused there. */
const FIRST_FD = 1 << 20;
const FIRST_INODE = 4_026_532_000;
const EBADF = 9;

export interface Listener {
  readonly space: Space;
  readonly types: ReadonlySet<LinkEvent['type']>;
  readonly onEvent: (event: LinkEvent) => void;
  readonly onLoss: () => void;
  losses: number;
}

export class World {
  readonly clock: Clock;
  readonly listeners = new Set<Listener>();
  /** Mounted namespaces by path. */
  readonly mounts = new Map<string, Space>();
  readonly #open = new Map<number, Space>();
  readonly #failures = new Map<string, { readonly error: SluiceError; times: number }>();
  #spaces = 0;
  #fds = FIRST_FD;
  #macs = 0;
  /** Notifications are lost from now on until somebody is told. */
  lossy = false;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** The next `times` calls of that operation (`ensureVeth`, `nft.apply` …) fail before they do anything. */
  fail(op: string, error: SluiceError, times: number): void {
    this.#failures.set(op, { error, times });
  }

  /** Every operation passes here first. */
  attempt(op: string): void {
    const planned = this.#failures.get(op);
    if (!planned) return;
    if (--planned.times <= 0) this.#failures.delete(op);
    throw planned.error;
  }

  createSpace(): Space {
    const n = ++this.#spaces;
    return new Space(this, `4:${FIRST_INODE + n}`, BigInt(n));
  }

  openSpace(space: Space): number {
    const fd = this.#fds++;
    this.#open.set(fd, space);
    space.hold();
    return fd;
  }

  closeSpace(fd: number): void {
    const space = this.#open.get(fd);
    this.#open.delete(fd);
    space?.release();
  }

  spaceOf(fd: number, what: string): Space {
    const space = this.#open.get(fd);
    if (!space) throw kernelError(EBADF, what, 'no such namespace descriptor');
    return space;
  }

  /** A MAC as the kernel makes one up: locally administered, here by count. */
  nextMac(): string {
    const n = ++this.#macs;
    const bytes = [0x0a, 0xfa, 0x4e, (n >> 16) & 0xff, (n >> 8) & 0xff, n & 0xff];
    return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  }

  /** Tells listeners from the event loop, as multicast does. */
  emit(space: Space, event: LinkEvent): void {
    for (const listener of this.listeners) {
      if (listener.space !== space || !listener.types.has(event.type)) continue;
      const lost = this.lossy;
      this.clock.after(0, () => {
        if (!this.listeners.has(listener)) return;
        if (!lost) {
          listener.onEvent(event);
          return;
        }
        listener.losses++;
        listener.onLoss();
      });
    }
    this.lossy = false;
  }
}
