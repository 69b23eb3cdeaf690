/** The streams of a container's first process, at its monitor's socket. */
import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../../src/clock.ts';
import type { Streams } from '../../../src/contracts/runtime.ts';
import { SluiceError } from '../../../src/errors.ts';
import { connectPackets } from '../../../src/kernel/stream/seqpacket.ts';
import { Output } from './output.ts';

/** conmon sends a byte that names the stream and up to 8 KiB of data. */
const PACKET_BYTES = 8193;
const STDERR = 3;
/** What conmon reads at once. */
const WRITE_BYTES_MAX = 8192;
const WRITE_MS_MAX = 10_000;
const WRITE_STEP_MS = 5;

/** `socket`: the monitor's; `bundle`: where its control FIFO is. */
export function attachTo(clock: Clock, socket: string, bundle: string): Streams {
  const output = new Output(() => connection.close());
  const connection = connectPackets(socket, {
    packetBytes: PACKET_BYTES,
    onPacket(data) {
      const stream = data[0] === STDERR ? 'stderr' : 'stdout';
      // The monitor must never wait for us, or the container would: who falls behind is let go.
      if (output.push({ stream, data: data.subarray(1) })) return;
      connection.close();
      output.end();
    },
    onEnd: () => output.end(),
  });
  return {
    output,
    async write(data) {
      const until = clock.monotonic() + WRITE_MS_MAX;
      for (let at = 0; at < data.length; ) {
        const part = data.subarray(at, at + WRITE_BYTES_MAX);
        if (connection.send(part)) {
          at += part.length;
          continue;
        }
        if (clock.monotonic() > until) throw new SluiceError('runtime.failed', 'the process does not read its input');
        await clock.sleep(WRITE_STEP_MS);
      }
    },
    closeInput: () => connection.end(),
    resize: (columns, rows) => control(bundle, `1 ${rows} ${columns}\n`),
    detach() {
      connection.close();
      output.end();
    },
  };
}

/** A line to the monitor; one that is gone or does not listen misses it. */
function control(bundle: string, line: string): void {
  try {
    const fd = openSync(join(bundle, 'ctl'), constants.O_WRONLY | constants.O_NONBLOCK);
    try {
      writeSync(fd, line);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (!['ENXIO', 'ENOENT', 'EAGAIN', 'EPIPE'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
