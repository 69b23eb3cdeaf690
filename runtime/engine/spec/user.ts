/** Who a process in a container is: `--user`, USER of an image, and the container's own /etc/passwd and /etc/group. */
import { SluiceError } from '../../../src/errors.ts';

export interface User {
  readonly uid: number;
  readonly gid: number;
  /** Further groups. */
  readonly groups: readonly number[];
  /** `/` for who has none. */
  readonly home: string;
}

/** Texts of the container's own files; empty where there is none. */
export interface Accounts {
  readonly passwd: string;
  readonly group: string;
}

const ID_MAX = 2 ** 32 - 2;

const rows = (text: string): string[][] =>
  text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => line.split(':'));

function idOf(word: string): number | null {
  if (!/^\d{1,10}$/.test(word)) return null;
  const id = Number(word);
  if (id > ID_MAX)
    throw new SluiceError('runtime.spec', `${word} is above the highest user and group id`, { id: word });
  return id;
}

/** `root`, `1000`, `www:adm`, `1000:1000`, empty for root. A name that is not in the files is `runtime.spec`; a number need not be. */
export function resolveUser(user: string, { passwd, group }: Accounts): User {
  const [name = '', groupName] = user.split(':', 2);
  const id = idOf(name);
  const entries = rows(passwd);
  const entry = entries.find((row) => (id === null ? row[0] === (name || 'root') : Number(row[2]) === id));
  if (!entry && id === null && name !== '' && name !== 'root')
    throw new SluiceError('runtime.spec', `the container has no user ${name}`, { user: name });
  const uid = id ?? Number(entry?.[2] ?? 0);
  const home = entry?.[5] || '/';
  const groups = rows(group);
  if (groupName !== undefined && groupName !== '') {
    const gid = idOf(groupName) ?? Number(groups.find((row) => row[0] === groupName)?.[2] ?? Number.NaN);
    if (Number.isNaN(gid))
      throw new SluiceError('runtime.spec', `the container has no group ${groupName}`, { group: groupName });
    return { uid, gid, groups: [], home };
  }
  const gid = Number(entry?.[3] ?? 0);
  const further = entry
    ? groups.filter((row) => (row[3] ?? '').split(',').includes(entry[0]!)).map((row) => Number(row[2]))
    : [];
  return { uid, gid, groups: [...new Set(further)].filter((each) => each !== gid), home };
}
