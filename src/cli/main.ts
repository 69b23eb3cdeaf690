/**
 * The command line: reads the words, loads the one noun that they name, runs it. Exit status 0, 1 for an error (with its sentence
 * and code), 2 for words that are no command; what runs a program returns that program's, and 125 for a failure of ours.
 */
import { isSluiceError } from '../errors.ts';
import { type Command, type Context, isGroup, UsageError } from './command/command.ts';
import { type Parsed, ParseError, parse } from './command/parse.ts';
import { processTerminal, type Terminal } from './print/terminal.ts';
import { tree } from './tree.ts';

const FAILED = 1;
const USAGE = 2;

/** Runs one command line; returns its exit status. */
export async function run(
  argv: readonly string[],
  terminal: Terminal,
  env: NodeJS.ProcessEnv,
  makeClient: Context['client'] | undefined = undefined,
): Promise<number> {
  let path: readonly string[] = [];
  let command: Command | undefined;
  try {
    const parsed = await parse(tree, spelledOut(argv));
    path = parsed.path;
    if (parsed.node && !isGroup(parsed.node)) command = parsed.node;
    if (parsed.help || !command) return await showHelp(parsed, terminal);
    const host = parsed.host ?? (env.SLUICE_HOST || undefined);
    const client = makeClient ?? (async () => (await import('../client/client.ts')).createClient({ host }));
    const status = await command.run({ terminal, env, host, client }, parsed.flags, parsed.args);
    return status ?? 0;
  } catch (error) {
    if (error instanceof ParseError) {
      path = error.path;
      if (error.node && !isGroup(error.node)) command = error.node;
    }
    const status = await complain(error, path, terminal, env);
    return command?.failure ?? status;
  }
}

/** `-v` and `--version` at the top are the habit of most programs. */
const spelledOut = (argv: readonly string[]): readonly string[] =>
  argv.length === 1 && (argv[0] === '-v' || argv[0] === '--version') ? ['version'] : argv;

/** Help that was asked for is an answer; the name of a group alone is half a command. */
async function showHelp({ path, node, help }: Parsed, terminal: Terminal): Promise<number> {
  const { helpOf } = await import('./command/help.ts');
  const text = helpOf(tree, path, node, terminal.columns);
  if (help || node === null) {
    terminal.out(text);
    return 0;
  }
  terminal.err(text);
  return 2;
}

/** Says what went wrong; returns the exit status of it. */
async function complain(
  error: unknown,
  path: readonly string[],
  terminal: Terminal,
  env: NodeJS.ProcessEnv,
): Promise<number> {
  if (error instanceof UsageError) {
    terminal.err(`sluice: ${error.message}\nTry "${['sluice', ...path].join(' ')} -h".\n`);
    return USAGE;
  }
  if (isSluiceError(error)) {
    terminal.err(`sluice: ${error.message} (${error.code})\n`);
    if (error.details.stored && error.code !== 'wait.timeout')
      terminal.err('It is stored, and tried again until it succeeds or is removed.\n');
    return FAILED;
  }
  const { message, stack } = error as Error;
  terminal.err(`sluice: ${message} (internal)\n`);
  if (env.SLUICE_DEBUG) terminal.err(`${stack}\n`);
  return FAILED;
}

/** No `await` at the top: this file is also compiled to CommonJS. */
async function main(): Promise<void> {
  process.exitCode = await run(process.argv.slice(2), processTerminal(), process.env);
}

if (import.meta.main) main();
