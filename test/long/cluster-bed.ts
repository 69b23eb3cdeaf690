/** Three daemons on one Redis with a service over all of them, and clients that connect without a second try. */
import { writeFileSync } from 'node:fs';
import { createLab, type Lab, type LabHost } from '../../src/lab/lab.ts';
import { eventually, type TestHost, testHost } from '../e2e/harness.ts';
import { type Inside, sandbox } from '../e2e/traffic.ts';
import { RedisServer } from '../redis/server.ts';

export interface Tally {
  readonly ok: number;
  readonly bad: number;
  readonly errors: Readonly<Record<string, number>>;
}

/** New connections to a port, one after the other, each answered before the next, until the file is there. */
const LOAD = (address: string, end: string): string => `
import json, os, socket, time
ok = bad = 0
errors = {}
while not os.path.exists("${end}"):
    s = socket.socket(); s.settimeout(2)
    try:
        s.connect(("${address}", 80)); s.sendall(b"x")
        if not s.recv(100): raise OSError("closed")
        ok += 1
    except OSError as e:
        bad += 1; errors[repr(e)] = errors.get(repr(e), 0) + 1
    s.close(); time.sleep(0.01)
print("tally", json.dumps({"ok": ok, "bad": bad, "errors": errors}), flush=True)
`;

export class LongBed {
  readonly redis: RedisServer;
  readonly lab: Lab;
  readonly hosts: readonly TestHost[];
  readonly clients: Inside[] = [];
  vip = '';
  #loads = 0;

  private constructor(redis: RedisServer, lab: Lab) {
    this.redis = redis;
    this.lab = lab;
    this.hosts = lab.hosts.map((host) => testHost(lab, host));
  }

  static async open(name: string, settings: readonly string[] = []): Promise<LongBed> {
    const redis = await RedisServer.start(settings);
    const bed = new LongBed(redis, await createLab({ name, hosts: ['a', 'b', 'c'] }));
    try {
      await bed.#fill();
    } catch (error) {
      await bed.close();
      throw error;
    }
    return bed;
  }

  settings(host: LabHost): Record<string, unknown> {
    return { store: this.redis.url, advertise: host.address, auditSeconds: 2 };
  }

  start(host: TestHost): Promise<unknown> {
    return host.daemon.start({ settings: this.settings(host), readyTimeoutMs: 20_000 });
  }

  /** From every host at once; `end` is what they saw. */
  load(): { end(): Promise<Tally[]> } {
    const file = `${this.redis.folder}/end-${this.#loads++}`;
    const running = this.clients.map((client) => client.python(LOAD(this.vip, file)));
    return {
      end: async () => {
        writeFileSync(file, '');
        return Promise.all(
          running.map((each) =>
            eventually(() => {
              const text = /tally (.*)/.exec(each.output())?.[1];
              return text === undefined ? null : (JSON.parse(text) as Tally);
            }, 10_000),
          ),
        );
      },
    };
  }

  async close(): Promise<string[]> {
    const left = await this.lab.close();
    await this.redis.remove();
    return left;
  }

  async #fill(): Promise<void> {
    const [a] = this.hosts as [TestHost];
    for (const host of this.hosts) await this.start(host);
    await a.cli('network', 'create', '--driver', 'overlay', 'mesh');
    await a.cli('service', 'create', '--name', 'shop', '--network', 'mesh', '--port', '80');
    for (const host of this.hosts) {
      await (await sandbox(host, `server-${host.name}`, '--network', 'mesh')).serve(80);
      await host.cli('service', 'update', 'shop', '--backend-add', `server-${host.name}`);
      this.clients.push(await sandbox(host, `client-${host.name}`, '--network', 'mesh'));
    }
    this.vip = (await a.json<[{ spec: { vips: string[] } }]>('service', 'inspect', 'shop'))[0].spec.vips[0]!;
    for (const client of this.clients)
      for (const server of ['a', 'b', 'c'])
        await eventually(async () => (await client.ask(this.vip, 80)).startsWith(`server-${server} `), 20_000);
  }
}
