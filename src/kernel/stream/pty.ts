/** Pseudo-terminals. By hand: `script -qc CMD /dev/null`, `stty size`. */
import { closeSync, constants, openSync } from 'node:fs';
import koffi from 'koffi';
import { check } from '../libc.ts';

const lib = koffi.load(null);
const ioctl = lib.func('int ioctl(int fd, unsigned long request, uint8_t *argument)');

const TIOCSWINSZ = 0x5414;
const TIOCGPTN = 0x80045430;
const TIOCSPTLCK = 0x40045431;

export interface Pty {
  /** Descriptor that a program's output is read from and its input written to. */
  readonly master: number;
  /** The program's standard streams. Close it once the program has it. */
  readonly slave: number;
}

/** Neither end becomes this process's controlling terminal. */
export function openPty(): Pty {
  const flags = constants.O_RDWR | constants.O_NOCTTY;
  const master = openSync('/dev/ptmx', flags);
  try {
    check(ioctl(master, TIOCSPTLCK, Buffer.alloc(4)) as number, 'unlock a pseudo-terminal');
    const number = Buffer.alloc(4);
    check(ioctl(master, TIOCGPTN, number) as number, 'number a pseudo-terminal');
    return { master, slave: openSync(`/dev/pts/${number.readUInt32LE()}`, flags) };
  } catch (error) {
    closeSync(master);
    throw error;
  }
}

/** The program in front hears SIGWINCH. */
export function resizePty(fd: number, columns: number, rows: number): void {
  const size = Buffer.alloc(8);
  size.writeUInt16LE(rows, 0);
  size.writeUInt16LE(columns, 2);
  check(ioctl(fd, TIOCSWINSZ, size) as number, 'resize a pseudo-terminal');
}
