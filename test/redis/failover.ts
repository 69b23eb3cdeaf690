/** A primary, its replica, and a Sentinel that makes the one out of the other. */
import { expect } from 'vitest';
import { freePort, RedisServer } from './server.ts';

const QUICK = ['repl-diskless-sync-delay 0', 'appendonly yes'];

export class Failover {
  readonly primary: RedisServer;
  readonly replica: RedisServer;
  readonly sentinel: RedisServer;

  private constructor(primary: RedisServer, replica: RedisServer, sentinel: RedisServer) {
    [this.primary, this.replica, this.sentinel] = [primary, replica, sentinel];
  }

  static async start(): Promise<Failover> {
    const servers: RedisServer[] = [];
    const serve = async (settings: string[], how: { sentinel?: boolean } = {}): Promise<RedisServer> => {
      const server = await RedisServer.start(settings, { port: await freePort(), ...how });
      servers.push(server);
      return server;
    };
    try {
      const primary = await serve(QUICK);
      const replica = await serve([...QUICK, `replicaof 127.0.0.1 ${primary.port}`]);
      await expect.poll(() => primary.ask('INFO', 'replication'), { timeout: 20_000 }).toMatch(/state=online/);
      const sentinel = await serve(
        [
          `sentinel monitor main 127.0.0.1 ${primary.port} 1`,
          'sentinel down-after-milliseconds main 500',
          'sentinel failover-timeout main 3000',
        ],
        { sentinel: true },
      );
      await expect
        .poll(() => sentinel.ask('SENTINEL', 'REPLICAS', 'main'), { timeout: 15_000 })
        .toSatisfy((replicas: unknown[]) => replicas.length === 1);
      return new Failover(primary, replica, sentinel);
    } catch (error) {
      for (const server of servers) await server.remove();
      throw error;
    }
  }

  url(parameters = ''): string {
    return `redis://127.0.0.1:${this.sentinel.port}?sentinel=main${parameters}`;
  }

  /** What is written from now on the primary will take with it. */
  async cut(): Promise<void> {
    await this.primary.ask('ACL', 'SETUSER', 'default', '-psync', '-sync');
    await this.primary.ask('CLIENT', 'KILL', 'TYPE', 'replica');
  }

  /** The primary dies; until the replica is one. */
  async kill(): Promise<void> {
    await this.primary.stop();
    await expect.poll(() => this.replica.ask('INFO', 'replication'), { timeout: 20_000 }).toContain('role:master');
  }

  /** What was the primary comes back: one of the two is the other's replica again. Which one is Sentinel's to say: while neither answers it quickly enough it may turn them around once more. */
  async back(): Promise<void> {
    await this.primary.start();
    const infos = (): Promise<unknown[]> =>
      Promise.all([this.primary, this.replica].map((server) => server.ask('INFO', 'replication')));
    await expect.poll(async () => (await infos()).join('\n'), { timeout: 30_000 }).toMatch(/state=online/);
  }

  async remove(): Promise<void> {
    for (const server of [this.sentinel, this.replica, this.primary]) await server.remove();
  }
}
