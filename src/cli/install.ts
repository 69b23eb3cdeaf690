/** The installation that this program is part of. */
import { dirname, join } from 'node:path';
import { SluiceError } from '../errors.ts';

// Not `import`: an ES import of node:fs evaluates its getters, promises and streams among them, 5 to 10 ms that `version` would feel.
const { existsSync, readFileSync } = process.getBuiltinModule('node:fs');

/** The folder of package.json above this file, compiled or not. */
export function installRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new SluiceError('internal', `there is no package.json above ${import.meta.dirname}`);
    folder = parent;
  }
  return folder;
}

export function ownVersion(): string {
  const text = readFileSync(join(installRoot(), 'package.json'), 'utf8');
  return (JSON.parse(text) as { readonly version: string }).version;
}
