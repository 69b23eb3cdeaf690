/** Whose a socket is. By hand: `ss -lntup`. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** `nginx (process 1234)`; null: no process that can be seen has it. */
export function processOf(inode: number): string | null {
  const wanted = `socket:[${inode}]`;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    const found = quietly(() =>
      readdirSync(`/proc/${pid}/fd`).some((fd) => quietly(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) === wanted),
    );
    if (found)
      return `${quietly(() => readFileSync(`/proc/${pid}/comm`, 'utf8').trim()) ?? 'a process'} (process ${pid})`;
  }
  return null;
}

/** Processes and descriptors end while they are looked at. */
function quietly<T>(look: () => T): T | null {
  try {
    return look();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'ENOTDIR') return null;
    throw error;
  }
}
