/** `sluice start|stop|restart|kill|wait|rename|rm`. */
import { isSluiceError } from '../../errors.ts';
import { command, UsageError } from '../command/command.ts';
import { forEach } from '../command/each.ts';
import { duration, one, text, toggle, word, words } from '../command/flag.ts';
import { waitFlags, waitOf, waitTimeoutFlag } from '../command/wait.ts';
import { follow, OURS, statusOf } from './follow.ts';
import { DETACH_KEYS, readKeys } from './stream.ts';

const CONTAINERS = words('names or ids', { of: 'container' });
const timeFlag = one('TIME', duration, 'Between the stop signal and SIGKILL', {
  short: 't',
  also: ['--timeout'],
  absent: "the container's, 10s",
});

export const start = command({
  summary: 'Start containers',
  about: 'With --attach or --interactive its output is shown, and its exit status returned.',
  examples: ['sluice start api-1 api-2'],
  flags: {
    attach: toggle('Show what it writes, and pass signals on to it', { short: 'a' }),
    interactive: toggle('Pass standard input on to it', { short: 'i' }),
    detachKeys: one('KEYS', readKeys, 'Keys that let go of it', { absent: DETACH_KEYS }),
    waitTimeout: waitTimeoutFlag,
  },
  args: { container: CONTAINERS },
  async run(context, flags, { container }) {
    const client = await context.client();
    if (!flags.attach && !flags.interactive)
      return forEach(context, 'started', container, (ref) => client.containers.start(ref, waitOf(flags)));
    if (container.length > 1) throw new UsageError('only one can be attached to');
    try {
      const { detachKeys, interactive: stdin = false } = flags;
      const view = await client.containers.get(container[0]!);
      return await follow(context, client, view, { start: true, stdin, detachKeys, signals: true });
    } catch (error) {
      const status = statusOf(context, error);
      return status === OURS ? 1 : status;
    }
  },
});

/** The grace period is no part of what an answer may take. */
const patient = (flags: { readonly time?: number; readonly detach?: boolean; readonly waitTimeout?: number }) => {
  const { waitMs = 0 } = waitOf(flags);
  return { timeoutMs: flags.time, waitMs: waitMs && waitMs + (flags.time ?? 10_000) };
};

export const stop = command({
  summary: 'Stop containers',
  examples: ['sluice stop --time 3s api-1'],
  flags: { time: timeFlag, ...waitFlags },
  args: { container: CONTAINERS },
  async run(context, flags, { container }) {
    const { containers } = await context.client();
    return forEach(context, 'stopped', container, (ref) => containers.stop(ref, patient(flags)));
  },
});

export const restart = command({
  summary: 'Stop containers and start them again',
  examples: ['sluice restart api-1'],
  flags: { time: timeFlag, ...waitFlags },
  args: { container: CONTAINERS },
  async run(context, flags, { container }) {
    const { containers } = await context.client();
    return forEach(context, 'restarted', container, (ref) => containers.restart(ref, patient(flags)));
  },
});

export const kill = command({
  summary: 'Send a signal to containers',
  examples: ['sluice kill --signal HUP api-1'],
  flags: { signal: one('SIGNAL', text, 'Signal, by name or number', { short: 's', absent: 'KILL' }) },
  args: { container: CONTAINERS },
  async run(context, { signal }, { container }) {
    const { containers } = await context.client();
    return forEach(context, 'signalled', container, (ref) => containers.kill(ref, signal?.toUpperCase()));
  },
});

export const wait = command({
  summary: 'Wait until containers have ended, and print their exit status',
  examples: ['sluice wait batch'],
  flags: {},
  args: { container: CONTAINERS },
  async run(context, _, { container }) {
    const { containers } = await context.client();
    for (const ref of container) context.terminal.out(`${(await containers.exit(ref)).exitCode}\n`);
  },
});

export const rename = command({
  summary: 'Give a container another name',
  examples: ['sluice rename api-1 api-old'],
  flags: {},
  args: { container: word('name or id', { of: 'container' }), newName: word('new name') },
  async run(context, _, { container, newName }) {
    const { name } = await (await context.client()).containers.rename(container, newName);
    context.terminal.out(`${name}\n`);
  },
});

export const rm = command({
  summary: 'Remove containers',
  aliases: ['remove'],
  examples: ['sluice rm --force api-1'],
  flags: {
    force: toggle('Also those that run (killed), that services balance over, or that are not there', { short: 'f' }),
    volumes: toggle('Also their anonymous volumes', { short: 'v' }),
    ...waitFlags,
  },
  args: { container: CONTAINERS },
  async run(context, flags, { container }) {
    const { containers } = await context.client();
    const options = { ...waitOf(flags), force: flags.force, volumes: flags.volumes };
    return forEach(context, 'removed', container, (ref) =>
      containers.remove(ref, options).catch((error: unknown) => {
        if (!flags.force || !isSluiceError(error, 'object.notfound')) throw error;
      }),
    );
  },
});
