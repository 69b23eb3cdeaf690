/** /metrics: the prom-client registry, and what is looked up only when somebody asks. */
import { createRoute, z } from '@hono/zod-openapi';
import type { Registry } from 'prom-client';
import { type Clock, withTimeLimit } from '../clock.ts';
import type { Store } from '../contracts/store.ts';
import { SluiceError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { objects } from '../metrics.ts';
import type { Counts } from '../model/answer.ts';
import { objectPrefix, statusPrefix } from '../model/keys.ts';
import { KINDS, type Obj, type State, type Status } from '../model/object.ts';
import { type Api, type ApiApp, noQuery } from './context.ts';
import { errorResponses } from './errors.ts';
import type { KeptStatuses } from './wait.ts';

export type Collector = () => void | Promise<void>;

/** One collector may take this long; what it would have set keeps its last value. */
const COLLECT_MS_MAX = 5000;

/** Runs the collectors, then prints the registry. Scrapes at the same time share one run. */
export class Scrape {
  readonly #collectors = new Map<string, Collector>();
  readonly #options: { readonly registry: Registry; readonly clock: Clock; readonly logger: Logger };
  #running: Promise<string> | null = null;

  constructor(options: { readonly registry: Registry; readonly clock: Clock; readonly logger: Logger }) {
    this.#options = options;
  }

  get contentType(): string {
    return this.#options.registry.contentType;
  }

  /** `collect` sets gauges and counters of the registry. One that fails is logged and spoils nothing but its own numbers. */
  add(name: string, collect: Collector): void {
    this.#collectors.set(name, collect);
  }

  /** The text that Prometheus reads. */
  text(): Promise<string> {
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  async #run(): Promise<string> {
    const { registry, clock, logger } = this.#options;
    await Promise.all(
      [...this.#collectors].map(async ([name, collect]) => {
        try {
          const late = (): Error => new SluiceError('internal', `metrics of ${name} took over ${COLLECT_MS_MAX} ms`);
          await withTimeLimit(clock, COLLECT_MS_MAX, Promise.resolve(collect()), late);
        } catch (error) {
          logger.warn({ err: error, collector: name }, 'metrics could not be collected');
        }
      }),
    );
    return registry.metrics();
  }
}

/** Objects by kind and state as this node sees them; one without a status is pending. */
export async function countObjects(store: Store, node: string, { kept }: Pick<KeptStatuses, 'kept'>): Promise<Counts> {
  const own = [...kept.values()];
  const counts = {} as Record<Obj['kind'], Record<State, number>>;
  for (const kind of KINDS) {
    const states = new Map<string, State>();
    for (const { value } of (await store.list<Status>(statusPrefix(kind))).items) {
      if (value.node === node) states.set(value.id, value.state);
    }
    for (const { kind: of, id, state } of own) if (of === kind) states.set(id, state);
    const count = { pending: 0, ready: 0, error: 0, removing: 0 };
    for (const { value } of (await store.list<Obj>(objectPrefix(kind))).items) {
      // A node is no work of a controller's: there is nothing to wait for.
      const state = states.get(value.id) ?? (kind === 'node' ? 'ready' : 'pending');
      count[value.removing ? 'removing' : state]++;
    }
    counts[kind] = count;
  }
  return counts;
}

/** Sets `sluice_objects` from the store. */
export async function collectObjects(store: Store, node: string, statuses: Pick<KeptStatuses, 'kept'>): Promise<void> {
  const counts = await countObjects(store, node, statuses);
  for (const [kind, states] of Object.entries(counts)) {
    for (const [state, count] of Object.entries(states)) objects.set({ kind, state }, count);
  }
}

const scrape = createRoute({
  method: 'get',
  path: '/metrics',
  operationId: 'getMetrics',
  summary: 'Metrics in the text format of Prometheus',
  tags: ['system'],
  request: { query: noQuery },
  responses: {
    200: { description: 'The metrics', content: { 'text/plain': { schema: z.string() } } },
    ...errorResponses(),
  },
});

export function metrics(app: ApiApp, api: Pick<Api, 'metrics'>): void {
  app.openapi(scrape, async (c) => c.text(await api.metrics.text(), 200, { 'content-type': api.metrics.contentType }));
}
