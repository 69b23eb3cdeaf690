/**
 * `npm run demo`: one host; `npm run demo -- overlay`: three that share a Redis. Each in under a minute, on hosts of its own
 * (network namespaces, cgroup subtrees, folders, pins), so that the machine's network is not touched; they are removed whatever
 * happens. The last line counts what was checked.
 */
import { createLab, type Lab } from '../../src/lab/lab.ts';
import { sweepLab } from '../../src/lab/owner.ts';
import { oneHost } from './host.ts';
import { overlay } from './overlay/overlay.ts';
import { BrokenPromise, createStage, type Story, seconds } from './stage.ts';

const STORIES: Readonly<Record<string, Story>> = { host: oneHost, overlay };
const LOG_BYTES = 4_000;

async function play(story: Story): Promise<number> {
  const startedAt = performance.now();
  await sweepLab();
  const stage = createStage();
  const lab = await createLab({ name: 'demo', hosts: story.hosts });
  let broken: unknown = null;
  let traces: string[] = [];
  const interrupted = new Promise<never>((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => reject(new BrokenPromise(signal)));
  });
  try {
    await Promise.race([story.tell(stage, lab), interrupted]);
  } catch (error) {
    broken = error;
    showLogs(lab);
  } finally {
    traces = await lab.close();
  }
  console.log(`\n${stage.table()}`);
  for (const trace of traces) console.log(`left behind: ${trace}`);
  if (broken) console.log(`\nBROKEN: ${broken instanceof Error ? broken.message : String(broken)}`);
  if (broken && !(broken instanceof BrokenPromise)) console.log(broken);
  const failed = traces.length + (broken ? 1 : 0);
  const time = seconds(performance.now() - startedAt);
  console.log(failed === 0 ? `\nAll of it in ${time}; nothing was left behind.` : `\nThe demo failed after ${time}.`);
  console.log(`${stage.kept()} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

function showLogs({ hosts }: Lab): void {
  for (const { name, daemon } of hosts)
    console.log(`\n--- end of the log of the daemon on ${name} ---\n${daemon.log().slice(-LOG_BYTES / hosts.length)}`);
}

const [name = 'host', ...rest] = process.argv.slice(2);
const story = STORIES[name];
if (!story || rest.length > 0) {
  console.error(`usage: npm run demo [-- ${Object.keys(STORIES).join('|')}]`);
  process.exitCode = 2;
} else {
  process.exitCode = await play(story);
}
