import { Counter, Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { Scrape } from '../../src/api/metrics.ts';
import { createMetricsApp } from '../../src/api/server.ts';
import { systemClock } from '../../src/clock.ts';
import { createLogger } from '../../src/log.ts';
import { objects, registry } from '../../src/metrics.ts';
import { World } from './api-world.ts';

const logger = createLogger('silent');

test('collectors run at the scrape, one run for all who ask at once, and a broken one spoils only itself', async () => {
  const own = new Registry();
  const counter = new Counter({ name: 'asked_total', help: 'times', registers: [own] });
  const scrape = new Scrape({ registry: own, clock: systemClock, logger });
  scrape.add('counter', async () => {
    await systemClock.sleep(5);
    counter.inc();
  });
  scrape.add('broken', () => {
    throw new Error('no map');
  });
  const texts = await Promise.all([scrape.text(), scrape.text(), scrape.text()]);
  expect(texts[0]).toContain('asked_total 1');
  expect(new Set(texts).size).toBe(1);
  expect(await scrape.text()).toContain('asked_total 2');
});

test('objects by kind and state come from the store; requests are counted by route pattern', async () => {
  // Other files of this process asked before.
  registry.resetMetrics();
  const world = new World();
  const app = world.api({ metrics: new Scrape({ registry, clock: systemClock, logger }) });
  const put = (name: string) =>
    app.request(`/v1/networks/${name}?wait=5s`, {
      method: 'PUT',
      body: '{}',
      headers: { 'content-type': 'application/json' },
    });
  await put('a');
  world.fate = () => ({ state: 'error', code: 'driver.failed', message: 'x' });
  await put('b');
  await app.request('/nowhere');
  const text = await (await app.request('/metrics')).text();
  expect(text).toContain('sluice_objects{kind="network",state="ready"} 1');
  expect(text).toContain('sluice_objects{kind="network",state="error"} 1');
  expect(text).toContain('sluice_objects{kind="sandbox",state="ready"} 0');
  expect(text).toContain('sluice_api_request_seconds_count{method="PUT",route="/v1/networks/:name",status="201"} 1');
  expect(text).toContain('sluice_api_request_seconds_count{method="PUT",route="/v1/networks/:name",status="502"} 1');
  expect(text).toContain('route="unknown",status="404"');
  objects.reset();
  world.life.abort();
});

test('the app of the TCP listener serves metrics and nothing else', async () => {
  const app = createMetricsApp({
    metrics: new Scrape({ registry: new Registry(), clock: systemClock, logger }),
    logger,
  });
  expect((await app.request('/metrics')).status).toBe(200);
  expect((await app.request('/v1/networks')).status).toBe(404);
  expect(await (await app.request('/metrics', { method: 'POST' })).json()).toMatchObject({ code: 'request.method' });
});
