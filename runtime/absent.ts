/** The runtime of a host that cannot run containers: there are none, and every verb says why. */
import type { Runtime } from '../src/contracts/runtime.ts';
import { SluiceError } from '../src/errors.ts';

/** `why`: what is missing, as a sentence. */
export function createAbsentRuntime(why: string): Runtime {
  const refuse = (): never => {
    throw new SluiceError('runtime.missing', why);
  };
  const verb = async (): Promise<never> => refuse();
  return {
    create: verb,
    start: verb,
    kill: verb,
    pause: verb,
    resume: verb,
    delete: async () => undefined,
    state: async () => null,
    list: async () => [],
    onExit: () => undefined,
    exec: verb,
    attach: verb,
    logs: refuse,
    stats: verb,
    processes: verb,
    copyOut: refuse,
    copyIn: verb,
    close: async () => undefined,
  };
}
