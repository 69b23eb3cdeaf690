/** The daemon ends at random moments of a hundred creations and removals: nothing stays, everything goes on. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, test } from 'vitest';
import { eventually, openHost, type TestHost } from './harness.ts';
import { allReady, cutOff, expectRemains, gone, remains } from './remains.ts';

/** What is unwanted goes with an audit. */
const settings = { auditSeconds: 0.5 };

let host: TestHost;
afterEach(() => host.close());

test('killed at random while a hundred sandboxes and services come and go: nothing is left', async () => {
  host = await openHost({ name: 'churn', settings });
  await host.client.networks.put('web', { ipv6: true }, { waitMs: 5_000 });
  await allReady(host);
  const before = await remains(host);
  const { sandboxes, services } = host.client;
  let made = 0;
  let kills = 0;
  /** However quick the host is: a hundred at least, and six kills among them. */
  const goesOn = (): boolean => made < 100 || kills < 6;
  /** The daemon is back, whoever of the workers noticed first. */
  const back = (): Promise<unknown> => eventually(() => host.client.version(), 10_000);
  const insistently = async (step: () => Promise<unknown>): Promise<void> => {
    const until = performance.now() + 60_000;
    for (;;) {
      try {
        await step();
        return;
      } catch (error) {
        if (!cutOff(error) || performance.now() > until) throw error;
        await back();
      }
    }
  };
  const worker = async (): Promise<void> => {
    while (goesOn()) {
      const number = made++;
      const [box, shop] = [`box${number}`, `shop${number}`];
      await insistently(() => sandboxes.put(box, { networks: [{ network: 'web' }] }, { waitMs: 5_000 }));
      const request = { network: 'web', ports: [{ port: 80 }], backends: [{ sandbox: box }] };
      if (number % 3 === 0) await insistently(() => services.put(shop, request, { waitMs: 5_000 }));
      // Not always in the polite order: a backend may go before its service.
      if (number % 2 === 0) await insistently(gone(() => sandboxes.remove(box, { force: true })));
      if (number % 3 === 0) await insistently(gone(() => services.remove(shop)));
      await insistently(gone(() => sandboxes.remove(box, { force: true })));
    }
  };
  const killer = async (): Promise<void> => {
    while (goesOn()) {
      await sleep(150 + Math.random() * 600);
      await host.daemon.kill();
      kills++;
      await host.daemon.start({ settings });
    }
  };
  await Promise.all([worker(), worker(), worker(), worker(), killer()]);
  await expectRemains(host, before, { limitMs: 60_000 });
}, 180_000);
