/** The OCI runtime by itself, executed as an administrator does: the same root and the same config.json, nobody beside it. */
import { spawn } from 'node:child_process';
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../../src/errors.ts';
import { versionOf } from '../machine.ts';

export interface Oci {
  readonly given: string;
  /** `run -d`; resolves when the program has ended, and the container runs. */
  run(id: string): Promise<void>;
  /** `exec ID true`, to its end. */
  exec(id: string): Promise<void>;
  remove(id: string): Promise<void>;
}

export interface OciOptions {
  readonly program: 'runc' | 'crun';
  /** What executes it; default: the program itself. */
  readonly launcher?: { readonly path: string; readonly env: Readonly<Record<string, string>> };
  readonly folder: string;
  /** A bundle whose config.json is taken. */
  readonly bundle: string;
}

interface Config {
  readonly linux: { readonly namespaces: readonly { readonly type: string }[] };
}

const LIMIT_MS = 30_000;

export function prepareOci({ program, launcher, folder, bundle }: OciOptions): Oci {
  const config = JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as Config;
  const bundleOf = (id: string): string => {
    const dir = join(folder, 'bundles', id);
    mkdirSync(dir, { recursive: true });
    // A network namespace of its own, made by the runtime: ours makes one too.
    const namespaces = config.linux.namespaces.map(({ type }) => ({ type }));
    const linux = { ...config.linux, namespaces, cgroupsPath: `/bench-${id}` };
    writeFileSync(join(dir, 'config.json'), JSON.stringify({ ...config, linux }));
    return dir;
  };
  mkdirSync(folder, { recursive: true });
  const said = join(folder, 'said');
  const output = openSync(said, 'a');
  const file = launcher?.path ?? program;
  const call = (...args: string[]): Promise<void> =>
    new Promise((resolve, reject) => {
      const options = { stdio: ['ignore', output, output] as ('ignore' | number)[], timeout: LIMIT_MS };
      const child = spawn(file, ['--root', join(folder, 'state'), ...args], {
        ...options,
        env: { PATH: process.env.PATH, ...launcher?.env },
      });
      child.on('error', reject);
      // The container keeps the streams: the end of the program is what counts, not theirs.
      child.on('exit', (code, signal) => {
        if (code === 0) resolve();
        else reject(new SluiceError('internal', `${program} ${args.join(' ')}: ${code ?? signal}: ${tail(said)}`));
      });
    });
  return {
    given: `${program} ${versionOf([program, '--version'], /version (\S+)/)}, executed by the bench: run -d of the root and configuration that ours has`,
    run: (id) => call('run', '--detach', '--bundle', bundleOf(id), id),
    exec: (id) => call('exec', id, 'true'),
    remove: (id) => call('delete', '--force', id),
  };
}

const tail = (path: string): string => readFileSync(path, 'utf8').slice(-1_000);
