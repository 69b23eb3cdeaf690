/** How the demo speaks: numbered steps with their time, the commands as a user types them, what was promised and what came. */
import { styleText } from 'node:util';
import type { Lab } from '../../src/lab/lab.ts';

export class BrokenPromise extends Error {}

/** What is played, and the hosts that it takes. */
export interface Story {
  readonly hosts: readonly string[];
  tell(stage: Stage, lab: Lab): Promise<void>;
}

/** `850 ms`, `1.3 s` */
export const seconds = (ms: number): string => (ms < 1_000 ? `${ms.toFixed(0)} ms` : `${(ms / 1_000).toFixed(1)} s`);

export interface Stage {
  /** One numbered step; its time is shown in the table at the end. */
  step<T>(title: string, act: () => Promise<T>): Promise<T>;
  /** Shows a command and the first lines of what it answered; `prompt` says where it was typed. */
  typed(command: string, answer: string, prompt?: string): void;
  /** Shows that a promise was kept, or ends the demo. */
  promise(kept: boolean, text: string): void;
  note(text: string): void;
  /** The table of steps. */
  table(): string;
  /** Promises kept so far. */
  kept(): number;
}

const ANSWER_LINES_MAX = 12;

export function createStage(write: (text: string) => void = (text) => process.stdout.write(`${text}\n`)): Stage {
  const steps: { title: string; ms: number; promises: number; kept: boolean }[] = [];
  const colour = (style: 'bold' | 'dim' | 'green' | 'red' | 'cyan', text: string): string =>
    process.stdout.isTTY ? styleText(style, text) : text;
  return {
    async step(title, act) {
      const step = { title, ms: 0, promises: 0, kept: false };
      steps.push(step);
      write(`\n${colour('bold', `${steps.length}  ${title}`)}`);
      const startedAt = performance.now();
      try {
        const value = await act();
        step.kept = true;
        return value;
      } finally {
        step.ms = performance.now() - startedAt;
        write(colour('dim', `   ${seconds(step.ms)}`));
      }
    },
    typed(command, answer, prompt = '') {
      write(`   ${colour('dim', prompt)}${colour('cyan', `$ ${command}`)}`);
      const lines = answer.split('\n').filter((line) => line.trim() !== '');
      for (const line of lines.slice(0, ANSWER_LINES_MAX)) write(colour('dim', `     ${line}`));
      if (lines.length > ANSWER_LINES_MAX) write(colour('dim', `     … ${lines.length - ANSWER_LINES_MAX} more lines`));
    },
    promise(kept, text) {
      if (!kept) {
        write(`   ${colour('red', '✗')} ${text}`);
        throw new BrokenPromise(text);
      }
      steps.at(-1)!.promises++;
      write(`   ${colour('green', '✓')} ${text}`);
    },
    note: (text) => write(`   ${text}`),
    table() {
      const width = Math.max(...steps.map(({ title }) => title.length));
      return steps
        .map(({ title, ms, promises, kept }, index) => {
          const verdict = kept ? `${promises} kept` : 'BROKEN';
          return `${`${index + 1}`.padStart(3)}  ${title.padEnd(width)}  ${seconds(ms).padStart(8)}  ${verdict.padStart(8)}`;
        })
        .join('\n');
    },
    kept: () => steps.reduce((sum, { promises }) => sum + promises, 0),
  };
}
