import { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { describe, expect, test } from 'vitest';
import type { Clock } from '../../src/clock.ts';
import { parseResolvConf, resolvConf, upstreams } from '../../src/dns/resolv.ts';
import { candidatePorts, ephemeralRange } from '../../src/dns/socket.ts';
import { Stream } from '../../src/dns/stream.ts';

describe('resolv.conf', () => {
  const HOST = `# made by hand
; and so is this
nameserver 192.0.2.53
nameserver\t2001:db8::53
domain old.example
search corp.example lan
options timeout:1 rotate
`;

  test('of the host', () => {
    expect(parseResolvConf(HOST)).toEqual({ servers: ['192.0.2.53', '2001:db8::53'], search: ['corp.example', 'lan'] });
    expect(parseResolvConf('')).toEqual({ servers: [], search: [] });
  });

  test('of a sandbox', () => {
    expect(resolvConf(HOST)).toBe('nameserver 127.0.0.11\nsearch corp.example lan\noptions ndots:0\n');
    expect(resolvConf('')).toBe('nameserver 127.0.0.11\noptions ndots:0\n');
    expect(resolvConf(HOST, { search: ['a.b'], options: ['timeout:2', 'ndots:2'] })).toBe(
      'nameserver 127.0.0.11\nsearch a.b\noptions timeout:2 ndots:2\n',
    );
    expect(resolvConf(HOST, { search: ['.'] })).toBe('nameserver 127.0.0.11\noptions ndots:0\n');
    expect(resolvConf(HOST, { search: [] })).not.toContain('search');
    const long = resolvConf('', { search: Array.from({ length: 40 }, (_, i) => `domain-${i}.example`) });
    expect(/^search (.*)$/m.exec(long)![1]!.length).toBeLessThanOrEqual(256);
  });

  test('upstreams: in order, once each, six at most, what is no address left out', () => {
    const texts = (host: string, behind = ''): string[] => upstreams(host, behind).map(({ text }) => text);
    expect(texts(HOST)).toEqual(['192.0.2.53', '2001:db8::53']);
    expect(texts('nameserver nonsense\nnameserver 192.0.2.1\nnameserver 192.0.2.1\n')).toEqual(['192.0.2.1']);
    expect(texts('')).toEqual(['127.0.0.1']);
    expect(texts(Array.from({ length: 9 }, (_, i) => `nameserver 192.0.2.${i}`).join('\n')).length).toBe(6);
    // The stub first: it knows which link which name belongs to.
    expect(texts('nameserver 127.0.0.53\n', 'nameserver 192.0.2.9\n')).toEqual(['127.0.0.53', '192.0.2.9']);
    expect(texts('nameserver 192.0.2.1\n', 'nameserver 192.0.2.9\n')).toEqual(['192.0.2.1']);
  });
});

describe('ports to try', () => {
  const take = (
    range: readonly [number, number],
    random: number,
    earlier: number | undefined,
    count: number,
  ): number[] => [...candidatePorts(range, random, earlier).take(count)];

  test('the earlier one, then above the range, then below', () => {
    expect(ephemeralRange('32768\t60999')).toEqual([32_768, 60_999]);
    expect(take([32_768, 60_999], 5, 62_000, 3)).toEqual([62_000, 61_005, 61_006]);
    expect(take([32_768, 60_999], 4535, undefined, 2)).toEqual([65_535, 61_000]);
    expect(take([32_768, 65_535], 0, undefined, 2)).toEqual([1024, 1025]);
    expect(take([1024, 65_535], 0, undefined, 2)).toEqual([]);
  });

  test('an earlier one that is ephemeral now, or was never ours, is not taken', () => {
    for (const earlier of [40_000, 53, 70_000]) expect(take([32_768, 60_999], 0, earlier, 1)).toEqual([61_000]);
  });
});

describe('a connection', () => {
  /** Time that the test moves. */
  class HandClock implements Clock {
    time = 0;
    #timers: { at: number; fn: () => void }[] = [];
    now = (): number => this.time;
    monotonic = (): number => this.time;
    after(ms: number, fn: () => void): { cancel: () => void } {
      const timer = { at: this.time + ms, fn };
      this.#timers.push(timer);
      return { cancel: () => this.#timers.splice(this.#timers.indexOf(timer) >>> 0, 1) };
    }
    sleep = (): Promise<void> => Promise.resolve();
    turn = (): Promise<void> => Promise.resolve();
    random = (n: number): Uint8Array => new Uint8Array(n);
    pass(ms: number): void {
      this.time += ms;
      const due = this.#timers.filter(({ at }) => at <= this.time);
      this.#timers = this.#timers.filter(({ at }) => at > this.time);
      for (const { fn } of due) fn();
    }
  }

  class HandSocket extends EventEmitter {
    readonly written: Buffer[] = [];
    writableLength = 0;
    destroyed = false;
    ended = false;
    #paused = false;
    write(bytes: Buffer): void {
      this.written.push(bytes);
    }
    end(done: () => void): void {
      this.ended = true;
      done();
    }
    destroy(): void {
      this.destroyed = true;
    }
    pause(): void {
      this.#paused = true;
    }
    resume(): void {
      this.#paused = false;
    }
    isPaused(): boolean {
      return this.#paused;
    }
  }

  function open(): {
    clock: HandClock;
    socket: HandSocket;
    asked: Buffer[];
    answers: ((message: Uint8Array | null) => void)[];
    ended: () => number;
  } {
    const clock = new HandClock();
    const socket = new HandSocket();
    const asked: Buffer[] = [];
    const answers: ((message: Uint8Array | null) => void)[] = [];
    let ended = 0;
    new Stream(
      socket as unknown as Socket,
      clock,
      (question, answer) => {
        asked.push(Buffer.from(question));
        answers.push(answer);
      },
      () => ended++,
    );
    return { clock, socket, asked, answers, ended: () => ended };
  }

  const frames = (count: number): Buffer => Buffer.concat(Array.from({ length: count }, (_, i) => Buffer.of(0, 1, i)));

  test('is closed after ten seconds without a whole question, however many octets trickle in', () => {
    const { clock, socket, ended } = open();
    for (let i = 0; i < 9; i++) {
      clock.pass(1000);
      socket.emit('data', Buffer.of(i === 0 ? 4 : 0));
    }
    expect(socket.destroyed).toBe(false);
    clock.pass(1001);
    expect([socket.destroyed, ended()]).toEqual([true, 1]);
    socket.emit('close');
    expect(ended()).toBe(1);
  });

  test('a whole question gives it another ten seconds', () => {
    const { clock, socket } = open();
    clock.pass(9000);
    socket.emit('data', frames(1));
    clock.pass(9000);
    expect(socket.destroyed).toBe(false);
    clock.pass(1001);
    expect(socket.destroyed).toBe(true);
  });

  test('64 questions under way, then reading stops until some are answered', async () => {
    const { socket, asked, answers } = open();
    socket.emit('data', frames(100));
    expect([asked.length, socket.isPaused()]).toEqual([64, true]);
    answers[0]!(Buffer.of(1));
    await new Promise(setImmediate);
    expect([asked.length, socket.isPaused()]).toEqual([65, true]);
    for (const answer of answers.slice(1)) answer(null);
    await new Promise(setImmediate);
    expect([asked.length, socket.isPaused()]).toEqual([100, false]);
    expect(socket.written).toEqual([Buffer.of(0, 1, 1)]);
  });

  test('reading stops while the client does not take its answers', () => {
    const { socket, asked, answers } = open();
    socket.writableLength = 300_000;
    socket.emit('data', frames(2));
    expect([asked.length, socket.isPaused()]).toEqual([0, true]);
    socket.writableLength = 0;
    socket.emit('drain');
    expect([asked.length, socket.isPaused()]).toEqual([2, false]);
    answers[0]!(null);
  });

  test('after the client’s end what was asked is answered, then it is closed', async () => {
    const { socket, answers, ended } = open();
    socket.emit('data', frames(2));
    socket.emit('end');
    answers[1]!(Buffer.of(9));
    await new Promise(setImmediate);
    expect(socket.ended).toBe(false);
    answers[0]!(Buffer.of(8));
    await new Promise(setImmediate);
    expect([socket.ended, socket.written.length, ended()]).toEqual([true, 2, 1]);
  });

  test('a question longer than any is the end', () => {
    const { socket } = open();
    socket.emit('data', Buffer.of(0x10, 0x01));
    expect(socket.destroyed).toBe(true);
  });
});
