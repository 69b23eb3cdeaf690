/** Names below in-addr.arpa and ip6.arpa (RFC 1035 §3.5, RFC 3596 §2.5). Pure. */
import { type Cidr, familyOf, parseCidr, toBytes, tryParse } from '../model/ip.ts';

const SUFFIX = { 4: 'in-addr.arpa', 6: 'ip6.arpa' } as const;
/** Bits that one label stands for. */
const STEP = { 4: 8, 6: 4 } as const;
const BITS = { 4: 32, 6: 128 } as const;

/** `10.20.0.5` → `5.0.20.10.in-addr.arpa`; null when it is no address. */
export function reverseName(address: string): string | null {
  if (tryParse(address) === null) return null;
  const family = familyOf(address);
  const bytes = [...toBytes(address)];
  const labels = family === 4 ? bytes : bytes.flatMap((byte) => [byte >> 4, byte & 15]);
  return [...labels.reverse().map((label) => label.toString(family === 4 ? 10 : 16)), SUFFIX[family]].join('.');
}

/** Where a name lies in a zone of ours. */
export interface ReverseMatch {
  /** Labels of the question's name in front of the zone's apex. */
  readonly before: number;
  /** False for a name between the apex and full addresses, which exists without records. */
  readonly absent: boolean;
}

/** The reverse zones of subnets. A prefix that ends inside a label is rounded up: 172.20.0.0/14 has four zones, 20 to 23.172.in-addr.arpa. */
export class ReverseZones {
  readonly #subnets: readonly Cidr[];

  constructor(subnets: readonly string[]) {
    this.#subnets = subnets.map((subnet) => parseCidr(subnet));
  }

  /** `name` is lower case. Null when it lies in no zone of ours. */
  match(name: string): ReverseMatch | null {
    const family = name.endsWith(`.${SUFFIX[4]}`) ? 4 : name.endsWith(`.${SUFFIX[6]}`) ? 6 : null;
    if (family === null) return null;
    const labels = name.slice(0, -SUFFIX[family].length - 1).split('.');
    const step = STEP[family];
    let value = 0n;
    let bits = 0;
    let at = labels.length;
    while (at > 0 && bits < BITS[family]) {
      const part = parseLabel(family, labels[at - 1]!);
      if (part === null) break;
      value = (value << BigInt(step)) | BigInt(part);
      bits += step;
      at--;
    }
    // `at` labels are left that are no part of an address: below one, or RFC 2317's.
    const zone = this.#subnets.find(
      (subnet) =>
        subnet.family === family &&
        bits >= apexBits(subnet) &&
        value >> BigInt(bits - subnet.prefix) === subnet.base >> BigInt(BITS[family] - subnet.prefix),
    );
    if (!zone) return null;
    return { before: labels.length - apexBits(zone) / step, absent: at > 0 || bits === BITS[family] };
  }
}

const apexBits = ({ family, prefix }: Cidr): number => Math.ceil(prefix / STEP[family]) * STEP[family];

function parseLabel(family: 4 | 6, label: string): number | null {
  if (family === 6) return /^[0-9a-f]$/.test(label) ? Number.parseInt(label, 16) : null;
  return /^(0|[1-9]\d{0,2})$/.test(label) && Number(label) < 256 ? Number(label) : null;
}
