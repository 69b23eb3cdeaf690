/**
 * The system calls of a container, as an OCI seccomp profile: a list of what is allowed, the rest is EPERM. It lets through what Docker's
 * default does: everything but what reaches the host's kernel past namespaces, unless a capability was given that covers it.
 */
import { readFileSync } from 'node:fs';
import { SluiceError } from '../../../src/errors.ts';

/** Everybody's. One word a call; grouped as the manual's sections are. */
const ALLOWED = `
  access faccessat faccessat2 chdir fchdir chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 creat open openat openat2
  close close_range dup dup2 dup3 fcntl fcntl64 flock getcwd getdents getdents64 link linkat symlink symlinkat readlink readlinkat rename renameat renameat2
  mkdir mkdirat rmdir unlink unlinkat umask mknod mknodat stat stat64 fstat fstat64 fstatat64 newfstatat lstat lstat64 statx statfs statfs64 fstatfs fstatfs64
  truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 arm_fadvise64_64 readahead utime utimes utimensat utimensat_time64 futimesat
  getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr
  getxattrat setxattrat listxattrat removexattrat statmount listmount
  inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark name_to_handle_at
  read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek sendfile sendfile64 splice tee vmsplice copy_file_range sync syncfs
  fsync fdatasync sync_file_range sync_file_range2 arm_sync_file_range
  poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait
  epoll_pwait2 eventfd eventfd2 signalfd signalfd4 pipe pipe2 ioctl io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64
  accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt
  shutdown socketcall socketpair
  brk mmap mmap2 munmap mprotect mremap msync madvise mincore mlock mlock2 mlockall munlock munlockall memfd_create memfd_secret membarrier remap_file_pages
  pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal cachestat process_mrelease
  fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid getpgid getpgrp setpgid getsid setsid set_tid_address pidfd_open
  pidfd_send_signal prctl arch_prctl set_thread_area get_thread_area set_robust_list get_robust_list rseq seccomp landlock_create_ruleset
  landlock_add_rule landlock_restrict_self modify_ldt arm_fadvise64_64 breakpoint cacheflush set_tls
  futex futex_time64 futex_waitv futex_wake futex_wait futex_requeue sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
  sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
  sched_yield getpriority setpriority ioprio_get ioprio_set getcpu getrandom
  kill tkill tgkill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
  rt_tgsigqueueinfo sigaltstack sigreturn sigprocmask signal pause restart_syscall alarm
  getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid
  setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
  capget capset getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname
  time gettimeofday clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 nanosleep getitimer setitimer
  timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
  timerfd_settime timerfd_settime64 adjtimex clock_adjtime clock_adjtime64
  mq_open mq_unlink mq_notify mq_getsetattr mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 msgctl msgget msgrcv msgsnd semctl semget
  semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget ipc
  process_vm_readv process_vm_writev ptrace kcmp pidfd_getfd process_madvise
`
  .trim()
  .split(/\s+/);

/** What a capability opens. */
const BY_CAPABILITY: Readonly<Record<string, string>> = {
  CAP_DAC_READ_SEARCH: 'open_by_handle_at',
  CAP_SYS_ADMIN:
    'bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare',
  CAP_SYS_BOOT: 'reboot',
  CAP_SYS_CHROOT: 'chroot',
  CAP_SYS_MODULE: 'delete_module init_module finit_module',
  CAP_SYS_PACCT: 'acct',
  CAP_SYS_RAWIO: 'iopl ioperm',
  CAP_SYS_TIME: 'settimeofday stime clock_settime clock_settime64',
  CAP_SYS_TTY_CONFIG: 'vhangup',
  CAP_SYS_NICE: 'get_mempolicy mbind set_mempolicy set_mempolicy_home_node',
  CAP_SYSLOG: 'syslog',
  CAP_BPF: 'bpf',
  CAP_PERFMON: 'perf_event_open',
};

const EPERM = 1;
const ENOSYS = 38;
/** CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET */
const NEW_NAMESPACES = 0x7e020000;
const AF_VSOCK = 40;
/** PER_LINUX, PER_LINUX32, with UNAME26, and the question what it is. */
const PERSONALITIES = [0, 8, 0x20000, 0x20008, 0xffffffff];

interface Rule {
  readonly names: readonly string[];
  readonly action: 'SCMP_ACT_ALLOW' | 'SCMP_ACT_ERRNO';
  readonly errnoRet?: number;
  readonly args?: readonly {
    readonly index: number;
    readonly value: number;
    readonly valueTwo?: number;
    readonly op: string;
  }[];
}

export interface Seccomp {
  readonly defaultAction: string;
  readonly defaultErrnoRet: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly Rule[];
}

const ARCHITECTURES: Partial<Record<NodeJS.Architecture, readonly string[]>> = {
  x64: ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'],
  arm64: ['SCMP_ARCH_AARCH64', 'SCMP_ARCH_ARM'],
};

/** The profile of a container with these capabilities (`CAP_…`). */
export function seccompProfile(
  capabilities: readonly string[],
  architecture: NodeJS.Architecture = process.arch,
): Seccomp {
  const syscalls: Rule[] = [
    { names: [...new Set(ALLOWED)], action: 'SCMP_ACT_ALLOW' },
    // Sockets of every family but those that speak to the hypervisor.
    { names: ['socket'], action: 'SCMP_ACT_ALLOW', args: [{ index: 0, value: AF_VSOCK, op: 'SCMP_CMP_NE' }] },
    ...PERSONALITIES.map(
      (value): Rule => ({
        names: ['personality'],
        action: 'SCMP_ACT_ALLOW',
        args: [{ index: 0, value, op: 'SCMP_CMP_EQ' }],
      }),
    ),
  ];
  if (architecture === 'x64') syscalls.push({ names: ['arch_prctl', 'modify_ldt'], action: 'SCMP_ACT_ALLOW' });
  for (const [capability, names] of Object.entries(BY_CAPABILITY))
    if (capabilities.includes(capability)) syscalls.push({ names: names.split(' '), action: 'SCMP_ACT_ALLOW' });
  if (!capabilities.includes('CAP_SYS_ADMIN')) {
    // Threads and processes, but no new namespaces. clone3 hides its flags from a filter: ENOSYS has the C library use clone.
    syscalls.push(
      {
        names: ['clone'],
        action: 'SCMP_ACT_ALLOW',
        args: [{ index: 0, value: NEW_NAMESPACES, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
      },
      { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS },
    );
  }
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: EPERM,
    architectures: ARCHITECTURES[architecture] ?? [],
    syscalls,
  };
}

/** A profile of the user's, as `--security-opt seccomp=PATH` names it. */
export function readProfile(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as unknown;
  } catch (error) {
    throw new SluiceError(
      'runtime.spec',
      `--security-opt seccomp=${path}: ${(error as Error).message}`,
      { path },
      error,
    );
  }
}
