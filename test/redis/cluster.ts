/** A Redis Cluster: three masters, made as the manual says. */
import { execFileSync } from 'node:child_process';
import { freePort, RedisServer } from './server.ts';

/** A node also listens 10,000 higher. */
const PORT_MAX = 55_000;

export class RedisCluster {
  readonly masters: readonly RedisServer[];

  private constructor(masters: readonly RedisServer[]) {
    this.masters = masters;
  }

  static async start(settings: readonly string[] = []): Promise<RedisCluster> {
    const masters: RedisServer[] = [];
    try {
      for (let n = 0; n < 3; n++) {
        const own = ['cluster-enabled yes', 'cluster-node-timeout 2000', 'cluster-require-full-coverage no'];
        masters.push(await RedisServer.start([...own, ...settings], { port: await clusterPort() }));
      }
      const places = masters.map(({ port }) => `127.0.0.1:${port}`);
      execFileSync('redis-cli', ['--cluster', 'create', ...places, '--cluster-yes'], { stdio: 'pipe' });
      const until = performance.now() + 20_000;
      for (const master of masters)
        while (!String(await master.ask('CLUSTER', 'INFO')).includes('cluster_state:ok')) {
          if (performance.now() > until) throw new Error(`the cluster of ${places.join(', ')} is not up`);
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      return new RedisCluster(masters);
    } catch (error) {
      for (const master of masters) await master.remove();
      throw error;
    }
  }

  get url(): string {
    return `redis://${this.masters.map(({ port }) => `127.0.0.1:${port}`).join(',')}?cluster`;
  }

  /** The one that has the store: all keys have one hash tag. */
  async holder(): Promise<RedisServer> {
    const slot = Number(await this.masters[0]!.ask('CLUSTER', 'KEYSLOT', '{sluice}'));
    const ranges = (await this.masters[0]!.ask('CLUSTER', 'SLOTS')) as [number, number, [string, number]][];
    const port = ranges.find(([from, to]) => from <= slot && slot <= to)?.[2][1];
    return this.masters.find((master) => master.port === port)!;
  }

  async remove(): Promise<void> {
    for (const master of this.masters) await master.remove();
  }
}

async function clusterPort(): Promise<number> {
  for (;;) {
    const port = await freePort();
    if (port < PORT_MAX) return port;
  }
}
