/**
 * `sluice sandbox exec`: a program of the host in a sandbox's network namespace and cgroup. By hand:
 *
 *     echo $$ > CGROUP/cgroup.procs
 *     exec nsenter --net=NETNS unshare --mount --propagation slave sh -c 'mount --bind RESOLV /etc/resolv.conf && exec PROGRAM'
 *
 * This process becomes the program: terminal, signals, process id and exit status are its own.
 */
import { SluiceError } from '../errors.ts';
import type { View } from '../model/request.ts';
import type { Sandbox } from '../model/sandbox.ts';
import { command, UsageError } from './command/command.ts';
import { commandLine, one, pairs, text, toggle, word } from './command/flag.ts';

// As in install.ts: an ES import of it would cost every program that is run 5 to 10 ms.
const { existsSync } = process.getBuiltinModule('node:fs');

/** Exit status of a failure that is ours, as Docker has it. */
const OURS = 125;

/**
 * Joins the cgroup before anything else: a socket belongs to the cgroup in which it was made. Where a container's cgroup lies in the
 * sandbox's, with controllers of its own, the kernel lets nobody into the latter (EBUSY): there it is one beside the container's. The mount namespace is a slave of the
 * host's: what is unmounted there (a removed sandbox's namespace) goes here as well, while our mount stays in here. Where
 * /etc/resolv.conf is missing or a dangling link, a read-only overlay puts ours into /etc.
 */
const ENTER = `
fail() { printf 'sluice: %s (kernel.failed)\\n' "$1" >&2; exit ${OURS}; }
cgroup=$1 netns=$2 resolv=$3
shift 3
for tool in nsenter unshare mount; do
  command -v "$tool" >/dev/null || fail "there is no $tool (util-linux) on the PATH"
done
join() { { echo 0 >"$1/cgroup.procs"; } 2>/dev/null; }
[ -z "$cgroup" ] || join "$cgroup" || { mkdir "$cgroup/exec" 2>/dev/null; join "$cgroup/exec"; } || fail "cannot join cgroup $cgroup"
case $1 in
  */*) ;;
  *) command -v "$1" >/dev/null || { printf 'sluice: there is no program %s on the PATH\\n' "$1" >&2; exit 127; } ;;
esac
[ -n "$resolv" ] || exec nsenter --net="$netns" -- sh -c 'exec "$@"' sluice "$@"
exec nsenter --net="$netns" -- unshare --mount --propagation slave -- sh -c '
resolv=$1
shift
mount --bind "$resolv" /etc/resolv.conf 2>/dev/null ||
  mount -t overlay -o "ro,lowerdir=\${resolv%/*}:/etc" sluice /etc || {
    printf "sluice: cannot put %s in the place of /etc/resolv.conf (kernel.failed)\\n" "$resolv" >&2
    exit ${OURS}
  }
exec "$@"' sluice "$resolv" "$@"`;

/** Arguments of /bin/sh, its own name included, that run `line` in the sandbox. */
export function execArguments(sandbox: View<Sandbox>, line: readonly string[]): readonly string[] {
  const detail = (sandbox.status?.detail ?? {}) as { netnsPath?: string; cgroupPath?: string; resolvConf?: string };
  if (!detail.netnsPath) {
    const state = sandbox.status?.state ?? 'pending';
    const message = `sandbox ${sandbox.name} has no namespace yet: it is ${state}; see "sluice sandbox inspect ${sandbox.name}"`;
    throw new SluiceError('kernel.notfound', message, { sandbox: sandbox.id, state });
  }
  return ['sh', '-c', ENTER, 'sluice', detail.cgroupPath ?? '', detail.netnsPath, detail.resolvConf ?? '', ...line];
}

export const exec = command({
  summary: 'Run a program of the host inside a sandbox',
  about:
    "The program has the sandbox's network, cgroup and /etc/resolv.conf, and the files of the host. Its exit status is returned; 125 is " +
    'a failure of Sluice, 126 a program that cannot be executed, 127 one that is not found.',
  examples: ['sluice sandbox exec api-1 busybox httpd -f -p 80', 'sluice sandbox exec -e TERM=dumb client sh'],
  flags: {
    env: pairs('KEY=VALUE', 'Environment variable; the others are inherited', { short: 'e' }),
    workdir: one('DIR', text, 'Working directory', { short: 'w', absent: 'the current one' }),
    interactive: toggle('Always so: the standard streams are those of this command', { short: 'i' }),
    tty: toggle('Always so, where this command has a terminal', { short: 't' }),
  },
  args: { sandbox: word('name or id', { of: 'sandbox' }), command: commandLine('program and its arguments') },
  failure: OURS,
  async run(context, { env, workdir }, { sandbox, command }) {
    const view = await (await context.client()).sandboxes.get(sandbox);
    const argv = execArguments(view, command);
    if (process.getuid?.() !== 0) {
      throw new SluiceError('kernel.denied', 'sandbox exec needs root: only it may enter a network namespace');
    }
    const netns = String(view.status!.detail.netnsPath);
    if (!existsSync(netns)) {
      const message = `the namespace of sandbox ${view.name}, ${netns}, is not on this machine`;
      throw new SluiceError('kernel.notfound', message, { netns });
    }
    if (workdir !== undefined) {
      try {
        process.chdir(workdir);
      } catch (error) {
        throw new UsageError(`--workdir: ${(error as Error).message}`);
      }
    }
    // Node ignores these two, and what is ignored stays so over exec; what has a handler goes back to its default.
    for (const signal of ['SIGPIPE', 'SIGXFSZ'] as const) process.on(signal, () => undefined);
    process.execve!('/bin/sh', [...argv], { ...context.env, ...env } as Record<string, string>);
    throw new SluiceError('internal', 'execve returned');
  },
});
