/** `sluice trace`: the way from a sandbox to where it wants to go. */
import type { TraceAnswer, TraceStep } from '../../model/diagnosis/trace.ts';
import { command } from '../command/command.ts';
import { word } from '../command/flag.ts';
import { formatFlag, printOne } from '../print/listing.ts';
import { clean, renderTable } from '../print/table.ts';

const STATES = { ok: 'ok', wrong: 'WRONG', unasked: 'not asked' } as const satisfies Record<TraceStep['state'], string>;

export function traceText({ from, to, wrong, steps }: TraceAnswer): string {
  const rows = steps.map(({ step, node, subject, state, reason }) => [STATES[state], step, node, subject, reason]);
  const table = renderTable(['STATE', 'STEP', 'NODE', 'OF', 'WHAT'], rows);
  if (!wrong) return `${table}\nnothing is wrong between ${clean(from)} and ${clean(to)}, as far as could be asked\n`;
  const look = wrong.command ? `\n    ${clean(wrong.command)}` : '';
  return `${table}\nwrong first, at ${wrong.step} on node ${clean(wrong.node)}: ${clean(wrong.reason)}${look}\n`;
}

export const trace = command({
  summary: 'The way from a sandbox to a name or address, and what is wrong on it first',
  about:
    'Walks name, service, route, neighbour, forwarding entry, tunnel and the other host, which is asked what it finds itself. Each step is ok, wrong, or was not asked. SRC is a sandbox or container of this node. Exit status 0: nothing is wrong; 1: something is.',
  examples: [
    'sluice trace client shop:80',
    'sluice trace client 10.20.0.9',
    'sluice trace client [fd00::9]:443 --format json',
  ],
  flags: { format: formatFlag },
  args: {
    src: word('sandbox or container', { of: 'sandbox' }),
    dst: word('name, service, sandbox or address, with :PORT or without'),
  },
  failure: 2,
  async run(context, { format = 'table' }, { src, dst }) {
    const answer = await (await context.client()).trace({ from: src, to: dst });
    await printOne(context, answer, format, traceText);
    return answer.reachable ? 0 : 1;
  },
});
