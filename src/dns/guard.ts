/** What every packet from a sandbox passes before anything else looks at it. Pure, allocates one string. */
import { CLASS_IN, FLAG, HEADER_BYTES, OPT_BYTES, QUERY_BYTES_MAX, RCODE, TYPE, u16 } from './wire.ts';

/**
 * Why a packet is dropped without a word (`short`, `long`, `port`, `response`), or refused with a code:
 * `opcode` and `meta` NOTIMP, `count`, `name`, `additional` and `trailing` FORMERR, `class` REFUSED, `version` BADVERS.
 * `ok` lets it pass. These are the values of the label `reason` of sluice_dns_dropped_total.
 */
export type Verdict =
  | 'ok'
  | 'short'
  | 'long'
  | 'port'
  | 'response'
  | 'opcode'
  | 'count'
  | 'name'
  | 'class'
  | 'meta'
  | 'additional'
  | 'trailing'
  | 'version';

/** Response code of a refused packet; what is missing here gets no answer. */
export const REFUSAL: Partial<Record<Verdict, number>> = {
  opcode: RCODE.NOTIMP,
  count: RCODE.FORMERR,
  name: RCODE.FORMERR,
  class: RCODE.REFUSED,
  meta: RCODE.NOTIMP,
  additional: RCODE.FORMERR,
  trailing: RCODE.FORMERR,
  version: RCODE.BADVERS,
};

/** The one question of a message; an object that is filled again and again, so copy what must last. */
export interface Question {
  /** Lower case, dots between labels, none at the end; '' is the root. */
  name: string;
  /** A label holds a dot or a NUL, so `name` does not stand for it and matches nothing of ours. */
  literal: boolean;
  type: number;
  /** Offset just after the question; 0 when the guards did not get that far. */
  end: number;
  edns: boolean;
  /** UDP payload that the client takes, at least 512. */
  payload: number;
  dnssecOk: boolean;
}

export const emptyQuestion = (): Question => ({
  name: '',
  literal: false,
  type: 0,
  end: 0,
  edns: false,
  payload: 512,
  dnssecOk: false,
});

const text = Buffer.alloc(256);

/** Checks the first `length` octets of `message` and fills `question`. `port` is the client's source port (TCP: any but 0). */
export function screen(message: Uint8Array, length: number, port: number, question: Question): Verdict {
  question.end = 0;
  question.edns = false;
  question.payload = 512;
  question.dnssecOk = false;
  if (length < HEADER_BYTES) return 'short';
  if (length > QUERY_BYTES_MAX) return 'long';
  if (port === 0) return 'port';
  if ((message[2]! & FLAG.QR) !== 0) return 'response';
  if ((message[2]! & FLAG.OPCODE) !== 0) return 'opcode';
  const additional = u16(message, 10);
  if (u16(message, 4) !== 1 || u16(message, 6) !== 0 || u16(message, 8) !== 0 || additional > 1) return 'count';

  // The name: labels only, a pointer has nothing to point to in a question.
  let at = HEADER_BYTES;
  let size = 0;
  let literal = false;
  for (;;) {
    if (at >= length) return 'name';
    const label = message[at++]!;
    if (label === 0) break;
    if (label > 63 || at + label >= length || at + label - HEADER_BYTES > 254) return 'name';
    if (size > 0) text[size++] = 0x2e;
    for (const stop = at + label; at < stop; at++) {
      const octet = message[at]!;
      if (octet === 0x2e || octet === 0) literal = true;
      text[size++] = octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet;
    }
  }
  if (at + 4 > length) return 'name';
  question.name = text.toString('latin1', 0, size);
  question.literal = literal;
  question.type = u16(message, at);
  const klass = u16(message, at + 2);
  at += 4;
  question.end = at;
  if (additional === 1) {
    if (at + OPT_BYTES > length || message[at] !== 0 || u16(message, at + 1) !== TYPE.OPT) return 'additional';
    question.edns = true;
    question.payload = Math.max(512, u16(message, at + 3));
    question.dnssecOk = (message[at + 7]! & 0x80) !== 0;
    const version = message[at + 6]!;
    at += OPT_BYTES + u16(message, at + 9);
    if (at > length) return 'additional';
    if (version !== 0) return 'version';
  }
  if (at !== length) return 'trailing';
  if (klass !== CLASS_IN) return 'class';
  // Types that name no record: OPT itself, transfers and the like. ANY is one that we do answer.
  if (question.type === TYPE.OPT || (question.type >= TYPE.TKEY && question.type <= TYPE.MAILA)) return 'meta';
  return 'ok';
}
