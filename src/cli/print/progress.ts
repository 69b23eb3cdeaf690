/** What takes longer than a second says so on standard error, so that nobody wonders. */
import type { Terminal } from './terminal.ts';

const SILENT_MS = 1_000;
/** Between two signs of life: on a terminal the line is written over, elsewhere another one is added. */
const LIVE_MS = 100;
const DULL_MS = 10_000;

const FRAMES = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/** Resolves as `work` does. `what`: "network web is programmed", as in "waiting until …". */
export async function progress<T>(terminal: Terminal, what: string, work: Promise<T>): Promise<T> {
  const start = performance.now();
  const { live } = terminal;
  let frame = 0;
  let shown = false;
  const show = (): void => {
    const seconds = Math.floor((performance.now() - start) / 1_000);
    if (live) terminal.err(`\r\u001b[K${FRAMES[frame++ % FRAMES.length]} waiting until ${what} (${seconds} s)`);
    else terminal.err(`sluice: waiting until ${what} (${seconds} s)\n`);
    shown = true;
    timer = setTimeout(show, live ? LIVE_MS : DULL_MS);
  };
  let timer = setTimeout(show, SILENT_MS);
  try {
    return await work;
  } finally {
    clearTimeout(timer);
    if (shown && live) terminal.err('\r\u001b[K');
  }
}
