/** Several lab hosts with a daemon each on one Redis of the lab's own, and hosts without a daemon for peers made by hand. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { SluiceError } from '../src/errors.ts';
import { createLab, type Lab, type LabHost } from '../src/lab/lab.ts';
import { labFolder } from '../src/lab/owner.ts';
import { untilSaid } from '../src/load/load.ts';

export interface Cluster {
  readonly lab: Lab;
  /** Those with a daemon, in the order asked for. */
  readonly hosts: readonly LabHost[];
  /** What they were given. */
  readonly given: string;
  close(): Promise<void>;
}

/** A daemon that starts beside others has no more than its share of the processors. */
const READY_MS = 20_000;

/** `others`: further hosts without a daemon. Redis keeps nothing on the disk and is reached by its socket. */
export async function openCluster(
  name: string,
  daemons: readonly string[],
  others: readonly string[] = [],
): Promise<Cluster> {
  const lab = await createLab({ name, hosts: [...daemons, ...others] });
  const close = async (): Promise<void> => {
    const traces = await lab.close();
    if (traces.length > 0) throw new SluiceError('internal', `the bench left behind: ${traces.join(', ')}`);
  };
  try {
    const folder = join(labFolder(lab.id), 'redis');
    mkdirSync(folder, { recursive: true });
    const socket = join(folder, 'redis.sock');
    const settings = ['--port', '0', '--unixsocket', socket, '--dir', folder, '--save', '', '--daemonize', 'no'];
    const redis = lab.outside.spawn(['redis-server', ...settings]);
    await untilSaid(redis, 'eady to accept connections', READY_MS);
    const hosts = daemons.map((each) => lab.host(each));
    for (const { daemon, address } of hosts) {
      const store = `redis+unix://${socket}`;
      await daemon.start({ settings: { logLevel: 'warn', store, advertise: address }, readyTimeoutMs: READY_MS });
    }
    return { lab, hosts, close, given: `${daemons.length} daemons on a Redis of their own (unix socket, not saved).` };
  } catch (error) {
    await close();
    throw error;
  }
}
