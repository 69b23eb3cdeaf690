/**
 * Every call of a driver has a time limit, and a driver that stays silent again and again is left alone for a while: a dead plugin must
 * not block the daemon (libnetwork#813). What a driver throws that is no coded error becomes `driver.failed` with its own words.
 */
import { type Clock, withTimeLimit } from '../clock.ts';
import { hasBulkDelete, hasInventory, type NetworkDriver } from '../contracts/driver.ts';
import { isSluiceError, SluiceError } from '../errors.ts';

export interface CircuitOptions {
  readonly clock: Clock;
  /** Time limit of one call, milliseconds. */
  readonly limitMs?: number;
  /** Time-outs in a row that open the circuit. */
  readonly failuresMax?: number;
  /** How long it stays open, milliseconds. */
  readonly openMs?: number;
}

export class Circuit {
  readonly #name: string;
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #failuresMax: number;
  readonly #openMs: number;
  #failures = 0;
  #openUntil = 0;

  constructor(name: string, { clock, limitMs = 10_000, failuresMax = 3, openMs = 15_000 }: CircuitOptions) {
    this.#name = name;
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#failuresMax = failuresMax;
    this.#openMs = openMs;
  }

  async call<T>(verb: string, work: () => Promise<T>): Promise<T> {
    if (this.#clock.monotonic() < this.#openUntil) {
      throw new SluiceError(
        'driver.open',
        `driver ${this.#name} did not answer ${this.#failures} times in a row and is left alone for a while`,
        { driver: this.#name, verb },
      );
    }
    try {
      const result = await withTimeLimit(this.#clock, this.#limitMs, Promise.resolve().then(work), () => {
        return new SluiceError(
          'driver.timeout',
          `driver ${this.#name} did not answer ${verb} within ${this.#limitMs} ms`,
          { driver: this.#name, verb },
        );
      });
      this.#failures = 0;
      return result;
    } catch (error) {
      // A refusal is an answer: the driver works, the request does not. Only silence opens the circuit.
      if (!isSluiceError(error, 'driver.timeout')) this.#failures = 0;
      else if (++this.#failures >= this.#failuresMax) this.#openUntil = this.#clock.monotonic() + this.#openMs;
      if (isSluiceError(error)) throw error;
      const words = error instanceof Error ? error.message : String(error);
      throw new SluiceError(
        'driver.failed',
        `driver ${this.#name}: ${verb}: ${words}`,
        { driver: this.#name, verb },
        error,
      );
    }
  }
}

/** The driver behind a circuit; optional abilities stay what they were. */
export function guardDriver(driver: NetworkDriver, options: CircuitOptions): NetworkDriver {
  const circuit = new Circuit(driver.name, options);
  const guarded: NetworkDriver = {
    name: driver.name,
    capabilities: () => driver.capabilities(),
    validate: (network) => driver.validate(network),
    createNetwork: (network) => circuit.call('createNetwork', () => driver.createNetwork(network)),
    deleteNetwork: (id) => circuit.call('deleteNetwork', () => driver.deleteNetwork(id)),
    createEndpoint: (network, endpoint, path) =>
      circuit.call('createEndpoint', () => driver.createEndpoint(network, endpoint, path)),
    join: (network, endpoint) => circuit.call('join', () => driver.join(network, endpoint)),
    leave: (network, endpoint) => circuit.call('leave', () => driver.leave(network, endpoint)),
    deleteEndpoint: (network, endpoint) =>
      circuit.call('deleteEndpoint', () => driver.deleteEndpoint(network, endpoint)),
  };
  if (hasInventory(driver))
    Object.assign(guarded, { inventory: () => circuit.call('inventory', () => driver.inventory()) });
  if (hasBulkDelete(driver))
    Object.assign(guarded, {
      deleteEndpoints: (ids: readonly string[]) => circuit.call('deleteEndpoints', () => driver.deleteEndpoints(ids)),
    });
  return guarded;
}
