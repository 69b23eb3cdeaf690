/** What the API, and other nodes, are told of the state of this host and its way to others. */
import type { LiveDiagnosis } from '../../contracts/live.ts';
import { Differ, type DifferParts } from './diff.ts';
import { Tracer, type TracerParts } from './trace/trace.ts';

export type DiagnosisParts = DifferParts & Omit<TracerParts, 'differ'>;

export function createDiagnosis(parts: DiagnosisParts): LiveDiagnosis {
  const differ = new Differ(parts);
  const tracer = new Tracer({ ...parts, differ });
  return {
    diff: (query) => differ.diff(query),
    trace: (query) => tracer.trace(query),
    answer: (about, body) => tracer.answer(about, body),
  };
}
