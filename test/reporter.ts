/** A vitest reporter that writes what test/run.ts judges: one record a test, to the file named by SLUICE_TEST_REPORT. */
import { writeFileSync } from 'node:fs';
import type { Reporter, TestModule } from 'vitest/node';
import type { TestRecord } from './report.ts';

export default class RecordReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly { readonly message: string }[]): void {
    const tests: TestRecord[] = [];
    for (const module of modules) {
      const file = module.relativeModuleId;
      const broken = (name: string, errors: readonly { readonly message: string }[]): void => {
        for (const error of errors) tests.push({ file, name, state: 'failed', why: error.message, setup: true });
      };
      broken('(the file itself)', module.errors());
      for (const suite of module.children.allSuites())
        broken(`${suite.fullName} (before or after its tests)`, suite.errors());
      for (const test of module.children.allTests()) {
        const result = test.result();
        const state = result.state === 'pending' ? 'skipped' : result.state;
        const why = result.state === 'skipped' ? result.note : result.errors?.[0]?.message;
        tests.push({ file, name: test.fullName, state, why, ms: Math.round(test.diagnostic()?.duration ?? 0) });
      }
    }
    for (const error of unhandled) {
      tests.push({ file: '(outside of a test)', name: 'unhandled error', state: 'failed', why: error.message });
    }
    const target = process.env.SLUICE_TEST_REPORT;
    if (target) writeFileSync(target, JSON.stringify(tests));
  }
}
