/** A command returns when what it changed is programmed; what is wrong with it then is said at once. */
import type { WaitOptions } from '../../client/client.ts';
import type { Obj } from '../../model/object.ts';
import type { View } from '../../model/request.ts';
import { troubles } from '../print/listing.ts';
import { clean } from '../print/table.ts';
import type { Context } from './command.ts';
import { duration, one, toggle } from './flag.ts';

export const WAIT_MS = 30_000;

export const waitTimeoutFlag = one('TIME', duration, 'How long to wait until the change is programmed', {
  absent: `${WAIT_MS / 1_000}s`,
});

export const waitFlags = {
  detach: toggle('Return as soon as the change is stored', { short: 'd' }),
  waitTimeout: waitTimeoutFlag,
};

export const waitOf = (flags: { readonly detach?: boolean; readonly waitTimeout?: number }): WaitOptions => ({
  waitMs: flags.detach ? 0 : (flags.waitTimeout ?? WAIT_MS),
});

/** Active conditions of an object, on standard error; their messages name the fix. */
export function warn({ terminal }: Context, view: View<Obj>): void {
  for (const { type, message } of troubles(view.status))
    terminal.err(`sluice: warning: ${view.kind} ${view.name}: ${type}: ${clean(message)}\n`);
}
