/** All suites: one visible table. */
import type { Suite } from '../suite.ts';
import { attach } from './attach.ts';
import { balance } from './balance.ts';
import { footprint } from './footprint.ts';

export const SUITES: readonly Suite[] = [balance, attach, footprint];
