/** Whether a connection is refused: one SYN, one reset. By hand: `nc -6 -s FROM -w 1 TO PORT`. */
import { connect } from 'node:net';
import type { Clock } from '../../clock.ts';
import type { RefusalProber } from '../../contracts/prober.ts';

/** Connects from the process's own namespace. */
export const createRefusalProber = (clock: Clock): RefusalProber => ({
  refused: (from, to, port, timeoutMs) =>
    new Promise((resolve) => {
      const end = (refused: boolean): void => {
        timer.cancel();
        socket.destroy();
        resolve(refused);
      };
      // Less than a second: the kernel's second SYN comes then.
      const timer = clock.after(timeoutMs, () => end(false));
      const socket = connect({ host: to, port, localAddress: from });
      socket.on('connect', () => end(false));
      socket.on('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED'));
    }),
});
