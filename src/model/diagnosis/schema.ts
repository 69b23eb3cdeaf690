/** zod schemas of diff and trace. */
import { z } from '@hono/zod-openapi';
import { type Shape, text } from '../schema.ts';
import { DIFF_KINDS, type DiffAnswer, type Difference, type DiffItem } from './diff.ts';
import { parseTarget, TRACE_STEPS, type TraceAnswer, type TraceStep } from './trace.ts';

export const diffQuery = z
  .strictObject({
    kind: z.enum(DIFF_KINDS).optional().openapi({ description: 'Absent: all kinds.' }),
    name: z
      .string()
      .min(1)
      .max(253)
      .optional()
      .openapi({ description: 'Name, id, or the beginning of one; with `kind`.' }),
  })
  .refine(({ kind, name }) => name === undefined || kind !== undefined, { error: 'needs kind', path: ['name'] });

const difference = z.strictObject({
  what: text,
  want: text.optional().openapi({ description: 'Absent: it should not be there.' }),
  have: text.optional().openapi({ description: 'Absent: it is not there.' }),
  command: text.optional().openapi({ description: 'Shows it, or puts it right by hand.' }),
} satisfies Shape<Difference>);
const kind = z.enum(DIFF_KINDS);

export const diffAnswer: z.ZodType<DiffAnswer> = z
  .strictObject({
    node: text,
    compared: z.partialRecord(kind, z.int()).openapi({ description: 'How many of each kind were compared.' }),
    items: z
      .array(
        z.strictObject({
          kind,
          id: text.optional(),
          name: text,
          differences: z.array(difference),
          error: z.strictObject({ code: text, message: text }).optional(),
        } satisfies Shape<DiffItem>),
      )
      .openapi({ description: 'Those that differ.' }),
    skipped: z.array(z.strictObject({ kind, name: text, reason: text })),
  } satisfies Shape<DiffAnswer>)
  .openapi('Diff');

export const traceQuery = z.strictObject({
  from: z.string().min(1).max(253).openapi({ description: 'Sandbox or container of this node.', example: 'client' }),
  to: z
    .string()
    .max(300)
    .refine((given) => parseTarget(given) !== null, 'not NAME, ADDRESS or one of them with :PORT')
    .openapi({ description: 'Name, service, sandbox or address, with `:PORT` or without.', example: 'shop:80' }),
});

const step = z.strictObject({
  step: z.enum(TRACE_STEPS),
  node: text,
  subject: text,
  state: z.enum(['ok', 'wrong', 'unasked']),
  reason: text,
  command: text.optional(),
} satisfies Shape<TraceStep>);

export const traceAnswer: z.ZodType<TraceAnswer> = z
  .strictObject({
    from: text,
    node: text,
    to: text,
    reachable: z.boolean(),
    wrong: step.optional().openapi({ description: 'What is wrong first.' }),
    steps: z.array(step),
  } satisfies Shape<TraceAnswer>)
  .openapi('Trace');
