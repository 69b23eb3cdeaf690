/** Linux capabilities of a container: Docker's default set, and what `--cap-add` and `--cap-drop` make of it. */
import { SluiceError } from '../../../src/errors.ts';

/** Linux 6.1's, by number. */
export const CAPABILITIES = [
  'CHOWN',
  'DAC_OVERRIDE',
  'DAC_READ_SEARCH',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'LINUX_IMMUTABLE',
  'NET_BIND_SERVICE',
  'NET_BROADCAST',
  'NET_ADMIN',
  'NET_RAW',
  'IPC_LOCK',
  'IPC_OWNER',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_CHROOT',
  'SYS_PTRACE',
  'SYS_PACCT',
  'SYS_ADMIN',
  'SYS_BOOT',
  'SYS_NICE',
  'SYS_RESOURCE',
  'SYS_TIME',
  'SYS_TTY_CONFIG',
  'MKNOD',
  'LEASE',
  'AUDIT_WRITE',
  'AUDIT_CONTROL',
  'SETFCAP',
  'MAC_OVERRIDE',
  'MAC_ADMIN',
  'SYSLOG',
  'WAKE_ALARM',
  'BLOCK_SUSPEND',
  'AUDIT_READ',
  'PERFMON',
  'BPF',
  'CHECKPOINT_RESTORE',
] as const;

const DEFAULT = [
  'CHOWN',
  'DAC_OVERRIDE',
  'FOWNER',
  'FSETID',
  'KILL',
  'SETGID',
  'SETUID',
  'SETPCAP',
  'NET_BIND_SERVICE',
  'NET_RAW',
  'SYS_CHROOT',
  'MKNOD',
  'AUDIT_WRITE',
  'SETFCAP',
];

/** `net_admin`, `CAP_NET_ADMIN`, `ALL` → `NET_ADMIN`, `ALL`; fails with `runtime.spec` for what is none. */
function nameOf(word: string): string {
  const name = word.toUpperCase().replace(/^CAP_/, '');
  if (name === 'ALL' || (CAPABILITIES as readonly string[]).includes(name)) return name;
  throw new SluiceError('runtime.spec', `there is no capability ${word}`, { capability: word });
}

/** The bounding set that the text of /proc/PID/status tells: nobody below has more. */
export const boundingSet = (status: string): bigint =>
  BigInt(`0x${/^CapBnd:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);

/** `CAP_…` names in the kernel's order; `host`: the bounding set, which is what `ALL` means. As in Docker: `ALL` first, then what is named, and a drop wins over an addition of `ALL`. */
export function capabilitiesOf(
  spec: { readonly privileged: boolean; readonly capAdd: readonly string[]; readonly capDrop: readonly string[] },
  host: bigint,
): string[] {
  const add = spec.capAdd.map(nameOf);
  const drop = spec.capDrop.map(nameOf);
  const all = spec.privileged || add.includes('ALL');
  const base: readonly string[] = all
    ? CAPABILITIES.filter((_, number) => host & (1n << BigInt(number)))
    : drop.includes('ALL')
      ? []
      : DEFAULT;
  const wanted = new Set(
    [...base, ...add].filter((name) => !drop.includes(name) || (drop.includes('ALL') && add.includes(name))),
  );
  return CAPABILITIES.filter((name) => wanted.has(name)).map((name) => `CAP_${name}`);
}
