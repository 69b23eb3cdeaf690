/** What a device leaves to hardware, by ethtool's older interface, which every kernel has. By hand: `ethtool -k DEV`, `ethtool -K DEV tx off`. */
import { addressOf, kernelError } from '../libc.ts';
import { getLink } from './link.ts';
import type { NetlinkSocket } from './socket.ts';

/** linux/sockios.h, linux/ethtool.h */
const SIOCETHTOOL = 0x8946;
const ETHTOOL_GTXCSUM = 0x16;
const ETHTOOL_STXCSUM = 0x17;
/** struct ifreq: name, then a pointer. */
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
const ENODEV = 19;

/** The value of a struct ethtool_value after the command. */
function command(socket: NetlinkSocket, link: number, number: number, data: number, what: string): number {
  const name = getLink(socket, link)?.name;
  if (name === undefined) throw kernelError(ENODEV, what);
  const value = Buffer.alloc(8);
  value.writeUInt32LE(number, 0);
  value.writeUInt32LE(data, 4);
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name);
  request.writeBigUInt64LE(addressOf(value), IFNAMSIZ);
  socket.ioctl(SIOCETHTOOL, request, what);
  return value.readUInt32LE(4);
}

export const txChecksum = (socket: NetlinkSocket, link: number): boolean =>
  command(socket, link, ETHTOOL_GTXCSUM, 0, `look up tx checksum offload of link ${link}`) !== 0;

export function setTxChecksum(socket: NetlinkSocket, link: number, on: boolean): void {
  command(socket, link, ETHTOOL_STXCSUM, on ? 1 : 0, `switch tx checksum offload of link ${link} ${on ? 'on' : 'off'}`);
}
