/** `sluice login`, `logout` */
import { type Context, command, UsageError } from '../command/command.ts';
import { one, optionalWord, text, toggle } from '../command/flag.ts';

const DEFAULT_REGISTRY = 'docker.io';
const registry = optionalWord(`registry, HOST[:PORT]; ${DEFAULT_REGISTRY} without`);
const PASSWORD_CHARS_MAX = 65_536;

async function passwordFromInput(): Promise<string> {
  let given = '';
  process.stdin.setEncoding('utf8');
  for await (const chunk of process.stdin as AsyncIterable<string>) {
    given += chunk;
    if (given.length > PASSWORD_CHARS_MAX) throw new UsageError('the password is too long');
  }
  return given.replace(/\r?\n$/, '');
}

/** Asks a person without showing what is typed. */
async function askPassword({ terminal }: Context): Promise<string> {
  if (!process.stdin.isTTY) throw new UsageError('there is nobody to ask for the password: use --password-stdin');
  const { createInterface } = await import('node:readline/promises');
  const { Writable } = process.getBuiltinModule('node:stream');
  terminal.err('Password: ');
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  try {
    return await lines.question('');
  } finally {
    lines.close();
    terminal.err('\n');
  }
}

export const login = command({
  summary: 'Log in to a registry; the credentials are kept by the daemon, for root alone to read',
  flags: {
    username: one('NAME', text, 'User', { short: 'u' }),
    password: one('TEXT', text, 'Password; others may see it in the list of processes', { short: 'p' }),
    passwordStdin: toggle('Read the password from standard input'),
  },
  args: { registry },
  async run(context, flags, { registry = DEFAULT_REGISTRY }) {
    const user = flags.username ?? (await context.terminal.ask('Username: '))?.trim();
    if (!user) throw new UsageError('there is no user: --username NAME');
    if (flags.password !== undefined && flags.passwordStdin)
      throw new UsageError('--password and --password-stdin exclude each other');
    const password = flags.passwordStdin ? await passwordFromInput() : (flags.password ?? (await askPassword(context)));
    await (await context.client()).images.login(registry, user, password);
    context.terminal.out(`logged in to ${registry}\n`);
  },
});

export const logout = command({
  summary: 'Forget the credentials for a registry',
  flags: {},
  args: { registry },
  async run(context, _flags, { registry = DEFAULT_REGISTRY }) {
    await (await context.client()).images.logout(registry);
    context.terminal.out(`logged out from ${registry}\n`);
  },
});
