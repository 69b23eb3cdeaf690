import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { errorReference } from '../../docs/generate.ts';
import { ERROR_CODES } from '../../src/errors.ts';
import { projectRoot } from '../../src/lab/daemon.ts';
import { areaOf, codeOf, importsOf, importViolations, shapeViolations, sourceViolations, violations } from '../tidy.ts';

const CODES = Object.keys(ERROR_CODES);

/** Text files that are ours, by path from the root. */
function tree(): Map<string, string> {
  const root = projectRoot();
  const files = new Map<string, string>();
  const walk = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        if (!['node_modules', 'dist', '.git', '.cache', 'results', 'bin'].includes(entry.name)) walk(path);
      } else if (/\.(?:ts|c|h|sh|md|json)$|^(?:setup|run)$/.test(entry.name) && entry.name !== 'package-lock.json') {
        files.set(path, readFileSync(join(root, path), 'utf8'));
      }
    }
  };
  walk('');
  return files;
}

describe('the tree', () => {
  const files = tree();

  test('is seen: a walk that finds nothing proves nothing', () => {
    const typescript = [...files.keys()].filter((path) => path.endsWith('.ts'));
    expect(typescript.length).toBeGreaterThan(30);
    expect(typescript).toContain('src/contracts/kernel.ts');
    const imports = typescript.flatMap((path) => importsOf(files.get(path)!));
    expect(imports.length).toBeGreaterThan(typescript.length);
  });

  test('keeps every rule', () => {
    expect(violations(files, CODES)).toEqual([]);
  });

  test('documents every error code', () => {
    expect(files.get('docs/generated/errors.md'), 'run `npm run docs`').toBe(errorReference());
    for (const [code, [status, meaning]] of Object.entries(ERROR_CODES)) {
      expect(code).toMatch(/^(?:[a-z]+\.[a-z]+|internal)$/);
      expect(status).toBeGreaterThanOrEqual(400);
      expect(meaning).toMatch(/^[A-Z].*\.$/);
    }
  });
});

describe('the scanner', () => {
  test('blanks comments and the insides of strings, and keeps every offset', () => {
    const source = `const a = 'it\\'s // no'; // a comment\nconst b = "/*"; /* two\nlines */ const c = 1;`;
    const code = codeOf(source);
    expect(code.length).toBe(source.length);
    expect(code).toContain('const c = 1;');
    expect(code).not.toMatch(/comment|no'|lines/);
    expect(code.split('\n').length).toBe(3);
  });

  test('follows templates into their expressions and out again', () => {
    const source = ['const t = `a $', '{f({ x: `in $', '{y} ner` })} b`; setTimeout(z);'].join('');
    const code = codeOf(source);
    expect(code).toContain('f({ x: `');
    expect(code).toContain('y');
    expect(code).not.toMatch(/ner| b`/);
    expect(code).toContain('setTimeout(z);');
  });

  test('tells a regular expression from a division', () => {
    expect(codeOf("const r = /['\"`/]/g; const s = 'x';")).toContain('; const s = ');
    expect(codeOf('const q = a / b / c; call(d);')).toBe('const q = a / b / c; call(d);');
    expect(codeOf("return /'/.test(x); const y = 'hidden';")).not.toContain('hidden');
  });
});

describe('imports are found', () => {
  test.each([
    ["import { a } from './a.ts';", ['./a.ts']],
    ["import type { a } from './a.ts';", ['./a.ts']],
    ["import a, {\n  b,\n  type c,\n} from './a.ts';", ['./a.ts']],
    ["import './a.ts';", ['./a.ts']],
    ["export * from './a.ts';", ['./a.ts']],
    ["export { a as b } from './a.ts';", ['./a.ts']],
    ["const a = await import('./a.ts');", ['./a.ts']],
    ['const a = await import(`./a.ts`);', ['./a.ts']],
    ["const a = require('./a.ts');", ['./a.ts']],
    ["type A = import('./a.ts').A;", ['./a.ts']],
    ["// import { a } from './a.ts';", []],
    ['const text = "import { a } from \'./a.ts\'";', []],
    ['const here = import.meta.dirname;', []],
  ])('%s', (source, expected) => {
    expect(importsOf(source)).toEqual(expected);
  });
});

describe('a planted violation is caught', () => {
  test.each([
    ['src/model/network.ts', "import { systemClock } from '../clock.ts';"],
    ['src/contracts/store.ts', "import type { Link } from '../kernel/link.ts';"],
    ['src/controller/network.ts', "import { create } from '../../plugins/bridge/driver.ts';"],
    ['src/controller/network.ts', "import { systemKernel } from '../kernel/kernel.ts';"],
    ['src/api/app.ts', "import { openStore } from '../store/sqlite.ts';"],
    ['src/client/client.ts', "import type { Store } from '../contracts/store.ts';"],
    ['src/cli/network.ts', "const api = await import('../api/app.ts');"],
    ['src/dns/server.ts', "export * from '../balancer/maglev.ts';"],
    ['plugins/bridge/driver.ts', "import { x } from '../overlay/driver.ts';"],
    ['bench/balance.ts', "import { x } from '../src/balancer/maglev.ts';"],
    ['src/errors.ts', "import type { Store } from './contracts/store.ts';"],
    ['src/novel/x.ts', "import type { Store } from '../contracts/store.ts';"],
    ['src/store/sqlite.ts', "import koffi from 'koffi';"],
    ['test/unit/x.test.ts', "import koffi from 'koffi';"],
    ['src/kernel/link.ts', "import { x } from './netlink';"],
  ])('import: %s: %s', (path, source) => {
    expect(importViolations(path, source)).toHaveLength(1);
  });

  test.each([
    ['src/main.ts', "import { openStore } from './store/sqlite.ts';"],
    ['src/balancer/ebpf.ts', "import { openBpf } from '../kernel/bpf.ts';"],
    ['src/kernel/link.ts', "import koffi from 'koffi';"],
    ['src/controller/loop.ts', "import { plan } from '../desired/network.ts';"],
    ['src/api/app.ts', "import { NAME_PATTERN } from '../model/id.ts';"],
    ['plugins/bridge/driver.ts', "import { plan } from './plan.ts';"],
    ['src/fault.ts', "import { SluiceError } from './errors.ts';"],
    ['src/cli/bench.ts', "import { connector } from '../load/connector.ts';"],
  ])('and a legal import is not: %s: %s', (path, source) => {
    expect(importViolations(path, source)).toEqual([]);
  });

  const word = (...parts: string[]) => parts.join('');
  test.each([
    ['src/dns/a.ts', 'const t = Date.now();'],
    ['src/dns/a.ts', 'const t = new Date();'],
    ['src/dns/a.ts', 'setTimeout(f, 5);'],
    ['src/dns/a.ts', 'const r = Math.random();'],
    ['src/dns/a.ts', "import { setTimeout as sleep } from 'node:timers/promises';"],
    ['src/dns/a.ts', 'try { f(); } catch {}'],
    ['src/dns/a.ts', 'try { f(); } catch (error) {\n\n}'],
    ['src/dns/a.ts', 'f().catch(() => {});'],
    ['src/dns/a.ts', 'f().catch((_) => { });'],
    ['src/dns/a.ts', 'export default class A {}'],
    ['src/dns/a.ts', 'export enum A { b }'],
    ['test/unit/a.test.ts', word('test.', "only('a', f);")],
    ['test/unit/a.test.ts', word('test.', "skip('a', f);")],
    ['test/unit/a.test.ts', word('context.', "skip('because');")],
  ])('source: %s: %s', (path, source) => {
    expect(sourceViolations(path, source)).toHaveLength(1);
  });

  test.each([
    ['src/lab/a.ts', 'setTimeout(f, 5);'],
    ['src/dns/a.ts', 'const t = new Date(clock.now());'],
    ['src/dns/a.ts', "const why = 'Date.now() is not for us';"],
    ['src/dns/a.ts', 'try { f(); } catch (error) { log.warn(error); }'],
    ['src/dns/a.ts', 'try { f(); } catch {\n// not ours: told below\n}'],
  ])('and legal source is not: %s: %s', (path, source) => {
    expect(sourceViolations(path, source)).toEqual([]);
  });

  test('a long file, a full folder, a vague folder, an area without README', () => {
    const files = new Map<string, string>([
      ['src/dns/README.md', ''],
      ['src/dns/long.ts', 'x\n'.repeat(451)],
      ['src/store/utils/x.ts', ''],
      ...Array.from({ length: 15 }, (_, index) => [`src/dns/f${index}.ts`, ''] as const),
    ]);
    expect(shapeViolations(files)).toEqual([
      expect.stringContaining('src/dns/long.ts: 451 lines'),
      expect.stringContaining('src/store/utils/x.ts: a folder named utils'),
      expect.stringContaining('src/dns: 16 files'),
      'src/store: has no README.md',
    ]);
  });

  test('an undeclared error code, an unfinished place, a word about the place of making', () => {
    const plant = (text: string) =>
      violations(
        new Map([
          ['src/dns/README.md', ''],
          ['src/dns/a.ts', text],
        ]),
        CODES,
      );
    expect(plant("throw new SluiceError('no.such', 'x');")).toHaveLength(1);
    expect(plant("throw new SluiceError(\n  'request.invalid',\n  'x');")).toEqual([]);
    expect(plant(word('// TO', 'DO: more'))).toHaveLength(1);
    expect(plant(word("const path = '/wo", "rk/main';"))).toHaveLength(1);
    expect(plant('')).toEqual([]);
  });
});

test('areas', () => {
  expect(areaOf('src/kernel/link.ts')).toBe('src/kernel');
  expect(areaOf('plugins/bridge/driver.ts')).toBe('plugins');
  expect(areaOf('src/main.ts')).toBe('src/main.ts');
});
