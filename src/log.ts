/** Structured logs (pino) on stdout, one JSON object a line; journald keeps them as they are. */
import { type Logger, pino } from 'pino';

export type { Logger };

/** Levels: trace debug info warn error silent. */
export function createLogger(level: string, bindings: Record<string, unknown> = {}): Logger {
  return pino({ level, base: bindings, timestamp: pino.stdTimeFunctions.isoTime });
}
