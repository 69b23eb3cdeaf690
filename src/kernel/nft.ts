/**
 * libnftables in process: 0.15 ms for a small transaction where spawning `nft` takes 20. One buffer is one atomic transaction. A context's
 * netlink socket is opened with it, so it belongs to the namespace in which it was made.
 */
import koffi from 'koffi';
import type { Namespace, Nft } from '../contracts/kernel.ts';
import { type ErrorCode, SluiceError } from '../errors.ts';
import { timed } from '../metrics.ts';

interface Library {
  make(flags: number): unknown;
  free(context: unknown): void;
  setFlags(context: unknown, flags: number): void;
  bufferOutput(context: unknown): number;
  bufferError(context: unknown): number;
  output(context: unknown): string;
  error(context: unknown): string;
  run(context: unknown, commands: string): number;
}

/** NFT_CTX_OUTPUT_HANDLE, NFT_CTX_OUTPUT_JSON */
const OUTPUT_JSON = (1 << 3) | (1 << 4);

/** nft tells by words alone what went wrong. */
const CODES: readonly (readonly [sign: string, code: ErrorCode])[] = [
  ['No such file or directory', 'kernel.notfound'],
  ['File exists', 'kernel.exists'],
  ['Operation not permitted', 'kernel.denied'],
  ['Operation not supported', 'kernel.missing'],
];

let library: Library | undefined;

function load(): Library {
  if (library) return library;
  let lib: ReturnType<typeof koffi.load>;
  try {
    lib = koffi.load('libnftables.so.1');
  } catch (error) {
    throw new SluiceError('kernel.missing', 'libnftables.so.1 is not installed (Debian: libnftables1)', {}, error);
  }
  koffi.opaque('nft_ctx');
  library = {
    make: lib.func('nft_ctx *nft_ctx_new(uint32_t flags)'),
    free: lib.func('void nft_ctx_free(nft_ctx *context)'),
    setFlags: lib.func('void nft_ctx_output_set_flags(nft_ctx *context, unsigned int flags)'),
    bufferOutput: lib.func('int nft_ctx_buffer_output(nft_ctx *context)'),
    bufferError: lib.func('int nft_ctx_buffer_error(nft_ctx *context)'),
    output: lib.func('const char *nft_ctx_get_output_buffer(nft_ctx *context)'),
    error: lib.func('const char *nft_ctx_get_error_buffer(nft_ctx *context)'),
    run: lib.func('int nft_run_cmd_from_buffer(nft_ctx *context, const char *commands)'),
  };
  return library;
}

class NftContext implements Nft {
  readonly #lib: Library;
  readonly #namespace: Namespace;
  #context: unknown;

  /** The namespace must stay open as long as the context. */
  constructor(namespace: Namespace) {
    this.#lib = load();
    this.#namespace = namespace;
    this.#context = this.#open();
  }

  apply(ruleset: string): void {
    const { failed, error } = timed('nft', 'apply', () => this.#run(ruleset));
    if (failed) throw this.#error(ruleset, error);
  }

  list(what: string): readonly Record<string, unknown>[] | null {
    const { failed, output, error } = timed('nft', 'list', () => this.#run(`list ${what}`));
    if (failed) {
      const refused = this.#error(`list ${what}`, error);
      if (refused.code === 'kernel.notfound') return null;
      throw refused;
    }
    const { nftables } = JSON.parse(output) as { nftables: Record<string, unknown>[] };
    return nftables.filter((object) => !('metainfo' in object));
  }

  tables(): readonly string[] {
    return (this.list('tables') ?? []).flatMap(({ table }) => {
      const { family, name } = table as { family: string; name: string };
      return [`${family} ${name}`];
    });
  }

  [Symbol.dispose](): void {
    if (this.#context) this.#lib.free(this.#context);
    this.#context = undefined;
  }

  #open(): unknown {
    const context = this.#namespace.run(() => this.#lib.make(0));
    if (!context) throw new SluiceError('kernel.failed', 'libnftables gave no context');
    this.#lib.bufferOutput(context);
    this.#lib.bufferError(context);
    this.#lib.setFlags(context, OUTPUT_JSON);
    return context;
  }

  #run(commands: string): { failed: boolean; output: string; error: string } {
    if (!this.#context)
      throw new SluiceError('kernel.failed', `nft "${commands.slice(0, 120)}": the context was closed`);
    // Inside again: names of interfaces are resolved in the thread's namespace, not the socket's.
    const status = this.#namespace.run(() => this.#lib.run(this.#context, commands));
    return {
      failed: status !== 0,
      output: this.#lib.output(this.#context) ?? '',
      error: this.#lib.error(this.#context) ?? '',
    };
  }

  #error(commands: string, words: string): SluiceError {
    const first = commands.trim().split('\n')[0]!.slice(0, 120);
    const said = words.trim();
    const code = CODES.find(([sign]) => said.includes(sign))?.[1] ?? 'kernel.failed';
    const short = said.split('\n').slice(0, 4).join(' | ') || 'refused without a reason';
    return new SluiceError(code, `nft "${first}": ${short}`, { nft: said });
  }
}

export const openNft = (namespace: Namespace): Nft => new NftContext(namespace);
