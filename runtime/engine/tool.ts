/** Programs that the engine calls: the OCI runtime, the monitor, tar. Each has a time limit. */
import { type ChildProcess, spawn } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../../src/clock.ts';
import { SluiceError } from '../../src/errors.ts';

export interface Tools {
  /** The launcher of the OCI runtime (bin/sluice-oci). */
  readonly oci: string;
  readonly conmon: string;
  /** Static init for `--init`. */
  readonly init: string;
  /** Runs a static program with another root (dist/tools/inside). */
  readonly inside: string;
  readonly busybox: string;
  /** What the launcher is told. */
  readonly env: Readonly<Record<string, string>>;
}

const PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

/** Absolute path of a program, null when the host has none of that name. */
export const which = (name: string): string | null =>
  PATH.map((folder) => join(folder, name)).find((path) => statSync(path, { throwIfNoEntry: false })?.isFile()) ?? null;

function need(name: string, debian: string): string {
  const path = which(name);
  if (path) return path;
  throw new SluiceError('runtime.missing', `containers need ${name}: apt-get install ${debian}`, { program: name });
}

/**
 * Finds them; `runtime.missing` names the Debian package of a missing one. crun starts a container in a third of runc's time. `mount`: where
 * cgroup v2 is mounted; beside v1 it is not at /sys/fs/cgroup itself.
 */
export function findTools({
  root,
  mount,
  oci,
}: {
  readonly root: string;
  readonly mount: string;
  readonly oci?: 'crun' | 'runc';
}): Tools {
  const program = oci ? need(oci, oci) : (which('crun') ?? need('runc', 'runc'));
  const hybrid = mount !== '/sys/fs/cgroup';
  return {
    oci: join(root, 'bin/sluice-oci'),
    conmon: need('conmon', 'conmon'),
    init: need('tini-static', 'tini'),
    inside: join(root, 'dist/tools/inside'),
    busybox: need('busybox', 'busybox-static'),
    env: {
      PATH: PATH.join(':'),
      SLUICE_OCI: program,
      ...(hybrid && program.endsWith('/crun') && { SLUICE_OCI_HIDE: mount }),
    },
  };
}

export interface Result {
  /** 128 + signal for a death by signal. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const OUTPUT_MAX = 1 << 20;

/** Collects a stream's text, the first MiB of it. */
export function collect(stream: NodeJS.ReadableStream | null): () => string {
  let text = '';
  stream?.on('data', (chunk: Buffer) => {
    if (text.length < OUTPUT_MAX) text += chunk;
  });
  return () => text;
}

/** Resolves when the process has ended and its streams are read. */
export function ended(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve(code ?? 137));
  });
}

/** Runs a program to its end; `runtime.failed` when it cannot start or does not end within the limit (it is killed then). */
export async function runTool(
  clock: Clock,
  argv: readonly [string, ...string[]],
  { env, limitMs }: { readonly env: Readonly<Record<string, string>>; readonly limitMs: number },
): Promise<Result> {
  const [file, ...args] = argv;
  const child = spawn(file, args, { env, cwd: '/', stdio: ['ignore', 'pipe', 'pipe'] });
  const [stdout, stderr] = [collect(child.stdout), collect(child.stderr)];
  let late = false;
  const timer = clock.after(limitMs, () => {
    late = true;
    child.kill('SIGKILL');
  });
  try {
    const code = await ended(child);
    if (late)
      throw new SluiceError(
        'runtime.failed',
        `${args.at(-2)} ${args.at(-1)} did not end within ${limitMs} ms: ${stderr()}`,
        {
          program: file,
        },
      );
    return { code, stdout: stdout(), stderr: stderr() };
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw new SluiceError(
      'runtime.failed',
      `${file} cannot be run: ${(error as Error).message}`,
      { program: file },
      error,
    );
  } finally {
    timer.cancel();
  }
}

/** What the OCI runtime's words mean: 127, 126, or a failure with those words. */
export function ociError(words: string, what: string): SluiceError {
  const text = words.trim().split('\n').map(plainWords).filter(Boolean).join('; ') || 'it said nothing';
  const code =
    /executable file .*not found|no such file or directory.*exec|exec.*no such file|stat .*: no such file/i.test(text)
      ? 'runtime.notfound'
      : /permission denied|open executable|exec format error|is a directory|not executable/i.test(text)
        ? 'runtime.notexecutable'
        : 'runtime.failed';
  return new SluiceError(code, `${what}: ${text}`, { words: text });
}

/** The message of a line of the runtime's log, JSON or plain. */
function plainWords(line: string): string {
  try {
    const { msg } = JSON.parse(line) as { msg?: unknown };
    if (typeof msg === 'string') return msg;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return line
    .replace(/^time="[^"]*" level=\w+ msg=/, '')
    .replace(/^\d{4}-\d\d-\d\dT[\d:.Z+-]+: /, '')
    .trim();
}
