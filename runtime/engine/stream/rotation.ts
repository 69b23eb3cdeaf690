/**
 * A log that is full makes room: conmon puts an empty file in its place. A second name of the present file keeps that as the former part, which
 * goes when the next one is full. So a log has at most three files, each as large as conmon lets it become: `log.1`, the former part;
 * `log.next`, the second name of `log`, or of the one before it until that is noticed; and `log`.
 */
import { linkSync, renameSync, statSync } from 'node:fs';

export const formerOf = (log: string): string => `${log}.1`;
export const secondOf = (log: string): string => `${log}.next`;

export interface LogFile {
  readonly path: string;
  readonly inode: bigint;
}

const inodeOf = (path: string): bigint | undefined => statSync(path, { throwIfNoEntry: false, bigint: true })?.ino;

/** Its parts from the oldest on, each once. */
export function logFiles(log: string): LogFile[] {
  const files: LogFile[] = [];
  for (const path of [formerOf(log), secondOf(log), log]) {
    const inode = inodeOf(path);
    if (inode !== undefined && !files.some((one) => one.inode === inode)) files.push({ path, inode });
  }
  return files;
}

/** To be called now and then while it is written: what was full since becomes the former part. What two rotations leave behind between two calls is lost. */
export function keepFormer(log: string): void {
  const present = inodeOf(log);
  const kept = inodeOf(secondOf(log));
  if (present === undefined || present === kept) return;
  if (kept !== undefined) renameSync(secondOf(log), formerOf(log));
  try {
    linkSync(log, secondOf(log));
  } catch (error) {
    // A folder on a full disk takes no new name. Should the log get full before the next call, its former part is lost, and nothing else.
    if (!['ENOSPC', 'EDQUOT'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}
