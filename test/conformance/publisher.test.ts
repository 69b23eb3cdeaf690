import { rmSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { createNftPublisher } from '../../src/balancer/nft/nft.ts';
import type { Kernel } from '../../src/contracts/kernel.ts';
import type { Publisher } from '../../src/contracts/publisher.ts';
import { createFakeKernel } from '../../src/kernel/fake.ts';
import { createKernel } from '../../src/kernel/kernel.ts';
import { makeFolder } from '../folder.ts';
import { PUBLISHER_CASES, type PublisherUnderTest, publisherConformance } from './publisher.ts';

const TABLE = 'inet sluice-t-publish';
let count = 0;

function underTest(
  kernel: Kernel,
  release: () => void,
  wrap: (publisher: Publisher) => Publisher = (publisher) => publisher,
): PublisherUnderTest {
  const runDir = makeFolder('publish');
  const open = (): Publisher => wrap(createNftPublisher({ kernel, instance: 't', runDir }));
  const nft = kernel.nft();
  let publisher = open();
  return {
    get publisher() {
      return publisher;
    },
    restart() {
      publisher.close();
      publisher = open();
    },
    damage: () => nft.apply(`delete table ${TABLE}`),
    stands: () => nft.tables().includes(TABLE),
    close() {
      publisher.close();
      nft[Symbol.dispose]();
      release();
      rmSync(runDir, { recursive: true, force: true });
    },
  };
}

function inMemory(wrap?: (publisher: Publisher) => Publisher): PublisherUnderTest {
  const kernel = createFakeKernel();
  return underTest(kernel, () => kernel[Symbol.dispose](), wrap);
}

/** A kernel whose host namespace is a throw-away one. */
function real(): PublisherUnderTest {
  const base = createKernel();
  const path = `/run/netns/publish-${process.pid}-${count++}`;
  base.namespaces.ensure(path)[Symbol.dispose]();
  const kernel = createKernel({ host: path });
  return underTest(kernel, () => {
    kernel[Symbol.dispose]();
    base.namespaces.remove(path);
    base[Symbol.dispose]();
  });
}

describe('nft over a kernel in memory', () => publisherConformance(inMemory));
describe('nft over the kernel', () => publisherConformance(real));

describe('the suite finds what is broken', () => {
  const altered = (changes: (publisher: Publisher) => Partial<Publisher>) => (publisher: Publisher) =>
    new Proxy(publisher, {
      get(target, name) {
        const value = (changes(target) as Record<PropertyKey, unknown>)[name] ?? Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  const BROKEN: Readonly<Record<string, (publisher: Publisher) => Partial<Publisher>>> = {
    'keeps what is removed': () => ({ remove: () => undefined }),
    'forgets to withdraw': () => ({ prune: () => 0 }),
    'sees no damage': () => ({ audit: () => [] }),
    'leaves everything': () => ({ off: () => undefined }),
    'knows nobody': () => ({ published: () => new Map() }),
    'takes a port twice': (publisher) => ({
      ensure(owner, ports) {
        try {
          publisher.ensure(owner, ports);
        } catch {
          publisher.ensure(owner, []);
        }
      },
    }),
  };
  test.each(Object.entries(BROKEN))('%s', (_, changes) => {
    const failed = Object.values(PUBLISHER_CASES).some((run) => {
      const under = inMemory(altered(changes));
      try {
        run(under);
        return false;
      } catch {
        return true;
      } finally {
        under.close();
      }
    });
    expect(failed).toBe(true);
  });
});
