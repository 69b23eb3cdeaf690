/** `sluice exec` and `sluice attach`. */
import { SluiceError } from '../../errors.ts';
import { command } from '../command/command.ts';
import { commandLine, many, one, text, toggle, word } from '../command/flag.ts';
import { follow, OURS, statusOf } from './follow.ts';
import { DETACH_KEYS, readKeys, stream } from './stream.ts';
import { envOf } from './words.ts';

export const exec = command({
  summary: 'Run a further program in a container',
  about:
    'Its exit status is returned; 125 is a failure of Sluice, 126 a program that cannot be executed, 127 one that is not found.',
  examples: ['sluice exec client wget -qO- http://shop', 'sluice exec -it client sh'],
  flags: {
    detach: toggle('Return at once, its output unseen', { short: 'd' }),
    interactive: toggle('Pass standard input on', { short: 'i' }),
    tty: toggle('Give it a terminal', { short: 't' }),
    env: many('KEY[=VALUE]', text, 'Environment variable', { short: 'e' }),
    user: one('USER[:GROUP]', text, 'User that it runs as', { short: 'u', absent: "the container's" }),
    workdir: one('DIR', text, 'Working directory', { short: 'w', absent: "the container's" }),
    privileged: toggle('All capabilities'),
    detachKeys: one('KEYS', readKeys, 'Keys that let go of it', { absent: DETACH_KEYS }),
  },
  args: { container: word('name or id', { of: 'container' }), command: commandLine('program and its arguments') },
  failure: OURS,
  async run({ client, terminal, env: own, ...rest }, flags, { container, command }) {
    const { detach, interactive = false, tty = false, env, user, workdir, privileged } = flags;
    const stdin = interactive && !detach;
    const size = tty && !detach ? terminal.input().size() : undefined;
    try {
      const session = await (await client()).containers.exec(container, {
        args: command,
        env: env.flatMap((given) => envOf(given, own) ?? []),
        tty,
        stdin,
        ...(user !== undefined && { user }),
        ...(workdir !== undefined && { workdir }),
        ...(privileged && { privileged }),
        ...size,
      });
      if (detach) {
        session.detach();
        return 0;
      }
      const detachKeys = flags.detachKeys ?? (tty ? readKeys(DETACH_KEYS) : []);
      return (await stream(terminal, session, { tty, stdin, detachKeys, signals: !tty })) ?? 0;
    } catch (error) {
      return statusOf({ client, terminal, env: own, ...rest }, error);
    }
  },
});

export const attach = command({
  summary: 'Attach to the first process of a container',
  about: 'Its exit status is returned. The keys ctrl-p ctrl-q let go of one that has a terminal.',
  examples: ['sluice attach api-1'],
  flags: {
    noStdin: toggle('Do not pass standard input on'),
    detachKeys: one('KEYS', readKeys, 'Keys that let go of it', { absent: DETACH_KEYS }),
    sigProxy: toggle('Pass signals on to it', { absent: 'true' }),
  },
  args: { container: word('name or id', { of: 'container' }) },
  async run(context, { noStdin, detachKeys, sigProxy = true }, { container }) {
    const client = await context.client();
    const view = await client.containers.get(container);
    if (view.removing) throw new SluiceError('object.removing', `container ${view.name} is being removed`);
    return follow(context, client, view, { start: false, stdin: !noStdin, detachKeys, signals: sigProxy });
  },
});
