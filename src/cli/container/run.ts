/** `sluice run` and `sluice create`. */
import type { Client } from '../../client/client.ts';
import { isSluiceError } from '../../errors.ts';
import type { ContainerRequest } from '../../model/container/request.ts';
import type { Container } from '../../model/container.ts';
import { shortId } from '../../model/id.ts';
import type { View } from '../../model/request.ts';
import { type Command, type Context, command, UsageError } from '../command/command.ts';
import { one, optionalCommandLine, text, toggle, word } from '../command/flag.ts';
import { WAIT_MS, waitTimeoutFlag, warn } from '../command/wait.ts';
import { progress } from '../print/progress.ts';
import { type ContainerFlags, containerFlags, containerRequest } from './flags.ts';
import { follow, OURS, statusOf } from './follow.ts';
import { madeUpName } from './name.ts';
import { DETACH_KEYS, readKeys } from './stream.ts';

const PULL = ['missing', 'always', 'never'] as const;
type Pull = (typeof PULL)[number];

export const pullFlags = {
  pull: one<Pull>(
    'missing|always|never',
    (given) => {
      const known = PULL.find((word) => word === given);
      if (!known) throw new UsageError(`"${given}" is not one of ${PULL.join(', ')}`);
      return known;
    },
    'When the image is pulled',
    { absent: 'missing' },
  ),
  platform: one('OS/ARCH', text, 'Build of the image that is pulled', { absent: "the host's" }),
};

interface PullFlags {
  readonly pull?: Pull;
  readonly platform?: string;
  readonly quiet?: boolean;
}
interface MakeFlags extends ContainerFlags, PullFlags {
  readonly waitTimeout?: number;
}

/** Says on standard error that the image is not here, pulls it with bars, and says what came. */
async function pullFirst(context: Context, { platform, quiet, pull }: PullFlags, image: string): Promise<void> {
  const { pulling } = await import('../image/transfer.ts');
  const say = (words: string): void => {
    if (!quiet) context.terminal.err(`sluice: ${words}\n`);
  };
  if (pull !== 'always') say(`image ${image} is not here; pulling it`);
  const { names, id } = await pulling(context, image, platform, quiet);
  say(`pulled ${names[0] ?? image} (${shortId(id.replace('sha256:', ''))})`);
}

/** Does what needs the image; one that is not here is pulled first. */
export async function withImage<T>(
  context: Context,
  flags: PullFlags,
  image: string,
  put: () => Promise<T>,
): Promise<T> {
  if (flags.pull === 'always') await pullFirst(context, flags, image);
  try {
    return await put();
  } catch (error) {
    if (!isSluiceError(error, 'image.notfound') || flags.pull === 'never') throw error;
  }
  await pullFirst(context, flags, image);
  return put();
}

/** A container of the request, created; an image that is not here is pulled first. Without a name one is made up. */
async function make(
  context: Context,
  client: Client,
  flags: MakeFlags,
  request: ContainerRequest,
): Promise<View<Container>> {
  const name = flags.name ?? madeUpName(crypto.getRandomValues(new Uint8Array(4)));
  const options = { create: true, waitMs: request.start ? (flags.waitTimeout ?? WAIT_MS) : 0 };
  const put = (): Promise<View<Container>> =>
    progress(
      context.terminal,
      `container ${name} is ${request.start ? 'started' : 'created'}`,
      client.containers.put(name, request, options),
    );
  return withImage(context, flags, request.image, put);
}

export const run: Command = command({
  summary: 'Run a program in a new container',
  about:
    'Its output and exit status are those of this command, until ctrl-p ctrl-q lets go; with --detach it runs on its own, and its id is printed. ' +
    'Exit status 125: Sluice failed; 126: the program cannot be executed; 127: it is not there.',
  examples: [
    'sluice run -d --name api-1 --network web --network-alias api busybox httpd -f -p 80',
    'sluice run --rm -it busybox sh',
  ],
  flags: {
    ...containerFlags,
    ...pullFlags,
    detach: toggle('Return when it has started, and print its id', { short: 'd' }),
    detachKeys: one('KEYS', readKeys, 'Keys that let go of it', { absent: DETACH_KEYS }),
    sigProxy: toggle('Pass signals on to it', { absent: 'true' }),
    quiet: toggle('Say nothing but what the program says', { short: 'q' }),
    waitTimeout: waitTimeoutFlag,
  },
  args: { image: word('name or id', { of: 'image' }), command: optionalCommandLine('program and its arguments') },
  failure: OURS,
  async run(context, flags, { image, command }) {
    const client = await context.client();
    const given = containerRequest(flags, image, command, context.env);
    // What is typed here ends with this command; a terminal is let go of and attached to again.
    const request = given.stdin && !given.tty && !flags.detach ? { ...given, stdinOnce: true } : given;
    try {
      const container = await make(context, client, flags, { ...request, start: flags.detach ?? false });
      if (flags.detach) {
        context.terminal.out(`${container.id}\n`);
        warn(context, container);
        return 0;
      }
      return await follow(context, client, container, {
        start: true,
        stdin: flags.interactive ?? false,
        detachKeys: flags.detachKeys,
        signals: flags.sigProxy ?? true,
      });
    } catch (error) {
      return statusOf(context, error);
    }
  },
});

export const create: Command = command({
  summary: 'Create a container without starting it',
  examples: ['sluice create --name api-1 --network web busybox httpd -f -p 80'],
  flags: {
    ...containerFlags,
    ...pullFlags,
    quiet: toggle('Say nothing but the id', { short: 'q' }),
    waitTimeout: waitTimeoutFlag,
  },
  args: { image: word('name or id', { of: 'image' }), command: optionalCommandLine('program and its arguments') },
  async run(context, flags, { image, command }) {
    const client = await context.client();
    const container = await make(context, client, flags, containerRequest(flags, image, command, context.env));
    context.terminal.out(`${container.id}\n`);
  },
});
