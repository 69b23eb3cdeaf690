/** Registries behind the contract's verbs. */
import { join } from 'node:path';
import type { Clock } from '../../../src/clock.ts';
import type { Image, TransferOptions } from '../../../src/contracts/image.ts';
import { SluiceError } from '../../../src/errors.ts';
import { parseReference } from '../reference.ts';
import { accountOf, Credentials, type Login } from './credentials.ts';
import { endpointsOf, type RegistrySettings } from './endpoint.ts';
import { Http, isUnreachable } from './http.ts';
import { type PullStore, pullImage } from './pull.ts';
import { pushImage } from './push.ts';
import { Session } from './session.ts';

export interface RegistriesOptions {
  readonly store: PullStore;
  readonly settings: RegistrySettings;
  readonly clock: Clock;
  /** Folder for `auth.json`. */
  readonly dir: string;
  /** How long a registry may say nothing, milliseconds. */
  readonly stallMs: number;
}

/** A login is not to take longer than a person waits. */
const LOGIN_MS_MAX = 20_000;

export class Registries {
  readonly #options: RegistriesOptions;
  readonly #credentials: Credentials;
  readonly #http: Http;

  constructor(options: RegistriesOptions) {
    this.#options = options;
    this.#credentials = new Credentials(join(options.dir, 'auth.json'));
    this.#http = new Http(options.clock, options.stallMs);
  }

  pull(reference: string, options: TransferOptions): Promise<Image> {
    return pullImage(this.#options.store, this.#sessions(reference, 'pull'), reference, options);
  }

  push(reference: string, options: TransferOptions): Promise<{ readonly digest: string }> {
    return pushImage(this.#options.store, this.#sessions(reference, 'push'), reference, options);
  }

  /** Keeps the credentials when the registry takes them. */
  async login(registry: string, login: Login): Promise<void> {
    const account = accountOf(registry);
    const { clock, settings } = this.#options;
    if (login.user === '' || login.user.includes(':'))
      throw new SluiceError('image.denied', 'a user has a name, and no colon in it');
    const signal = AbortSignal.timeout(LOGIN_MS_MAX);
    let last: unknown;
    for (const endpoint of endpointsOf(account, settings, 'push')) {
      const credentials = { get: async () => login };
      const session = new Session({ http: this.#http, clock, endpoint, credentials, repository: '', actions: 'pull' });
      try {
        await session.done({ method: 'GET', path: '', expect: [200], what: `the login of ${login.user}` }, signal);
        await this.#credentials.set(account, login);
        return;
      } catch (error) {
        if (!isUnreachable(error)) throw error;
        last = error;
      }
    }
    throw last;
  }

  logout(registry: string): Promise<void> {
    return this.#credentials.remove(accountOf(registry));
  }

  close(): void {
    this.#http.close();
  }

  #sessions(text: string, purpose: 'pull' | 'push'): Session[] {
    const { registry, repository } = parseReference(text);
    const { clock, settings } = this.#options;
    const actions = purpose === 'pull' ? 'pull' : 'pull,push';
    const shared = { http: this.#http, clock, credentials: this.#credentials, repository, actions } as const;
    return endpointsOf(registry, settings, purpose).map((endpoint) => new Session({ ...shared, endpoint }));
  }
}
