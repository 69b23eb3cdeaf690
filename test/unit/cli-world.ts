/** Command lines against the real API and desired state over a store in memory; what they print is caught. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StreamServer } from '../../src/api/container/stream.ts';
import { type Listener, serve } from '../../src/api/server.ts';
import { run } from '../../src/cli/main.ts';
import type { Terminal } from '../../src/cli/print/terminal.ts';
import { systemClock } from '../../src/clock.ts';
import { createLogger } from '../../src/log.ts';
import { catcher, type Said } from '../terminal.ts';
import { World } from './api-world.ts';

export type { Said } from '../terminal.ts';

export class CliWorld {
  readonly world = new World();
  readonly #folder = mkdtempSync(join(tmpdir(), `sluice-cli-${process.pid}-`));
  readonly socket = join(this.#folder, 'sluice.sock');
  #listener: Listener | undefined;

  /** With `streams`: exec, attach and cp too. */
  async open(streams?: StreamServer): Promise<void> {
    await this.world.state.networks.ensureBuiltin();
    const options = { socket: this.socket, clock: systemClock, logger: createLogger('silent'), graceMs: 100, streams };
    this.#listener = await serve(this.world.api(), options);
  }

  async close(): Promise<void> {
    this.world.life.abort();
    await this.#listener?.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /** Runs `sluice WORDS`. */
  async sluice(words: string | readonly string[], terminal: Partial<Terminal> = {}): Promise<Said> {
    const caught = catcher(terminal);
    const argv = typeof words === 'string' ? words.split(' ') : words;
    const status = await run(argv, caught, { SLUICE_HOST: `unix://${this.socket}` });
    return { status, ...caught.said() };
  }

  /** Runs it, and fails unless it succeeds; returns standard output. */
  async must(words: string | readonly string[]): Promise<string> {
    const { status, out, err } = await this.sluice(words);
    if (status !== 0) throw new Error(`sluice ${words}: status ${status}: ${err}`);
    return out;
  }
}
