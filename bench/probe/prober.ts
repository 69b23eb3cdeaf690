/** A process inside a sandbox that asks an address until it answers (ask.ts). */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { SluiceError } from '../../src/errors.ts';
import { nodeBinary } from '../../src/lab/daemon.ts';
import { argvAt, type Place } from '../../src/lab/place.ts';

export interface Prober {
  /** When the address answered first, milliseconds of CLOCK_MONOTONIC; fails when it does not. One question at a time. */
  ask(address: string): Promise<number>;
  close(): void;
}

/** Milliseconds of CLOCK_MONOTONIC, as every process on this machine reads it. */
export const monotonicMs = (): number => Number(process.hrtime.bigint()) / 1e6;

/** Starts it; resolves when it listens. */
export async function startProber(place: Place): Promise<Prober> {
  const [file, ...args] = argvAt(place, [nodeBinary(), join(import.meta.dirname, 'ask.ts')]);
  const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new SluiceError('internal', `the prober in ${place.netnsPath} ended`);
    return value;
  };
  await next();
  return {
    async ask(address) {
      child.stdin.write(`${address}\n`);
      const answer = await next();
      if (answer === 'never') throw new SluiceError('wait.timeout', `${address} never answered`);
      return Number(answer);
    },
    close: () => void child.kill(),
  };
}
