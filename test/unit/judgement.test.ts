import { beforeEach, describe, expect, test } from 'vitest';
import { type Beat, Judgement } from '../../src/cluster/judgement.ts';

const TTL = 3_000;
const LOOK = 500;

/** Three nodes as `a` sees them. */
class Scene {
  readonly judgement = new Judgement({ node: 'a', ttlMs: TTL });
  readonly counts = new Map([
    ['b', 1],
    ['c', 1],
  ]);
  hears: readonly string[] = [];
  readonly alive = new Set(['b', 'c']);
  readonly answering = new Set(['b', 'c']);
  /** Whether this node can ask anybody. */
  asks = true;
  now = 0;

  look(): void {
    for (const name of this.alive) this.counts.set(name, this.counts.get(name)! + 1);
    const beats = [...this.counts].map(([name, count]): [string, Beat] => [
      name,
      { epoch: 1, count, applied: count, hears: name === 'c' ? this.hears : [] },
    ]);
    this.judgement.look(this.now, ['a', 'b', 'c'], new Map(beats));
    for (const name of this.judgement.suspects(this.now))
      this.judgement.probed(name, this.asks ? this.answering.has(name) : undefined);
  }

  /** Looks again and again for that long. */
  pass(ms: number): void {
    for (let passed = 0; passed < ms; passed += LOOK) {
      this.now += LOOK;
      this.look();
    }
  }

  state(name: string) {
    return this.judgement.states(this.now).get(name);
  }
}

describe('what has become of a node', () => {
  let scene: Scene;
  beforeEach(() => {
    scene = new Scene();
    scene.look();
    scene.pass(10_000);
  });

  test('one that gives signs of life is ready, whatever its answers', () => {
    scene.answering.clear();
    scene.pass(60_000);
    expect([scene.state('b'), scene.state('c')]).toEqual(['ready', 'ready']);
    expect(scene.judgement.session('b', scene.now)).toMatchObject({ state: 'ready', epoch: 1, silentMs: 0 });
  });

  test('a node that cannot ask gives nobody up, and hears nobody', () => {
    scene.alive.delete('b');
    scene.answering.clear();
    scene.asks = false;
    scene.pass(60_000);
    expect(scene.state('b')).toBe('unreachable');
    expect(scene.judgement.hears(scene.now)).toEqual([]);
    scene.asks = true;
    scene.pass(3 * LOOK);
    expect(scene.state('b')).toBe('lost');
  });

  test('one whose session ended and whose kernel answers is unreachable, for as long as that is so', () => {
    scene.alive.delete('b');
    scene.pass(TTL - LOOK);
    expect(scene.state('b')).toBe('ready');
    expect(scene.judgement.hears(scene.now)).toEqual(['b']);
    scene.pass(600_000);
    expect(scene.state('b')).toBe('unreachable');
    scene.alive.add('b');
    scene.pass(LOOK);
    expect(scene.state('b')).toBe('ready');
  });

  test('one that neither gives signs of life nor answers is lost within four seconds of its last one', () => {
    scene.alive.delete('b');
    scene.answering.delete('b');
    scene.pass(TTL - LOOK);
    expect(scene.state('b')).toBe('ready');
    scene.pass(1_000 + LOOK);
    expect(scene.state('b')).toBe('lost');
    scene.answering.add('b');
    scene.pass(LOOK);
    expect(scene.state('b')).toBe('unreachable');
  });

  test('one that answers another node is not lost', () => {
    scene.alive.delete('b');
    scene.answering.delete('b');
    scene.hears = ['b'];
    scene.pass(60_000);
    expect(scene.state('b')).toBe('unreachable');
    // What a node said before it fell silent itself is no testimony.
    scene.alive.delete('c');
    scene.pass(TTL + LOOK);
    expect(scene.state('b')).toBe('lost');
  });

  test('no end is acted on within a session of the return of the store', () => {
    scene.alive.clear();
    scene.answering.clear();
    scene.now += 60_000;
    scene.look();
    scene.pass(TTL - LOOK);
    expect([scene.state('b'), scene.state('c')]).toEqual(['ready', 'ready']);
    scene.alive.add('b');
    scene.pass(2 * LOOK);
    expect([scene.state('b'), scene.state('c')]).toEqual(['ready', 'lost']);
  });

  test('an unreachable one is not given up within a session of the return of the store', () => {
    scene.alive.delete('b');
    scene.pass(60_000);
    scene.answering.delete('b');
    scene.now += 60_000;
    scene.look();
    scene.pass(TTL - LOOK);
    expect(scene.state('b')).toBe('unreachable');
    scene.pass(LOOK);
    expect(scene.state('b')).toBe('lost');
  });

  test('a new session that begins to count anew is a sign of life', () => {
    scene.alive.delete('b');
    scene.answering.delete('b');
    scene.pass(10_000);
    expect(scene.state('b')).toBe('lost');
    scene.judgement.look(scene.now, ['a', 'b', 'c'], new Map([['b', { epoch: 2, count: 1, applied: 0, hears: [] }]]));
    expect(scene.state('b')).toBe('ready');
  });

  test('one that is no longer registered is forgotten', () => {
    scene.judgement.look(scene.now, ['a', 'c'], new Map());
    expect(scene.state('b')).toBeUndefined();
    expect(scene.judgement.session('b', scene.now)).toBeUndefined();
  });
});
