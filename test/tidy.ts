/**
 * The structure rules of the repository, as pure functions over `path → text`. test/unit/tidy.test.ts runs them over the tree
 * and over planted violations. Nothing here parses TypeScript through a compiler's API: a scanner tells code from comments and
 * strings, and expressions over what is left find imports and forbidden calls.
 */

export type Files = ReadonlyMap<string, string>;

/** Files that everybody but the model may import. */
const GROUND = ['src/errors.ts', 'src/log.ts', 'src/metrics.ts', 'src/config.ts', 'src/clock.ts', 'src/fault.ts'];

/** What each area may import of ours beside itself, the model and the ground. `*`: everything. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'src/model': [],
  'src/contracts': [],
  'src/desired': ['src/contracts'],
  'src/kernel': ['src/contracts'],
  'src/bpf': [],
  'src/store': ['src/contracts'],
  'src/ipam': ['src/contracts'],
  'src/balancer': ['src/contracts', 'src/kernel'],
  'src/dns': ['src/contracts', 'src/kernel'],
  'src/cluster': ['src/contracts', 'src/desired'],
  'src/controller': ['src/contracts', 'src/desired'],
  'src/api': ['src/contracts', 'src/desired'],
  'src/client': [],
  'src/lab': ['src/client', 'src/kernel'],
  'src/load': ['src/client', 'src/lab', 'src/kernel'],
  'src/cli': ['src/client', 'src/lab', 'src/load'],
  plugins: ['src/contracts', 'src/kernel'],
  runtime: ['src/contracts', 'src/kernel'],
  bench: ['src/client', 'src/lab', 'src/load'],
  test: ['*'],
  'vitest.config.ts': ['test'],
  docs: ['*'],
};

/** Folders whose code may ask the machine for time and chance directly. */
const OWN_TIME = ['src/clock.ts', 'src/cli/', 'src/lab/', 'src/load/', 'bench/', 'test/', 'docs/'];

const FORBIDDEN_FOLDERS = [
  'utils',
  'util',
  'common',
  'helpers',
  'helper',
  'services',
  'interfaces',
  'misc',
  'shared',
  'lib',
];

const LINES_MAX = 450;
const TEST_LINES_MAX = 650;
const FOLDER_FILES_MAX = 14;

/** Words that say where or by what the project was made; it speaks of itself alone. Written so that this file passes. */
const FORBIDDEN_WORDS =
  /\/wor[k]\/|\/far[m]\/|\/tmp\/w[t]\/|[.]librar[y]\/|subagen[t]|far[m]-|developers?.? sessio[n]/i;

const UNFINISHED = /\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b|not (?:yet )?implemente[d]/;

/** The source with comments and the insides of strings, templates and regular expressions blanked, offsets unchanged. */
export function codeOf(source: string): string {
  const code = source.split('');
  const blank = (from: number, to: number): void => {
    for (let at = from; at < to; at++) if (code[at] !== '\n') code[at] = ' ';
  };
  /** Depths of `{` inside the `${` of open templates. */
  const templates: number[] = [];
  let last = '';
  let at = 0;
  const endOf = (pattern: RegExp, from: number): number => {
    pattern.lastIndex = from;
    return pattern.exec(source) ? pattern.lastIndex : source.length;
  };
  const template = (from: number): number => {
    const end = endOf(/(?:\\[\s\S]|(?!\$\{)[^`\\])*(?:`|\$\{)/y, from);
    blank(from, end - (source[end - 1] === '`' ? 1 : 2));
    if (source[end - 1] === '{') templates.push(0);
    return end;
  };
  while (at < source.length) {
    const two = source.slice(at, at + 2);
    const char = source[at]!;
    if (two === '//' || two === '/*') {
      const end = two === '//' ? endOf(/(?=\n)/g, at) : endOf(/\*\//g, at + 2);
      blank(at, end);
      at = end;
      continue;
    }
    if (char === "'" || char === '"') {
      const end = endOf(char === "'" ? /(?:\\[\s\S]|[^'\\\n])*'/y : /(?:\\[\s\S]|[^"\\\n])*"/y, at + 1);
      blank(at + 1, end - 1);
      at = end;
      last = char;
      continue;
    }
    if (char === '`') {
      at = template(at + 1);
      last = '`';
      continue;
    }
    if (char === '/' && !/[\w$)\]'"`]/.test(last)) {
      const end = endOf(/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y, at + 1);
      blank(at + 1, end);
      at = end;
      last = ')';
      continue;
    }
    if (char === '{' && templates.length > 0) templates[templates.length - 1]!++;
    if (char === '}' && templates.length > 0 && --templates[templates.length - 1]! < 0) {
      templates.pop();
      at = template(at + 1);
      last = '`';
      continue;
    }
    if (/\w/.test(char)) {
      const word = /[\w$]+/y;
      word.lastIndex = at;
      const text = word.exec(source)![0];
      // After these words a slash begins a regular expression.
      last = ['return', 'typeof', 'case', 'in', 'of', 'await', 'yield'].includes(text) ? '(' : 'a';
      at += text.length;
      continue;
    }
    if (char.trim() !== '') last = char;
    at++;
  }
  return code.join('');
}

/** Every module that a source names: static, type-only, side-effect, re-exporting and dynamic imports, and `require`. */
export function importsOf(source: string): string[] {
  const code = codeOf(source);
  const found: string[] = [];
  const statement = /\b(?:from|import)\s*(['"])|\b(?:import|require)\s*\(\s*(['"`])/g;
  for (let match = statement.exec(code); match; match = statement.exec(code)) {
    const start = statement.lastIndex;
    const end = code.indexOf(match[1] ?? match[2]!, start);
    found.push(source.slice(start, end));
  }
  return found;
}

/** `src/kernel/link.ts` → `src/kernel`; `plugins/bridge/driver.ts` → `plugins`; `src/main.ts` → itself. */
export function areaOf(path: string): string {
  const parts = path.split('/');
  return parts[0] === 'src' ? parts.slice(0, 2).join('/') : parts[0]!;
}

function resolve(from: string, specifier: string): string {
  const parts = from.split('/').slice(0, -1);
  for (const part of specifier.split('/')) {
    if (part === '..') parts.pop();
    else if (part !== '.') parts.push(part);
  }
  return parts.join('/');
}

/** Violations of the import table by one file. */
export function importViolations(path: string, source: string): string[] {
  const area = areaOf(path);
  const wrong: string[] = [];
  for (const specifier of importsOf(source)) {
    const say = (what: string) => wrong.push(`${path}: imports ${specifier}: ${what}`);
    if (!specifier.startsWith('.')) {
      if (/^koffi(?:$|\/)/.test(specifier) && area !== 'src/kernel') say('native calls belong to src/kernel alone');
      continue;
    }
    if (!/\.(?:ts|json)$/.test(specifier)) say('an import of ours carries its .ts ending');
    const target = resolve(path, specifier);
    const targetArea = areaOf(target);
    if (path === 'src/main.ts' || area === 'test' || area === 'docs') continue;
    if (area === 'src/model') {
      // Coded errors import nothing themselves; arithmetic that refuses bad input needs them.
      if (targetArea !== 'src/model' && target !== 'src/errors.ts') say('the model imports nothing of ours but errors');
      continue;
    }
    if (targetArea === 'src/model' || GROUND.includes(target)) continue;
    if (GROUND.includes(path)) {
      say('the ground may import the model and itself');
      continue;
    }
    if (area === 'plugins' && targetArea === 'plugins') {
      const plugin = (file: string) => file.split('/').slice(0, 2).join('/');
      if (plugin(path) !== plugin(target)) say('plugins do not import each other');
      continue;
    }
    if (targetArea === area) continue;
    // These measure the parts themselves, not a daemon.
    if (/^bench\/suites\/(?:program|scale)\b/.test(path)) continue;
    const allowed = MAY_IMPORT[area];
    if (!allowed) say(`the area ${area} is not in the table of test/tidy.ts`);
    else if (!allowed.includes(targetArea)) say(`${area} may import ${allowed.join(', ') || 'no other area'}`);
  }
  return wrong;
}

const CLOCK_BYPASS = /\bDate\.now\s*\(|\bnew Date\s*\(\s*\)|\bset(?:Timeout|Interval)\s*\(|\bMath\.random\s*\(/;

/** What one TypeScript source says that it should not. */
export function sourceViolations(path: string, source: string): string[] {
  const wrong: string[] = [];
  const code = codeOf(source);
  const flag = (text: string, pattern: RegExp, what: string, counts: (found: string) => boolean = () => true): void => {
    for (const match of text.matchAll(new RegExp(pattern, 'g'))) {
      const found = source.slice(match.index, match.index + match[0].length);
      if (!counts(found)) continue;
      wrong.push(`${path}:${text.slice(0, match.index).split('\n').length}: ${what}: ${found.trim()}`);
    }
  };
  if (!OWN_TIME.some((free) => path.startsWith(free))) {
    flag(code, CLOCK_BYPASS, 'time and chance come from the clock');
    if (importsOf(source).some((name) => /^(?:node:)?timers(?:$|\/)/.test(name))) {
      wrong.push(`${path}: timers come from the clock`);
    }
  }
  // A catch that does nothing says why in a comment; a value given instead of a rejection is a decision.
  flag(code, /\bcatch\s*(?:\([^)]*\)\s*)?\{\s*\}/, 'an empty catch', (found) => !/\/\/|\/\*/.test(found));
  flag(code, /\.catch\s*\(\s*(?:\(\s*\w*\s*\)|\w+)\s*=>\s*\{\s*\}\s*\)/, 'a swallowed rejection');
  flag(code, /\.only\s*\(/, 'an only-test');
  if (path !== 'test/needs.ts') flag(code, /\.(?:skip|todo|skipIf|runIf)\s*\(/, 'a skip beside test/needs.ts');
  flag(code, /\b(?:enum\s+\w+\s*\{|namespace\s+\w+\s*\{)/, 'syntax that cannot be erased');
  // The one tool of ours that asks for default exports is vitest.
  if (!['vitest.config.ts', 'test/reporter.ts'].includes(path)) flag(code, /\bexport\s+default\b/, 'a default export');
  return wrong;
}

/** What any text file says that it should not. */
export function textViolations(path: string, text: string): string[] {
  const wrong: string[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (FORBIDDEN_WORDS.test(line)) wrong.push(`${path}:${index + 1}: speaks of where it was made: ${line.trim()}`);
    if (UNFINISHED.test(line)) wrong.push(`${path}:${index + 1}: unfinished: ${line.trim()}`);
  }
  return wrong;
}

/** Error codes that a source makes. */
export function errorCodesOf(source: string): string[] {
  const code = codeOf(source);
  return [...code.matchAll(/new SluiceError\(\s*'( +)'/g)].map((match) => {
    const start = match.index + match[0].length - match[1]!.length - 1;
    return source.slice(start, start + match[1]!.length);
  });
}

/** Sizes and names of files and folders, and the README of each area. */
export function shapeViolations(files: Files): string[] {
  const wrong: string[] = [];
  const folders = new Map<string, number>();
  const areas = new Set<string>();
  for (const [path, text] of files) {
    const parts = path.split('/');
    const folder = parts.slice(0, -1).join('/');
    const isCode = /\.(?:ts|c|h)$/.test(path);
    for (const part of parts.slice(0, -1)) {
      if (FORBIDDEN_FOLDERS.includes(part))
        wrong.push(`${path}: a folder named ${part} says nothing about what is in it`);
    }
    if (!isCode) continue;
    const limit = parts[0] === 'test' ? TEST_LINES_MAX : LINES_MAX;
    const lines = text.split('\n').length - 1;
    if (lines > limit) wrong.push(`${path}: ${lines} lines, more than ${limit}: split it by noun`);
    if (parts[0] !== 'test') folders.set(folder, (folders.get(folder) ?? 0) + 1);
    if (folder !== '' && folder !== 'src') areas.add(areaOf(path));
  }
  for (const [folder, count] of folders) {
    if (count > FOLDER_FILES_MAX)
      wrong.push(`${folder}: ${count} files, more than ${FOLDER_FILES_MAX}: split it by noun`);
  }
  for (const area of areas) {
    if (!files.has(`${area}/README.md`)) wrong.push(`${area}: has no README.md`);
  }
  return wrong;
}

/** All rules over the whole tree. `codes` are the declared error codes. */
export function violations(files: Files, codes: readonly string[]): string[] {
  const wrong = shapeViolations(files);
  for (const [path, text] of files) {
    wrong.push(...textViolations(path, text));
    if (!path.endsWith('.ts')) continue;
    wrong.push(...importViolations(path, text), ...sourceViolations(path, text));
    for (const code of errorCodesOf(text)) {
      if (!codes.includes(code)) wrong.push(`${path}: error code ${code} is not declared in src/errors.ts`);
    }
  }
  return wrong;
}
