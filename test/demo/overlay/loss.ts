/** A host is lost: nothing reaches it and nothing leaves it. It is back: nothing of its own was started anew. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { cutOff, heal } from '../../../src/lab/fault.ts';
import type { LabRedis } from '../../../src/lab/redis.ts';
import { type Stage, seconds } from '../stage.ts';
import { monotonicMs, told, until } from '../watch.ts';
import { backendsOf, type Cluster, type Member, page, RATE, resolves, startLoads, stateOf } from './cluster.ts';

/** From its last sign of life until a lost host is out of names and balancing on the others. */
const LOST_MS_MAX = 4_000;
const BACK_MS_MAX = 15_000;
const STEADY_MS = 2_000;

export async function loseHost(stage: Stage, { redis, members, vip: address }: Cluster): Promise<void> {
  const [first, second, lost] = members;
  const others = [first, second];
  stage.note(`\n   From here on, each host opens ${RATE} new connections a second to the service.`);
  await stage.step('A host is lost', async () => {
    const loads = await startLoads(others, address);
    await sleep(700);
    await cutOff(lost.host);
    const cutAt = monotonicMs();
    stage.note(`${lost.host.name} is unplugged: no packet reaches it, none leaves it`);
    const lastSign = await lastSignOfLife(redis, lost);
    const named = await Promise.all(others.map((from) => nameGone(from, lost)));
    await sleep(500);
    const results = await loads.stop();
    await first.sluice('node', 'ls');
    for (const [index, { host }] of others.entries()) {
      const result = results[index]!;
      const last = Math.max(result.failures?.lastMs ?? 0, result.answers[lost.tag]?.lastMs ?? 0);
      const [vip, name] = [last - lastSign, named[index]! - lastSign];
      stage.promise(
        last > cutAt && vip <= LOST_MS_MAX && name > cutAt - lastSign && name <= LOST_MS_MAX,
        `${host.name}: out of the VIP ${seconds(vip)}, out of the names ${seconds(name)} after its last sign of life`,
      );
      stage.note(`  until then ${told(result)} of ${result.opened} connections failed, those that were sent to it`);
    }
    for (const { host } of others)
      stage.promise((await stateOf({ host }, lost.host.name)) === 'lost', `${host.name} calls it lost`);
    const steady = await startLoads(others, address);
    await sleep(STEADY_MS);
    for (const [index, result] of (await steady.stop()).entries()) {
      const kinds = Object.keys(result.answers).length;
      stage.promise(
        result.failed === 0 && kinds === others.length,
        `${others[index]!.host.name}: ${result.completed} connections after that, ${told(result)} failed`,
      );
    }
  });

  await stage.step('The host is back', async () => {
    const loads = await startLoads(others, address);
    await sleep(500);
    const healedAt = monotonicMs();
    await heal(lost.host);
    stage.note(`${lost.host.name} is plugged in again; what ran on it has been running all the time`);
    const named = others.map(async (from) => {
      await until(`${from.host.name} names it`, () => resolves(from, lost.container, lost.address), BACK_MS_MAX);
      return monotonicMs() - healedAt;
    });
    const times = await Promise.all(named);
    for (const from of others)
      await until('it is balanced over', async () => (await backendsOf(from, 'shop')) === members.length, BACK_MS_MAX);
    await sleep(500);
    for (const [index, result] of (await loads.stop()).entries()) {
      const answered = result.answers[lost.tag];
      const { name } = others[index]!.host;
      stage.promise(
        answered !== undefined && answered.firstMs >= healedAt,
        `${name}: in the VIP ${seconds((answered?.firstMs ?? Number.NaN) - healedAt)}, in the names ${seconds(times[index]!)} after it was plugged in`,
      );
      stage.promise(result.failed === 0, `${name}: ${result.completed} connections meanwhile, ${told(result)} failed`);
    }
    await until('it reaches the service', async () => /^web\d on h\d$/.test(await page(lost, 'shop')), BACK_MS_MAX);
    await first.sluice('service', 'ls');
  });
}

/**
 * When the daemon of a host that is cut off renewed its session for the last time, CLOCK_MONOTONIC. Redis keeps the end and the length of a
 * session by its own clock, which is this machine's.
 */
async function lastSignOfLife(redis: LabRedis, { host }: Member): Promise<number> {
  const [, ends, ttl] = (await redis.ask('HGET', '{sluice}sessions', `node/${host.name}`)).split(':').map(Number);
  return monotonicMs() - (Date.now() - (ends! - ttl!));
}

/** When the first question began to which a name was no longer answered, CLOCK_MONOTONIC. */
async function nameGone(from: Member, { container, address }: Member): Promise<number> {
  const ask = `nslookup -type=a ${container} | grep -qx 'Address: ${address}'`;
  const asked = await from.shell(`while read at rest </proc/uptime; ${ask}; do sleep 0.05; done 2>/dev/null; echo $at`);
  // The uptime counts a suspended machine's time too.
  const [uptime] = readFileSync('/proc/uptime', 'utf8').split(' ');
  return Number(asked) * 1_000 - (Number(uptime) * 1_000 - monotonicMs());
}
