/** Namespaces with the name server in them, and clients of several kinds, for the tests of src/dns. */
import { execFile } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdirSync, readdirSync } from 'node:fs';
import { Socket } from 'node:net';
import { systemClock } from '../../src/clock.ts';
import type { Kernel, Namespace } from '../../src/contracts/kernel.ts';
import type { NameView } from '../../src/contracts/names.ts';
import { createNameServer, type NameServerOptions, type RunningNameServer } from '../../src/dns/server.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { libc } from '../../src/kernel/libc.ts';
import { closeFd, socketAddress, udpSocketIn } from '../../src/kernel/socket-in.ts';
import { slowness } from '../../src/lab/slowness.ts';

const PREFIX = 'sluice-dns-';
const FOLDER = '/run/netns';
export const RESOLVER = '127.0.0.11';
/** Milliseconds that something may take here; more on an emulated machine. */
export const within = (ms: number): number => ms * slowness();

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

export interface Ran {
  readonly stdout: string;
  readonly stderr: string;
  readonly code: number;
}

export class DnsPlace {
  readonly kernel: Kernel;
  readonly #namespaces: Namespace[] = [];
  readonly #servers: RunningNameServer[] = [];

  constructor() {
    this.kernel = createKernel();
    this.#sweep();
  }

  /** A fresh namespace with lo up. */
  namespace(): Namespace {
    const path = `${FOLDER}/${PREFIX}${process.pid}-${process.hrtime.bigint()}`;
    const namespace = this.kernel.namespaces.ensure(path);
    this.#namespaces.push(namespace);
    return namespace;
  }

  server(options: Partial<NameServerOptions> = {}): RunningNameServer {
    const server = createNameServer({ clock: systemClock, ...options });
    this.#servers.push(server);
    return server;
  }

  async close(): Promise<void> {
    for (const server of this.#servers) await server.close();
    for (const namespace of this.#namespaces) {
      namespace[Symbol.dispose]();
      this.kernel.namespaces.remove(namespace.path);
    }
    this.kernel[Symbol.dispose]();
  }

  /** What a run that died left behind. */
  #sweep(): void {
    mkdirSync(FOLDER, { recursive: true });
    for (const name of readdirSync(FOLDER, { withFileTypes: true }).map((entry) => entry.name)) {
      const pid = /^sluice-dns-(\d+)-/.exec(name)?.[1];
      if (pid && Number(pid) !== process.pid && !alive(Number(pid))) this.kernel.namespaces.remove(`${FOLDER}/${name}`);
    }
  }
}

export const view = (parts: Partial<NameView> & { readonly view: number }): NameView => ({
  records: [],
  reverse: new Map(),
  subnets: [],
  forward: false,
  ...parts,
});

/** Runs a program of the machine inside a namespace; ends within `limitMs`. */
export function inside(namespace: Namespace, command: readonly string[], limitMs = within(15_000)): Promise<Ran> {
  return new Promise((resolve) => {
    execFile(
      'nsenter',
      [`--net=${namespace.path}`, '--', ...command],
      { timeout: limitMs, maxBuffer: 16 << 20 },
      (error, stdout, stderr) =>
        resolve({ stdout, stderr, code: typeof error?.code === 'number' ? error.code : error ? -1 : 0 }),
    );
  });
}

export interface Dug {
  readonly status: string;
  readonly flags: string;
  readonly answers: readonly string[];
  readonly authority: boolean;
  readonly text: string;
}

export async function dig(namespace: Namespace, port: number, ...words: string[]): Promise<Dug> {
  const { stdout } = await inside(namespace, [
    'dig',
    `@${RESOLVER}`,
    '-p',
    String(port),
    '+tries=1',
    `+time=${within(6)}`,
    '+nocookie',
    ...words,
  ]);
  const section = (name: string): string[] =>
    (new RegExp(`;; ${name} SECTION:\\n([\\s\\S]*?)\\n\\n`).exec(stdout)?.[1] ?? '')
      .split('\n')
      .filter((line) => line !== '');
  return {
    status: /status: (\w+)/.exec(stdout)?.[1] ?? 'none',
    flags: /flags: ([^;]*);/.exec(stdout)?.[1] ?? '',
    answers: section('ANSWER').map((line) => line.replace(/\s+/g, ' ')),
    authority: section('AUTHORITY').some((line) => /\sSOA\s/.test(line)),
    text: stdout,
  };
}

/** A UDP client in the namespace, in this process: quick, and free to send anything. */
export class RawClient implements Disposable {
  readonly #socket: dgram.Socket;
  readonly #received: Buffer[] = [];
  #wake: (() => void) | undefined;
  readonly #port: number;

  constructor(namespace: Namespace, port: number) {
    this.#port = port;
    this.#socket = dgram.createSocket('udp4');
    this.#socket.on('message', (message) => {
      this.#received.push(message);
      this.#wake?.();
    });
    this.#socket.on('error', () => undefined);
    this.#socket.bind({ fd: udpSocketIn(namespace, '127.0.0.1', 0), exclusive: true });
  }

  send(message: Uint8Array): void {
    this.#socket.send(message, this.#port, RESOLVER);
  }

  /** The next datagram, null when none comes in time. */
  async receive(limitMs = within(3000)): Promise<Buffer | null> {
    if (this.#received.length === 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, limitMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    return this.#received.shift() ?? null;
  }

  async ask(message: Uint8Array, limitMs?: number): Promise<Buffer | null> {
    this.send(message);
    return this.receive(limitMs);
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** A TCP connection to the resolver from inside the namespace, in this process. */
export function connectIn(namespace: Namespace, port: number): Socket {
  const to = socketAddress(RESOLVER, port);
  // The server is this very process: the connection is made by the kernel alone, without waiting for an accept.
  const fd = namespace.run(() => {
    const made = libc.socket(2, 1 | 0o2000000, 0);
    if (libc.connect(made, to, to.length) < 0) {
      closeFd(made);
      throw new Error(`connect to ${RESOLVER} port ${port} in ${namespace.path} failed`);
    }
    return made;
  });
  return new Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
}

export function frame(message: Uint8Array): Buffer {
  const out = Buffer.alloc(2 + message.length);
  out.writeUInt16BE(message.length, 0);
  out.set(message, 2);
  return out;
}

/** Messages in what a stream has sent, in order. */
export function unframe(bytes: Buffer): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; at + 2 <= bytes.length; ) {
    const size = bytes.readUInt16BE(at);
    if (at + 2 + size > bytes.length) break;
    found.push(bytes.subarray(at + 2, at + 2 + size));
    at += 2 + size;
  }
  return found;
}

/** One question over TCP; null when the connection ends without an answer or nothing comes in time. */
export async function streamAsk(
  namespace: Namespace,
  port: number,
  message: Uint8Array,
  limitMs = within(3000),
): Promise<Buffer | null> {
  const socket = connectIn(namespace, port);
  const timer = setTimeout(() => socket.destroy(), limitMs);
  let received = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (unframe(received).length > 0) socket.destroy();
  });
  socket.on('error', () => undefined);
  socket.on('end', () => socket.destroy());
  socket.write(frame(message));
  await once(socket, 'close');
  clearTimeout(timer);
  return unframe(received)[0] ?? null;
}

/** A question as most stub resolvers send it; `payload` adds EDNS. */
export function question(
  name: string,
  type: number,
  { id = 0x1234, rd = true, payload, flags = 0 }: { id?: number; rd?: boolean; payload?: number; flags?: number } = {},
): Buffer {
  const labels = name === '' ? [] : name.split('.');
  const wire = Buffer.concat([
    ...labels.map((label) => Buffer.concat([Buffer.of(label.length), Buffer.from(label, 'latin1')])),
    Buffer.of(0),
  ]);
  const head = Buffer.alloc(12);
  head.writeUInt16BE(id, 0);
  head.writeUInt16BE((rd ? 0x0100 : 0) | flags, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(payload === undefined ? 0 : 1, 10);
  const tail = Buffer.of(type >> 8, type & 255, 0, 1);
  const opt =
    payload === undefined ? Buffer.alloc(0) : Buffer.of(0, 0, 41, payload >> 8, payload & 255, 0, 0, 0, 0, 0, 0);
  return Buffer.concat([head, wire, tail, opt]);
}
