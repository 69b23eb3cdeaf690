/** The sandboxes' network namespaces, held open while their sandboxes live. */
import type { Namespace } from '../contracts/kernel.ts';
import { SluiceError } from '../errors.ts';
import type { Sandbox } from '../model/sandbox.ts';
import { type Context, netnsPath } from './context.ts';

export class Spaces {
  readonly #context: Context;
  readonly #open = new Map<string, Namespace>();

  constructor(context: Context) {
    this.#context = context;
  }

  /** Null before `ensure` has succeeded. */
  get(sandboxId: string): Namespace | null {
    return this.#open.get(sandboxId) ?? null;
  }

  all(): Namespace[] {
    return [...this.#open.values()];
  }

  /**
   * The sandbox's namespace: made when it is ours and absent, opened when it is somebody else's. `fresh`: it is another one than
   * before, or was never seen by this process.
   */
  ensure(sandbox: Sandbox): { namespace: Namespace; fresh: boolean } {
    const { kernel } = this.#context;
    if (sandbox.spec.origin === 'host') return { namespace: kernel.host, fresh: false };
    const known = this.#open.get(sandbox.id);
    const path = this.path(sandbox);
    if (sandbox.spec.origin === 'attached' && !kernel.namespaces.exists(path)) {
      this.close(sandbox.id);
      throw new SluiceError('kernel.notfound', `no network namespace at ${path}: whoever made it has removed it`, {
        path,
      });
    }
    const now = sandbox.spec.origin === 'own' ? kernel.namespaces.ensure(path) : kernel.namespaces.open(path);
    if (known?.identity === now.identity) {
      now[Symbol.dispose]();
      return { namespace: known, fresh: false };
    }
    this.close(sandbox.id);
    this.#open.set(sandbox.id, now);
    return { namespace: now, fresh: true };
  }

  path(sandbox: Sandbox): string {
    return sandbox.spec.netns ?? netnsPath(this.#context, sandbox.id);
  }

  close(sandboxId: string): void {
    this.#open.get(sandboxId)?.[Symbol.dispose]();
    this.#open.delete(sandboxId);
  }

  closeAll(): void {
    for (const id of [...this.#open.keys()]) this.close(id);
  }
}
