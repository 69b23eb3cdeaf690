/**
 * Readable descriptors on the event loop. koffi hands libuv's own poll out (`koffi.node.poll`, found by use, documented nowhere); where a
 * koffi has none, one poll(2) over all descriptors every few milliseconds does the same more slowly.
 */
import koffi from 'koffi';
import { systemClock } from '../clock.ts';
import { check, libc } from './libc.ts';

/** libuv's poll, as koffi gives it. The callback is called with (status, events); its index.d.ts says (events). */
export interface PollHandle {
  start(options: { readonly readable: boolean }, callback: (status: number) => void): void;
  close(): void;
}
export type Poll = (
  fd: number,
  options: { readonly readable: boolean },
  callback: (status: number) => void,
) => PollHandle;

const native = (koffi as unknown as { readonly node?: { readonly poll?: Poll } }).node?.poll;

/** Calls `onReadable` from the event loop whenever the descriptor can be read or failed. Ends with `dispose`; the descriptor stays open. */
export function pollReadable(fd: number, onReadable: () => void, poll: Poll = native ?? sweepPoll): Disposable {
  let handle: PollHandle | undefined;
  let due = false;
  const callback = (status: number): void => {
    if (due) return;
    due = true;
    // An exception that leaves a poll callback wedges the process: leave the callback first.
    setImmediate(() => {
      due = false;
      if (!handle) return;
      // An error condition on the descriptor makes libuv stop the handle.
      if (status < 0) handle.start({ readable: true }, callback);
      onReadable();
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

/** Time between two looks at all descriptors: 1,000 of them cost about 0.1 ms each. */
const SWEEP_MS = 10;
const POLLIN = 1;
/** struct pollfd: fd, events, revents. */
const POLLFD_BYTES = 8;
const BAD_STATUS = -9;
const POLLNVAL = 0x20;

const watched = new Set<{ readonly fd: number; callback: (status: number) => void }>();
let sweeping = false;

/** The poll of last resort, for all descriptors of the process in one system call. */
export const sweepPoll: Poll = (fd, _options, callback) => {
  const entry = { fd, callback };
  watched.add(entry);
  if (!sweeping) sweepLater();
  return {
    start(_again, next) {
      entry.callback = next;
    },
    close() {
      watched.delete(entry);
    },
  };
};

function sweepLater(): void {
  sweeping = true;
  systemClock.after(SWEEP_MS, sweep);
}

function sweep(): void {
  sweeping = false;
  if (watched.size === 0) return;
  sweepLater();
  const entries = [...watched];
  const descriptors = Buffer.alloc(entries.length * POLLFD_BYTES);
  for (const [i, { fd }] of entries.entries()) {
    descriptors.writeInt32LE(fd, i * POLLFD_BYTES);
    descriptors.writeInt16LE(POLLIN, i * POLLFD_BYTES + 4);
  }
  if (check(libc.poll(descriptors, entries.length, 0), 'poll') === 0) return;
  for (const [i, { callback }] of entries.entries()) {
    const events = descriptors.readInt16LE(i * POLLFD_BYTES + 6);
    if (events !== 0) callback(events & POLLNVAL ? BAD_STATUS : 0);
  }
}
