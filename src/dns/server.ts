/**
 * The internal DNS: a view's names at 127.0.0.11 in every sandbox, anything else from the upstream servers. Who asks is known by the
 * socket that the question came in by, never by an address in it.
 */
import type { Socket } from 'node:net';
import type { Clock } from '../clock.ts';
import type { NameChange, NameSandbox, NameServer, NameView } from '../contracts/names.ts';
import { DatagramBatch, sendDatagram } from '../kernel/datagram.ts';
import type { Logger } from '../log.ts';
import { dnsDropped, dnsQueries } from '../metrics.ts';
import { answerLimit, FORWARD, Responder } from './answer.ts';
import { type Ask, Forwarder } from './forward.ts';
import { failure, writeReply } from './reply.ts';
import { HostResolvers } from './resolv.ts';
import { SandboxSockets } from './socket.ts';
import { Stream } from './stream.ts';
import { NameTable } from './table.ts';
import { parseServer, type Server } from './upstream.ts';
import { MESSAGE_BYTES_MAX, QUERY_BYTES_MAX, RCODE, rcodeName } from './wire.ts';

/** Datagrams received in one system call. */
const BATCH = 32;
/** Connections of one sandbox, of which the longest unused makes room; and of all together. */
const STREAMS_PER_SANDBOX_MAX = 64;
const STREAMS_MAX = 2048;

export interface NameServerOptions {
  readonly clock: Clock;
  readonly logger?: Logger;
  /** Upstream servers instead of the host's (setting `dns`); none given or empty: the host's. */
  readonly resolvers?: readonly string[];
  /** The host's resolv.conf and the one behind systemd-resolved's stub, for tests. */
  readonly hostFiles?: { readonly path?: string; readonly behindStub?: string };
}

/** The name server with what its owner needs beside the contract. */
export interface RunningNameServer extends NameServer {
  /** Calls back when the host's resolv.conf has changed. */
  onResolversChange(changed: () => void): void;
  /** Calls back when a sandbox's sockets had to move to another port, at once and not only with the next `audit`. */
  onPortChange(changed: (id: string, port: number) => void): void;
  /** Questions that wait for upstream servers, exchanges under way, replies kept and their octets, open connections. */
  readonly load: Forwarder['load'] & { readonly streams: number };
}

interface Home {
  readonly id: string;
  readonly sockets: SandboxSockets;
  readonly streams: Set<Stream>;
  view: number;
  servers: readonly Server[] | undefined;
  /** Sockets were made anew since the last audit. */
  remade: boolean;
  /** As the owner knows it. */
  port: number;
}

/** Fails with `config.invalid` when `resolvers` holds what is no address. */
export function createNameServer(options: NameServerOptions): RunningNameServer {
  return new DnsServer(options);
}

class DnsServer implements RunningNameServer {
  readonly #clock: Clock;
  readonly #logger: Logger | undefined;
  readonly #forwarder: Forwarder;
  readonly #resolvers: readonly Server[] | undefined;
  readonly #host: HostResolvers;
  readonly #homes = new Map<string, Home>();
  readonly #tables = new Map<number, NameTable>();
  readonly #responder = new Responder();
  readonly #batch = new DatagramBatch(BATCH, QUERY_BYTES_MAX);
  /** Where answers are made that are not made in a receive slot. */
  readonly #scratch = Buffer.alloc(MESSAGE_BYTES_MAX);
  readonly #fast: { inc(): void }[] = [];
  #resolversChanged: () => void = () => undefined;
  #portChanged: (id: string, port: number) => void = () => undefined;
  #streams = 0;

  constructor({ clock, logger, resolvers = [], hostFiles }: NameServerOptions) {
    this.#clock = clock;
    this.#logger = logger;
    this.#resolvers = resolvers.length > 0 ? resolvers.map(parseServer) : undefined;
    this.#forwarder = new Forwarder(clock, logger);
    this.#host = new HostResolvers(
      clock,
      () => {
        this.#forwarder.clear();
        this.#logger?.info({ servers: this.#host.servers.map(({ text }) => text) }, 'resolv.conf of the host changed');
        this.#resolversChanged();
      },
      hostFiles,
    );
  }

  get load(): RunningNameServer['load'] {
    return { ...this.#forwarder.load, streams: this.#streams };
  }

  onResolversChange(changed: () => void): void {
    this.#resolversChanged = changed;
  }

  onPortChange(changed: (id: string, port: number) => void): void {
    this.#portChanged = changed;
  }

  ensureSandbox(sandbox: NameSandbox): number {
    const { id, namespace, view } = sandbox;
    const servers = sandbox.servers && sandbox.servers.length > 0 ? sandbox.servers.map(parseServer) : undefined;
    const known = this.#homes.get(id);
    if (known && known.sockets.namespace.identity === namespace.identity) {
      known.view = view;
      known.servers = servers;
      known.sockets.namespace = namespace;
      known.sockets.check();
      known.sockets.read(this.#tables.has(view));
      return known.port;
    }
    const earlier = sandbox.port ?? known?.port;
    this.removeSandbox(id);
    const home: Home = {
      id,
      view,
      servers,
      streams: new Set(),
      remade: false,
      port: 0,
      sockets: new SandboxSockets(
        namespace,
        this.#clock,
        this.#batch,
        {
          datagram: (slot, length) => this.#datagram(home, slot, length),
          connection: (socket) => this.#connection(home, socket),
          remade: (port) => this.#remade(home, port),
          failed: (error) => this.#failed(id, error),
        },
        earlier,
      ),
    };
    home.port = home.sockets.port;
    home.sockets.read(this.#tables.has(view));
    this.#homes.set(id, home);
    return home.port;
  }

  removeSandbox(id: string): void {
    const home = this.#homes.get(id);
    if (!home) return;
    this.#homes.delete(id);
    home.sockets.close();
    for (const stream of home.streams) stream.close();
  }

  setView(view: NameView): void {
    const table = new NameTable(view);
    const known = this.#tables.has(view.view);
    this.#tables.set(view.view, table);
    if (!known) this.#read(view.view, true);
    this.#tellUnfit(view.view, table.unfit);
  }

  changeView(change: NameChange): void {
    this.#tellUnfit(change.view, this.#tables.get(change.view)?.change(change) ?? []);
  }

  #tellUnfit(view: number, names: readonly string[]): void {
    if (names.length > 0)
      this.#logger?.warn({ view, names: names.slice(0, 10) }, 'names that DNS cannot hold are left out');
  }

  removeView(view: number): void {
    if (this.#tables.delete(view)) this.#read(view, false);
  }

  audit(): readonly { readonly id: string; readonly port: number }[] {
    const repaired: { readonly id: string; readonly port: number }[] = [];
    for (const home of this.#homes.values()) {
      try {
        home.sockets.check();
      } catch (error) {
        this.#failed(home.id, error);
      }
      if (!home.remade) continue;
      home.remade = false;
      repaired.push({ id: home.id, port: home.port });
    }
    return repaired;
  }

  async close(): Promise<void> {
    this.#host[Symbol.dispose]();
    for (const id of [...this.#homes.keys()]) this.removeSandbox(id);
    this.#forwarder.close();
    this.#tables.clear();
  }

  #read(view: number, reading: boolean): void {
    for (const home of this.#homes.values()) if (home.view === view) home.sockets.read(reading);
  }

  #remade(home: Home, port: number): void {
    home.remade = true;
    this.#logger?.debug({ sandbox: home.id, port }, 'resolver sockets had been destroyed and were opened anew');
    if (port === home.port) return;
    home.port = port;
    this.#portChanged(home.id, port);
  }

  /** The next audit tries again. */
  #failed(id: string, error: unknown): void {
    this.#logger?.warn({ sandbox: id, err: error }, 'resolver sockets could not be opened anew');
  }

  #datagram(home: Home, slot: number, length: number): void {
    const message = this.#batch.slots[slot]!;
    const size = this.#answer(home, message, length, this.#batch.port(slot), false);
    if (size > 0) this.#batch.stage(slot, size);
    if (size !== FORWARD) return;
    const to = this.#batch.sender(slot);
    this.#forward(home, message, false, (answer, bytes) => {
      if (!sendDatagram(home.sockets.udp, answer, bytes, to)) dnsDropped.inc({ reason: 'unsent' });
    });
  }

  #connection(home: Home, socket: Socket): void {
    if (this.#streams >= STREAMS_MAX) {
      dnsDropped.inc({ reason: 'connections' });
      socket.destroy();
      return;
    }
    if (home.streams.size >= STREAMS_PER_SANDBOX_MAX) {
      dnsDropped.inc({ reason: 'sandbox-connections' });
      let oldest: Stream | undefined;
      for (const stream of home.streams) if (!oldest || stream.lastUsed < oldest.lastUsed) oldest = stream;
      oldest?.close();
    }
    const stream = new Stream(
      socket,
      this.#clock,
      (question, answer) => this.#streamed(home, question, answer),
      () => {
        this.#streams--;
        home.streams.delete(stream);
      },
    );
    this.#streams++;
    home.streams.add(stream);
  }

  #streamed(home: Home, question: Buffer, answer: (message: Uint8Array | null) => void): void {
    const message = this.#scratch;
    message.set(question);
    // A connection has a peer port by nature; the guard against port 0 is for datagrams.
    const size = this.#answer(home, message, question.length, 1, true);
    if (size === FORWARD) this.#forward(home, message, true, (bytes, length) => answer(bytes.subarray(0, length)));
    else answer(size > 0 ? message.subarray(0, size) : null);
  }

  /** What the view says, in place; counted. Whatever a packet holds, it ends here and not the daemon. */
  #answer(home: Home, message: Buffer, length: number, port: number, stream: boolean): number {
    const responder = this.#responder;
    let size: number;
    try {
      size = responder.answer(this.#tables.get(home.view), message, length, port, stream);
    } catch (error) {
      dnsDropped.inc({ reason: 'internal' });
      this.#logger?.error(
        { sandbox: home.id, view: home.view, name: responder.question.name, err: error },
        'no answer',
      );
      return 0;
    }
    if (responder.verdict !== 'ok') {
      dnsDropped.inc({ reason: responder.verdict });
      if (size > 0) dnsQueries.inc({ path: 'slow', rcode: rcodeName(responder.rcode) });
    } else if (size > 0) {
      const { rcode } = responder;
      this.#fast[rcode] ??= dnsQueries.labels('fast', rcodeName(rcode));
      this.#fast[rcode].inc();
    }
    return size;
  }

  #forward(home: Home, message: Buffer, stream: boolean, send: (answer: Buffer, length: number) => void): void {
    const question = { ...this.#responder.question };
    const { end, name, literal, type, dnssecOk } = question;
    const head = Buffer.from(message.subarray(0, end));
    const limit = answerLimit(question, stream);
    const done: Ask['done'] = (reply, ageS, fresh) => {
      dnsQueries.inc({ path: fresh ? 'forward' : 'slow', rcode: rcodeName(reply.rcode) });
      if (this.#homes.get(home.id) !== home) return;
      this.#scratch.set(head);
      send(this.#scratch, writeReply(reply, ageS, this.#scratch, question, limit));
    };
    if (this.#forwarder.isProbe(name, type, home.id)) {
      done(failure(head, end, RCODE.SERVFAIL), 0, false);
      return;
    }
    // A label with a dot in it is not the two names that it reads like: its octets are the key.
    const words = literal ? `=${head.toString('latin1', 12, end)}` : name;
    const refusal = this.#forwarder.ask({
      sandbox: home.id,
      // CD and DO change the answer, AD and the transport do not.
      key: `${words} ${type} ${head[3]! & 0x10} ${dnssecOk}`,
      query: { head, dnssecOk, stream },
      servers: home.servers ?? this.#resolvers ?? this.#host.servers,
      done,
    });
    if (refusal === undefined) return;
    dnsDropped.inc({ reason: refusal });
    done(failure(head, end, RCODE.SERVFAIL), 0, false);
  }
}
