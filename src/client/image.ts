/** Images: transfers are followed by their server-sent events. */
import type { IncomingMessage } from 'node:http';
import type { Clock } from '../clock.ts';
import { ERROR_CODES, type ErrorCode, SluiceError } from '../errors.ts';
import type {
  Image,
  ImageConfig,
  ImageProgress,
  ImageStep,
  ImagesPruned,
  ImagesRemoved,
} from '../model/image/image.ts';
import type { Caller, CallOptions } from './http.ts';

export interface ImageTransferOptions {
  /** `linux/arm64`; absent: the host's. */
  readonly platform?: string;
  readonly onProgress?: (progress: ImageProgress) => void;
  /** Ends the transfer; nothing half-done stays. */
  readonly signal?: AbortSignal;
}

export interface ImageClient {
  list(): Promise<readonly Image[]>;
  /** `ref` everywhere: a name, a digest, an id, or the beginning of an id. */
  get(ref: string): Promise<Image>;
  history(ref: string): Promise<readonly ImageStep[]>;
  tag(ref: string, name: string): Promise<Image>;
  remove(ref: string, options?: { readonly force?: boolean }): Promise<ImagesRemoved>;
  prune(options?: { readonly all?: boolean }): Promise<ImagesPruned>;
  pull(reference: string, options?: ImageTransferOptions): Promise<Image>;
  push(reference: string, options?: Omit<ImageTransferOptions, 'platform'>): Promise<{ readonly digest: string }>;
  /** A docker archive or an OCI layout as a tar, plain, gzip or zstd. */
  load(archive: AsyncIterable<Uint8Array>, options?: ImageTransferOptions): Promise<readonly Image[]>;
  import(
    tarball: AsyncIterable<Uint8Array>,
    name: string | null,
    options?: ImageTransferOptions & { readonly changes?: Partial<ImageConfig> },
  ): Promise<Image>;
  /** The bytes of an archive of the images. */
  save(refs: readonly string[], options?: { readonly signal?: AbortSignal }): Promise<AsyncIterable<Uint8Array>>;
  login(registry: string, user: string, password: string): Promise<void>;
  logout(registry: string): Promise<void>;
}

const at = (...words: readonly string[]): string => `/v1/${words.map(encodeURIComponent).join('/')}`;

function failure(text: string): SluiceError {
  const { code, message, details } = JSON.parse(text) as { code: string; message: string; details: object };
  const known = Object.hasOwn(ERROR_CODES, code);
  return new SluiceError(
    known ? (code as ErrorCode) : 'internal',
    message,
    known ? { ...details } : { ...details, code },
  );
}

/** The result that the events of a transfer end with. */
async function resultOf<T>(
  answer: IncomingMessage,
  clock: Clock,
  onProgress: ImageTransferOptions['onProgress'],
  host: string,
): Promise<T> {
  const { eventsOf } = await import('./stream.ts');
  for await (const { type, data } of eventsOf(answer, clock)) {
    if (data === undefined) continue;
    if (type === 'progress') onProgress?.(JSON.parse(data) as ImageProgress);
    if (type === 'done') return JSON.parse(data) as T;
    if (type === 'error') throw failure(data);
  }
  throw new SluiceError('daemon.unreachable', `the daemon at ${host} went away in the middle of a transfer`, { host });
}

export function imageClient(call: Caller, clock: Clock): ImageClient {
  const transfer = async <T>(
    path: string,
    { onProgress, signal }: ImageTransferOptions,
    options: CallOptions,
  ): Promise<T> => {
    const answer = await call.open('POST', path, { ...options, signal });
    try {
      return await resultOf<T>(answer, clock, onProgress, call.host);
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof SluiceError) throw error;
      const message = `the daemon at ${call.host} went away in the middle of a transfer: ${(error as Error).message}`;
      throw new SluiceError('daemon.unreachable', message, { host: call.host }, error);
    } finally {
      answer.destroy();
    }
  };
  const items = async <T>(path: string): Promise<readonly T[]> =>
    (await call.json<{ readonly items: readonly T[] }>('GET', path)).items;
  return {
    list: () => items(at('images')),
    get: (ref) => call.json('GET', at('images', ref)),
    history: (ref) => items(at('images', ref, 'history')),
    tag: (ref, name) => call.json('POST', at('images', ref, 'tag'), { body: { name } }),
    remove: (ref, query) => call.json('DELETE', at('images', ref), { query }),
    prune: (query) => call.json('POST', at('images', 'prune'), { query }),
    pull: (reference, options = {}) =>
      transfer(at('images', 'pull'), options, { body: { reference, platform: options.platform } }),
    push: (reference, options = {}) => transfer(at('images', 'push'), options, { body: { reference } }),
    async load(archive, options = {}) {
      const query = { platform: options.platform };
      return (await transfer<{ readonly items: readonly Image[] }>(at('archives'), options, { query, archive })).items;
    },
    import(archive, name, options = {}) {
      const { platform, changes } = options;
      const query = { name: name ?? undefined, platform, changes: changes && JSON.stringify(changes) };
      return transfer(at('images', 'import'), options, { query, archive });
    },
    async save(refs, { signal } = {}) {
      const query = refs.map((ref) => `name=${encodeURIComponent(ref)}`).join('&');
      return call.open('GET', `${at('archives')}?${query}`, { signal });
    },
    login: async (registry, user, password) => {
      await call.json('PUT', at('registries', registry), { body: { user, password } });
    },
    logout: async (registry) => {
      await call.json('DELETE', at('registries', registry));
    },
  };
}
