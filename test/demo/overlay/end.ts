/** Everything is taken down, and looked for. */
import { together } from '../actor.ts';
import { leftBehind } from '../remains.ts';
import type { Stage } from '../stage.ts';
import type { Cluster } from './cluster.ts';

export async function takeDown(stage: Stage, { redis, members }: Cluster): Promise<void> {
  await stage.step('Everything is taken down', async () => {
    const [first] = members;
    await first.sluice('service', 'rm', 'shop', 'late');
    await together(members, (index) => ['rm', '--force', members[index]!.container]);
    await first.sluice('network', 'rm', 'mesh');
    await together(members, () => ['system', 'off']);
    for (const { host } of members) await host.daemon.stop();
    await redis.stop();
    const found = await Promise.all(
      members.map(async ({ host }) => ({ host: host.name, left: Object.entries(await leftBehind(host)) })),
    );
    for (const [kind] of found[0]!.left) {
      const left = found.flatMap(({ host, left }) =>
        left.filter(([what]) => what === kind).flatMap(([, names]) => names.map((name) => `${host}: ${name}`)),
      );
      stage.promise(
        left.length === 0,
        `no ${kind} left on any host${left.length > 0 ? `, but ${left.join(', ')}` : ''}`,
      );
    }
  });
}
