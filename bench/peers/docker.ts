/** The Docker daemon of the machine, by its API: what a client of it pays, without the start of its command line. */
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { SluiceError } from '../../src/errors.ts';

export interface Docker {
  readonly given: string;
  /** Makes a bridge network; the answer removes it. */
  createNetwork(name: string): Promise<() => Promise<void>>;
}

const SOCKET = '/var/run/docker.sock';
const LIMIT_MS = 30_000;

function call(socketPath: string, method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const text = body === undefined ? '' : JSON.stringify(body);
    const headers = { host: 'docker', 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
    const sent = request({ socketPath, method, path, headers, timeout: LIMIT_MS }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        const said = Buffer.concat(chunks).toString('utf8');
        if ((answer.statusCode ?? 500) < 300) resolve(said === '' ? {} : JSON.parse(said));
        else reject(new SluiceError('internal', `docker: ${method} ${path}: ${answer.statusCode} ${said}`));
      });
    });
    sent.on('timeout', () => sent.destroy(new Error(`docker: ${method} ${path}: no answer in ${LIMIT_MS} ms`)));
    sent.on('error', reject);
    sent.end(text);
  });
}

/** Null where no daemon answers. */
export async function connectDocker(socket = SOCKET): Promise<Docker | null> {
  if (!existsSync(socket)) return null;
  let version: Record<string, unknown>;
  try {
    version = await call(socket, 'GET', '/version');
  } catch (error) {
    // A socket that outlived its daemon.
    if ((error as NodeJS.ErrnoException).code === 'ECONNREFUSED') return null;
    throw error;
  }
  return {
    given: `Docker ${version.Version}, by its API`,
    async createNetwork(name) {
      const { Id } = await call(socket, 'POST', '/networks/create', { Name: name, Driver: 'bridge' });
      return async () => void (await call(socket, 'DELETE', `/networks/${Id}`));
    },
  };
}
