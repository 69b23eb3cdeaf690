/** Podman in folders of its own, by its command line: it has no daemon whose API could be called. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { versionOf } from '../machine.ts';

export interface Podman {
  readonly given: string;
  run(name: string, image: string, command: readonly string[]): Promise<void>;
  remove(name: string): Promise<void>;
  /** Removes everything that is in its folders. */
  close(): Promise<void>;
}

const VERSION = ['podman', '--version'] as const;
const LIMIT_MS = 60_000;

export const hasPodman = (): boolean => versionOf(VERSION, /version (\S+)/) !== 'absent';

/** `archive`: a docker archive that is loaded. */
export async function preparePodman(folder: string, archive: string): Promise<Podman> {
  const place = ['--root', join(folder, 'root'), '--runroot', join(folder, 'run'), '--tmpdir', join(folder, 'tmp')];
  const podman = (...args: string[]) => promisify(execFile)('podman', [...place, ...args], { timeout: LIMIT_MS });
  await podman('load', '--quiet', '--input', archive);
  return {
    given: `Podman ${versionOf(VERSION, /version (\S+)/)}, by its command line, without a network`,
    run: async (name, image, command) =>
      void (await podman('run', '--detach', '--network', 'none', '--name', name, image, ...command)),
    remove: async (name) => void (await podman('rm', '--force', '--time', '0', name)),
    close: async () => void (await podman('system', 'reset', '--force')),
  };
}
