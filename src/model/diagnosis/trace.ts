/** What `trace` answers: the way from a sandbox to where it wants to go, step by step. */

/** In the order in which a connection passes them. */
export const TRACE_STEPS = [
  'name',
  'service',
  'source',
  'route',
  'neighbour',
  'forwarding',
  'tunnel',
  'host',
  'answer',
  'sandbox',
  'port',
] as const;
export type TraceStepName = (typeof TRACE_STEPS)[number];

export interface TraceStep {
  readonly step: TraceStepName;
  /** Whose kernel or knowledge it speaks of. */
  readonly node: string;
  /** `shop`, `10.20.0.9 → 02:42:…` */
  readonly subject: string;
  /** `unasked`: it has no part in the way, or nobody could be asked. */
  readonly state: 'ok' | 'wrong' | 'unasked';
  /** One sentence for a person. */
  readonly reason: string;
  /** What shows it by hand, or puts it right. */
  readonly command?: string;
}

export interface TraceAnswer {
  /** Sandbox, and the node it is on. */
  readonly from: string;
  readonly node: string;
  readonly to: string;
  /** Nothing is wrong that could be seen. */
  readonly reachable: boolean;
  /** What is wrong first. */
  readonly wrong?: TraceStep;
  readonly steps: readonly TraceStep[];
}

export interface TraceQuery {
  /** Sandbox or container of the node that is asked: name, id, or the beginning of one. */
  readonly from: string;
  /** Name, service, sandbox or address, with `:PORT` or without. */
  readonly to: string;
}

/** `shop:80`, `10.20.0.9`, `[fd00::9]:443`, `fd00::9`. Null: no target. */
export function parseTarget(text: string): { readonly host: string; readonly port?: number } | null {
  const bracketed = /^\[([0-9a-fA-F:.]+)\](?::(\d{1,5}))?$/.exec(text);
  const plain = text.split(':').length > 2 ? [text, text, undefined] : /^([^:[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const [, host, digits] = bracketed ?? plain ?? [];
  const port = digits === undefined ? undefined : Number(digits);
  if (!host || (port !== undefined && (port < 1 || port > 65_535))) return null;
  return { host, port };
}
