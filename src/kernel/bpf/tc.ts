/**
 * clsact filters, for kernels without tcx. The interface is one of the calling thread's namespace.
 * By hand: `tc filter show dev IF ingress`.
 */
import { timed } from '../../metrics.ts';
import { errnoName, kernelError } from '../libc.ts';
import { libbpf } from './bpf.ts';

const HOOK_BYTES = 24;
const OPTS_BYTES = 32;
const BPF_TC_F_REPLACE = 1;
/** Handles are ours to choose; one program an interface, direction and priority. */
const HANDLE = 1;

const native = {
  create: libbpf.func('int bpf_tc_hook_create(_Inout_ uint8_t *hook)'),
  attach: libbpf.func('int bpf_tc_attach(const uint8_t *hook, _Inout_ uint8_t *opts)'),
  detach: libbpf.func('int bpf_tc_detach(const uint8_t *hook, const uint8_t *opts)'),
  query: libbpf.func('int bpf_tc_query(const uint8_t *hook, _Inout_ uint8_t *opts)'),
};

export type Direction = 'ingress' | 'egress';

export interface TcHook {
  readonly ifindex: number;
  readonly direction: Direction;
  readonly priority: number;
}

/** struct bpf_tc_hook: sz, ifindex, attach_point, parent. */
function hookOf({ ifindex, direction }: TcHook): Buffer {
  const out = Buffer.alloc(HOOK_BYTES);
  out.writeBigUInt64LE(BigInt(HOOK_BYTES), 0);
  out.writeInt32LE(ifindex, 8);
  out.writeInt32LE(direction === 'ingress' ? 1 : 2, 12);
  return out;
}

/** struct bpf_tc_opts: sz, prog_fd, flags, prog_id, handle, priority. */
function optsOf(priority: number, program = 0, flags = 0): Buffer {
  const out = Buffer.alloc(OPTS_BYTES);
  out.writeBigUInt64LE(BigInt(OPTS_BYTES), 0);
  out.writeInt32LE(program, 8);
  out.writeUInt32LE(flags, 12);
  out.writeUInt32LE(HANDLE, 20);
  out.writeUInt32LE(priority, 24);
  return out;
}

/** Id of the program at this hook and priority, 0 when there is none (or no clsact qdisc, or no such interface). */
export function tcQuery(hook: TcHook): number {
  const opts = optsOf(hook.priority);
  const result = native.query(hookOf(hook), opts) as number;
  if (result === 0) return opts.readUInt32LE(16);
  if (['ENOENT', 'EINVAL', 'ENODEV', 'EOPNOTSUPP'].includes(errnoName(-result))) return 0;
  throw kernelError(-result, `query the ${hook.direction} filter of interface ${hook.ifindex}`);
}

const attachWords = ({ direction, ifindex }: TcHook): string => `attach at ${direction} of interface ${ifindex}`;

/** What came of it, as -errno. */
function attach(hook: TcHook, program: number, flags: number): number {
  return timed('bpf', 'attach', () => {
    const made = native.create(hookOf(hook)) as number;
    if (made < 0 && errnoName(-made) !== 'EEXIST') throw kernelError(-made, attachWords(hook), 'add the clsact qdisc');
    return native.attach(hookOf(hook), optsOf(hook.priority, program, flags)) as number;
  });
}

/** `tc qdisc add dev IF clsact; tc filter replace dev IF DIRECTION pref P handle 1 bpf direct-action …` */
export function tcAttach(hook: TcHook, program: number): void {
  const result = attach(hook, program, BPF_TC_F_REPLACE);
  if (result < 0) throw kernelError(-result, attachWords(hook));
}

/** The same with `add`; false: it did not work, be it that somebody has something there. */
export const tcAttachFirst = (hook: TcHook, program: number): boolean => attach(hook, program, 0) === 0;

/** The qdisc stays: other filters may hang on it. False when there was none. */
export function tcDetach(hook: TcHook): boolean {
  return (native.detach(hookOf(hook), optsOf(hook.priority)) as number) === 0;
}
