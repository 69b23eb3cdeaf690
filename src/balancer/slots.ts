/** How a set's slots change. Pure. Slots are drawn by index below the count, so they have no holes. */

export interface SlotPlan {
  /** Backend number by index, as it shall be. */
  readonly order: readonly number[];
  /** Indices that go after the count has shrunk. */
  readonly deletes: readonly number[];
  /** Backends that go last. */
  readonly gone: readonly number[];
}

/**
 * Backends that stay keep their slot. New ones take the slots of those that go, then new slots at the end; what is still
 * free is filled from the end. `current` has 0 where a slot is missing.
 */
export function planSlots(current: readonly number[], wanted: readonly number[]): SlotPlan {
  const staying = new Set(wanted);
  const order = [...current];
  const seen = new Set<number>();
  const free: number[] = [];
  for (const [index, number] of current.entries()) {
    if (staying.has(number) && !seen.has(number)) seen.add(number);
    else free.push(index);
  }
  for (const number of staying) {
    if (seen.has(number)) continue;
    const index = free.shift() ?? order.length;
    order[index] = number;
  }
  // From the highest down: popping the end never invalidates a lower one.
  while (free.length > 0) {
    const index = free.pop()!;
    const last = order.pop()!;
    if (index < order.length) order[index] = last;
  }
  return {
    order,
    deletes: [...current.keys()].filter((index) => index >= order.length),
    gone: [...new Set(current)].filter((number) => number !== 0 && !staying.has(number)),
  };
}
