/**
 * Which addresses of a pool are taken, as sorted runs of neighbours: next-fit allocation makes long runs, so that the next free address is
 * found in logarithmic time however many are taken, in a /64 as in a /24.
 */
export class Occupancy {
  /** Runs by index: first and last taken address of each; between two runs lies at least one free address. */
  readonly #first: bigint[] = [];
  readonly #last: bigint[] = [];

  constructor(taken: Iterable<bigint> = []) {
    for (const value of [...new Set(taken)].sort((a, b) => (a < b ? -1 : 1))) {
      const top = this.#last.length - 1;
      if (this.#last[top] === value - 1n) this.#last[top] = value;
      else {
        this.#first.push(value);
        this.#last.push(value);
      }
    }
  }

  has(value: bigint): boolean {
    const at = this.#runBelow(value);
    return at >= 0 && value <= this.#last[at]!;
  }

  add(value: bigint): void {
    const at = this.#runBelow(value);
    if (at >= 0 && value <= this.#last[at]!) return;
    const joinsBelow = at >= 0 && this.#last[at] === value - 1n;
    const joinsAbove = this.#first[at + 1] === value + 1n;
    if (joinsBelow && joinsAbove) {
      this.#last[at] = this.#last[at + 1]!;
      this.#first.splice(at + 1, 1);
      this.#last.splice(at + 1, 1);
    } else if (joinsBelow) this.#last[at] = value;
    else if (joinsAbove) this.#first[at + 1] = value;
    else {
      this.#first.splice(at + 1, 0, value);
      this.#last.splice(at + 1, 0, value);
    }
  }

  delete(value: bigint): void {
    const at = this.#runBelow(value);
    if (at < 0 || value > this.#last[at]!) return;
    const [first, last] = [this.#first[at]!, this.#last[at]!];
    if (first === last) {
      this.#first.splice(at, 1);
      this.#last.splice(at, 1);
    } else if (value === first) this.#first[at] = value + 1n;
    else if (value === last) this.#last[at] = value - 1n;
    else {
      this.#last[at] = value - 1n;
      this.#first.splice(at + 1, 0, value + 1n);
      this.#last.splice(at + 1, 0, last);
    }
  }

  /** The lowest free address from `low` to `high`. */
  lowestFree(low: bigint, high: bigint): bigint | null {
    const at = this.#runBelow(low);
    const value = at >= 0 && low <= this.#last[at]! ? this.#last[at]! + 1n : low;
    return value <= high ? value : null;
  }

  /** The highest free address from `high` down to `low`. */
  highestFree(low: bigint, high: bigint): bigint | null {
    const at = this.#runBelow(high);
    const value = at >= 0 && high <= this.#last[at]! ? this.#first[at]! - 1n : high;
    return value >= low ? value : null;
  }

  /** Index of the last run that begins at or below the address, -1: none. */
  #runBelow(value: bigint): number {
    let [low, high] = [0, this.#first.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#first[middle]! <= value) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
