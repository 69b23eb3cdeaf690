import { describe, expect, test } from 'vitest';
import { describeNarrow, largest, Passage } from '../../src/cluster/passage.ts';
import { createLogger } from '../../src/log.ts';
import type { Node } from '../../src/model/node.ts';
import { createManualClock } from '../clock.ts';

const node = (name: string, mtu: number | undefined = 1500): Node =>
  ({ name, spec: { vtep: `192.0.2.${name.charCodeAt(0) - 96}`, mtu } }) as Node;

/** Ways from node a by what they let through, 0 for a host that is silent. */
function bed(limits: Record<string, number>, all = [node('a'), node('b'), node('c')]) {
  const told: string[] = [];
  const asked: number[] = [];
  let nodes = all;
  const passage = new Passage({
    clock: createManualClock(),
    logger: createLogger('silent'),
    node: 'a',
    prober: {
      answers: async (address, _ms, bytes = 0) => {
        asked.push(bytes);
        return bytes <= limits[address]!;
      },
    },
    nodes: () => nodes,
    onFound: async (message) => void told.push(message),
  });
  const test = async (): Promise<string> => {
    await passage.test();
    return told.at(-1)!;
  };
  return {
    passage,
    test,
    limits,
    asked,
    leave: (name: string) => (nodes = nodes.filter((each) => each.name !== name)),
  };
}
const [B, C] = ['192.0.2.2', '192.0.2.3'];

describe('ways to other hosts', () => {
  test('are wide enough: nothing is said, one question each', async () => {
    const { test, asked } = bed({ [B]: 1500, [C]: 9000 });
    expect(await test()).toBe('');
    expect(asked).toEqual([1500, 1500]);
  });

  test('a narrow one is named with what gets through and the MTU that helps, until it is wide', async () => {
    const { test, limits } = bed({ [B]: 1450, [C]: 1400 });
    const message = await test();
    expect(message).toContain(`packets of 1500 bytes do not reach node b (${B}), those of 1450 do`);
    expect(message).toContain(`packets of 1500 bytes do not reach node c (${C}), those of 1400 do`);
    expect(message).toContain('--mtu 1350');
    limits[C] = 1500;
    expect(await test()).toContain('--mtu 1400');
    limits[B] = 1500;
    expect(await test()).toBe('');
  });

  test('of a silent host nothing is claimed, and what was found stands until it answers or is gone', async () => {
    const { test, limits, leave } = bed({ [B]: 0, [C]: 1400 });
    const found = await test();
    expect(found).toMatch(/^packets of 1500 bytes do not reach node c/);
    limits[C] = 0;
    expect(await test()).toBe(found);
    leave('c');
    expect(await test()).toBe('');
  });

  test('are asked for as much as the least host can take, and not where nobody has a tunnel', async () => {
    const all = [node('a', 9000), node('b', 1400), { name: 'c', spec: {} } as Node];
    const { test, asked } = bed({ [B]: 1400 }, all);
    expect(await test()).toBe('');
    expect(asked).toEqual([1400]);
  });

  test('one lost question is no narrow way', async () => {
    let lost = 2;
    const told: string[] = [];
    const lossy = new Passage({
      clock: createManualClock(),
      logger: createLogger('silent'),
      node: 'a',
      prober: { answers: async () => lost-- <= 0 },
      nodes: () => [node('a'), node('b')],
      onFound: async (message) => void told.push(message),
    });
    await lossy.test();
    expect(told).toEqual(['']);
    expect(lost).toBe(-1);
  });

  test('the largest size is found exactly; IPv6 costs VXLAN more', async () => {
    for (const limit of [576, 577, 1000, 1498, 1499])
      expect(await largest(576, 1500, async (size) => size <= limit)).toBe(limit);
    expect(describeNarrow([{ node: 'b', address: '2001:db8::2', size: 1500, passes: 1470 }])).toContain('--mtu 1400');
  });
});
