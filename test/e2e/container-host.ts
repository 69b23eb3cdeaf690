/** A host whose image store has busybox, made from Debian's static one. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { createImages } from '../../runtime/image/images.ts';
import { systemClock as clock } from '../../src/clock.ts';
import { type BusyboxConfig, busyboxArchive } from '../../src/lab/busybox.ts';
import { slowness } from '../../src/lab/slowness.ts';
import { createLogger } from '../../src/log.ts';
import type { ContainerDetail } from '../../src/model/container.ts';
import { openHost, type TestHost } from './harness.ts';

export interface ContainerHost extends TestHost {
  /** Loads a busybox image of that name. */
  image(name: string, config?: BusyboxConfig, files?: Readonly<Record<string, string>>): Promise<void>;
  /** What is said of a container. */
  detail(name: string): Promise<Partial<ContainerDetail>>;
  /** A folder of the test's on this host. */
  readonly folder: string;
}

export async function openContainerHost(name: string): Promise<ContainerHost> {
  const host = await openHost({ name });
  const folder = join(host.runDir, 'test');
  mkdirSync(folder);
  const own = {
    folder,
    async image(image: string, config?: BusyboxConfig, files?: Readonly<Record<string, string>>) {
      const archive = await busyboxArchive(image, config, files);
      // The image store has one owner at a time: it is filled while no daemon has it.
      await host.daemon.stop();
      const images = createImages({ dir: join(host.stateDir, 'images'), clock, logger: createLogger('silent') });
      await images.load(Readable.from([archive]), { signal: AbortSignal.timeout(20_000 * slowness()) });
      await images.close();
      await host.daemon.start();
    },
    async detail(container: string) {
      const [view] = await host.json<[{ status: { detail: Partial<ContainerDetail> } | null }]>(
        'container',
        'inspect',
        container,
      );
      return view.status?.detail ?? {};
    },
  };
  const whole = Object.assign(Object.create(host) as ContainerHost, own);
  await whole.image('busybox:latest');
  return whole;
}
