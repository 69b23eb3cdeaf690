/** Which replicas a service lacks, and which it has too many of. Pure. */

export interface ReplicaFacts {
  readonly id: string;
  readonly slot: number;
  readonly version: number;
  /** It is balanced over. */
  readonly serving: boolean;
  /** It was told to end; `ended`: and has. */
  readonly leaving: boolean;
  readonly ended: boolean;
}

export interface ReplicaPlan {
  /** Slots of new ones. */
  readonly create: readonly number[];
  /** To be told to end: their open connections have the grace period. */
  readonly leave: readonly string[];
  /** To go: they have ended. */
  readonly remove: readonly string[];
}

/**
 * `count` of `version`, in the lowest free slots. While there are some of an earlier version there is one more than `count`: a new one comes,
 * and when it serves an old one goes, so that as many serve as did. Whoever does not serve goes before others, then of an earlier version, then the
 * highest slot. Without `renews` those of an earlier version stay for now: it is not this node's turn.
 */
export function planReplicas(
  count: number,
  version: number,
  replicas: readonly ReplicaFacts[],
  renews = true,
): ReplicaPlan {
  const living = replicas.filter(({ leaving }) => !leaving);
  const isFresh = (each: ReplicaFacts): boolean => !renews || each.version === version;
  const fresh = living.filter(isFresh);
  const old = living.filter((each) => !isFresh(each));
  const room = count + (old.length > 0 ? 1 : 0) - living.length;
  const missing = Math.max(0, Math.min(count - fresh.length, room));
  const surplus = fresh.toSorted(
    (a, b) => Number(a.serving) - Number(b.serving) || a.version - b.version || b.slot - a.slot,
  );
  const serving = living.filter((each) => each.serving).length;
  const spare = Math.max(0, serving - count);
  const idle = fresh.length + old.length >= count ? old.filter((each) => !each.serving) : [];
  const busy = old.filter((each) => each.serving).toSorted((a, b) => a.slot - b.slot);
  return {
    create: freeSlots(new Set(replicas.map(({ slot }) => slot)), missing),
    leave: [...surplus.slice(0, Math.max(0, fresh.length - count)), ...idle, ...busy.slice(0, spare)].map(
      ({ id }) => id,
    ),
    remove: replicas.filter(({ leaving, ended }) => leaving && ended).map(({ id }) => id),
  };
}

function freeSlots(taken: ReadonlySet<number>, count: number): number[] {
  const free: number[] = [];
  for (let slot = 1; free.length < count; slot++) if (!taken.has(slot)) free.push(slot);
  return free;
}
