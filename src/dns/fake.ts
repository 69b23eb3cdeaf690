/** The name server in memory: the same answers, no sockets, no upstream. For tests of what stands on the contract, and for the simulation. */
import type { Namespace } from '../contracts/kernel.ts';
import type { NameChange, NameRecord, NameSandbox, NameServer, NameView } from '../contracts/names.ts';
import { DROP, FORWARD, Responder } from './answer.ts';
import { NameTable } from './table.ts';
import { MESSAGE_BYTES_MAX } from './wire.ts';

/** Ports are given from here on, above the kernel's default range for outgoing connections. */
const FIRST_PORT = 61_000;

interface Home {
  readonly sandbox: NameSandbox;
  readonly port: number;
  destroyed: boolean;
}

export class FakeNameServer implements NameServer {
  /** Lower-cased names that would have been asked upstream. */
  readonly forwarded: string[] = [];
  readonly #homes = new Map<string, Home>();
  readonly #tables = new Map<number, NameTable>();
  readonly #responder = new Responder();

  ensureSandbox(sandbox: NameSandbox): number {
    const known = this.#homes.get(sandbox.id);
    const same = known?.sandbox.namespace.identity === sandbox.namespace.identity;
    const port = (same ? known?.port : undefined) ?? this.#freePort(sandbox);
    this.#homes.set(sandbox.id, { sandbox, port, destroyed: false });
    return port;
  }

  removeSandbox(id: string): void {
    this.#homes.delete(id);
  }

  setView(view: NameView): void {
    this.#tables.set(view.view, new NameTable(view));
  }

  changeView(change: NameChange): void {
    this.#tables.get(change.view)?.change(change);
  }

  removeView(view: number): void {
    this.#tables.delete(view);
  }

  audit(): readonly { readonly id: string; readonly port: number }[] {
    const destroyed = [...this.#homes.entries()].filter(([, home]) => home.destroyed);
    for (const [, home] of destroyed) home.destroyed = false;
    return destroyed.map(([id, { port }]) => ({ id, port }));
  }

  async close(): Promise<void> {
    this.#homes.clear();
  }

  /** Of all views. */
  records(): NameRecord[] {
    return [...this.#tables.values()].flatMap((table) => [...table.records()]);
  }

  /** As `ss -K` inside the namespace: the sockets there are gone until the next audit. */
  destroySockets(namespace: Namespace): void {
    for (const home of this.#homes.values())
      if (home.sandbox.namespace.identity === namespace.identity) home.destroyed = true;
  }

  /** Sends a message to the port in the namespace; null when nobody answers. A forwarded question is answered with SERVFAIL. */
  ask(namespace: Namespace, port: number, message: Uint8Array, stream = false): Uint8Array | null {
    const home = [...this.#homes.values()].find(
      (one) => one.port === port && one.sandbox.namespace.identity === namespace.identity && !one.destroyed,
    );
    if (!home) return null;
    const buffer = Buffer.alloc(MESSAGE_BYTES_MAX);
    buffer.set(message);
    let size = this.#responder.answer(this.#tables.get(home.sandbox.view), buffer, message.length, 1024, stream);
    if (size === DROP) return null;
    if (size === FORWARD) {
      this.forwarded.push(this.#responder.question.name);
      size = this.#responder.fail(buffer, 2);
    }
    return buffer.subarray(0, size);
  }

  #freePort({ namespace, port }: NameSandbox): number {
    const taken = new Set(
      [...this.#homes.values()]
        .filter((home) => home.sandbox.namespace.identity === namespace.identity)
        .map((home) => home.port),
    );
    let free = port ?? FIRST_PORT;
    while (taken.has(free)) free++;
    return free;
  }
}
