/** `sluice system …`: the whole of it, by the plain-sh `sluice-off`, which needs neither the daemon nor Node. */
import { dirname, join } from 'node:path';
import { SluiceError } from '../errors.ts';
import { type Context, command, type FlagValues, type Group } from './command/command.ts';
import { one, text, toggle } from './command/flag.ts';
import { installRoot } from './install.ts';

const placeFlags = {
  instance: one('NAME', text, "The daemon's mark on everything of it", { absent: 'its setting' }),
  runDir: one('DIR', text, "The daemon's run directory", { absent: 'that of its socket' }),
  stateDir: one('DIR', text, "The daemon's state directory", { absent: 'its setting' }),
  bpffs: one('DIR', text, 'Mount point of the BPF file system', { absent: 'its setting' }),
  cgroupRoot: one('DIR', text, 'Where its cgroups are', { absent: 'its setting' }),
};

/** Arguments of `sluice-off`. A unix socket lies in the run directory, where the daemon wrote its settings. */
export function offArguments(
  mode: 'off' | 'purge',
  flags: FlagValues<typeof placeFlags> & { readonly force?: boolean },
  host: string | undefined,
): string[] {
  const socket = /^(?:unix:\/\/)?(\/.+)$/.exec(host ?? '')?.[1];
  if (host !== undefined && socket === undefined && flags.runDir === undefined)
    throw new SluiceError('config.invalid', `system ${mode} works on this machine; ${host} is no socket of it`, {
      host,
    });
  const runDir = flags.runDir ?? (socket === undefined ? undefined : dirname(socket));
  const given = { ...flags, runDir };
  const places = (['instance', 'runDir', 'stateDir', 'bpffs', 'cgroupRoot'] as const).flatMap((key) =>
    given[key] === undefined ? [] : [`--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, given[key]],
  );
  return [...places, ...(mode === 'purge' ? ['--purge'] : []), ...(flags.force ? ['--force'] : [])];
}

function become(args: readonly string[], env: NodeJS.ProcessEnv): never {
  const script = join(installRoot(), 'bin/sluice-off');
  process.execve!('/bin/sh', ['sh', script, ...args], { ...env } as Record<string, string>);
  throw new SluiceError('internal', 'execve returned');
}

async function agreed({ terminal }: Context, question: string): Promise<boolean> {
  const answer = await terminal.ask(`${question} [y/N] `);
  return answer === null || /^y(es)?$/i.test(answer.trim());
}

const off = command({
  summary: 'Stop the daemon and take everything of it out of the kernel; data is kept',
  about:
    'Hooks, links, namespaces and tables of the daemon are gone within two seconds, those of others stay. The next start of the daemon ' +
    'programs everything anew. Works with a damaged store, and without the daemon; "sluice-off" is the same without Node.',
  flags: { ...placeFlags, force: toggle('Also end what runs in the sandboxes', { short: 'f' }) },
  args: {},
  async run({ env, host }, flags) {
    become(offArguments('off', flags, host ?? (env.SLUICE_HOST || undefined)), env);
  },
});

const purge = command({
  summary: 'The same as off, end what runs in the sandboxes, and delete all data',
  flags: { ...placeFlags, yes: toggle('Do not ask', { short: 'y' }) },
  args: {},
  async run(context, { yes, ...flags }) {
    const question = 'This deletes every network, sandbox and service, and ends what runs in them. Go on?';
    if (!yes && !(await agreed(context, question))) return 1;
    const { env, host } = context;
    return become(offArguments('purge', flags, host ?? (env.SLUICE_HOST || undefined)), env);
  },
});

export const system: Group = { summary: 'The installation as a whole', commands: { off, purge } };
