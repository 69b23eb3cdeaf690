/**
 * BPF maps, links, programs and pins through libbpf.so.1, which is a thin hand over bpf(2) here. Descriptors are plain numbers that
 * the caller closes (`closeSync`). By hand: `bpftool map|prog|link`.
 */
import koffi from 'koffi';
import { timed } from '../../metrics.ts';
import { check as checkErrno, errnoOf, kernelError } from '../libc.ts';

export const libbpf = koffi.load('libbpf.so.1');

/** struct bpf_test_run_opts */
const TestRunOptions = koffi.struct({
  sz: 'size_t',
  data_in: 'uint8_t *',
  data_out: 'uint8_t *',
  data_size_in: 'uint32_t',
  data_size_out: 'uint32_t',
  ctx_in: 'uint8_t *',
  ctx_out: 'uint8_t *',
  ctx_size_in: 'uint32_t',
  ctx_size_out: 'uint32_t',
  retval: 'uint32_t',
  repeat: 'int',
  duration: 'uint32_t',
  flags: 'uint32_t',
  cpu: 'uint32_t',
  batch_size: 'uint32_t',
});

const MapOp = 'int fd, const uint8_t *key';
const native = {
  update: libbpf.func(`int bpf_map_update_elem(${MapOp}, const uint8_t *value, uint64_t flags)`),
  lookup: libbpf.func(`int bpf_map_lookup_elem(${MapOp}, _Out_ uint8_t *value)`),
  delete: libbpf.func(`int bpf_map_delete_elem(${MapOp})`),
  next: libbpf.func(`int bpf_map_get_next_key(${MapOp}, _Out_ uint8_t *next)`),
  lookupBatch: libbpf.func(
    'int bpf_map_lookup_batch(int fd, const uint8_t *in, _Out_ uint8_t *out, _Out_ uint8_t *keys, _Out_ uint8_t *values, _Inout_ uint32_t *count, const uint8_t *opts)',
  ),
  get: libbpf.func('int bpf_obj_get(const char *path)'),
  pin: libbpf.func('int bpf_obj_pin(int fd, const char *path)'),
  info: libbpf.func('int bpf_obj_get_info_by_fd(int fd, _Inout_ uint8_t *info, _Inout_ uint32_t *length)'),
  programById: libbpf.func('int bpf_prog_get_fd_by_id(uint32_t id)'),
  linkCreate: libbpf.func('int bpf_link_create(int program, int target, int type, const void *opts)'),
  linkUpdate: libbpf.func('int bpf_link_update(int link, int program, const void *opts)'),
  linkDetach: libbpf.func('int bpf_link_detach(int link)'),
  programLoad: libbpf.func(
    'int bpf_prog_load(int type, const char *name, const char *license, const uint8_t *instructions, size_t count, const void *opts)',
  ),
  testRun: libbpf.func('bpf_prog_test_run_opts', 'int', ['int', koffi.inout(koffi.pointer(TestRunOptions))]),
  possibleCpus: libbpf.func('int libbpf_num_possible_cpus()'),
};
// Its words go to stderr otherwise; what a load failed on comes back in the verifier's log.
libbpf.func('void *libbpf_set_print(void *)')(null);

const ENOENT = 2;
const EINVAL = 22;
const ENOSPC = 28;
const ENOTSUPP = 524;

/** linux/bpf.h, enum bpf_map_type: the ones whose values are an array over all possible CPUs. */
const PERCPU_TYPES = new Set([5, 6, 10, 21]);
export const MAP_TYPE = {
  hash: 1,
  array: 2,
  progArray: 3,
  percpuHash: 5,
  lruHash: 9,
  lpmTrie: 11,
  skStorage: 24,
} as const;

/** linux/bpf.h, enum bpf_attach_type. */
export const ATTACH = {
  connect4: 10,
  connect6: 11,
  sendmsg4: 14,
  sendmsg6: 15,
  recvmsg4: 19,
  recvmsg6: 20,
  getpeername4: 29,
  getpeername6: 30,
  sock_release: 34,
  tcxIngress: 46,
  tcxEgress: 47,
} as const;

const PROG_TYPE_SCHED_CLS = 3;

/** libbpf returns -errno. What was tried is put into words only when it failed: some of them ask the kernel. */
function check(result: number, what: string | (() => string)): number {
  if (result < 0) throw kernelError(-result, typeof what === 'string' ? what : what());
  return result;
}

export interface MapInfo {
  readonly id: number;
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  readonly name: string;
}

/** struct bpf_map_info, bpf_prog_info and bpf_link_info are shorter than this on every kernel; it writes what it knows. */
const INFO_BYTES = 256;

function info(fd: number, what: string): Buffer {
  const out = Buffer.alloc(INFO_BYTES);
  check(native.info(fd, out, Uint32Array.of(INFO_BYTES)) as number, what);
  return out;
}

const textAt = (buffer: Buffer, offset: number): string =>
  buffer.toString('latin1', offset, offset + 16).replace(/\0.*$/s, '');

export function mapInfo(fd: number): MapInfo {
  const out = info(fd, 'read map info');
  return {
    type: out.readUInt32LE(0),
    id: out.readUInt32LE(4),
    keySize: out.readUInt32LE(8),
    valueSize: out.readUInt32LE(12),
    maxEntries: out.readUInt32LE(16),
    flags: out.readUInt32LE(20),
    name: textAt(out, 24),
  };
}

export function programInfo(fd: number): { readonly id: number; readonly tag: string; readonly name: string } {
  const out = info(fd, 'read program info');
  return { id: out.readUInt32LE(4), tag: out.toString('hex', 8, 16), name: textAt(out, 64) };
}

export interface LinkInfo {
  readonly id: number;
  readonly programId: number;
  /** 0 once the cgroup is gone or the link detached. */
  readonly cgroupId: bigint;
  /** Of a tcx link; 0 once the device is gone or the link detached. */
  readonly ifindex: number;
}

export function linkInfo(fd: number): LinkInfo {
  const out = info(fd, 'read link info');
  return {
    id: out.readUInt32LE(4),
    programId: out.readUInt32LE(8),
    cgroupId: out.readBigUInt64LE(16),
    ifindex: out.readUInt32LE(16),
  };
}

/** `bpftool map update`. E2BIG: the map is full. */
export function mapUpdate(fd: number, key: Uint8Array, value: Uint8Array): void {
  timed('bpf', 'update', () => check(native.update(fd, key, value, 0) as number, () => `update BPF map ${nameOf(fd)}`));
}

/** null when there is no such key. `size`: bytes of a value, all CPUs' for a per-CPU map. */
export function mapLookup(fd: number, key: Uint8Array, size: number): Buffer | null {
  const value = Buffer.alloc(size);
  const result = native.lookup(fd, key, value) as number;
  if (result === -ENOENT) return null;
  check(result, () => `look up in BPF map ${nameOf(fd)}`);
  return value;
}

/** False when there was none. */
export function mapDelete(fd: number, key: Uint8Array): boolean {
  return timed('bpf', 'delete', () => {
    const result = native.delete(fd, key) as number;
    if (result === -ENOENT) return false;
    check(result, () => `delete from BPF map ${nameOf(fd)}`);
    return true;
  });
}

function nameOf(fd: number): string {
  try {
    return mapInfo(fd).name;
  } catch {
    // The error that asks for the name says more.
    return `fd ${fd}`;
  }
}

let cpus = 0;
export function possibleCpus(): number {
  cpus ||= check(native.possibleCpus() as number, 'count possible CPUs');
  return cpus;
}

/** Bytes that user space sees of a value: per-CPU maps give one, rounded up to 8 bytes, for each possible CPU. */
export const valueBytes = ({ type, valueSize }: MapInfo): number =>
  PERCPU_TYPES.has(type) ? Math.ceil(valueSize / 8) * 8 * possibleCpus() : valueSize;

/** A bucket must fit into one batch. */
const BATCH = 4096;

/** What a batch is read into, keys and values; it grows to what the largest map needs, and nobody waits between reading and copying. */
const scratch: [Buffer, Buffer] = [Buffer.alloc(0), Buffer.alloc(0)];
function scratchOf(index: 0 | 1, bytes: number): Buffer {
  if (scratch[index].length < bytes) scratch[index] = Buffer.allocUnsafeSlow(bytes);
  return scratch[index];
}

/** All entries; what changes meanwhile may or may not be among them. */
export function mapEntries(fd: number): [Buffer, Buffer][] {
  return timed('bpf', 'dump', () => {
    const map = mapInfo(fd);
    return mapEntriesByBatch(fd, map) ?? mapEntriesByKey(fd, map);
  });
}

/** null where the map type knows no batches. */
function mapEntriesByBatch(fd: number, map: MapInfo): [Buffer, Buffer][] | null {
  const { keySize } = map;
  const valueSize = valueBytes(map);
  const found: [Buffer, Buffer][] = [];
  const opts = Buffer.alloc(24);
  opts.writeBigUInt64LE(24n);
  let cursor: Buffer | null = null;
  let size = Math.min(BATCH, map.maxEntries);
  for (;;) {
    const next: Buffer = Buffer.alloc(Math.max(4, keySize));
    const [keysOut, valuesOut] = [scratchOf(0, size * keySize), scratchOf(1, size * valueSize)];
    const count = Uint32Array.of(size);
    const result = native.lookupBatch(fd, cursor, next, keysOut, valuesOut, count, opts) as number;
    if (result === -ENOSPC && size < map.maxEntries) {
      size = Math.min(size * 4, map.maxEntries);
      continue;
    }
    if ((result === -EINVAL || result === -ENOTSUPP) && found.length === 0) return null;
    if (result < 0 && result !== -ENOENT) check(result, `dump BPF map ${map.name}`);
    const keys = Buffer.from(keysOut.subarray(0, count[0]! * keySize));
    const values = Buffer.from(valuesOut.subarray(0, count[0]! * valueSize));
    for (let i = 0; i < count[0]!; i++) {
      found.push([keys.subarray(i * keySize, (i + 1) * keySize), values.subarray(i * valueSize, (i + 1) * valueSize)]);
    }
    if (result === -ENOENT) return found;
    cursor = next;
  }
}

function mapEntriesByKey(fd: number, map: MapInfo): [Buffer, Buffer][] {
  const found = new Map<string, [Buffer, Buffer]>();
  let cursor: Buffer | null = null;
  for (;;) {
    const next: Buffer = Buffer.alloc(map.keySize);
    const result = native.next(fd, cursor, next) as number;
    if (result === -ENOENT) return [...found.values()];
    check(result, `walk BPF map ${map.name}`);
    // A key that vanished under the walk sends it back to the first.
    const name = next.toString('latin1');
    if (found.has(name)) return [...found.values()];
    const value = mapLookup(fd, next, valueBytes(map));
    if (value) found.set(name, [next, value]);
    cursor = next;
  }
}

/** A descriptor of what is pinned there; null when nothing is. */
export function objectGet(path: string): number | null {
  const result = native.get(path) as number;
  if (result === -ENOENT) return null;
  return check(result, `open BPF pin ${path}`);
}

/** `bpftool … pin`. An existing pin is `kernel.exists`. */
export function objectPin(fd: number, path: string): void {
  check(native.pin(fd, path) as number, `pin at ${path}`);
}

/** Attaches to a cgroup (a descriptor) or, by a tcx type, to an interface of the calling thread's namespace (its ifindex). */
export function linkCreate(program: number, target: number, type: number): number {
  return timed('bpf', 'attach', () =>
    check(
      native.linkCreate(program, target, type, null) as number,
      type >= ATTACH.tcxIngress ? `attach to interface ${target}` : `attach to the cgroup (type ${type})`,
    ),
  );
}

/** Swaps the program behind a link; traffic sees the old or the new, never none. */
export function linkUpdate(link: number, program: number): void {
  check(native.linkUpdate(link, program, null) as number, 'swap the program of a link');
}

/** False when what it was attached to is gone already. */
export function linkDetach(link: number): boolean {
  return (native.linkDetach(link) as number) === 0;
}

/** Instructions of 8 bytes each, as `struct bpf_insn`. Expected attach type 0, which tcx and clsact both take. */
export function loadClassifier(name: string, instructions: Uint8Array): number {
  return check(
    native.programLoad(
      PROG_TYPE_SCHED_CLS,
      name,
      'Dual BSD/GPL',
      instructions,
      instructions.length / 8,
      null,
    ) as number,
    `load program ${name}`,
  );
}

/** The name of a loaded program; null when it is gone. */
export function programNameById(id: number): string | null {
  const fd = native.programById(id) as number;
  if (fd === -ENOENT) return null;
  check(fd, `open program ${id}`);
  try {
    return programInfo(fd).name;
  } finally {
    closeFd(fd);
  }
}

const close = koffi.load(null).func('int close(int fd)');

/** `fs.closeSync` knows only descriptors that it may have opened itself; these come from the kernel. */
export function closeFd(fd: number): void {
  checkErrno(close(fd) as number, `close ${fd}`);
}

/**
 * Runs a tc program over one frame, without any device (BPF_PROG_TEST_RUN). `context`: struct __sk_buff, of which the kernel takes mark,
 * priority and cb. Returns the verdict, and the mean nanoseconds of `repeat` runs.
 */
export function testRun(
  program: number,
  frame: Uint8Array,
  context: Uint8Array,
  repeat = 1,
): { readonly verdict: number; readonly nanoseconds: number } {
  const options = {
    sz: koffi.sizeof(TestRunOptions),
    data_in: frame,
    data_size_in: frame.length,
    ctx_in: context,
    ctx_size_in: context.length,
    repeat,
    retval: 0,
    duration: 0,
  };
  check(native.testRun(program, options) as number, 'test-run a program');
  return { verdict: options.retval | 0, nanoseconds: options.duration };
}

/** True where tcx links exist: an interface that cannot exist is then missed, else the attach type is not known. */
export function probeTcx(program: number): boolean {
  const absent = 0x7fffffff;
  try {
    closeFd(linkCreate(program, absent, ATTACH.tcxEgress));
    return true;
  } catch (error) {
    return errnoOf(error) !== EINVAL;
  }
}
