import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planChange } from '../../src/kernel/netlink/link.ts';
import {
  attr,
  attrs,
  eachAttr,
  frame,
  messages,
  nest,
  readError,
  readText,
  text,
  u16,
  u16be,
  u32,
} from '../../src/kernel/netlink/message.ts';
import { parseEvent } from '../../src/kernel/netlink/monitor.ts';

const bytes = (max: number) => fc.uint8Array({ maxLength: max });

describe('messages', () => {
  test('attributes come back as they went in, aligned to four', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 1, max: 0x3fff }), bytes(40))), (list) => {
        const data = Buffer.concat(list.map(([type, value]) => attr(type, value)));
        expect(data.length % 4).toBe(0);
        expect([...eachAttr(data)].map(([type, value]) => [type, Uint8Array.from(value)])).toEqual(list);
      }),
    );
  });

  test('nests keep their type without the flag', () => {
    const inner = attrs(attrs(nest(18, attr(1, text('veth')), attr(2, u32(7)))).get(18)!);
    expect([readText(inner.get(1)), inner.get(2)?.readUInt32LE()]).toEqual(['veth', 7]);
    expect([u16(258), u16be(258)].map((one) => [...one])).toEqual([
      [2, 1],
      [1, 2],
    ]);
  });

  test('several messages of one datagram come back in order', () => {
    fc.assert(
      fc.property(fc.array(fc.record({ type: fc.nat(0xffff), seq: fc.nat(), payload: bytes(60) })), (list) => {
        const data = Buffer.concat(list.map(({ type, seq, payload }) => frame(type, 0x300, seq, payload)));
        const found = [...messages(data, data.length)].map((one) => ({
          type: one.type,
          seq: one.seq,
          payload: Uint8Array.from(one.data),
        }));
        expect(found).toEqual(list);
      }),
    );
  });

  test('whatever bytes come, reading them ends and throws nothing', () => {
    fc.assert(
      fc.property(bytes(300), (garbage) => {
        const data = Buffer.from(garbage);
        let read = 0;
        for (const message of messages(data, data.length)) {
          read += message.data.length;
          for (const [, value] of eachAttr(message.data)) expect(value.length).toBeLessThanOrEqual(data.length);
          parseEvent(message);
        }
        for (const [, value] of eachAttr(data)) readText(value);
        expect(read).toBeLessThanOrEqual(data.length);
      }),
    );
  });

  test('an error carries errno and the kernel`s words, capped or with the request repeated', () => {
    const words = attr(1, text('it is so'));
    const repeated = frame(16, 0, 7, Buffer.alloc(20));
    const error = (flags: number, echoed: Uint8Array) => {
      const code = Buffer.alloc(4);
      code.writeInt32LE(-17);
      return readError({ type: 2, flags, seq: 7, data: Buffer.concat([code, echoed, words]) });
    };
    expect(error(0x300, repeated.subarray(0, 16))).toEqual({ errno: 17, words: 'it is so' });
    expect(error(0x200, repeated)).toEqual({ errno: 17, words: 'it is so' });
    expect(error(0, repeated)).toEqual({ errno: 17, words: '' });
    expect(readError({ type: 3, flags: 0, seq: 7, data: Buffer.alloc(0) }).errno).toBe(0);
  });
});

describe('events', () => {
  const of = (type: number, data: Buffer) => parseEvent({ type, data });
  test('links, addresses and neighbours say which link, routes by their device', () => {
    const data = Buffer.alloc(16);
    data.writeInt32LE(5, 4);
    expect(of(16, data)).toEqual({ type: 'link', removed: false, ifindex: 5 });
    expect(of(17, data)).toEqual({ type: 'link', removed: true, ifindex: 5 });
    expect(of(21, data)).toEqual({ type: 'address', removed: true, ifindex: 5 });
    expect(of(28, data)).toEqual({ type: 'neighbour', removed: false, ifindex: 5 });
    expect(of(24, Buffer.concat([Buffer.alloc(12), attr(4, u32(9))]))).toEqual({
      type: 'route',
      removed: false,
      ifindex: 9,
    });
  });
  test('anything else is none', () => {
    for (const type of [0, 2, 3, 18, 19, 22, 26, 32, 36]) expect(of(type, Buffer.alloc(16))).toBeNull();
    expect(of(16, Buffer.alloc(3))).toBeNull();
  });
});

describe('a change of a link', () => {
  const words = (change: Parameters<typeof planChange>[1]) => planChange(3, change).map(({ what }) => what);
  test('is one request', () => {
    expect(words({ name: 'eth0', mtu: 1400, up: true })).toEqual([
      'change link 3 {"name":"eth0","mtu":1400,"up":true}',
    ]);
    expect(words({})).toHaveLength(1);
  });
  test('becomes a port, takes its flags, and is up only then', () => {
    expect(words({ master: 2, up: true, port: { learning: false } })).toEqual([
      'change link 3 {"master":2}',
      'change link 3 {"port":{"learning":false}}',
      'change link 3 {"up":true}',
    ]);
    expect(words({ port: { learning: false } })).toEqual(['change link 3 {"port":{"learning":false}}']);
  });
});
