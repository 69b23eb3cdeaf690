/** All suites: one visible table. */
import type { Suite } from '../suite.ts';
import { attach } from './attach.ts';
import { balance } from './balance.ts';
import { converge } from './converge.ts';
import { footprint } from './footprint.ts';
import { overlay } from './overlay.ts';
import { program } from './program.ts';
import { run } from './run.ts';
import { scale } from './scale.ts';

export const SUITES: readonly Suite[] = [balance, attach, footprint, overlay, converge, program, run, scale];
