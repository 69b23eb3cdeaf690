/** The generated references: `npm run docs` writes them, test/unit/docs.test.ts fails when one is not what the code says. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { COMMON_CODES, REF_CODES, WAIT_CODES, WRITE_CODES } from '../src/api/errors.ts';
import type { Scrape } from '../src/api/metrics.ts';
import { describeApi } from '../src/api/openapi.ts';
import { createApi } from '../src/api/server.ts';
import { tree } from '../src/cli/tree.ts';
import { systemClock } from '../src/clock.ts';
import { ERROR_CODES } from '../src/errors.ts';
import { createLogger } from '../src/log.ts';
import { CONDITIONS } from '../src/model/object.ts';
import { cliReference } from './cli.ts';

const folder = join(import.meta.dirname, 'generated');

const GROUPS: readonly (readonly [name: string, codes: readonly string[]])[] = [
  ['reference', REF_CODES],
  ['write', WRITE_CODES],
  ['wait', WAIT_CODES],
];

interface Parameter {
  readonly name: string;
  readonly in: string;
  readonly description?: string;
}
interface Operation {
  readonly summary: string;
  readonly description?: string;
  readonly tags: readonly string[];
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: Record<string, { readonly schema: { readonly $ref?: string } }> };
  readonly responses: Record<string, { readonly description: string }>;
}
interface Document {
  readonly paths: Record<string, Record<string, Operation>>;
}

/** The document as the daemon serves it. No route is called, so nothing behind the API is needed. */
function openApi(): Document {
  const logger = createLogger('silent');
  const nothing = new Proxy({}, { get: (_, key) => (key === 'then' ? undefined : nothing) }) as never;
  const metrics = { add: () => undefined } as unknown as Scrape;
  const app = createApi({
    desired: nothing,
    nodes: nothing,
    cluster: nothing,
    store: nothing,
    live: nothing,
    peers: nothing,
    diagnosis: nothing,
    images: nothing,
    clock: systemClock,
    node: 'node',
    logger,
    version: '',
    metrics,
    system: nothing,
  });
  return describeApi(app, '') as unknown as Document;
}

/** docs/generated/errors.md: every error code with its HTTP status and meaning. */
export function errorReference(): string {
  const rows = Object.entries(ERROR_CODES).map(
    ([code, [status, meaning]]) => `| \`${code}\` | ${status} | ${meaning} |`,
  );
  return [
    '# Error codes',
    '',
    'Every failure of the API is `{code, message, details}`; the CLI prints the message and the code. Made from src/errors.ts.',
    '',
    '| code | HTTP status | meaning |',
    '|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** docs/generated/conditions.md: every condition that an object's status may carry. */
export function conditionReference(): string {
  return [
    '# Conditions',
    '',
    'What `inspect` and `status` show under `conditions`: a type, whether it is active, one sentence with the fix where there is one, since',
    'when, and how often it became active. Made from src/model/object.ts.',
    '',
    '| condition | meaning |',
    '|---|---|',
    ...Object.entries(CONDITIONS).map(([type, meaning]) => `| \`${type}\` | ${meaning} |`),
    '',
  ].join('\n');
}

const quoted = (codes: readonly string[]): string[] => codes.map((code) => `\`${code}\``);

/** Codes that stand together by name: `*write*`; those of every route are left out. */
function groupCodes(codes: readonly string[]): string[] {
  const left = new Set(codes);
  const names: string[] = [];
  for (const [name, group] of GROUPS) {
    if (!group.every((code) => codes.includes(code))) continue;
    names.push(`*${name}*`);
    for (const code of group) left.delete(code);
  }
  for (const code of COMMON_CODES) left.delete(code);
  return [...names, ...quoted([...left].sort())];
}

function operationSection(method: string, path: string, operation: Operation): string[] {
  const { summary, description, parameters = [], requestBody, responses } = operation;
  const body = requestBody?.content['application/json']?.schema.$ref?.split('/').pop();
  const successes = Object.entries(responses).filter(([status]) => Number(status) < 400);
  const codes = Object.entries(responses)
    .filter(([status]) => Number(status) >= 400)
    .flatMap(([, response]) => [...response.description.matchAll(/^`([^`]+)`/gm)].map((match) => match[1]!));
  const errors = groupCodes(codes);
  return [
    `### ${method.toUpperCase()} ${path}`,
    '',
    `${summary}.${description ? ` ${description}` : ''}`,
    '',
    ...parameters.map(({ name, in: where, description: what }) => `- ${where} \`${name}\`${what ? `: ${what}` : ''}`),
    ...(body ? [`- body: \`${body}\``] : []),
    ...successes.map(([status, response]) => `- ${status}: ${response.description}`),
    ...(errors.length > 0 ? [`- errors: ${errors.join(' ')}`] : []),
    '',
  ];
}

/** docs/generated/api.md: the document for readers. For programs the daemon serves it with every schema. */
export function apiReference(document: Document): string {
  const tags = new Map<string, string[]>();
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const tag = operation.tags[0]!;
      tags.set(tag, [...(tags.get(tag) ?? []), ...operationSection(method, path, operation)]);
    }
  }
  return [
    '# API',
    '',
    'HTTP on the unix socket `/run/sluice/sluice.sock`. The daemon serves the same as an OpenAPI document, with the schemas of',
    'all bodies, at `/v1/openapi.json`. How the API behaves: [src/api](../../src/api/README.md); what the error codes mean:',
    '[errors.md](errors.md).',
    '',
    `Every route may answer ${quoted(COMMON_CODES).join(' ')}. Further codes stand with the routes, these together:`,
    '',
    ...GROUPS.map(([name, codes]) => `- *${name}*: ${quoted(codes).join(' ')}`),
    '',
    ...[...tags].flatMap(([tag, sections]) => [`## ${tag}`, '', ...sections]),
  ].join('\n');
}

/** Name below docs/generated → content. */
export async function references(): Promise<ReadonlyMap<string, string>> {
  return new Map([
    ['errors.md', errorReference()],
    ['conditions.md', conditionReference()],
    ['api.md', apiReference(openApi())],
    ['cli.md', await cliReference(tree)],
  ]);
}

if (import.meta.main) {
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of await references()) {
    writeFileSync(join(folder, name), content);
    process.stdout.write(`wrote ${join(folder, name)}\n`);
  }
}
