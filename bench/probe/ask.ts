/**
 * Runs inside a sandbox: `ADDRESS\n` on standard input → datagrams to a closed port there, one a millisecond, until the address's own kernel
 * refuses one, which is an answer → the time of that on standard output, milliseconds of CLOCK_MONOTONIC. Nothing for who never answers.
 */
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

/** Discard: nobody listens there. */
const PORT = 9;
const LIMIT_MS = 5_000;

const now = (): number => Number(process.hrtime.bigint()) / 1e6;

async function ask(address: string): Promise<number | null> {
  const socket = createSocket('udp4');
  let answeredAt: number | null = null;
  const heard = (error: Error | null): void => {
    // What this host says for want of an answer is none.
    if ((error as NodeJS.ErrnoException | null)?.code === 'ECONNREFUSED') answeredAt ??= now();
  };
  socket.on('error', heard);
  await new Promise<void>((resolve) => socket.connect(PORT, address, () => resolve()));
  const until = now() + LIMIT_MS;
  while (answeredAt === null && now() < until) {
    socket.send('?', heard);
    await sleep(1);
  }
  socket.close();
  return answeredAt;
}

process.stdout.write('ready\n');
for await (const line of createInterface({ input: process.stdin })) {
  const at = await ask(line.trim());
  process.stdout.write(`${at ?? 'never'}\n`);
}
