/** `sluice container …`: all that the short forms at the top do, by its noun. */
import type { Command, Group } from '../command/command.ts';
import { command } from '../command/command.ts';
import { inspectEach } from '../command/each.ts';
import { words } from '../command/flag.ts';
import { inspectFlags } from '../print/listing.ts';
import { cp } from './cp.ts';
import { kill, rename, restart, rm, start, stop, wait } from './life.ts';
import { logs, port, ps, top } from './look.ts';
import { attach, exec } from './reach.ts';
import { create, run } from './run.ts';
import { stats } from './stats.ts';

const inspect = command({
  summary: 'Show all of a container: what is wanted of it, state, exit status, health',
  flags: inspectFlags,
  args: { container: words('names or ids', { of: 'container' }) },
  async run(context, { format }, { container }) {
    return inspectEach(context, container, (await context.client()).containers.get, format);
  },
});

const nested = (commands: Readonly<Record<string, Command>>): Record<string, Command> =>
  Object.fromEntries(
    Object.entries(commands).map(([name, { examples, ...rest }]) => [
      name,
      { ...rest, examples: examples?.map((example) => example.replace(/^sluice \w+/, `sluice container ${name}`)) },
    ]),
  );

export const container: Group = {
  summary: 'Containers',
  commands: nested({
    run,
    create,
    start,
    stop,
    restart,
    kill,
    wait,
    ls: { ...ps, aliases: ['ps', 'list'] },
    inspect,
    logs,
    exec,
    attach,
    top,
    stats,
    cp,
    port,
    rename,
    rm,
  }),
};
