/** The Docker daemon of the machine, by its API: what a client of it pays, without the start of its command line. */
import { existsSync } from 'node:fs';
import { request } from 'node:http';
import { SluiceError } from '../../src/errors.ts';

export interface Docker {
  readonly given: string;
  /** Makes a bridge network; the answer removes it. */
  createNetwork(name: string): Promise<() => Promise<void>>;
  /** Loads a docker archive with one image of that name. */
  loadImage(archive: Buffer, name: string): Promise<DockerImage>;
  removeContainer(id: string): Promise<void>;
}

export interface DockerImage {
  /** `run -d` without a network: created and started; its id. */
  run(command: readonly string[]): Promise<string>;
  remove(): Promise<void>;
}

const SOCKET = '/var/run/docker.sock';
const LIMIT_MS = 30_000;

function call(socketPath: string, method: string, path: string, body?: unknown): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const text = Buffer.isBuffer(body) ? body : body === undefined ? '' : JSON.stringify(body);
    const type = Buffer.isBuffer(body) ? 'application/x-tar' : 'application/json';
    const headers = { host: 'docker', 'content-type': type, 'content-length': Buffer.byteLength(text) };
    const sent = request({ socketPath, method, path, headers, timeout: LIMIT_MS }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        const said = Buffer.concat(chunks).toString('utf8');
        // A load is answered by a line of JSON for each of its steps: the last one tells.
        if ((answer.statusCode ?? 500) < 300) resolve(JSON.parse(said.trim().split('\n').at(-1) || '{}'));
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
    async loadImage(archive, name) {
      const { error } = await call(socket, 'POST', '/images/load?quiet=1', archive);
      if (error) throw new SluiceError('internal', `docker: load: ${error}`);
      return {
        async run(command) {
          const body = { Image: name, Cmd: command, HostConfig: { NetworkMode: 'none' } };
          const { Id } = await call(socket, 'POST', '/containers/create', body);
          await call(socket, 'POST', `/containers/${Id}/start`);
          return String(Id);
        },
        remove: async () => void (await call(socket, 'DELETE', `/images/${encodeURIComponent(name)}`)),
      };
    },
    removeContainer: async (id) => void (await call(socket, 'DELETE', `/containers/${id}?force=1`)),
  };
}
