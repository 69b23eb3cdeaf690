/** One question to one upstream server: a socket, a random id and a random source port each, a time limit, UDP first where it may be. */
import dgram from 'node:dgram';
import net from 'node:net';
import type { Clock } from '../clock.ts';
import { SluiceError } from '../errors.ts';
import { type Reply, readReply } from './reply.ts';
import { CLASS_IN, encodeName, FLAG, HEADER_BYTES, OPT_BYTES, putOpt, putU16, u16 } from './wire.ts';

export interface Server {
  /** IPv4 or IPv6, with a zone (`fe80::1%eth0`) where it needs one. */
  readonly address: string;
  readonly port: number;
  /** As it was written. */
  readonly text: string;
}

/** `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, `[2001:db8::1]:5353`, `fe80::1%eth0`. Fails with `config.invalid`. */
export function parseServer(text: string): Server {
  const [, address = text, port = '53'] =
    /^\[([^\]]+)\](?::(\d{1,5}))?$/.exec(text) ?? /^([\d.]+):(\d{1,5})$/.exec(text) ?? [];
  if (net.isIP(address) === 0 || Number(port) < 1 || Number(port) > 65_535)
    throw new SluiceError('config.invalid', `DNS server "${text}" is not an address or address:port`, { server: text });
  return { address, port: Number(port), text };
}

/** What is asked upstream, in the client's words but with our own EDNS. */
export interface Query {
  /** Header and question, as the client sent them. */
  readonly head: Uint8Array;
  readonly dnssecOk: boolean;
  /** Ask over TCP at once, as the client did. */
  readonly stream: boolean;
}

/** `refused`: the server cannot be reached, at once. `silent`: nothing within the time. `bad`: nonsense. */
export type Outcome = Reply | 'refused' | 'silent' | 'bad';

/** Datagrams that do not answer the query before we stop listening: somebody guesses. */
const STRAYS_MAX = 32;

/** A query as it goes out: fresh id, RD and the client's CD and AD, one OPT record (`edns`). */
export function encodeQuery(query: Query, id: number, edns: boolean): Buffer {
  const { head } = query;
  const message = Buffer.alloc(head.length + (edns ? OPT_BYTES : 0));
  message.set(head);
  putU16(message, 0, id);
  message[2] = FLAG.RD;
  message[3] = head[3]! & (FLAG.CD | FLAG.AD);
  putU16(message, 4, 1);
  putU16(message, 6, 0);
  putU16(message, 8, 0);
  putU16(message, 10, edns ? 1 : 0);
  if (edns) putOpt(message, head.length, 0, query.dnssecOk);
  return message;
}

/** A query of our own. */
export function probeQuery(name: string, type: number): Query {
  const wire = encodeName(name)!;
  const head = Buffer.alloc(HEADER_BYTES + wire.length + 4);
  head.set(wire, HEADER_BYTES);
  putU16(head, head.length - 4, type);
  putU16(head, head.length - 2, CLASS_IN);
  return { head, dnssecOk: false, stream: false };
}

/** Exchanges that are under way; `close` ends them all as `silent`. */
export class Exchanges {
  readonly #clock: Clock;
  readonly #open = new Set<() => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Asks one server, over TCP when UDP's answer was cut. Never rejects. */
  async ask(server: Server, query: Query, edns: boolean, limitMs: number): Promise<Outcome> {
    const deadline = this.#clock.monotonic() + limitMs;
    const message = encodeQuery(query, u16(this.#clock.random(2), 0), edns);
    if (!query.stream) {
      const outcome = await this.#overUdp(server, message, query.head.length, limitMs);
      if (outcome !== 'truncated') return outcome;
    }
    return this.#overTcp(server, message, query.head.length, Math.max(1, deadline - this.#clock.monotonic()));
  }

  close(): void {
    for (const end of this.#open) end();
  }

  /** A promise with a time limit and one end, whatever comes first; `release` frees what the exchange holds. */
  #limited<T>(limitMs: number, begin: (finish: (outcome: T | 'silent') => void) => () => void): Promise<T | 'silent'> {
    return new Promise((resolve) => {
      let release: (() => void) | undefined;
      const finish = (outcome: T | 'silent'): void => {
        if (!this.#open.delete(end)) return;
        timer.cancel();
        release?.();
        resolve(outcome);
      };
      const end = (): void => finish('silent');
      this.#open.add(end);
      const timer = this.#clock.after(limitMs, end);
      release = begin(finish);
    });
  }

  #overUdp(server: Server, message: Buffer, end: number, limitMs: number): Promise<Outcome | 'truncated'> {
    return this.#limited<Outcome | 'truncated'>(limitMs, (finish) => {
      const family = server.address.includes(':') ? 6 : 4;
      const socket = dgram.createSocket({
        type: family === 6 ? 'udp6' : 'udp4',
        // It is an address already.
        lookup: (host, _options, done) => done(null, host, family),
      });
      let strays = 0;
      let open = true;
      socket.on('error', () => finish('refused'));
      socket.on('message', (answer) => {
        const reading = readReply(answer, message, end);
        if (reading !== 'stray') finish(reading);
        else if (++strays >= STRAYS_MAX) finish('bad');
      });
      // Connected: the kernel takes datagrams of that server alone, and tells when nobody listens there.
      socket.on('connect', () => {
        if (open) socket.send(message);
      });
      socket.connect(server.port, server.address);
      return () => {
        open = false;
        socket.close();
      };
    });
  }

  #overTcp(server: Server, message: Buffer, end: number, limitMs: number): Promise<Outcome> {
    return this.#limited<Outcome>(limitMs, (finish) => {
      const socket = net.connect({ host: server.address, port: server.port });
      const chunks: Buffer[] = [];
      let size = 0;
      socket.on('error', () => finish('refused'));
      socket.on('end', () => finish('bad'));
      socket.on('connect', () => {
        const framed = Buffer.alloc(2 + message.length);
        framed.writeUInt16BE(message.length, 0);
        framed.set(message, 2);
        socket.write(framed);
      });
      socket.on('data', (chunk) => {
        chunks.push(chunk);
        size += chunk.length;
        if (size < 2) return;
        const received = chunks.length === 1 ? chunk : Buffer.concat(chunks);
        chunks.splice(0, chunks.length, received);
        const length = received.readUInt16BE(0);
        if (size < 2 + length) return;
        const reading = readReply(received.subarray(2, 2 + length), message, end);
        finish(reading === 'stray' || reading === 'truncated' ? 'bad' : reading);
      });
      return () => socket.destroy();
    });
  }
}
