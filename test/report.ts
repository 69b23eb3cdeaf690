/** How test results are judged: pure functions of records, floors and the list of what kernels have. */

export interface TestRecord {
  readonly file: string;
  readonly name: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  /** The reason of a skip, the first message of a failure. */
  readonly why?: string;
  readonly ms?: number;
  /** Not a test but a file that did not load or a `beforeAll` that failed: the tests under it did not run. */
  readonly setup?: boolean;
}

/** Fewest tests (passed or skipped) that each suite has. */
export type Floors = Readonly<Record<string, number>>;

/** Per kernel (`6.18`), what it has and what it lacks, in the words that skips use. */
export type KernelFeatures = Readonly<
  Record<string, { readonly has: readonly string[]; readonly lacks: readonly string[] }>
>;

export interface Verdict {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** One line each, for people. */
  readonly complaints: readonly string[];
  /** Skips by reason, the most frequent first: `12 × kernel lacks: netem`. */
  readonly skips: readonly string[];
}

/** `6.18.44-cloud-amd64` → `6.18` */
export const kernelOf = (release: string): string => release.split('.').slice(0, 2).join('.');

/** What is wrong with a skip, or null: it must name what the kernel lacks, and a known kernel must be known to lack it. */
export function judgeSkip(why: string | undefined, kernel: string, features: KernelFeatures): string | null {
  const lacking = /^kernel lacks: (.+)$/.exec(why ?? '')?.[1];
  if (!lacking) return `a skip must say "kernel lacks: WHAT"${why ? `, not "${why}"` : ''}`;
  const known = features[kernel];
  if (!known || known.lacks.includes(lacking)) return null;
  if (known.has.includes(lacking)) return `skipped for want of ${lacking}, which kernel ${kernel} has`;
  return `skipped for want of ${lacking}, of which test/kernel-features.json knows nothing for kernel ${kernel}`;
}

/** Judges one suite. `floor` null: not all of it ran. */
export function judgeSuite(
  suite: string,
  tests: readonly TestRecord[],
  floor: number | null,
  kernel: string,
  features: KernelFeatures,
): Verdict {
  const complaints: string[] = [];
  const reasons = new Map<string, number>();
  const broken = new Set(tests.filter(({ setup }) => setup).map(({ file }) => file));
  const unrun = new Map<string, number>();
  let [passed, failed, skipped] = [0, 0, 0];
  for (const test of tests) {
    if (test.state === 'passed') passed++;
    else if (test.state === 'failed') {
      failed++;
      complaints.push(`${test.file} > ${test.name}: ${(test.why ?? 'failed').split('\n')[0]}`);
    } else if (!test.why && broken.has(test.file)) {
      failed++;
      unrun.set(test.file, (unrun.get(test.file) ?? 0) + 1);
    } else {
      skipped++;
      const wrong = judgeSkip(test.why, kernel, features);
      reasons.set(test.why ?? '(no reason)', (reasons.get(test.why ?? '(no reason)') ?? 0) + 1);
      if (wrong) {
        failed++;
        complaints.push(`${test.file} > ${test.name}: ${wrong}`);
      }
    }
  }
  for (const [file, count] of unrun) complaints.push(`${file}: ${count} tests did not run`);
  if (floor !== null && passed + skipped < floor) {
    failed++;
    complaints.push(
      `suite ${suite} has ${passed + skipped} tests that pass, fewer than its floor of ${floor} (test/floor.json)`,
    );
  }
  const skips = [...reasons].sort((a, b) => b[1] - a[1]).map(([why, count]) => `${count} × ${why}`);
  return { passed, failed, skipped, complaints, skips };
}

/** The line that ends every run. */
export const lastLine = (passed: number, failed: number): string => `${passed} passed, ${failed} failed`;

/** A plain table: suite, tests, skipped, floor, and the seconds that its tests took, which run side by side. */
export function suiteTable(
  rows: readonly {
    readonly suite: string;
    readonly verdict: Verdict;
    readonly floor: number | null;
    readonly seconds: number;
  }[],
): string {
  const lines = [['suite', 'passed', 'failed', 'skipped', 'floor', 'seconds']];
  for (const { suite, verdict, floor, seconds } of rows) {
    const { passed, failed, skipped } = verdict;
    lines.push([suite, `${passed}`, `${failed}`, `${skipped}`, floor === null ? '-' : `${floor}`, seconds.toFixed(1)]);
  }
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)));
  const pad = (cell: string, column: number) =>
    column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!);
  return lines.map((line) => line.map(pad).join('  ')).join('\n');
}
