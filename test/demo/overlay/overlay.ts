/** Three hosts on one overlay: made, balanced over, and then struck by what befalls a cluster. */
import { join } from 'node:path';
import type { Lab } from '../../../src/lab/lab.ts';
import { labFolder } from '../../../src/lab/owner.ts';
import { LabRedis } from '../../../src/lab/redis.ts';
import { createActor } from '../actor.ts';
import type { Stage, Story } from '../stage.ts';
import { build } from './build.ts';
import { takeDown } from './end.ts';
import { loseHost } from './loss.ts';
import { cutFromRedis, loseRedis } from './redis.ts';

async function tell(stage: Stage, lab: Lab): Promise<void> {
  const redis = new LabRedis(lab.outside, { folder: join(labFolder(lab.id), 'redis') });
  const actors = lab.hosts.map((host) => createActor(stage, host, `${host.name} `));
  const cluster = await build(stage, redis, actors);
  await loseHost(stage, cluster);
  await cutFromRedis(stage, cluster);
  await loseRedis(stage, cluster);
  await takeDown(stage, cluster);
}

export const overlay: Story = { hosts: ['h1', 'h2', 'h3'], tell };
