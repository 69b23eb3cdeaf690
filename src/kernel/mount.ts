/** The BPF file system, where pinned programs outlive the daemon. By hand: `mount -t bpf bpf /sys/fs/bpf`. */
import { mkdirSync } from 'node:fs';
import { check, kernelError, lastErrno, libc } from './libc.ts';

/** BPF_FS_MAGIC */
const BPF_FS_MAGIC = 0xcafe4a11;

export function ensureBpffs(path: string): void {
  mkdirSync(path, { recursive: true });
  const out = Buffer.alloc(256);
  if (libc.statfs(path, out) < 0) throw kernelError(lastErrno(), `statfs ${path}`);
  if (Number(out.readBigInt64LE(0)) === BPF_FS_MAGIC) return;
  check(libc.mount('bpf', path, 'bpf', 0, null), `mount a bpffs at ${path}`);
}
