/** Names for containers that were given none. */
const FIRST = [
  'amber',
  'brisk',
  'calm',
  'deft',
  'eager',
  'fair',
  'glad',
  'hardy',
  'keen',
  'lucid',
  'mild',
  'neat',
  'prime',
  'quick',
  'steady',
  'vivid',
];
const SECOND = [
  'basin',
  'brook',
  'canal',
  'creek',
  'delta',
  'fjord',
  'ford',
  'harbour',
  'lagoon',
  'lock',
  'mill',
  'pond',
  'reach',
  'spring',
  'tide',
  'weir',
];

/** `calm-weir-3f09c2`: 32 bits of chance in all, so that thousands of them rarely meet. */
export function madeUpName(random: Uint8Array): string {
  const [first = 0, ...rest] = random;
  const digits = rest.slice(0, 3).map((byte) => byte.toString(16).padStart(2, '0'));
  return `${FIRST[first >> 4]}-${SECOND[first & 15]}-${digits.join('')}`;
}
