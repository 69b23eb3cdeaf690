/** A daemon on a throw-away host for one test or one file of tests. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DaemonOptions } from '../../src/lab/daemon.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { createLab, type Lab, type LabHost, type Station } from '../../src/lab/lab.ts';
import { sweepLab } from '../../src/lab/owner.ts';
import type { RunResult } from '../../src/lab/place.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { catcher } from '../terminal.ts';

export interface TestHost extends LabHost {
  /** The world beyond the host: its default gateway, in a namespace of its own. */
  readonly outside: Station;
  /** The compiled CLI, in the process of the test; fails unless it succeeds. `sluice` starts a process for it. Returns standard output without the last line break. */
  cli(...args: string[]): Promise<string>;
  /** The CLI, with `--format json` added, parsed. */
  json<T = unknown>(...args: string[]): Promise<T>;
  close(): Promise<void>;
}

export interface HostOptions extends Partial<DaemonOptions> {
  readonly name?: string;
  /** On the host before its daemon starts for the first time. */
  readonly prepare?: (host: LabHost) => Promise<unknown>;
}

let swept: Promise<unknown> | null = null;

/** A host whose daemon is ready. Close it in `afterAll`, or use {@link withHost}. */
export async function openHost({ prepare, ...options }: HostOptions = {}): Promise<TestHost> {
  swept ??= sweepLab();
  await swept;
  const lab = await createLab({ name: options.name ?? 'test', hosts: ['a'] });
  const host = testHost(lab);
  try {
    await prepare?.(host);
    await host.daemon.start(options);
  } catch (error) {
    await lab.close();
    throw error;
  }
  return host;
}

/** Runs `fn` on a fresh host and removes it afterwards; a failure shows the end of the daemon's log. */
export async function withHost<T>(fn: (host: TestHost) => Promise<T>, options: HostOptions = {}): Promise<T> {
  const host = await openHost(options);
  try {
    return await fn(host);
  } catch (error) {
    if (error instanceof Error) error.message += `\n--- end of the daemon's log ---\n${host.daemon.log().slice(-4000)}`;
    throw error;
  } finally {
    await host.close();
  }
}

/** Commands that become another program. */
const becomesAnother = ([noun, verb]: readonly string[]): boolean =>
  noun === 'system' || (noun === 'sandbox' && verb === 'exec');

/** The compiled command line in this process: a Node of its own for each command would be half of what the suite takes. */
async function runCompiled(args: readonly string[], socket: string): Promise<RunResult> {
  const { run } = (await import(COMPILED)) as typeof import('../../src/cli/main.ts');
  const terminal = catcher();
  const code = await run(args, terminal, { ...process.env, SLUICE_HOST: `unix://${socket}` });
  const { out: stdout, err: stderr } = terminal.said();
  return { code, stdout, stderr };
}

const COMPILED = join(projectRoot(), 'dist/src/cli/main.cjs');

export function testHost(lab: Lab, host: LabHost = lab.hosts[0]!): TestHost {
  const cli = async (args: readonly string[]): Promise<string> => {
    const result = await (becomesAnother(args) ? host.sluice(args) : runCompiled(args, host.socket));
    if (result.code === 0) return result.stdout.replace(/\n$/, '');
    throw new Error(`sluice ${args.join(' ')}: status ${result.code}: ${result.stderr || result.stdout}`);
  };
  // Copying a getter would freeze its value: the host stays the prototype.
  return Object.assign(Object.create(host) as LabHost, {
    outside: lab.outside,
    cli: (...args: string[]) => cli(args),
    json: async <T>(...args: string[]) => JSON.parse(await cli([...args, '--format', 'json'])) as T,
    async close() {
      const traces = await lab.close();
      if (traces.length > 0) throw new Error(`the host left behind: ${traces.join(', ')}`);
    },
  });
}

/**
 * Repeats `look` until it returns without throwing and not `false`, null or undefined; fails with its last complaint
 * after `limitMs` (times the machine's slowness).
 */
export async function eventually<T>(
  look: () => T | Promise<T>,
  limitMs = 5_000,
  everyMs = 20,
): Promise<Exclude<T, false | null | undefined>> {
  const until = performance.now() + limitMs * slowness();
  for (;;) {
    let complaint: unknown = new Error(`still not so after ${limitMs} ms`);
    try {
      const value = await look();
      if (value !== false && value !== null && value !== undefined)
        return value as Exclude<T, false | null | undefined>;
    } catch (error) {
      complaint = error;
    }
    if (performance.now() > until) throw complaint;
    await sleep(everyMs);
  }
}
