/** The thread that unpacks: one job at a time, so that the daemon's own thread stays free for everybody else. */
import { parentPort } from 'node:worker_threads';
import { toSluiceError } from '../../../src/errors.ts';
import type { FromWorker, ToWorker } from './job.ts';
import { runJob } from './work.ts';

/** Between two words about progress, milliseconds. */
const PROGRESS_MS = 100;

const port = parentPort!;
const say = (message: FromWorker): void => port.postMessage(message);
let stop: AbortController | null = null;

port.on('message', (message: ToWorker) => {
  if (message.type === 'abort') {
    stop?.abort();
    return;
  }
  stop = new AbortController();
  let said = performance.now();
  const onProgress = (current: number): void => {
    const now = performance.now();
    if (now - said < PROGRESS_MS) return;
    said = now;
    say({ type: 'progress', current });
  };
  runJob(message.job, { signal: stop.signal, onProgress }).then(
    (result) => say({ type: 'done', result }),
    (reason) => {
      const { code, message: text, details, cause } = toSluiceError(reason);
      // A stack does not survive the way between threads; the error's own text does.
      const stack = cause instanceof Error ? { stack: cause.stack } : {};
      say({ type: 'failed', code, message: text, details: { ...details, ...stack } });
    },
  );
});
