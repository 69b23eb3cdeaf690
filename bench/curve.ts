/** Numbers over a size, each kind in a small picture of its own; both axes logarithmic, so that what is proportional is a line of slope 1. */
export interface Curve {
  readonly title: string;
  readonly unit: string;
  /** What `x` counts. */
  readonly over: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

const WIDTH = 470;
const HEIGHT = 190;
const INSIDE = { left: 60, right: 20, top: 36, bottom: 40 } as const;
const COLOUR = '#0969da';

const digits = (value: number): string => Number(value.toPrecision(3)).toLocaleString('en-US');

function picture(
  { title, unit, over, points }: Curve,
  left: number,
  top: number,
  xml: (text: string) => string,
): string {
  const scale = (values: readonly number[], from: number, to: number): ((value: number) => string) => {
    const [low, high] = [Math.log(Math.min(...values)), Math.log(Math.max(...values))];
    // One point, or points at one height, stand in the middle.
    const share = (value: number): number => (high === low ? 0.5 : (Math.log(value) - low) / (high - low));
    return (value) => (from + (to - from) * share(value)).toFixed(1);
  };
  const x = scale(
    points.map((point) => point.x),
    left + INSIDE.left,
    left + WIDTH - INSIDE.right,
  );
  const y = scale(
    points.map((point) => point.y),
    top + HEIGHT - INSIDE.bottom,
    top + INSIDE.top + 16,
  );
  const bottom = top + HEIGHT - INSIDE.bottom + 8;
  const line = points.map((point) => `${x(point.x)},${y(point.y)}`).join(' ');
  return [
    `<text x="${left + 12}" y="${top + 18}" font-weight="600">${xml(`${title}, ${unit}`)}</text>`,
    `<line x1="${left + INSIDE.left}" y1="${bottom}" x2="${left + WIDTH - INSIDE.right}" y2="${bottom}" stroke="#d0d7de"/>`,
    `<polyline points="${line}" fill="none" stroke="${COLOUR}" stroke-width="2"/>`,
    ...points.flatMap((point) => [
      `<circle cx="${x(point.x)}" cy="${y(point.y)}" r="4" fill="${COLOUR}"/>`,
      `<text x="${x(point.x)}" y="${Number(y(point.y)) - 9}" text-anchor="middle">${digits(point.y)}</text>`,
      `<text x="${x(point.x)}" y="${bottom + 16}" text-anchor="middle" fill="#57606a">${xml(`${digits(point.x)} ${over}`)}</text>`,
    ]),
  ].join('\n');
}

/** Two beside each other; what is no number above 0 cannot be drawn. */
export function drawCurves(
  curves: readonly Curve[],
  top: number,
  xml: (text: string) => string,
): readonly [svg: string, height: number] {
  const sound = curves
    .map((curve) => ({ ...curve, points: curve.points.filter(({ x, y }) => x > 0 && y > 0) }))
    .filter(({ points }) => points.length > 0);
  const pictures = sound.map((curve, at) => picture(curve, (at % 2) * WIDTH, top + Math.floor(at / 2) * HEIGHT, xml));
  return [pictures.join('\n'), Math.ceil(sound.length / 2) * HEIGHT];
}
