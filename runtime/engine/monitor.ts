/** Starts conmon, which has the OCI runtime create the container, and stays with it: it writes the log and the exit status, daemon or no daemon. */
import { spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { Clock } from '../../src/clock.ts';
import type { ContainerPlan } from '../../src/contracts/runtime.ts';
import { SluiceError } from '../../src/errors.ts';
import type { Bundles } from './bundle.ts';
import { collect, type Tools } from './tool.ts';

/** The log is begun anew at this size. */
const LOG_BYTES_MAX = 16 << 20;
const LIMIT_MS = 30_000;

/** Resolves to the number of the container's first process, created and not started. Rejects with what monitor or runtime said. */
export async function startMonitor(
  clock: Clock,
  tools: Tools,
  bundles: Bundles,
  plan: ContainerPlan,
  {
    runtime,
    env,
    log,
  }: { readonly runtime: readonly string[]; readonly env: Readonly<Record<string, string>>; readonly log: string },
): Promise<number> {
  const { id, name, spec } = plan;
  const args = [
    ...['--api-version', '1', '--cid', id, '--name', name, '--cuuid', bundles.socketName(id)],
    ...['--runtime', tools.oci, '--bundle', bundles.path(id), '--persist-dir', bundles.path(id)],
    ...['--container-pidfile', bundles.path(id, 'pid'), '--conmon-pidfile', bundles.path(id, 'monitor.pid')],
    ...['--exit-dir', bundles.exits, '--socket-dir-path', bundles.sockets],
    ...['--log-path', `k8s-file:${bundles.log(id)}`, '--log-size-max', String(LOG_BYTES_MAX), '--no-sync-log'],
    ...[...runtime, '--log', log].flatMap((word) => ['--runtime-arg', word]),
    ...(spec.tty ? ['--terminal'] : []),
    ...(spec.stdin ? ['--stdin', ...(spec.stdinOnce ? [] : ['--leave-stdin-open'])] : []),
  ];
  // It leaves our session by itself: it forks, and the first process ends once the second one is on its way.
  const child = spawn(tools.conmon, args, {
    env: { ...env, _OCI_SYNCPIPE: '3' },
    cwd: '/',
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    detached: true,
  });
  const words = collect(child.stderr);
  const line = await firstLine(clock, child.stdio[3] as Readable, child);
  (child.stdio[3] as Readable).destroy();
  child.stderr!.destroy();
  const answer = line ? (JSON.parse(line) as { data?: number; pid?: number; message?: string }) : {};
  const pid = answer.data ?? answer.pid ?? -1;
  if (pid > 0) {
    bundles.keepLog(id);
    return pid;
  }
  throw new SluiceError(
    'runtime.failed',
    answer.message?.trim() || words().trim() || 'the monitor ended without a word',
  );
}

function firstLine(clock: Clock, pipe: Readable, child: ReturnType<typeof spawn>): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const timer = clock.after(LIMIT_MS, () => {
      child.kill('SIGKILL');
      reject(new SluiceError('runtime.failed', `the container was not created within ${LIMIT_MS} ms`));
    });
    const end = (): void => {
      timer.cancel();
      resolve(text.trim());
    };
    child.on('error', (error) => {
      timer.cancel();
      reject(new SluiceError('runtime.failed', `the monitor cannot be run: ${error.message}`, {}, error));
    });
    pipe.on('data', (chunk: Buffer) => {
      text += chunk;
      if (text.includes('\n')) end();
    });
    pipe.on('close', end);
  });
}
