/** The drivers of this daemon: the built-in ones in one visible table, and those that the settings name. */
import { pathToFileURL } from 'node:url';
import { create as createBridge } from '../plugins/bridge/bridge.ts';
import { create as createHost } from '../plugins/host/host.ts';
import { create as createNone } from '../plugins/none/none.ts';
import { type Clock, withTimeLimit } from './clock.ts';
import type { DriverFactory, DriverHost, NetworkDriver } from './contracts/driver.ts';
import { guardDriver } from './controller/circuit.ts';
import { SluiceError } from './errors.ts';

const BUILTIN: Readonly<Record<string, DriverFactory>> = { bridge: createBridge, host: createHost, none: createNone };

/** Time that a third-party module may take to load, milliseconds. */
const LOAD_MS_MAX = 5_000;

/** A module that cannot be loaded is `config.invalid`: the daemon does not start without a driver that was asked for. */
export async function loadDrivers(host: DriverHost, plugins: Readonly<Record<string, string>>, clock: Clock): Promise<ReadonlyMap<string, NetworkDriver>> {
  const drivers = new Map(Object.entries(BUILTIN).map(([name, create]) => [name, guardDriver(create(host), { clock })]));
  for (const [name, path] of Object.entries(plugins)) {
    if (drivers.has(name)) throw new SluiceError('config.invalid', `plugins: ${name} is the name of a driver that exists`, { name });
    const create = await loadFactory(name, path, clock);
    drivers.set(name, guardDriver(create(host), { clock }));
  }
  return drivers;
}

async function loadFactory(name: string, path: string, clock: Clock): Promise<DriverFactory> {
  const late = (): Error => new SluiceError('config.invalid', `plugins: ${name}: ${path} did not load within ${LOAD_MS_MAX} ms`, { name, path });
  let module: { create?: unknown };
  try {
    module = (await withTimeLimit(clock, LOAD_MS_MAX, import(pathToFileURL(path).href), late)) as { create?: unknown };
  } catch (error) {
    if (error instanceof SluiceError) throw error;
    throw new SluiceError('config.invalid', `plugins: ${name}: ${path}: ${(error as Error).message}`, { name, path }, error);
  }
  if (typeof module.create !== 'function') throw new SluiceError('config.invalid', `plugins: ${name}: ${path} exports no function "create"`, { name, path });
  return module.create as DriverFactory;
}
