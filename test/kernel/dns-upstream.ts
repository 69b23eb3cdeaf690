/** Upstream servers for the tests of forwarding: a scripted one on loopback, and unbound with data of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { frame, unframe } from './dns-place.ts';

export interface Seen {
  readonly name: string;
  readonly type: number;
  readonly stream: boolean;
  readonly edns: boolean;
  readonly id: number;
  readonly port: number;
  readonly message: Buffer;
}

/** What to send back: messages, or nothing. */
export type Script = (seen: Seen) => readonly Buffer[] | Promise<readonly Buffer[]>;

export class Upstream {
  readonly seen: Seen[] = [];
  readonly #udp = dgram.createSocket('udp4');
  readonly #tcp = net.createServer({ allowHalfOpen: true });
  readonly #script: Script;
  port = 0;

  private constructor(script: Script) {
    this.#script = script;
  }

  static async start(script: Script): Promise<Upstream> {
    const upstream = new Upstream(script);
    upstream.#tcp.listen(0, '127.0.0.1');
    await once(upstream.#tcp, 'listening');
    upstream.port = (upstream.#tcp.address() as AddressInfo).port;
    upstream.#udp.bind(upstream.port, '127.0.0.1');
    await once(upstream.#udp, 'listening');
    upstream.#udp.on('message', async (message, from) => {
      for (const answer of await upstream.#take(message, false, from.port))
        upstream.#udp.send(answer, from.port, from.address);
    });
    upstream.#tcp.on('connection', (socket) => {
      let received = Buffer.alloc(0);
      socket.on('error', () => undefined);
      socket.on('data', async (chunk: Buffer) => {
        received = Buffer.concat([received, chunk]);
        const [message] = unframe(received);
        if (!message) return;
        for (const answer of await upstream.#take(message, true, socket.remotePort ?? 0)) socket.write(frame(answer));
      });
    });
    return upstream;
  }

  get text(): string {
    return `127.0.0.1:${this.port}`;
  }

  close(): void {
    this.#udp.close();
    this.#tcp.close();
  }

  async #take(message: Buffer, stream: boolean, port: number): Promise<readonly Buffer[]> {
    const labels: string[] = [];
    let at = 12;
    for (let size = message[at]!; size > 0; at += size + 1, size = message[at]!)
      labels.push(message.toString('latin1', at + 1, at + 1 + size));
    const seen: Seen = {
      name: labels.join('.'),
      type: message.readUInt16BE(at + 1),
      stream,
      edns: message.readUInt16BE(10) > 0,
      id: message.readUInt16BE(0),
      port,
      message,
    };
    this.seen.push(seen);
    return this.#script(seen);
  }
}

/** An answer to what was seen: `records` are whole records after the question, `flags` the header's second word. */
export function answerTo(
  { message, edns }: Seen,
  {
    records = [],
    authority = [],
    flags = 0x8180,
    opt = edns,
  }: { records?: readonly Buffer[]; authority?: readonly Buffer[]; flags?: number; opt?: boolean } = {},
): Buffer {
  const end = message.length - (edns ? 11 : 0);
  const tail = opt ? [Buffer.from('0000290200000000000000', 'hex')] : [];
  const out = Buffer.concat([message.subarray(0, end), ...records, ...authority, ...tail]);
  out.writeUInt16BE(flags, 2);
  out.writeUInt16BE(records.length, 6);
  out.writeUInt16BE(authority.length, 8);
  out.writeUInt16BE(tail.length, 10);
  return out;
}

/** An A record of the question's name. */
export const addressRecord = (last: number, ttl = 60): Buffer => {
  const out = Buffer.from('c00c00010001000000000004c0000200', 'hex');
  out.writeUInt32BE(ttl, 6);
  out[15] = last;
  return out;
};

/** A SOA of the root with the given TTL and minimum. */
export function soaRecord(ttl: number, minimum: number): Buffer {
  const out = Buffer.alloc(11 + 22);
  out.writeUInt16BE(6, 1);
  out.writeUInt16BE(1, 3);
  out.writeUInt32BE(ttl, 5);
  out.writeUInt16BE(22, 9);
  out.writeUInt32BE(minimum, 29);
  return out;
}

/** unbound on a loopback port with local data only; it is told nothing of the world and asks nobody. */
export class Unbound {
  readonly port: number;
  readonly #dir: string;
  readonly #child: ChildProcess;

  private constructor(port: number, dir: string, child: ChildProcess) {
    this.port = port;
    this.#dir = dir;
    this.#child = child;
  }

  static async start(data: readonly string[]): Promise<Unbound> {
    const probe = dgram.createSocket('udp4');
    probe.bind(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address();
    probe.close();
    const dir = mkdtempSync(join(tmpdir(), `sluice-dns-${process.pid}-`));
    writeFileSync(
      join(dir, 'unbound.conf'),
      `server:
  interface: 127.0.0.1@${port}
  access-control: 127.0.0.0/8 allow
  directory: "${dir}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  max-udp-size: 1232
  local-zone: "." static
  local-data: ". 30 IN SOA . nobody.invalid. 1 3600 1200 604800 30"
${data.map((line) => `  local-data: '${line}'`).join('\n')}
remote-control:
  control-enable: no
`,
    );
    const child = spawn('unbound', ['-d', '-c', join(dir, 'unbound.conf')], { stdio: ['ignore', 'ignore', 'pipe'] });
    await new Promise<void>((resolve, reject) => {
      let text = '';
      child.stderr!.on('data', (chunk: Buffer) => {
        text += chunk;
        if (text.includes('start of service')) resolve();
      });
      child.once('exit', () => reject(new Error(`unbound ended: ${text}`)));
      child.once('error', reject);
    });
    return new Unbound(port, dir, child);
  }

  get text(): string {
    return `127.0.0.1:${this.port}`;
  }

  async close(): Promise<void> {
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
    rmSync(this.#dir, { recursive: true });
  }
}
