/**
 * The scheduler: of all nodes one holds the session `scheduler`, looks at services, nodes and assignments, and writes which node runs how many
 * replicas of what. Its writes carry the session, so that one that was thought dead cannot undo its successor's. A single host is a cluster of one.
 */
import { type Clock, withTimeLimit } from '../../clock.ts';
import type { Entry, Op, Session, Store } from '../../contracts/store.ts';
import { Records, SCHEMA } from '../../desired/records.ts';
import { isSluiceError, SluiceError, toSluiceError } from '../../errors.ts';
import type { Logger } from '../../log.ts';
import type { Container } from '../../model/container.ts';
import {
  clusterTopic,
  objectKey,
  objectPrefix,
  placementTopic,
  topicsOf,
  unplacedKey,
  unplacedPrefix,
} from '../../model/keys.ts';
import type { Node, NodeState } from '../../model/node.ts';
import type { Obj } from '../../model/object.ts';
import type { Assignment, Unplaced } from '../../model/service/placement.ts';
import type { Service } from '../../model/service.ts';
import { type PlacementNode, planPlacement, whyNot } from './plan.ts';
import { planTurns } from './turn.ts';

export interface SchedulerOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly node: string;
  /** How long the session lasts without renewal, milliseconds. */
  readonly ttlMs: number;
  /** How long a node has been lost before its replicas start elsewhere, milliseconds. */
  readonly graceMs: number;
  /** Judged by this node. */
  readonly stateOf: (node: string) => NodeState;
  /** Nodes of the cluster. */
  readonly count: () => number;
}

/** Looks at the nodes' states, and renewals, in a session's time. */
const TURNS = 6;
/**
 * Candidates that ask at every turn whether the session is free; when there are more, each asks so much more rarely, up to so many turns: all
 * together ask as often, so that it is free for no longer.
 */
const CANDIDATES = 10;
const CANDIDATE_TURNS_MAX = 10;
/** News are gathered for so long, milliseconds. */
const GATHER_MS = 5;
/** Everything is listed and looked at again at least so often, milliseconds: what there is to do comes as news. */
const REVIEW_MS = 60_000;
/** While replicas are replaced it is looked so often whether a node's turn is over, milliseconds. */
const RENEWING_MS = 250;
/** Pause before a watch that broke is begun anew, milliseconds. */
const REWATCH_MS = 500;

export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #records: Records<'assignment', Assignment>;
  readonly #stop = new AbortController();
  /** Since when each node has been lost, by the monotonic clock. */
  readonly #lost = new Map<string, number>();
  /** Nodes as they were listed last: whoever comes or goes is news, so that a look at their states need not list them. */
  #names: readonly string[] = [];
  #running: Promise<void> | undefined;
  #session: Session | undefined;
  #news = false;
  /** Version of each service of which no replica of an earlier one was left. */
  readonly #renewed = new Map<string, number>();
  /** Whether some node replaces replicas at the moment. */
  #renewing = false;
  #wake: (() => void) | undefined;
  #complained = false;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#records = new Records('assignment', options, ({ id }) => `name/assignment/${id}`);
  }

  /** Whether it is this node that decides. */
  get leads(): boolean {
    return this.#session?.alive ?? false;
  }

  /** Begins in the background. */
  start(): void {
    this.#running = this.#run();
  }

  /** Ends its session, so that another node need not wait for its end. */
  async stop(): Promise<void> {
    this.#stop.abort(new SluiceError('daemon.stopping', 'the daemon is stopping'));
    this.#wake?.();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { store, ttlMs, count } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        this.#session = await this.#limited(store.session('scheduler', ttlMs), 'the session of the scheduler');
        this.#complained = false;
        await this.#lead(this.#session);
      } catch (error) {
        // Another node has it, or has it by now.
        if (!isSluiceError(error, 'store.conflict', 'store.fenced')) this.#complain(error);
      }
      const ending = this.#session;
      this.#session = undefined;
      if (ending) await this.#limited(ending.end(), 'the end of a session').catch((error) => this.#complain(error));
      const turns = Math.min(Math.max(1, count() / CANDIDATES), CANDIDATE_TURNS_MAX);
      await this.#pause((turns * ttlMs) / TURNS);
    }
  }

  async #lead(session: Session): Promise<void> {
    const { store, clock, logger, ttlMs } = this.#options;
    const over = new AbortController();
    const watching = this.#watch(over.signal);
    logger.info({ epoch: session.epoch }, 'this node places replicas');
    let states = '';
    let reviewedMs = Number.NEGATIVE_INFINITY;
    let renewedMs = clock.monotonic();
    try {
      this.#named(await this.#limited(store.list<Node>(objectPrefix('node')), 'a list of the nodes'));
      while (!this.#stop.signal.aborted) {
        if (clock.monotonic() - renewedMs >= ttlMs / TURNS) {
          await this.#limited(session.renew(), 'the renewal of a session');
          renewedMs = clock.monotonic();
        }
        const seen = this.#states();
        const everyMs = this.#renewing ? RENEWING_MS : REVIEW_MS;
        const isDue = this.#news || seen !== states || clock.monotonic() - reviewedMs >= everyMs;
        if (isDue) {
          this.#news = false;
          await this.#limited(this.#pass(session), 'the placement of replicas');
          states = seen;
          reviewedMs = clock.monotonic();
        }
        if (!this.#news) await this.#pause(Math.min(ttlMs / TURNS, everyMs));
        else await this.#pause(GATHER_MS);
      }
    } finally {
      over.abort();
      this.#wake?.();
      await watching;
    }
  }

  /** Notes who is lost; a text that differs when something about that does. */
  #states(): string {
    const { clock, stateOf, graceMs } = this.#options;
    const now = clock.monotonic();
    for (const name of this.#names) {
      if (stateOf(name) !== 'lost') this.#lost.delete(name);
      else if (!this.#lost.has(name)) this.#lost.set(name, now);
    }
    return this.#names
      .map((name) => `${name} ${stateOf(name)} ${now - (this.#lost.get(name) ?? now) >= graceMs}`)
      .join();
  }

  #named({ items }: { readonly items: readonly { readonly value: Node }[] }): void {
    this.#names = items.map(({ value }) => value.name).sort();
    for (const name of this.#lost.keys()) if (!this.#names.includes(name)) this.#lost.delete(name);
  }

  async #pass(session: Session): Promise<void> {
    const { store } = this.#options;
    const list = async <O extends Obj>(kind: O['kind']): Promise<O[]> =>
      (await store.list<O>(objectPrefix(kind))).items.map(({ value, revision }: Entry<O>) => ({ ...value, revision }));
    const assignments = await list<Assignment>('assignment');
    const living = (await list<Service>('service')).filter(({ removing }) => !removing);
    const services = living.filter(({ spec }) => spec.replicas);
    const nodes = await list<Node>('node');
    this.#named({ items: nodes.map((value) => ({ value })) });
    const loads = new Map<string, number>();
    const add = (name: string, count: number): unknown => loads.set(name, (loads.get(name) ?? 0) + count);
    for (const { owner, spec } of assignments) add(owner!, spec.count ?? 0);
    const known = new Set(services.map(({ id }) => id));
    const there = new Set(living.map(({ id }) => id));
    const orphans = assignments.filter((one) => !known.has(one.spec.service) && isOrphan(one, there));
    await this.#write(session, orphans.map(removal), orphans);
    const homeless = (await store.list<Unplaced>(unplacedPrefix)).items;
    const gone = homeless.filter(({ value }) => !known.has(value.service));
    await this.#write(
      session,
      gone.map(({ key, revision }) => ({ op: 'delete', key, expect: revision })),
      [{ owner: null }],
    );
    for (const id of this.#renewed.keys()) if (!known.has(id)) this.#renewed.delete(id);
    let containers: Promise<Container[]> | undefined;
    this.#renewing = false;
    for (const service of services) {
      const its = assignments.filter(({ spec }) => spec.service === service.id);
      const begins = await this.#turns(service, its, () => (containers ??= list<Container>('container')));
      const missing = await this.#place(session, service, its, nodes, loads, add, begins);
      const before = homeless.find(({ value }) => value.service === service.id);
      if (missing !== before?.value.message) await this.#tell(session, service, missing, before);
    }
  }

  /** Nodes that may begin to replace its replicas of earlier versions. On one node's own network that one always may. */
  async #turns(
    { id, owner, spec }: Service,
    assignments: readonly Assignment[],
    containers: () => Promise<readonly Container[]>,
  ): Promise<ReadonlySet<string>> {
    const { version, placement } = spec.replicas!;
    if (owner !== null || this.#renewed.get(id) === version) return new Set();
    const stale = new Map<string, number>();
    for (const { owner: node, spec: its, removing } of await containers())
      if (its.replica?.service === id && its.replica.version < version && !removing && its.wanted === 'running')
        stale.set(node!, (stale.get(node!) ?? 0) + 1);
    if (stale.size === 0) this.#renewed.set(id, version);
    const { begin, underWay } = planTurns(
      assignments.map(({ owner: name, spec: { renew = version } }) => ({
        name: name!,
        state: this.#options.stateOf(name!),
        stale: stale.get(name!) ?? 0,
        mayRenew: renew >= version,
      })),
      placement?.updateParallelism,
    );
    this.#renewing ||= underWay;
    return new Set(begin);
  }

  /** Places its replicas; in words, which of them cannot be. */
  async #place(
    session: Session,
    { id, name, owner, spec }: Service,
    assignments: readonly Assignment[],
    nodes: readonly Node[],
    loads: ReadonlyMap<string, number>,
    add: (node: string, count: number) => unknown,
    begins: ReadonlySet<string>,
  ): Promise<string | undefined> {
    const { logger } = this.#options;
    const { count, placement, version } = spec.replicas!;
    const fit = nodes.filter((node) => (owner === null ? node.spec.vtep !== undefined : node.name === owner));
    const current = new Map(assignments.map((each) => [each.owner!, each.spec.count]));
    const ask = { ...placement, count };
    const facts = fit.map((node) => this.#facts(node, loads.get(node.name) ?? 0));
    const { counts, missing } = planPlacement(ask, facts, current);
    const ops: Op[] = [];
    const touched: { readonly owner: string | null }[] = [];
    for (const assignment of assignments) {
      const wanted = counts.get(assignment.owner!) ?? 0;
      const { count: before, renew: upTo = version } = assignment.spec;
      const renew = begins.has(assignment.owner!) ? version : upTo;
      if (wanted === before && renew === assignment.spec.renew) continue;
      ops.push(
        wanted === 0
          ? removal(assignment)
          : this.#records.change(assignment, { spec: { ...assignment.spec, count: wanted, renew } }),
      );
      touched.push(assignment);
      add(assignment.owner!, wanted - assignment.spec.count);
    }
    for (const [node, wanted] of counts) {
      if (current.has(node)) continue;
      const fresh = this.#records.fresh(
        this.#records.newId(),
        name,
        node,
        {},
        { service: id, count: wanted, renew: version },
      );
      ops.push({ op: 'put', key: objectKey('assignment', fresh.id), value: fresh, expect: 0 });
      touched.push(fresh);
      add(node, wanted);
    }
    await this.#write(session, ops, touched);
    if (ops.length > 0) logger.info({ service: name, counts: Object.fromEntries(counts), missing }, 'replicas placed');
    if (missing === 0) return undefined;
    const of =
      placement?.mode === 'global' ? 'none runs' : `${missing} of ${count} ${missing === 1 ? 'has' : 'have'} no place`;
    return `${of}: ${whyNot(ask, facts, counts)}`;
  }

  /** Says of the service which of its replicas have no place, or that all have one. */
  async #tell(session: Session, { id, owner }: Service, message?: string, before?: Entry<Unplaced>): Promise<void> {
    const key = unplacedKey(id);
    const since = before?.value.since ?? new Date(this.#options.clock.now()).toISOString();
    const value: Unplaced = { service: id, message: message ?? '', since };
    const expect = before?.revision ?? 0;
    await this.#write(
      session,
      [message ? { op: 'put', key, value, expect } : { op: 'delete', key, expect }],
      [{ owner }],
    );
  }

  #facts({ id, name, labels, spec }: Node, load: number): PlacementNode {
    const { clock, stateOf, graceMs } = this.#options;
    const since = this.#lost.get(name);
    const givenUp = since !== undefined && clock.monotonic() - since >= graceMs;
    return { id, name, labels, state: stateOf(name), givenUp, drained: spec.availability === 'drained', load };
  }

  async #write(
    session: Session,
    ops: readonly Op[],
    touched: readonly { readonly owner: string | null }[],
  ): Promise<void> {
    if (ops.length === 0) return;
    const topics = [...new Set(touched.flatMap((one) => topicsOf(one)))];
    await this.#options.store.transact(ops, { topics, session, actor: `scheduler on ${this.#options.node}` });
  }

  /** Wakes it when a service or a node changes. */
  async #watch(signal: AbortSignal): Promise<void> {
    const { store, clock, logger } = this.#options;
    while (!signal.aborted) {
      try {
        const from = await store.transact([]);
        this.#note();
        for await (const event of store.watch([clusterTopic, placementTopic], from, signal)) {
          const isOurs =
            event.type === 'relist' || event.change.entries.some(({ key }) => /^(?:service|node)\//.test(key));
          if (isOurs) this.#note();
        }
      } catch (error) {
        if (signal.aborted) return;
        logger.warn({ err: toSluiceError(error).message }, 'the watch of the scheduler broke, beginning anew');
      }
      if (signal.aborted) return;
      await clock.sleep(REWATCH_MS, signal).catch(() => undefined);
    }
  }

  #note(): void {
    this.#news = true;
    this.#wake?.();
  }

  /** Until then, or until there is news, or the end. */
  async #pause(ms: number): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(ms, resolve);
    this.#wake = resolve;
    await promise;
    timer.cancel();
    this.#wake = undefined;
  }

  #limited<T>(work: Promise<T>, what: string): Promise<T> {
    const { clock, ttlMs } = this.#options;
    const late = () => new SluiceError('store.unavailable', `${what} took longer than ${ttlMs} ms`);
    return withTimeLimit(clock, ttlMs, work, late);
  }

  /** Once until it goes well again. */
  #complain(error: unknown): void {
    const { code, message } = toSluiceError(error);
    if (!this.#complained) this.#options.logger.warn({ code, err: message }, 'replicas are not placed at the moment');
    this.#complained = true;
  }
}

/** Of a service that has no replicas any more. What a newer version has placed by rules of its own is not judged by ours. */
const isOrphan = ({ spec, schema }: Assignment, services: ReadonlySet<string>): boolean =>
  schema > SCHEMA ? spec.service !== undefined && !services.has(spec.service) : true;

const removal = ({ id, revision }: Assignment): Op => ({
  op: 'delete',
  key: objectKey('assignment', id),
  expect: revision,
});
