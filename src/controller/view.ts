/**
 * Views: the sorted set of networks that a sandbox is on. Services and names are programmed once a view, not once a sandbox. A
 * view's number is persisted before use; a new view is filled before a sandbox switches to it.
 */
import type { Context } from './context.ts';

export interface View {
  readonly number: number;
  /** Ids, sorted. */
  readonly networks: readonly string[];
}

/** The key of the view without networks. */
const EMPTY = 'empty';

export class Views {
  readonly #context: Context;
  readonly #views = new Map<string, View>();
  readonly #bySandbox = new Map<string, string>();
  /** Keys that may have a number and no user. */
  #unused = new Set<string>();
  readonly #fill: (view: View) => Promise<void>;
  readonly #drop: (view: View) => void;

  /** `fill` programs everything of a view that is about to be used, `drop` takes it out when nobody uses it any more. */
  constructor(context: Context, hooks: { fill: (view: View) => Promise<void>; drop: (view: View) => void }) {
    this.#context = context;
    this.#fill = hooks.fill;
    this.#drop = hooks.drop;
  }

  async load(): Promise<void> {
    this.#unused = new Set((await this.#context.desired.numbers.all('view')).keys());
  }

  /** Gives the numbers of views back that nobody uses, once everybody who may is known. */
  async collect(): Promise<void> {
    const unused = [...this.#unused].filter((key) => !this.#views.has(key === EMPTY ? '' : key));
    this.#unused.clear();
    for (const key of unused) await this.#context.desired.numbers.release('view', key);
  }

  all(): View[] {
    return [...this.#views.values()];
  }

  ofSandbox(sandboxId: string): View | undefined {
    const key = this.#bySandbox.get(sandboxId);
    return key === undefined ? undefined : this.#views.get(key);
  }

  /** Views that hold the network. */
  withNetwork(networkId: string): View[] {
    return this.all().filter(({ networks }) => networks.includes(networkId));
  }

  /** The view of the sandbox as its endpoints stand now, filled. The sandbox still has to be switched to it, then `settle` called. */
  async of(sandboxId: string): Promise<View> {
    const { world, desired } = this.#context;
    const live = world.endpointsOfSandbox(sandboxId).filter(({ removing }) => !removing);
    const networks = [...new Set(live.map(({ spec }) => spec.network))].sort();
    const key = networks.join(',');
    const known = this.#views.get(key);
    if (known) return known;
    const view: View = { number: await desired.numbers.allocate('view', key || EMPTY), networks };
    this.#views.set(key, view);
    await this.#fill(view);
    return view;
  }

  /** The sandbox has switched: a view that nobody uses any more is dropped. */
  settle(sandboxId: string, view: View | undefined): void {
    const before = this.#bySandbox.get(sandboxId);
    if (view) this.#bySandbox.set(sandboxId, view.networks.join(','));
    else this.#bySandbox.delete(sandboxId);
    if (before === undefined || before === view?.networks.join(',')) return;
    if ([...this.#bySandbox.values()].includes(before)) return;
    const unused = this.#views.get(before);
    this.#views.delete(before);
    if (!unused) return;
    this.#drop(unused);
    this.#unused.add(before || EMPTY);
  }
}
