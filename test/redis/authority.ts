/** A certificate authority of a test's own, made by openssl: who trusts it trusts this server, and the server its clients. */
import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder } from '../folder.ts';

export interface Pair {
  readonly cert: string;
  readonly key: string;
}

export class Authority {
  readonly folder = makeFolder('authority');
  readonly ca = join(this.folder, 'ca.crt');
  readonly #key = join(this.folder, 'ca.key');

  constructor() {
    const subject = ['-subj', '/CN=authority of a test'];
    this.#openssl('req', '-x509', ...this.#newKey(this.#key), '-days', '2', ...subject, '-out', this.ca);
  }

  /** A key and a certificate for 127.0.0.1 and localhost. */
  issue(name: string): Pair {
    const [key, cert, request, extensions] = ['key', 'crt', 'csr', 'ext'].map((end) =>
      join(this.folder, `${name}.${end}`),
    ) as [string, string, string, string];
    writeFileSync(extensions, 'subjectAltName=IP:127.0.0.1,DNS:localhost\n');
    this.#openssl('req', ...this.#newKey(key), '-subj', `/CN=${name}`, '-out', request);
    const signer = ['-CA', this.ca, '-CAkey', this.#key, '-CAcreateserial', '-days', '2'];
    this.#openssl('x509', '-req', '-in', request, ...signer, '-extfile', extensions, '-out', cert);
    return { cert, key };
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  #newKey(file: string): string[] {
    return ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', file];
  }

  #openssl(...words: string[]): void {
    execFileSync('openssl', words, { stdio: ['ignore', 'ignore', 'pipe'] });
  }
}
