/** Backends of a service that die on one host, while another host keeps connecting to the service. */
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Client } from '../../../src/client/client.ts';
import { SluiceError } from '../../../src/errors.ts';
import { busyboxArchive } from '../../../src/lab/busybox.ts';
import type { LabHost } from '../../../src/lab/lab.ts';
import type { Place } from '../../../src/lab/place.ts';
import { type ConnectResult, type Running, startConnect, startServer } from '../../../src/load/load.ts';
import type { ContainerDetail } from '../../../src/model/container.ts';
import { monotonicMs } from '../../probe/prober.ts';
import { placeOf, WAIT_MS } from '../../stage.ts';

const SERVICE = 'shop';
const PORT = 80;
/** A tag a replica. */
const TAGS = ['1', '2', '3'] as const;
/** New connections a second: each replica is asked every one and a half milliseconds. */
export const RATE = 2_000;
/** Before the death, so that the one who dies has been asked; and after it, three times as long as the bar allows. */
const BEFORE_MS = 100;
const AFTER_MS = 300;

export interface Death {
  /** From the death to the last connection that the dead one still got. */
  readonly ms: number;
  /** Connections that failed before anybody died. */
  readonly failed: number;
}

export interface Deaths {
  /** Lets one die, and brings it back. */
  next(): Promise<Death>;
  close(): Promise<void>;
}

/** Fails when the one that died had not been asked before, so that it could not be missed either. */
export function deathOf(
  { answers, failures, failed }: Pick<ConnectResult, 'answers' | 'failures' | 'failed'>,
  tag: string,
  killedAtMs: number,
): Death {
  const heard = answers[tag];
  if (!heard || heard.firstMs > killedAtMs)
    throw new SluiceError('internal', `replica ${tag} was not asked before it died`);
  return {
    ms: Math.max(0, heard.lastMs - killedAtMs),
    failed: failures && failures.firstMs < killedAtMs ? failed : 0,
  };
}

/**
 * Replicas on `owner`, asked from `asker`, a place on another host, whose daemon is `watcher`. What answers is not the replica's process but
 * stands beside it in its namespace, in `cgroup`: it goes on when that dies, so that a connection the dead one still gets is answered by its tag.
 */
export async function openDeaths(
  owner: LabHost,
  { watcher, asker, cgroup, network }: { watcher: Client; asker: Place; cgroup: string; network: string },
): Promise<Deaths> {
  const { client } = owner;
  const wait = { waitMs: WAIT_MS };
  await client.images.load(Readable.from([await busyboxArchive()]));
  const service = await client.services.put(
    SERVICE,
    {
      network,
      ports: [{ port: PORT }],
      replicas: {
        count: TAGS.length,
        container: { image: 'busybox', command: ['sleep', '100000'], restart: { name: 'no' } },
        placement: { constraints: [`node.name==${owner.name}`] },
      },
    },
    wait,
  );
  const vip = service.spec.vips[0]!;
  const allServe = () =>
    until(`${TAGS.length} replicas serve, as the other host sees it`, async () => {
      const { status } = await watcher.services.get(SERVICE);
      return (status?.detail as { replicas?: number } | undefined)?.replicas === TAGS.length;
    });
  await allServe();
  const replicas = (await client.containers.list()).filter(({ spec }) => spec.replica?.service === service.id);
  const servers = await Promise.all(
    replicas.map(async ({ spec }, at) => {
      const { netnsPath } = await placeOf(client, spec.sandbox);
      return startServer({ netnsPath, cgroup }, { ports: [PORT], tag: TAGS[at] });
    }),
  );
  let turn = 0;
  return {
    async next() {
      const at = turn++ % replicas.length;
      const { id } = replicas[at]!;
      const { status } = await client.containers.get(id);
      const { pid } = (status?.detail ?? {}) as Partial<ContainerDetail>;
      if (pid === undefined) throw new SluiceError('internal', `replica ${TAGS[at]} has no process`);
      const asking: Running<ConnectResult> = await startConnect(asker, {
        address: vip,
        port: PORT,
        rate: RATE,
        seconds: 0,
        close: 'reset',
      });
      await sleep(BEFORE_MS);
      const killedAtMs = monotonicMs();
      process.kill(pid, 'SIGKILL');
      await sleep(AFTER_MS);
      const death = deathOf(await asking.stop(), TAGS[at]!, killedAtMs);
      await client.containers.start(id, wait);
      await allServe();
      return death;
    },
    async close() {
      for (const server of servers) await server.stop();
    },
  };
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const limit = performance.now() + WAIT_MS;
  while (!(await holds())) {
    if (performance.now() > limit) throw new SluiceError('wait.timeout', `not within ${WAIT_MS} ms: ${what}`);
    await sleep(20);
  }
}
