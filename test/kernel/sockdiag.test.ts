import { arch } from 'node:os';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Namespace, SocketInfo } from '../../src/contracts/kernel.ts';
import { addressOf, check, errnoName, lastErrno, libc } from '../../src/kernel/libc.ts';
import { acceptFd, closeFd, socketAddress, tcpListenerIn, udpSocketIn } from '../../src/kernel/socket-in.ts';
import { needs } from '../needs.ts';
import { inside, KernelBed, until } from './kernel-bed.ts';

const bed = new KernelBed();
const { sockets } = bed.kernel;
beforeAll(() => bed.open());
afterAll(() => bed.close());

let space: Namespace;
let opened: number[] = [];
const keep = (fd: number): number => {
  opened.push(fd);
  return fd;
};
const release = (): void => {
  for (const fd of opened) closeFd(fd);
  opened = [];
};
beforeEach((context) => {
  needs(context, 'sockDestroy', bed.kernel.features.sockDestroy);
  release();
  space?.[Symbol.dispose]();
  space = bed.namespace();
});
afterAll(() => {
  release();
  space?.[Symbol.dispose]();
});

const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const EINPROGRESS = 115;

/** A socket connected from inside; `to` in IPv6 text of a v4-mapped address makes a dual-stack one. */
function connected(to: string, port: number, kind: number): number {
  const address = socketAddress(to, port);
  return space.run(() => {
    const fd = keep(check(libc.socket(address.readUInt16LE(0), kind | 0o2000000 | 0o4000, 0), 'socket'));
    if (libc.connect(fd, address, address.length) < 0 && lastErrno() !== EINPROGRESS) check(-1, 'connect');
    return fd;
  });
}

function receive(fd: number): string {
  const got = Number(libc.recv(fd, Buffer.alloc(64), 64, 0x40));
  return got >= 0 ? `${got} bytes` : errnoName(lastErrno());
}

const PORT = 8080;
const cases = [
  { name: 'IPv4', listen: '127.0.0.1', to: '127.0.0.1', remote: '127.0.0.1', family: 4 },
  { name: 'IPv6', listen: '::1', to: '::1', remote: '::1', family: 6 },
  { name: 'v4-mapped', listen: '127.0.0.1', to: '::ffff:127.0.0.1', remote: '127.0.0.1', family: 6 },
] as const;

describe.each(cases)('$name', ({ listen, to, remote, family }) => {
  test('TCP connections to one peer are listed and destroyed, others go on', async () => {
    keep(tcpListenerIn(space, listen, PORT));
    keep(tcpListenerIn(space, listen, PORT + 1));
    const mine = connected(to, PORT, SOCK_STREAM);
    const other = connected(to, PORT + 1, SOCK_STREAM);
    const list = () => sockets.list(space, { protocol: 'tcp', remote, remotePort: PORT });
    await until('it is established', () => list().some(({ state }) => state === 1));
    const [found, ...more] = list();
    expect(more).toEqual([]);
    expect(found).toMatchObject({ family, protocol: 'tcp', state: 1, remote, remotePort: PORT, local: remote, uid: 0 });
    expect(found!.cookie).toBeGreaterThan(0n);
    expect(found!.storage).toBeUndefined();
    expect(sockets.destroy(space, found!)).toBe(true);
    expect(sockets.destroy(space, found!)).toBe(false);
    expect(receive(mine)).toBe('ECONNABORTED');
    expect(receive(other)).toBe('EAGAIN');
    expect(list()).toEqual([]);
  });

  test('a connected UDP socket is listed and told, another and an unconnected one go on', () => {
    keep(udpSocketIn(space, listen, PORT));
    const mine = connected(to, PORT, SOCK_DGRAM);
    const other = connected(to, PORT + 1, SOCK_DGRAM);
    const found = sockets.list(space, { protocol: 'udp', remote, remotePort: PORT });
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ family, protocol: 'udp', remote, remotePort: PORT, local: remote });
    expect(sockets.destroy(space, found[0]!)).toBe(true);
    expect(sockets.destroy(space, found[0]!)).toBe(false);
    expect(receive(mine)).toBe('ECONNABORTED');
    expect(receive(other)).toBe('EAGAIN');
  });
});

describe('lists', () => {
  test('leave out listeners and TIME_WAIT unless they are asked for, and agree with ss', async () => {
    const listener = keep(tcpListenerIn(space, '127.0.0.1', PORT));
    connected('127.0.0.1', PORT, SOCK_STREAM);
    await until('both ends are there', () => sockets.list(space, { protocol: 'tcp' }).length === 2);
    const accepted = acceptFd(listener);
    expect(accepted).not.toBeNull();
    keep(accepted!);
    expect(sockets.list(space, { protocol: 'tcp', states: 1 << 10 })).toMatchObject([
      { state: 10, local: '127.0.0.1', localPort: PORT, remote: '0.0.0.0', remotePort: 0 },
    ]);
    const ours = sockets.list(space, { protocol: 'tcp' }).map((one) => `${one.localPort} ${one.remotePort}`);
    const theirs = inside(space, 'ss', '-Htn').trim().split('\n');
    const port = (text: string | undefined) => text?.slice(text.lastIndexOf(':') + 1);
    expect(ours.sort()).toEqual(
      theirs
        .map((line) => line.trim().split(/\s+/))
        .map((words) => `${port(words[3])} ${port(words[4])}`)
        .sort(),
    );
    expect(sockets.list(space, { protocol: 'tcp', remotePort: PORT })).toHaveLength(1);
    expect(sockets.list(space, { protocol: 'tcp', remote: '127.0.0.1' })).toHaveLength(2);
    expect(sockets.list(space, { protocol: 'tcp', remote: '127.0.0.2' })).toEqual([]);
    expect(sockets.list(space, { protocol: 'tcp', remote: '::1' })).toEqual([]);
    expect(sockets.list(bed.kernel.host, { protocol: 'tcp', remotePort: PORT, remote: '127.0.0.1' }).length).toBe(0);
  });

  test('of 1,000 sockets are whole, and all can be destroyed with one descriptor', () => {
    const fds = Array.from({ length: 1_000 }, (_, i) => connected(`127.0.${1 + (i % 4)}.1`, PORT, SOCK_DGRAM));
    expect(sockets.list(space, { protocol: 'udp' })).toHaveLength(1_000);
    const doomed = sockets.list(space, { protocol: 'udp', remote: '127.0.2.1' });
    expect(doomed).toHaveLength(250);
    for (const socket of doomed) expect(sockets.destroy(space, socket)).toBe(true);
    const ends = fds.map(receive);
    expect(ends.filter((one) => one === 'ECONNABORTED')).toHaveLength(250);
    expect(ends.filter((one) => one === 'EAGAIN')).toHaveLength(750);
  });
});

describe('socket storage', () => {
  const BPF = arch() === 'x64' ? 321 : 280;
  const bpf = (command: number, attributes: Buffer): number =>
    check(Number(libc.bpf(BPF, command, attributes, attributes.length)), `bpf command ${command}`);

  /** A BPF_MAP_TYPE_SK_STORAGE of four-byte values; the kernel asks for their type. */
  function storageMap(): number {
    // One type: `int`, 32 bits signed.
    const types = Buffer.alloc(16);
    types.writeUInt32LE(1, 0);
    types.writeUInt32LE(1 << 24, 4);
    types.writeUInt32LE(4, 8);
    types.writeUInt32LE((1 << 24) | 32, 12);
    const strings = Buffer.from('\0int\0');
    const header = Buffer.alloc(24);
    header.writeUInt16LE(0xeb9f, 0);
    header[2] = 1;
    header.writeUInt32LE(24, 4);
    header.writeUInt32LE(types.length, 12);
    header.writeUInt32LE(types.length, 16);
    header.writeUInt32LE(strings.length, 20);
    const blob = Buffer.concat([header, types, strings]);
    const load = Buffer.alloc(32);
    load.writeBigUInt64LE(addressOf(blob), 0);
    load.writeUInt32LE(blob.length, 16);
    const btf = keep(bpf(18, load));
    const map = Buffer.alloc(64);
    for (const [offset, value] of [
      [0, 24],
      [4, 4],
      [8, 4],
      [16, 1],
      [48, btf],
      [52, 1],
      [56, 1],
    ] as const)
      map.writeUInt32LE(value, offset);
    return keep(bpf(0, map));
  }

  test('comes with the sockets that have it, and with no other', async () => {
    const map = storageMap();
    keep(tcpListenerIn(space, '127.0.0.1', PORT));
    const [marked, plain] = [connected('127.0.0.1', PORT, SOCK_STREAM), connected('127.0.0.1', PORT, SOCK_STREAM)];
    const key = Buffer.alloc(4);
    key.writeInt32LE(marked);
    const value = Buffer.from([7, 6, 5, 4]);
    const update = Buffer.alloc(32);
    update.writeUInt32LE(map, 0);
    update.writeBigUInt64LE(addressOf(key), 8);
    update.writeBigUInt64LE(addressOf(value), 16);
    bpf(2, update);
    const find = (storageFd?: number): SocketInfo[] =>
      sockets.list(space, { protocol: 'tcp', remotePort: PORT, storageFd });
    await until('both are established', () => find().filter(({ state }) => state === 1).length === 2);
    const storages = find(map).map(({ storage }) => storage && [...storage]);
    expect(storages.filter((one) => one !== undefined)).toEqual([[7, 6, 5, 4]]);
    expect(storages).toHaveLength(2);
    expect(find().every(({ storage }) => storage === undefined)).toBe(true);
    const through = find(map).filter(({ storage }) => storage);
    expect(sockets.destroy(space, through[0]!)).toBe(true);
    expect([receive(marked), receive(plain)]).toEqual(['ECONNABORTED', 'EAGAIN']);
  });
});
