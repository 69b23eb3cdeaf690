/** Who we are to which registry: `auth.json`, in Docker's own form, for root alone to read. */
import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { SluiceError } from '../../../src/errors.ts';
import { DEFAULT_REGISTRY } from '../reference.ts';
import { replaceFile, Turns } from '../store/disk.ts';

export interface Login {
  readonly user: string;
  readonly password: string;
}

const file = z.object({ auths: z.record(z.string(), z.object({ auth: z.string() })) });

/** Docker Hub by whatever name. */
export function accountOf(registry: string): string {
  const host = registry.replace(/^https?:\/\//, '').replace(/\/.*$/, '');
  if (!/^[^\s/@]+$/.test(host)) throw new SluiceError('image.reference', `${JSON.stringify(registry)} is no registry`);
  return ['index.docker.io', 'registry-1.docker.io'].includes(host) ? DEFAULT_REGISTRY : host;
}

export class Credentials {
  readonly #path: string;
  readonly #turns = new Turns();

  constructor(path: string) {
    this.#path = path;
  }

  async get(account: string): Promise<Login | null> {
    const auth = (await this.#read())[account]?.auth;
    if (auth === undefined) return null;
    const text = Buffer.from(auth, 'base64').toString('utf8');
    const colon = text.indexOf(':');
    return { user: text.slice(0, colon), password: text.slice(colon + 1) };
  }

  set(account: string, { user, password }: Login): Promise<void> {
    const auth = Buffer.from(`${user}:${password}`).toString('base64');
    return this.#change((auths) => ({ ...auths, [account]: { auth } }));
  }

  remove(account: string): Promise<void> {
    return this.#change(({ [account]: _, ...rest }) => rest);
  }

  async #read(): Promise<z.infer<typeof file>['auths']> {
    let text: string;
    try {
      text = await readFile(this.#path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
      throw error;
    }
    try {
      return file.parse(JSON.parse(text)).auths;
    } catch (error) {
      // Its text is secret: only where it is wrong may be told.
      const message = `${this.#path} is damaged: remove it and log in again`;
      throw new SluiceError('image.damaged', message, { path: this.#path }, error);
    }
  }

  #change(change: (auths: z.infer<typeof file>['auths']) => z.infer<typeof file>['auths']): Promise<void> {
    return this.#turns.run('', async () => {
      const auths = change(await this.#read());
      await replaceFile(this.#path, `${JSON.stringify({ auths }, null, 2)}\n`, 0o600);
    });
  }
}
