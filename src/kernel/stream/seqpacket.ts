/** Unix sockets that keep the borders of messages (SOCK_SEQPACKET), which Node's own do not speak. By hand: `socat - UNIX-CONNECT:PATH,type=5`. */
import { closeSync, constants, openSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { check, kernelError, lastErrno, libc, SOCK_CLOEXEC, SOCK_NONBLOCK } from '../libc.ts';
import { pollReadable } from '../poll.ts';

const AF_UNIX = 1;
const SOCK_SEQPACKET = 5;
const SHUT_WR = 1;
const PATH_BYTES_MAX = 107;
const EAGAIN = 11;
const MSG_NOSIGNAL = 0x4000;

export interface PacketSocket {
  /** False when the peer takes no more for the moment. Fails when it is gone. */
  send(data: Uint8Array): boolean;
  /** The peer reads the end of the stream. */
  end(): void;
  close(): void;
}

/** `onPacket` gets each message, a copy; `onEnd` is called once, when the peer has closed or the socket failed. */
export function connectPackets(
  path: string,
  { packetBytes, onPacket, onEnd }: { packetBytes: number; onPacket: (data: Buffer) => void; onEnd: () => void },
): PacketSocket {
  const fd = check(libc.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'socket(AF_UNIX)');
  try {
    connectAt(fd, path);
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  const buffer = Buffer.alloc(packetBytes);
  let open = true;
  const close = (): void => {
    if (!open) return;
    open = false;
    watch[Symbol.dispose]();
    libc.close(fd);
  };
  const receive = (): void => {
    while (open) {
      const length = Number(libc.recv(fd, buffer, buffer.length, 0));
      if (length > 0) {
        onPacket(Buffer.from(buffer.subarray(0, length)));
        continue;
      }
      if (length < 0 && lastErrno() === EAGAIN) return;
      close();
      onEnd();
    }
  };
  const watch = pollReadable(fd, receive);
  return {
    send(data) {
      if (!open) throw kernelError(32, 'send', 'the other side is gone');
      if (Number(libc.sendto(fd, data, data.length, MSG_NOSIGNAL, null, 0)) >= 0) return true;
      const errno = lastErrno();
      if (errno === EAGAIN) return false;
      throw kernelError(errno, 'send');
    },
    end() {
      if (open) check(libc.shutdown(fd, SHUT_WR), 'shutdown');
    },
    close,
  };
}

/** A path that is too long for a socket's address is reached through its opened folder. */
function connectAt(fd: number, path: string): void {
  const folder = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const short = path.length <= PATH_BYTES_MAX ? path : `/proc/self/fd/${folder}/${basename(path)}`;
    const address = Buffer.alloc(2 + PATH_BYTES_MAX + 1);
    address.writeUInt16LE(AF_UNIX, 0);
    address.write(short, 2);
    check(libc.connect(fd, address, address.length), `connect to ${path}`);
  } finally {
    closeSync(folder);
  }
}
