/** Folders for tests, marked with the pid of who made them, so that the next run sweeps away what a crashed one left. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function lives(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** A new folder below the machine's own for such; `name` says whose. */
export function makeFolder(name: string): string {
  const mark = `sluice-${name}-`;
  for (const entry of readdirSync(tmpdir())) {
    const pid = entry.startsWith(mark) ? Number(entry.slice(mark.length).split('-')[0]) : 0;
    if (pid > 0 && !lives(pid)) rmSync(join(tmpdir(), entry), { recursive: true, force: true });
  }
  return mkdtempSync(join(tmpdir(), `${mark}${process.pid}-`));
}
