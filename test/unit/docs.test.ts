import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { references } from '../../docs/generate.ts';

const made = await references();
const folder = join(import.meta.dirname, '../../docs/generated');

test.each([...made])('docs/generated/%s is what the code says: run `npm run docs`', (name, content) => {
  expect(content.length).toBeGreaterThan(500);
  expect(readFileSync(join(folder, name), 'utf8')).toBe(content);
});

test('every reference that is made is kept', () => {
  expect(readdirSync(folder)).toEqual(expect.arrayContaining([...made.keys()]));
});
