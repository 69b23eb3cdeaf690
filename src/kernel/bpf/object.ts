/** Loading a compiled BPF object: maps that exist already are handed in, the others are made, all programs verified. */
import koffi from 'koffi';
import { SluiceError } from '../../errors.ts';
import { timed } from '../../metrics.ts';
import { kernelError, lastErrno } from '../libc.ts';
import { libbpf, type MapInfo } from './bpf.ts';

/** struct bpf_object_open_opts up to the verifier's log; libbpf takes `sz` as how much of it we know. */
const OpenOptions = koffi.struct({
  sz: 'size_t',
  object_name: 'const char *',
  relaxed_maps: 'bool',
  pin_root_path: 'const char *',
  deprecated: 'uint32_t',
  kconfig: 'const char *',
  btf_custom_path: 'const char *',
  kernel_log_buf: 'uint8_t *',
  kernel_log_size: 'size_t',
  kernel_log_level: 'uint32_t',
});

const native = {
  open: libbpf.func('bpf_object__open_file', 'void *', ['const char *', koffi.pointer(OpenOptions)]),
  load: libbpf.func('int bpf_object__load(void *object)'),
  close: libbpf.func('void bpf_object__close(void *object)'),
  nextMap: libbpf.func('void *bpf_object__next_map(void *object, void *map)'),
  nextProgram: libbpf.func('void *bpf_object__next_program(void *object, void *program)'),
  programName: libbpf.func('const char *bpf_program__name(void *program)'),
  programFd: libbpf.func('int bpf_program__fd(void *program)'),
  mapName: libbpf.func('const char *bpf_map__name(void *map)'),
  mapFd: libbpf.func('int bpf_map__fd(void *map)'),
  reuse: libbpf.func('int bpf_map__reuse_fd(void *map, int fd)'),
  type: libbpf.func('int bpf_map__type(void *map)'),
  keySize: libbpf.func('uint32_t bpf_map__key_size(void *map)'),
  valueSize: libbpf.func('uint32_t bpf_map__value_size(void *map)'),
  maxEntries: libbpf.func('uint32_t bpf_map__max_entries(void *map)'),
  flags: libbpf.func('uint32_t bpf_map__map_flags(void *map)'),
};

const LOG_BYTES = 256 * 1024;

export type MapDefinition = Omit<MapInfo, 'id'>;

/** An object file that was read; `load` gives it to the kernel. Descriptors are its own and end with `close`. */
export class BpfObject {
  readonly #path: string;
  readonly #log = Buffer.alloc(LOG_BYTES);
  #object: unknown;
  /** What the object's source says of its maps. */
  readonly definitions: ReadonlyMap<string, MapDefinition>;

  constructor(path: string) {
    this.#path = path;
    this.#object = native.open(path, {
      sz: koffi.sizeof(OpenOptions),
      kernel_log_buf: this.#log,
      kernel_log_size: LOG_BYTES,
    });
    if (!this.#object) throw kernelError(lastErrno(), `read BPF object ${path}`, 'run the build of the BPF objects');
    const definitions = new Map<string, MapDefinition>();
    for (const map of this.#walk(native.nextMap)) {
      const name = native.mapName(map) as string;
      definitions.set(name, {
        name,
        type: native.type(map) as number,
        keySize: native.keySize(map) as number,
        valueSize: native.valueSize(map) as number,
        maxEntries: native.maxEntries(map) as number,
        flags: native.flags(map) as number,
      });
    }
    this.definitions = definitions;
  }

  /** Maps by name are used as they are; the rest is made. A refusal carries the end of the verifier's log. */
  load(maps: ReadonlyMap<string, number>): void {
    timed('bpf', 'load', () => {
      for (const map of this.#walk(native.nextMap)) {
        const name = native.mapName(map) as string;
        const fd = maps.get(name);
        if (fd === undefined) continue;
        const result = native.reuse(map, fd) as number;
        if (result < 0) throw kernelError(-result, `use the pinned map ${name} for ${this.#path}`);
      }
      const result = native.load(this.#object) as number;
      if (result < 0) throw kernelError(-result, `load BPF object ${this.#path}`, this.#logEnd());
    });
  }

  mapFd(name: string): number {
    return this.#find(native.nextMap, native.mapName, native.mapFd, 'map', name);
  }

  /** Program name → descriptor. */
  programs(): Map<string, number> {
    const found = new Map<string, number>();
    for (const program of this.#walk(native.nextProgram))
      found.set(native.programName(program) as string, native.programFd(program) as number);
    return found;
  }

  close(): void {
    if (this.#object) native.close(this.#object);
    this.#object = null;
  }

  #find(next: NativeNext, nameOf: NativeOf, fdOf: NativeOf, what: string, name: string): number {
    for (const one of this.#walk(next)) if (nameOf(one) === name) return fdOf(one) as number;
    throw new SluiceError('internal', `BPF object ${this.#path} has no ${what} ${name}`);
  }

  *#walk(next: NativeNext): Iterable<unknown> {
    for (let one = next(this.#object, null); one; one = next(this.#object, one)) yield one;
  }

  #logEnd(): string {
    const end = this.#log.indexOf(0);
    const lines = this.#log.toString('utf8', 0, end < 0 ? LOG_BYTES : end).trim();
    return lines.split('\n').slice(-12).join(' | ');
  }
}

type NativeNext = (object: unknown, one: unknown) => unknown;
type NativeOf = (one: unknown) => unknown;
