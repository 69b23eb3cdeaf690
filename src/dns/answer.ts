/**
 * From a question to an answer, in place: the question stays where it was received, flags and counts are patched and records
 * appended. So the case of the name comes back as it was asked (0x20), and an owned name costs one look-up and one copy.
 */
import { emptyQuestion, type Question, REFUSAL, screen, type Verdict } from './guard.ts';
import { OWNED_TTL_S, type RecordSet } from './records.ts';
import type { NameTable } from './table.ts';
import {
  CLASS_IN,
  EDNS_BYTES,
  encodeName,
  FLAG,
  HEADER_BYTES,
  MESSAGE_BYTES_MAX,
  OPT_BYTES,
  PLAIN_BYTES,
  putOpt,
  putU16,
  putU32,
  RCODE,
  TYPE,
} from './wire.ts';

/** Nothing to send. */
export const DROP = 0;
/** The question is somebody else's; `question` says what was asked. */
export const FORWARD = -1;

/** Largest answer that the client takes. */
export const answerLimit = (question: Question, stream: boolean): number => {
  if (stream) return MESSAGE_BYTES_MAX;
  return question.edns ? Math.min(question.payload, EDNS_BYTES) : PLAIN_BYTES;
};

/** Type, class, TTL, data of a SOA whose MNAME is a pointer to its own owner; the other values are RFC 6303's. */
const RNAME = encodeName('nobody.invalid')!;
const SERIAL = 1;
const REFRESH_S = 3600;
const RETRY_S = 1200;
const EXPIRE_S = 604_800;

/** A SOA owned by the name at offset `owner`, or by the root when that is 0. The zone's master is the owner itself. */
function putSoa(message: Uint8Array, at: number, owner: number): number {
  const name = (): void => {
    if (owner === 0) message[at++] = 0;
    else {
      putU16(message, at, 0xc000 | owner);
      at += 2;
    }
  };
  name();
  putU16(message, at, TYPE.SOA);
  putU16(message, at + 2, CLASS_IN);
  putU32(message, at + 4, OWNED_TTL_S);
  putU16(message, at + 8, (owner === 0 ? 1 : 2) + RNAME.length + 20);
  at += 10;
  name();
  message.set(RNAME, at);
  at += RNAME.length;
  for (const value of [SERIAL, REFRESH_S, RETRY_S, EXPIRE_S, OWNED_TTL_S]) {
    putU32(message, at, value);
    at += 4;
  }
  return at;
}

/** Answers what it can from a view. One for all sandboxes; what it says of a message stands until the next. */
export class Responder {
  readonly question: Question = emptyQuestion();
  /** What the guards said of the last message; `view` when its sandbox had none. */
  verdict: Verdict | 'view' = 'ok';
  /** Response code of the last answer. */
  rcode = 0;

  /**
   * Answers the first `length` octets of `message` in place and returns the answer's length, `DROP` or `FORWARD`. The buffer must have
   * room for the answer: 1,232 octets over UDP, 65,535 as a stream. Without a table nothing is said, so that the client asks again: a
   * view that is not there yet must not look like a name that does not exist.
   */
  answer(table: NameTable | undefined, message: Uint8Array, length: number, port: number, stream: boolean): number {
    const { question } = this;
    this.verdict = screen(message, length, port, question);
    if (this.verdict !== 'ok') {
      const code = REFUSAL[this.verdict];
      return code === undefined ? DROP : this.fail(message, code);
    }
    if (table === undefined) {
      this.verdict = 'view';
      return DROP;
    }
    const entry = question.literal ? undefined : table.find(question.name);
    if (entry !== undefined) {
      const set = entry.set(question.type);
      return set === null ? this.#negative(message, RCODE.NOERROR, HEADER_BYTES) : this.#positive(message, set, stream);
    }
    const absence = question.literal ? (table.forward ? 'foreign' : 'refuse') : table.absence(question.name);
    if (absence === 'refuse') return this.#negative(message, RCODE.NXDOMAIN, 0);
    if (absence !== 'foreign') {
      let apex = HEADER_BYTES;
      for (let label = 0; label < absence.before; label++) apex += message[apex]! + 1;
      return this.#negative(message, absence.absent ? RCODE.NXDOMAIN : RCODE.NOERROR, apex);
    }
    // Who does not want recursion does not want us to ask others.
    return (message[2]! & FLAG.RD) === 0 ? this.fail(message, RCODE.REFUSED) : FORWARD;
  }

  /** An answer without records. Echoes the question where the guards found one. */
  fail(message: Uint8Array, rcode: number): number {
    const { end } = this.question;
    putU16(message, 4, end > 0 ? 1 : 0);
    return this.#finish(message, Math.max(end, HEADER_BYTES), 0, rcode, 0, 0, 0);
  }

  #positive(message: Uint8Array, set: RecordSet, stream: boolean): number {
    const { question } = this;
    const room = answerLimit(question, stream) - question.end - (question.edns ? OPT_BYTES : 0);
    const total = set.ends.length;
    let at = question.end;
    let count = total;
    if (set.bytes.length > room) count = set.ends.filter((end) => end <= room).length;
    if (total === 1 || set.stride === 0) {
      message.set(count === total ? set.bytes : set.bytes.subarray(0, set.ends[count - 1] ?? 0), at);
      at += count === 0 ? 0 : set.ends[count - 1]!;
    } else {
      // Another record comes first each time; clients take the first, or stop reading where an answer was cut.
      const first = set.turn * set.stride;
      const head = set.bytes.subarray(first, Math.min(first + count * set.stride, set.bytes.length));
      message.set(head, at);
      message.set(set.bytes.subarray(0, count * set.stride - head.length), at + head.length);
      set.turn = (set.turn + 1) % total;
      at += count * set.stride;
    }
    let additional = 0;
    if (count === total && set.glueCount > 0 && set.bytes.length + set.glue.length <= room) {
      message.set(set.glue, at);
      at += set.glue.length;
      additional = set.glueCount;
    }
    const flags = count < total ? FLAG.AA | FLAG.TC : FLAG.AA;
    return this.#finish(message, at, flags, RCODE.NOERROR, count, 0, additional);
  }

  #negative(message: Uint8Array, rcode: number, owner: number): number {
    return this.#finish(message, putSoa(message, this.question.end, owner), FLAG.AA, rcode, 0, 1, 0);
  }

  #finish(
    message: Uint8Array,
    at: number,
    flags: number,
    rcode: number,
    answers: number,
    authorities: number,
    additionals: number,
  ): number {
    const { edns, dnssecOk } = this.question;
    this.rcode = rcode;
    message[2] = FLAG.QR | (message[2]! & (FLAG.OPCODE | FLAG.RD)) | flags;
    message[3] = FLAG.RA | (message[3]! & FLAG.CD) | (rcode & FLAG.RCODE);
    putU16(message, 6, answers);
    putU16(message, 8, authorities);
    putU16(message, 10, additionals + (edns ? 1 : 0));
    return edns ? putOpt(message, at, rcode, dnssecOk) : at;
  }
}
