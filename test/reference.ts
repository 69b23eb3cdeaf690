/** Generated references under docs/generated; `npm run docs` writes them, test/unit/tidy.test.ts compares. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_CODES } from '../src/errors.ts';
import { projectRoot } from '../src/lab/daemon.ts';

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

if (import.meta.main) {
  const folder = join(projectRoot(), 'docs/generated');
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'errors.md'), errorReference());
  process.stdout.write(`wrote ${join(folder, 'errors.md')}\n`);
}
