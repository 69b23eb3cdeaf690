import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { Socket } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Namespace } from '../../src/contracts/kernel.ts';
import { errnoOf, libc } from '../../src/kernel/libc.ts';
import { pollReadable } from '../../src/kernel/poll.ts';
import { acceptFd, closeFd, socketAddress, tcpListenerIn, udpSocketIn } from '../../src/kernel/socket-in.ts';
import { inside, KernelBed, until } from './kernel-bed.ts';

const bed = new KernelBed();
beforeAll(() => bed.open());
afterAll(() => bed.close());

const EINVAL = 22;
const EADDRINUSE = 98;
let space: Namespace;
beforeEach(() => {
  space?.[Symbol.dispose]();
  space = bed.namespace();
});
afterAll(() => space?.[Symbol.dispose]());

const failure = (fn: () => unknown): number => {
  try {
    fn();
  } catch (error) {
    return errnoOf(error);
  }
  return 0;
};

/** Connects to a listener from inside. */
function connect(address: string, port: number): number {
  const to = socketAddress(address, port);
  return space.run(() => {
    const fd = libc.socket(to.readUInt16LE(0), 1 | 0o2000000, 0) as number;
    expect(libc.connect(fd, to, to.length)).toBe(0);
    return fd;
  });
}

describe('listeners', () => {
  test.each(['127.0.0.1', '::1'])(
    'on %s are in the namespace, and their connections are sockets of Node',
    async (address) => {
      const listener = tcpListenerIn(space, address, 53);
      expect(inside(space, 'ss', '-Hltn')).toContain(':53');
      expect(failure(() => tcpListenerIn(space, address, 53))).toBe(EADDRINUSE);
      expect(acceptFd(listener)).toBeNull();
      const client = connect(address, 53);
      const accepted = acceptFd(listener)!;
      const socket = new Socket({ fd: accepted, readable: true, writable: true });
      socket.resume();
      socket.end('hello');
      await once(socket, 'finish');
      const got = Buffer.alloc(16);
      expect(Number(libc.recv(client, got, 16, 0))).toBe(5);
      socket.destroy();
      closeFd(client);
      closeFd(listener);
      expect(inside(space, 'ss', '-Hltn').trim()).toBe('');
    },
  );

  test('that somebody destroyed fail once they are read, and can be made anew', async () => {
    const listener = tcpListenerIn(space, '127.0.0.1', 53);
    let calls = 0;
    let ended = 0;
    const watch = pollReadable(listener, () => {
      calls++;
      ended = failure(() => acceptFd(listener));
      watch[Symbol.dispose]();
    });
    inside(space, 'ss', '-K', 'state', 'listening', 'sport', '=', ':53');
    await until('the end is noticed', () => ended !== 0);
    expect([ended, calls]).toEqual([EINVAL, 1]);
    closeFd(listener);
    const again = tcpListenerIn(space, '127.0.0.1', 53);
    const client = connect('127.0.0.1', 53);
    const accepted = acceptFd(again);
    expect(accepted).not.toBeNull();
    for (const fd of [accepted!, client, again]) closeFd(fd);
  });
});

describe('UDP sockets', () => {
  test.each(['127.0.0.1', '::1'])('on %s are in the namespace, and dgram takes them over', async (address) => {
    const fd = udpSocketIn(space, address, 5300);
    expect(failure(() => udpSocketIn(space, address, 5300))).toBe(EADDRINUSE);
    expect(inside(space, 'ss', '-Hlun')).toContain(':5300');
    const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    const listening = once(socket, 'listening');
    socket.bind({ fd, exclusive: true });
    await listening;
    const got = once(socket, 'message');
    const to = socketAddress(address, 5300);
    const sender = udpSocketIn(space, address, 5301);
    libc.sendto(sender, Buffer.from('question'), 8, 0, to, to.length);
    expect(String((await got)[0])).toBe('question');
    socket.close();
    closeFd(sender);
  });

  test('need an address of the namespace', () => {
    expect(failure(() => udpSocketIn(space, '10.99.0.1', 5300))).toBe(99);
  });
});
