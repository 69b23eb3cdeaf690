/** Somebody at a host's terminal: what they type is shown with its answer. */
import type { LabHost } from '../../src/lab/lab.ts';
import type { Place, RunOptions, RunResult } from '../../src/lab/place.ts';
import { BrokenPromise, type Stage } from './stage.ts';

/** One typed command; shows it and its answer, and breaks the demo when it fails. Resolves to its standard output. */
export type Typed = (...args: string[]) => Promise<string>;

export interface Actor {
  readonly host: LabHost;
  readonly sluice: Typed;
  /** Shows a command that has run, and its answer. */
  show(args: readonly string[], result: RunResult): void;
  /** What a shell command inside a container writes; neither is shown. */
  inside(container: string, command: string, options?: RunOptions): Promise<string>;
  /** Where the load generators run: in the sandbox that a container shares its name with. */
  placeOf(container: string): Promise<Place>;
}

/** `prompt` tells one host from another. */
export function createActor(stage: Stage, host: LabHost, prompt = ''): Actor {
  const show: Actor['show'] = (args, { stdout, stderr }) =>
    stage.typed(`sluice ${args.map(quoted).join(' ')}`, stdout || stderr, prompt);
  return {
    host,
    show,
    async sluice(...args) {
      const result = await host.sluice(args);
      show(args, result);
      return succeeded(result);
    },
    async inside(container, command, options) {
      return (await host.sluice(['exec', container, 'sh', '-c', command], options)).stdout.trim();
    },
    async placeOf(container) {
      const { status } = await host.client.sandboxes.get(container);
      return { netnsPath: String(status?.detail.netnsPath), cgroup: String(status?.detail.cgroupPath) };
    },
  };
}

/** One command on each of several hosts at the same time, shown one after the other. */
export async function together(
  actors: readonly Actor[],
  argsOf: (index: number) => string[],
  optionsOf: (index: number) => RunOptions = () => ({}),
): Promise<string[]> {
  const results = await Promise.all(actors.map(({ host }, index) => host.sluice(argsOf(index), optionsOf(index))));
  return results.map((result, index) => {
    actors[index]!.show(argsOf(index), result);
    return succeeded(result);
  });
}

const quoted = (word: string): string => (/[\s'"{]/.test(word) ? `'${word}'` : word);

function succeeded({ code, stdout }: RunResult): string {
  if (code !== 0) throw new BrokenPromise(`the command ended with status ${code}`);
  return stdout;
}
