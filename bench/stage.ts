/** Where a suite plays: a lab host with a daemon of its own, sandboxes on it, and two processors for the traffic. */
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../src/client/client.ts';
import { SluiceError } from '../src/errors.ts';
import { createLab, type Lab, type LabHost } from '../src/lab/lab.ts';
import type { Background, Place } from '../src/lab/place.ts';
import { connect } from '../src/load/load.ts';

/** Where load generators and servers run in every arm; proxies may use all processors. */
export const CPUS = availableParallelism() > 1 ? ({ client: '0', server: '1' } as const) : { client: '0', server: '0' };
export const PLACEMENT = `load generators on processor ${CPUS.client}, servers on ${CPUS.server}, everything else where the kernel puts it`;

/** Milliseconds that the daemon may take to program something. */
export const WAIT_MS = 30_000;

export interface Stage {
  readonly lab: Lab;
  readonly host: LabHost;
  readonly client: Client;
  /** Inside a sandbox: its namespace and its cgroup. */
  sandbox(name: string): Promise<Required<Place>>;
  /** The same namespace, but a cgroup of nobody: no program of ours runs for what starts there. */
  outside(place: Place): Required<Place>;
  close(): Promise<void>;
}

/** Makes the lab and starts the daemon. `others` are further hosts without one. */
export async function openStage(name: string, options: { readonly others?: readonly string[] } = {}): Promise<Stage> {
  const lab = await createLab({ name, hosts: ['a', ...(options.others ?? [])] });
  const host = lab.host('a');
  const close = async (): Promise<void> => {
    const traces = await lab.close();
    if (traces.length > 0) throw new SluiceError('internal', `the bench left behind: ${traces.join(', ')}`);
  };
  try {
    await host.daemon.start({ settings: { logLevel: 'warn' } });
  } catch (error) {
    await close();
    throw error;
  }
  const { client } = host;
  return {
    lab,
    host,
    client,
    sandbox: (name) => placeOf(client, name),
    outside: ({ netnsPath }) => ({ netnsPath: netnsPath ?? host.netnsPath, cgroup: lab.outside.cgroup }),
    close,
  };
}

/** Namespace and cgroup of a sandbox that is ready. */
export async function placeOf(client: Client, name: string): Promise<Required<Place>> {
  const { status } = await client.sandboxes.get(name);
  const { netnsPath, cgroupPath } = (status?.detail ?? {}) as { netnsPath?: string; cgroupPath?: string };
  if (netnsPath && cgroupPath) return { netnsPath, cgroup: cgroupPath };
  throw new SluiceError('internal', `sandbox ${name} is not ready: ${JSON.stringify(status)}`);
}

/** Waits until a connection from `place` is answered; fails after five seconds, with what `program` said. */
export async function untilAnswered(
  place: Place,
  address: string,
  port: number,
  program?: Pick<Background, 'output'>,
): Promise<void> {
  const until = performance.now() + 5_000;
  for (;;) {
    const { completed, errors } = await connect(place, { address, port, rate: 20, seconds: 0.1, timeoutMs: 500 });
    if (completed > 0) return;
    if (performance.now() > until) {
      const said = program ? `: ${program.output().slice(-2_000)}` : '';
      throw new SluiceError('internal', `nobody answers at ${address}:${port}: ${JSON.stringify(errors)}${said}`);
    }
    await sleep(50);
  }
}
