/**
 * A simulated cluster: hosts, one store, what people ask of it, what happens to it. Everything follows from the seed. What must always hold is
 * looked at after every step; what must hold when it is quiet, at the end of every calm.
 */
import type { Store } from '../../src/contracts/store.ts';
import { isSluiceError } from '../../src/errors.ts';
import { objectPrefix } from '../../src/model/keys.ts';
import type { Kind, Obj } from '../../src/model/object.ts';
import { Checks } from './check.ts';
import { LifeClock, SimTime } from './clock.ts';
import { AUDIT_MS, SESSION_MS, SimHost } from './host.ts';
import { SimServer } from './server.ts';

const MINUTE = 60_000;
const NETWORKS = ['blue', 'green'];
const SANDBOXES = 4;
const SERVICES = ['shop', 'mail'];
/** Part of the faults in which the store loses something. */
const LOSS_RATE = 0.08;
/** Errors that a caller may be answered with while people and faults get in each other's way. */
const EXPECTED =
  /^(?:store\.(?:unavailable|conflict|fenced)|object\.|address\.|service\.backend|network\.(?:overlap|vni)|pool\.)/;

export interface SimulationOptions {
  readonly seed: number;
  readonly hosts?: number;
  /** Each daemon's store, by what a planted fault makes of it. */
  readonly plant?: (store: Store) => Store;
}

/** What broke a rule, with what led there. */
export class Violation extends Error {
  constructor(seed: number, atMs: number, what: string, story: readonly string[]) {
    const minutes = (atMs / MINUTE).toFixed(2);
    super(`seed ${seed}, after ${minutes} simulated minutes: ${what}\n${story.slice(-25).join('\n')}`);
    this.name = 'Violation';
  }
}

export class Simulation {
  readonly seed: number;
  readonly time: SimTime;
  readonly server: SimServer;
  readonly hosts: readonly SimHost[];
  /** Steps taken so far, by kind. */
  readonly counts = new Map<string, number>();
  readonly #story: string[] = [];
  readonly #checks: Checks;
  /** Pairs of hosts between which nothing gets through. */
  readonly #cuts = new Set<string>();
  #failure: Violation | undefined;

  constructor({ seed, hosts = 3, plant = (store) => store }: SimulationOptions) {
    this.seed = seed;
    this.time = new SimTime(seed);
    const clock = new LifeClock(this.time, { rate: 1, wallMs: 0, pausedUntil: 0 });
    this.server = new SimServer({ clock, logMax: 2_000 });
    const { time, server } = this;
    const answers = (from: string, address: string): boolean => {
      const to = this.hosts.find((host) => host.address === address);
      return to?.up === true && to.hostTime.pausedUntil <= time.now && !this.#cuts.has([from, to.name].sort().join());
    };
    this.hosts = Array.from({ length: hosts }, (_, n) => {
      return new SimHost({
        name: `h${n}`,
        address: `198.18.0.${11 + n}`,
        server,
        plant,
        time,
        answers,
        broken: (what) => this.#broken(what),
      });
    });
    this.#checks = new Checks(server, this.hosts, (what) => this.#broken(what));
    server.onWrite = (ops) => this.#checks.written(ops);
  }

  /** Simulates that long; rejects with a `Violation`. */
  async run(hours: number): Promise<void> {
    const until = this.time.now + hours * 60 * MINUTE;
    for (const host of this.hosts) host.start();
    await this.#pass(MINUTE);
    while (this.time.now < until) {
      await this.#storm();
      await this.#calm();
    }
    await this.#clear();
  }

  close(): void {
    for (const host of this.hosts) host.close();
  }

  /** Some minutes in which people ask for this and that while things go wrong. */
  async #storm(): Promise<void> {
    const steps = Math.floor(this.time.between(10, 50));
    for (let n = 0; n < steps; n++) {
      const step = this.time.chance() < 0.65 ? this.#ask() : this.#fault();
      this.counts.set(step, (this.counts.get(step) ?? 0) + 1);
      await this.#pass(this.time.between(0, 20_000));
      await this.#look();
      this.#rethrow();
    }
  }

  /** Everything is mended and left alone: then it is as it was asked to be, and stays so. */
  async #calm(): Promise<void> {
    this.#mend();
    await this.#pass(2 * AUDIT_MS + 2 * SESSION_MS);
    await this.#checks.quiet();
    this.#rethrow();
    await this.#pass(this.time.between(20, 80) * MINUTE);
    await this.#look();
    await this.#checks.quiet();
    this.#rethrow();
  }

  /** Everything is taken away again: nothing is left. */
  async #clear(): Promise<void> {
    const [first] = this.hosts as readonly [SimHost, ...SimHost[]];
    const all = async (kind: Kind): Promise<Obj[]> =>
      this.server.list<Obj>(objectPrefix(kind)).map(({ value }) => value);
    for (const { name } of await all('service'))
      this.#do(first, `remove ${name}`, () => first.life!.desired.services.remove(name));
    await this.#pass(MINUTE);
    for (const { name, owner } of await all('sandbox')) {
      const host = this.hosts.find((each) => each.name === owner)!;
      this.#checks.asked(name);
      this.#do(host, `remove ${name}`, () => host.life!.desired.sandboxes.remove(name, { force: true }));
    }
    await this.#pass(2 * AUDIT_MS);
    for (const { name } of await all('network'))
      this.#do(first, `remove ${name}`, () => first.life!.desired.networks.remove(name));
    await this.#pass(3 * AUDIT_MS);
    await this.#checks.empty();
    this.#rethrow();
  }

  async #look(): Promise<void> {
    // What the store lacks, and nobody has put back yet, is nothing that is gone.
    await this.#checks.always(this.hosts.every((host) => host.isWhole));
  }

  #pass(ms: number): Promise<void> {
    return this.time.pass(ms);
  }

  #ask(): string {
    const host = this.time.pick(this.hosts);
    const { life } = host;
    const { pick, chance } = { pick: this.time.pick.bind(this.time), chance: this.time.chance.bind(this.time) };
    if (!life) return 'nobody to ask';
    const { desired } = life;
    const box = `${host.name}-s${Math.floor(this.time.between(0, SANDBOXES))}`;
    const network = pick(NETWORKS);
    const name = pick(SERVICES);
    const roll = chance();
    if (roll < 0.1) {
      this.#do(host, `network ${network}`, () => desired.networks.put(network, { driver: 'overlay' }));
      return 'network';
    }
    if (roll < 0.5) {
      const ip = undefined;
      this.#do(host, `sandbox ${box} on ${network}`, () => desired.sandboxes.put(box, { networks: [{ network, ip }] }));
      return 'sandbox';
    }
    if (roll < 0.7) {
      this.#checks.asked(box);
      this.#do(host, `remove ${box}`, () => desired.sandboxes.remove(box, { force: true }));
      return 'sandbox removed';
    }
    if (roll < 0.9) {
      this.#do(host, `service ${name} over ${box}`, async () => {
        const found = (await desired.services.list()).find((each) => each.name === name);
        if (found) return desired.services.update(name, { addBackends: [{ sandbox: box }] });
        return desired.services.put(name, { network, ports: [{ port: 80 }], backends: [{ sandbox: box }] });
      });
      return 'service';
    }
    if (roll < 0.97) {
      this.#do(host, `remove service ${name}`, () => desired.services.remove(name));
      return 'service removed';
    }
    this.#do(host, `remove network ${network}`, () => desired.networks.remove(network));
    return 'network removed';
  }

  #fault(): string {
    const { time } = this;
    const host = time.pick(this.hosts);
    const roll = time.chance();
    const forMs = time.between(1_000, 3 * SESSION_MS);
    const later = (fn: () => void): void => void time.after(forMs, fn);
    if (time.chance() < LOSS_RATE) return this.#lose(forMs);
    if (roll < 0.25) {
      this.#tell(`kill -9 on ${host.name}`);
      host.kill();
      time.after(time.chance() < 0.7 ? time.between(0, 3_000) : forMs, () => host.start());
      return 'crash';
    }
    if (roll < 0.4) {
      this.#tell(`${host.name} is cut off from the store for ${Math.round(forMs)} ms`);
      host.weather.cut = true;
      later(() => {
        host.weather.cut = false;
      });
      return 'partition';
    }
    if (roll < 0.5) {
      this.#tell(`the store is away for ${Math.round(forMs)} ms`);
      for (const each of this.hosts) each.weather.cut = true;
      later(() => {
        for (const each of this.hosts) each.weather.cut = false;
      });
      return 'store away';
    }
    if (roll < 0.6) {
      const other = time.pick(this.hosts);
      const pair = [host.name, other.name].sort().join();
      this.#tell(`nothing gets through between ${pair}`);
      this.#cuts.add(pair);
      later(() => this.#cuts.delete(pair));
      return 'underlay cut';
    }
    if (roll < 0.7) {
      this.#tell(`${host.name} sleeps for ${Math.round(forMs)} ms`);
      host.hostTime.pausedUntil = time.now + forMs;
      return 'pause';
    }
    if (roll < 0.85) {
      this.#tell(`messages of ${host.name} are late and lost`);
      Object.assign(host.weather, { lateRate: 0.2, lateMs: SESSION_MS * 4, lossRate: 0.1 });
      later(() => Object.assign(host.weather, { lateRate: 0, lossRate: 0 }));
      // What is under way then arrives after its sender's death, perhaps after its session.
      if (time.chance() < 0.5)
        time.after(time.between(0, forMs), () => {
          this.#tell(`kill -9 on ${host.name}, whose messages are late`);
          host.kill();
          host.start();
        });
      return 'late messages';
    }
    if (roll < 0.92) {
      const op = time.pick([
        'ensureVeth',
        'setLink',
        'ensureFdb',
        'ensureNeighbours',
        'netns.ensure',
        'nft.apply',
        'ensureVxlan',
      ]);
      this.#tell(`${op} fails on ${host.name}`);
      host.kernel.fail(op, undefined, Math.ceil(time.between(0, 3)));
      host.kernel.lose();
      return 'kernel failure';
    }
    if (roll < 0.97) {
      this.#tell(`entries of ${host.name} are deleted by hand`);
      this.#checks.tampered(host);
      const { netlink } = host.kernel.host;
      const entries = netlink.fdb().filter(({ dst }) => dst !== undefined);
      netlink.removeFdb(entries.slice(0, 2).map(({ ifindex: link, mac, dst, table }) => ({ link, mac, dst, table })));
      netlink.removeNeighbours(
        netlink
          .neighbours()
          .slice(0, 2)
          .map(({ ifindex: link, ip }) => ({ link, ip })),
      );
      return 'drift';
    }
    this.#tell(`${host.name} loses its power for ${Math.round(forMs)} ms`);
    this.#checks.wiped(host);
    host.lose();
    later(() => {
      host.up = true;
      host.start();
    });
    return 'power cut';
  }

  /** The store goes away and comes back without something; perhaps a daemon starts meanwhile. */
  #lose(forMs: number): string {
    const { time, server } = this;
    const roll = time.chance();
    this.#tell(`the store is away for ${Math.round(forMs)} ms`);
    for (const host of this.hosts) host.weather.cut = true;
    if (time.chance() < 0.5) {
      const host = time.pick(this.hosts);
      this.#tell(`kill -9 on ${host.name}`);
      host.kill();
      time.after(time.between(0, 2 * forMs), () => host.start());
    }
    time.after(time.between(0, forMs), () => {
      if (roll < 0.6)
        this.#tell(`another server took over, without the last ${server.failOver(Math.floor(roll * 40))} writes`);
      else if (roll < 0.8)
        this.#tell(`it is an old snapshot, without the last ${server.failOver(Math.floor(roll * 500))} writes`);
      else {
        this.#tell('it was emptied');
        server.empty();
      }
    });
    time.after(forMs, () => {
      for (const host of this.hosts) host.weather.cut = false;
    });
    return roll < 0.6 ? 'fail-over' : roll < 0.8 ? 'old snapshot' : 'emptied';
  }

  #mend(): void {
    this.#tell('calm');
    this.#cuts.clear();
    for (const host of this.hosts) {
      Object.assign(host.weather, { cut: false, lateRate: 0, lossRate: 0 });
      host.hostTime.pausedUntil = 0;
      host.up = true;
      host.start();
    }
  }

  #tell(what: string): void {
    this.#story.push(`${(this.time.now / MINUTE).toFixed(2).padStart(9)}  ${what}`);
    if (this.#story.length > 200) this.#story.splice(0, 100);
  }

  #do(host: SimHost, what: string, work: () => Promise<unknown>): void {
    const { life } = host;
    this.#tell(`${host.name}: ${what}`);
    work().catch((error: unknown) => {
      if (life?.clock.alive && !(isSluiceError(error) && EXPECTED.test(error.code)))
        this.#broken(`${host.name}: ${what}: ${(error as Error).stack}`);
    });
  }

  /** Kept until the simulation looks: what finds it may be anywhere. */
  #broken(what: string): void {
    this.#failure ??= new Violation(this.seed, this.time.now, what, this.#story);
  }

  #rethrow(): void {
    if (this.#failure) throw this.#failure;
  }
}
