/** Sandboxes: namespace, cgroup, resolver, identity in the data plane. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from '../contracts/kernel.ts';
import { fault } from '../fault.ts';
import type { Sandbox } from '../model/sandbox.ts';
import { type Context, sandboxDir } from './context.ts';
import type { Spaces } from './spaces.ts';
import type { Views } from './view.ts';

/** `Status.detail` of a sandbox that is ready. */
export interface SandboxDetail {
  readonly netnsPath: string;
  readonly cgroupPath?: string;
  readonly resolvConf?: string;
  readonly dnsPort?: number;
}

interface Made extends Pick<SandboxDetail, 'cgroupPath' | 'resolvConf'> {
  readonly namespace: Namespace;
}

/** Inside every namespace that we make. Docker's: unprivileged ports and ping; ours: no router advertisements, addresses at once. */
const SYSCTLS: Readonly<Record<string, string>> = {
  'net.ipv4.ip_unprivileged_port_start': '0',
  'net.ipv4.ping_group_range': '0 2147483647',
  'net.ipv6.conf.all.accept_ra': '0',
  'net.ipv6.conf.default.accept_ra': '0',
  'net.ipv6.conf.default.accept_dad': '0',
  // The guard knows an endpoint's link-local address by its MAC.
  'net.ipv6.conf.default.addr_gen_mode': '0',
};

/** Every endpoint that comes or goes has its sandbox looked at: what the sandbox itself is made of, so often at most, milliseconds. */
const WHOLE_MS = 1_000;

export class SandboxController {
  readonly #context: Context;
  readonly #spaces: Spaces;
  readonly #views: Views;
  /** Monotonic milliseconds and revision of the last look at the whole of each. */
  readonly #looked = new Map<string, { readonly at: number; readonly revision: number }>();

  constructor(context: Context, spaces: Spaces, views: Views) {
    this.#context = context;
    this.#spaces = spaces;
    this.#views = views;
  }

  /** What a crash left of numbers of sandboxes, endpoints and networks that are gone. Before anything is reconciled. */
  async load(): Promise<void> {
    const { world, desired } = this.#context;
    const { sandboxes, endpoints, networks } = world;
    await desired.numbers.collect('attachment', (id) => [sandboxes, endpoints, networks].some((all) => all.has(id)));
  }

  async reconcile(id: string): Promise<void> {
    const sandbox = this.#context.world.sandboxes.get(id);
    if (!sandbox) return;
    if (sandbox.removing) await this.#remove(sandbox);
    else await this.#ensure(sandbox);
  }

  async #ensure(sandbox: Sandbox): Promise<void> {
    const { desired, dataplane, kernel, names, tracker } = this.#context;
    if (sandbox.spec.origin === 'host') {
      await tracker.ready(sandbox, { netnsPath: kernel.host.path } satisfies SandboxDetail);
      return;
    }
    const before = tracker.detail<SandboxDetail>('sandbox', sandbox.id);
    const { namespace, cgroupPath, resolvConf } = this.#recent(sandbox, before) ?? this.#whole(sandbox);
    const view = await this.#views.of(sandbox.id);
    const dnsPort = names.ensureSandbox({
      id: sandbox.id,
      namespace,
      view: view.number,
      servers: sandbox.spec.dns?.servers,
      port: before.dnsPort,
    });
    fault('sandbox.resolver');
    const number = await desired.numbers.allocate('attachment', sandbox.id);
    dataplane.ensureSandbox({ id: sandbox.id, number, view: view.number, namespace, dnsPort });
    this.#views.settle(sandbox.id, view);
    fault('sandbox.dataplane');
    await tracker.ready(sandbox, {
      netnsPath: namespace.path,
      cgroupPath,
      resolvConf,
      dnsPort,
    } satisfies SandboxDetail);
  }

  #whole(sandbox: Sandbox): Made {
    const { namespace, fresh } = this.#spaces.ensure(sandbox);
    fault('sandbox.netns');
    const wasReady = this.#context.tracker.isReady('sandbox', sandbox.id);
    if (sandbox.spec.origin === 'own' && (fresh || !wasReady)) this.#prepare(sandbox, namespace);
    const cgroupPath = this.#cgroup(sandbox);
    fault('sandbox.cgroup');
    const resolvConf = this.writeResolvConf(sandbox);
    this.#looked.set(sandbox.id, { at: this.#context.clock.monotonic(), revision: sandbox.revision });
    return { namespace, cgroupPath, resolvConf };
  }

  /** What it is made of, when that was looked at a moment ago. */
  #recent(sandbox: Sandbox, { cgroupPath, resolvConf }: Partial<SandboxDetail>): Made | null {
    const { tracker, clock } = this.#context;
    const looked = this.#looked.get(sandbox.id);
    if (looked?.revision !== sandbox.revision || clock.monotonic() - looked.at > WHOLE_MS) return null;
    const namespace = this.#spaces.get(sandbox.id);
    return namespace && tracker.isReady('sandbox', sandbox.id) ? { namespace, cgroupPath, resolvConf } : null;
  }

  #prepare(sandbox: Sandbox, namespace: Namespace): void {
    const settings = Object.entries({ ...SYSCTLS, ...sandbox.spec.sysctls });
    // One visit for all.
    namespace.run(() => {
      for (const [name, value] of settings) namespace.setSysctl(name, value);
    });
  }

  #cgroup(sandbox: Sandbox): string | undefined {
    if (sandbox.spec.origin !== 'own') return undefined;
    const path = join(this.#context.cgroupBase, sandbox.id);
    this.#context.kernel.cgroups.ensure(path);
    return path;
  }

  /** Written beside and renamed over, only when it differs: a reader never sees half of it. */
  writeResolvConf(sandbox: Sandbox): string | undefined {
    if (sandbox.spec.origin !== 'own') return undefined;
    const dir = sandboxDir(this.#context, sandbox.id);
    const path = join(dir, 'resolv.conf');
    const text = this.#context.resolvConf(sandbox);
    if (readText(path) === text) return path;
    mkdirSync(dir, { recursive: true });
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
    return path;
  }

  async #remove(sandbox: Sandbox): Promise<void> {
    this.#looked.delete(sandbox.id);
    const { world, kernel, names, dataplane, desired, tracker } = this.#context;
    // Its endpoints and its container go first; the last one's end triggers this again.
    if (world.endpointsOfSandbox(sandbox.id).length > 0 || world.containerOfSandbox(sandbox.id)) return;
    names.removeSandbox(sandbox.id);
    dataplane.removeSandbox(sandbox.id);
    this.#views.settle(sandbox.id, undefined);
    fault('sandbox.withdrawn');
    this.#spaces.close(sandbox.id);
    if (sandbox.spec.origin === 'own') {
      await kernel.cgroups.remove(join(this.#context.cgroupBase, sandbox.id), { kill: true });
      kernel.namespaces.remove(this.#spaces.path(sandbox));
      rmSync(sandboxDir(this.#context, sandbox.id), { recursive: true, force: true });
    }
    fault('sandbox.removed');
    await desired.numbers.release('attachment', sandbox.id);
    await desired.sandboxes.forget(sandbox);
    tracker.forget('sandbox', sandbox.id);
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Absent: it is about to be written.
    return null;
  }
}
