/** `sluice diff`: what should be, against the kernel. */
import type { DiffAnswer, Difference, DiffKind } from '../../model/diagnosis/diff.ts';
import { command, UsageError } from '../command/command.ts';
import { optionalWord } from '../command/flag.ts';
import { formatFlag, printOne } from '../print/listing.ts';
import { clean } from '../print/table.ts';

const KINDS: readonly DiffKind[] = ['network', 'sandbox', 'endpoint', 'service', 'container', 'firewall', 'host'];
const PLURALS: Readonly<Record<DiffKind, string>> = {
  network: 'networks',
  sandbox: 'sandboxes',
  endpoint: 'endpoints',
  service: 'services',
  container: 'containers',
  firewall: 'nft tables',
  host: 'hosts',
};

/** `link sv01: should be up, is down` */
export function differenceText({ what, want, have }: Difference): string {
  if (want === undefined && have === undefined) return what;
  const are = (state: string): string => (state === 'there' ? '' : ` (${state})`);
  if (have === undefined) return `${what}: missing${are(want!)}`;
  if (want === undefined) return `${what}: should not be there${are(have)}`;
  return `${what}: should be ${want}, is ${have}`;
}

export function diffText({ node, items, compared, skipped }: DiffAnswer): string {
  const count = (kind: DiffKind, n: number): string =>
    `${n} ${n === 1 ? (kind === 'firewall' ? 'nft table' : kind) : PLURALS[kind]}`;
  const counted = KINDS.flatMap((kind) => (kind !== 'host' && compared[kind] ? [count(kind, compared[kind])] : []));
  const looked = counted.length > 0 ? ` (${counted.join(', ')})` : '';
  const lines = items.flatMap(({ kind, name, differences, error }) => [
    `${kind} ${name}`,
    ...(error ? [`  not programmed: ${error.message} (${error.code})`] : []),
    ...differences.flatMap((difference) => [
      `  ${differenceText(difference)}`,
      ...(difference.command ? [`      ${difference.command}`] : []),
    ]),
  ]);
  const left = skipped.map(({ kind, name, reason }) => `${kind} ${name} not compared: ${reason}`);
  const end =
    items.length === 0
      ? `the kernel of ${node} is as it should be${looked}`
      : `${items.length} ${items.length === 1 ? 'object differs' : 'objects differ'} on ${node}${looked}`;
  return `${[...lines, ...left, end].map(clean).join('\n')}\n`;
}

export const diff = command({
  summary: 'How the kernel of this host differs from what should be; repairs nothing',
  about:
    'Each difference says what should be there and what is, with a command that shows it or puts it right by hand. The daemon repairs most of them by itself at its next audit. Exit status 0: nothing differs; 1: something does; 2: it could not be told.',
  examples: ['sluice diff', 'sluice diff network web', 'sluice diff endpoint client.web --format json'],
  flags: { format: formatFlag },
  args: {
    kind: optionalWord(`${KINDS.join(', ')}; none: all`),
    name: optionalWord('name or id'),
  },
  failure: 2,
  async run(context, { format = 'table' }, { kind, name }) {
    const known = KINDS.find((one) => one === kind);
    if (kind !== undefined && !known) throw new UsageError(`"${kind}" is not one of ${KINDS.join(', ')}`);
    const answer = await (await context.client()).diff({ kind: known, name });
    await printOne(context, answer, format, diffText);
    return answer.items.length > 0 ? 1 : 0;
  },
});
