/** Object ids: 64 lower-case hex digits; people abbreviate them to 12. */

export function hexId(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

export const ID_BYTES = 32;

export const isId = (text: string): boolean => /^[0-9a-f]{64}$/.test(text);

/** Docker's rule for names: letters, digits, `_.-`, at least two characters, at most 63 so that it is one DNS label. */
export const NAME_PATTERN = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;

export const shortId = (id: string): string => id.slice(0, 12);

/** `02:42:` + the IPv4 address, as libnetwork derives it; from the first bytes of the id for an IPv6-only endpoint. */
export function deriveMac(id: string, ipv4?: string): string {
  const bytes = ipv4 ? ipv4.split('.').map(Number) : [...Buffer.from(id.slice(0, 8), 'hex')];
  return ['02', ipv4 ? '42' : '43', ...bytes.map((byte) => byte.toString(16).padStart(2, '0'))].join(':');
}
