/** Answers of upstream servers: checked, brought into one form, kept for as long as they may be, written for a client. Pure. */
import type { Question } from './guard.ts';
import {
  FLAG,
  HEADER_BYTES,
  OPT_BYTES,
  putOpt,
  putU16,
  putU32,
  RCODE,
  type RecordSpan,
  recordSpans,
  TYPE,
  u16,
  u32,
} from './wire.ts';

/** Longest that an answer is kept, seconds: positive an hour; negative a minute, since names are made while people wait for them. */
const POSITIVE_S_MAX = 3600;
const NEGATIVE_S_MAX = 60;

export interface Reply {
  readonly rcode: number;
  /** The server says that it validated the answer. */
  readonly authentic: boolean;
  /** Offset where records begin; the question in front of it has the length of the client's. */
  readonly start: number;
  /** Header, question and records, without OPT. */
  readonly bytes: Uint8Array;
  readonly answers: number;
  readonly authorities: number;
  readonly additionals: number;
  /** Offsets of the records' TTLs and ends, section by section. */
  readonly ttlsAt: Uint16Array;
  readonly ends: Uint16Array;
  /** Seconds that it may be kept. */
  readonly lifetimeS: number;
}

/** `stray`: not the answer to this query, keep waiting. `bad`: it is, but of no use. `truncated`: ask again over TCP. */
export type Reading = Reply | 'stray' | 'bad' | 'truncated';

const sameFolded = (a: Uint8Array, b: Uint8Array, from: number, to: number): boolean => {
  const fold = (octet: number): number => (octet >= 0x41 && octet <= 0x5a ? octet | 0x20 : octet);
  for (let at = from; at < to; at++) if (a[at] !== b[at] && fold(a[at]!) !== fold(b[at]!)) return false;
  return true;
};

/** Reads what came back for `query`, whose question ends at `end`. The question must be echoed, in whatever case. */
export function readReply(message: Uint8Array, query: Uint8Array, end: number): Reading {
  const { length } = message;
  if (length < HEADER_BYTES || u16(message, 0) !== u16(query, 0)) return 'stray';
  if ((message[2]! & (FLAG.QR | FLAG.OPCODE)) !== FLAG.QR) return 'stray';
  const rcode = message[3]! & FLAG.RCODE;
  if (u16(message, 4) === 0 && rcode !== RCODE.NOERROR) {
    // Servers that do not understand a query may leave the question out.
    return failure(query, end, rcode);
  }
  if (u16(message, 4) !== 1 || length < end) return 'stray';
  if (!sameFolded(message, query, HEADER_BYTES, end - 4)) return 'stray';
  if (u32(message, end - 4) !== u32(query, end - 4)) return 'stray';
  if ((message[2]! & FLAG.TC) !== 0) return 'truncated';
  const spans = recordSpans(message, end, length);
  if (spans === null) return 'bad';
  const opt = spans.findIndex((span) => span.type === TYPE.OPT);
  if (opt >= 0 && (spans[opt]!.section !== 'additional' || message[spans[opt]!.ttlAt] !== 0)) return 'bad';
  // OPT comes last but for signatures of the transport, which are not the client's either.
  const kept = opt >= 0 ? spans.slice(0, opt) : spans;
  const count = (section: RecordSpan['section']): number => kept.filter((span) => span.section === section).length;
  return {
    rcode,
    authentic: (message[3]! & FLAG.AD) !== 0,
    start: end,
    bytes: Uint8Array.from(message.subarray(0, kept.at(-1)?.end ?? end)),
    answers: count('answer'),
    authorities: count('authority'),
    additionals: count('additional'),
    ttlsAt: Uint16Array.from(kept, (span) => span.ttlAt),
    ends: Uint16Array.from(kept, (span) => span.end),
    lifetimeS: lifetime(message, rcode, kept),
  };
}

/** A reply of our own that holds nothing but a response code. */
export function failure(query: Uint8Array, end: number, rcode: number): Reply {
  const none = new Uint16Array(0);
  return {
    rcode,
    authentic: false,
    start: end,
    bytes: Uint8Array.from(query.subarray(0, end)),
    answers: 0,
    authorities: 0,
    additionals: 0,
    ttlsAt: none,
    ends: none,
    lifetimeS: 0,
  };
}

/** The shortest TTL of answer and authority; a SOA's counts with its minimum (RFC 2308). 0: not to be kept. */
function lifetime(message: Uint8Array, rcode: number, spans: readonly RecordSpan[]): number {
  if (rcode !== RCODE.NOERROR && rcode !== RCODE.NXDOMAIN) return 0;
  let seconds = POSITIVE_S_MAX;
  let negative = rcode === RCODE.NXDOMAIN;
  let known = false;
  for (const span of spans) {
    if (span.section === 'additional') continue;
    known = true;
    const ttl = u32(message, span.ttlAt);
    // RFC 2181 §8: a TTL with its top bit set counts as 0.
    seconds = Math.min(seconds, ttl > 0x7fffffff ? 0 : ttl);
    if (span.section === 'authority' && span.type === TYPE.SOA && span.end - span.dataAt >= 22) {
      negative = true;
      seconds = Math.min(seconds, u32(message, span.end - 4));
    }
  }
  if (!known) return 0;
  return negative ? Math.min(seconds, NEGATIVE_S_MAX) : seconds;
}

/**
 * Writes the reply behind the client's header and question, which stand in `message`, and returns its length. Additional records go
 * first when it does not fit `limit`, then TC is set and as many answers stay as fit.
 */
export function writeReply(reply: Reply, ageS: number, message: Uint8Array, question: Question, limit: number): number {
  const room = limit - (question.edns ? OPT_BYTES : 0);
  const { start, ends, ttlsAt } = reply;
  let [answers, authorities, additionals] = [reply.answers, reply.authorities, reply.additionals];
  let kept = ends.length;
  let flags = 0;
  const endOf = (count: number): number => (count === 0 ? start : ends[count - 1]!);
  if (endOf(kept) > room) {
    kept = answers + authorities;
    additionals = 0;
    if (endOf(kept) > room) {
      kept = answers;
      authorities = 0;
      while (kept > 0 && endOf(kept) > room) kept--;
      answers = kept;
      flags = FLAG.TC;
    }
  }
  const end = endOf(kept);
  message.set(reply.bytes.subarray(start, end), start);
  for (let index = 0; index < kept; index++) {
    const at = ttlsAt[index]!;
    putU32(message, at, Math.max(0, u32(reply.bytes, at) - ageS));
  }
  const wantsAuthentic = question.dnssecOk || (message[3]! & FLAG.AD) !== 0;
  message[2] = FLAG.QR | (message[2]! & FLAG.RD) | flags;
  message[3] =
    FLAG.RA | (message[3]! & FLAG.CD) | (reply.authentic && wantsAuthentic ? FLAG.AD : 0) | (reply.rcode & FLAG.RCODE);
  putU16(message, 4, 1);
  putU16(message, 6, answers);
  putU16(message, 8, authorities);
  putU16(message, 10, additionals + (question.edns ? 1 : 0));
  return question.edns ? putOpt(message, end, reply.rcode, question.dnssecOk) : end;
}

interface Kept {
  readonly reply: Reply;
  /** Monotonic milliseconds. */
  readonly since: number;
  readonly until: number;
}

/** Rough size of an entry beside its message: key, object, map slot. */
const ENTRY_BYTES = 400;

/** Replies by key, the least recently used go first. */
export class ReplyCache {
  readonly #entries = new Map<string, Kept>();
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get size(): number {
    return this.#entries.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get(key: string, now: number): { readonly reply: Reply; readonly ageS: number } | undefined {
    const kept = this.#entries.get(key);
    if (!kept) return undefined;
    if (now >= kept.until) {
      this.#drop(key, kept);
      return undefined;
    }
    this.#entries.delete(key);
    this.#entries.set(key, kept);
    return { reply: kept.reply, ageS: Math.floor((now - kept.since) / 1000) };
  }

  put(key: string, reply: Reply, lifetimeMs: number, now: number): void {
    const old = this.#entries.get(key);
    if (old) this.#drop(key, old);
    if (lifetimeMs <= 0) return;
    this.#entries.set(key, { reply, since: now, until: now + lifetimeMs });
    this.#bytes += costOf(key, reply);
    while (this.#bytes > this.#bytesMax) {
      const [oldest, kept] = this.#entries.entries().next().value!;
      this.#drop(oldest, kept);
    }
  }

  clear(): void {
    this.#entries.clear();
    this.#bytes = 0;
  }

  #drop(key: string, kept: Kept): void {
    this.#entries.delete(key);
    this.#bytes -= costOf(key, kept.reply);
  }
}

const costOf = (key: string, reply: Reply): number =>
  ENTRY_BYTES + key.length + reply.bytes.length + reply.ends.byteLength + reply.ttlsAt.byteLength;
