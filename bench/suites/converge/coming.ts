/** Endpoints that come on one host, while a sandbox on another host asks for them already. */
import type { Client } from '../../../src/client/client.ts';
import { SluiceError } from '../../../src/errors.ts';
import { type Place, runAt } from '../../../src/lab/place.ts';
import { monotonicMs, startProber } from '../../probe/prober.ts';
import { WAIT_MS } from '../../stage.ts';

/**
 * Whoever asks for an address before it exists asks again after a second by default. The asker is told to ask its neighbours every few
 * milliseconds, so that what is measured is the cluster and not that second.
 */
export const IMPATIENT = ['net.ipv4.neigh.eth0.retrans_time_ms=4', 'net.ipv4.neigh.eth0.mcast_solicit=1000'];

export interface Comings {
  /** Has one come and go: milliseconds from the API's accept to its first answer. */
  next(): Promise<number>;
  close(): void;
}

/** On a network with the subnet 10.79.0.0/20, of which it takes what is above 10.79.0.255. */
export async function openComings(
  client: Client,
  { asker, network }: { readonly asker: Place; readonly network: string },
): Promise<Comings> {
  const { code, stderr } = await runAt(asker, ['sysctl', '-qw', ...IMPATIENT]);
  if (code !== 0) throw new SluiceError('internal', `sysctl in the asking sandbox: ${stderr}`);
  const prober = await startProber(asker);
  let made = 0;
  return {
    async next() {
      const name = `comes-${made}`;
      const ip = `10.79.${1 + (Math.floor(made / 250) % 12)}.${1 + (made++ % 250)}`;
      const answered = prober.ask(ip);
      // Awaited below; a refusal before that is no unhandled one.
      answered.catch(() => undefined);
      await client.sandboxes.put(name, { networks: [{ network, ip }] });
      const acceptedAt = monotonicMs();
      const ms = Math.max(0, (await answered) - acceptedAt);
      await client.sandboxes.remove(name, { waitMs: WAIT_MS });
      return ms;
    },
    close: () => prober.close(),
  };
}
