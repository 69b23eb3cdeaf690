/** The peers that need nothing beyond what the tests install: they carry traffic as they are set up for the bench. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startNft } from '../../bench/peers/nft.ts';
import { untilAnswered } from '../../bench/stage.ts';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import { labFolder, sweepLab } from '../../src/lab/owner.ts';
import { connect, startServer } from '../../src/load/load.ts';

let lab: Lab;
beforeAll(async () => {
  await sweepLab();
  lab = await createLab({ name: 'peers', hosts: ['client', 'one', 'two'] });
});
afterAll(async () => {
  expect(await lab?.close()).toEqual([]);
});

it('nftables spreads connections to its address over its backends, and stops', async () => {
  const client = lab.host('client');
  const [one, two] = [lab.host('one'), lab.host('two')];
  await startServer(one, { ports: [80], tag: '1' });
  await startServer(two, { ports: [8080], tag: '2' });
  const peer = await startNft(client, {
    folder: join(labFolder(lab.id), 'nft'),
    address: '198.18.0.200',
    port: 80,
    backends: [
      { address: one.address, port: 80 },
      { address: two.address, port: 8080 },
    ],
  });
  await untilAnswered(client, '198.18.0.200', 80);
  const target = { address: '198.18.0.200', port: 80, rate: 200, seconds: 0.5, timeoutMs: 1_000 };
  const { failed, answers } = await connect(client, target);
  expect(failed).toBe(0);
  expect(Object.keys(answers).sort()).toEqual(['1', '2']);
  expect(peer.given).toContain('dnat ip to');
  await peer.stop();
  expect((await connect(client, { ...target, rate: 10 })).completed).toBe(0);
});
