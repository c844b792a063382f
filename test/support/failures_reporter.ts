// failures_reporter.ts — a vitest reporter beside the usual one: what each failed test said becomes a file in $KVLANE_FAILURES, the first
// line its name, for ../failures.py; of one that passed at its second attempt, in $KVLANE_SECOND. The JSON report has no diff, and of a test that
// ran out of time only an empty stack.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stripVTControlCharacters } from 'node:util';
import type { Reporter, SerializedError, TestModule } from 'vitest/node';

function told(errors: readonly SerializedError[]): string {
  return errors
    .map(({ name, message, diff, stacks = [] }) => {
      const frames = stacks.map(({ method, file, line, column }) => `    at ${method} ${file}:${line}:${column}`);
      return stripVTControlCharacters([`${name ?? 'Error'}: ${message}`, ...(diff === undefined ? [] : [diff]), ...frames].join('\n'));
    })
    .join('\n');
}

export default class FailuresReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const { KVLANE_FAILURES: failed, KVLANE_SECOND: second } = process.env;
    if (failed === undefined || second === undefined) return;
    let count = 0;
    const keep = (name: string, errors: readonly SerializedError[], folder = failed): void => {
      if (errors.length === 0) return;
      count += 1;
      writeFileSync(join(folder, `vitest-${process.pid}-${String(count).padStart(4, '0')}`), `${name}\n${told(errors)}\n`);
    };
    for (const module of modules) {
      keep(module.relativeModuleId, module.errors());
      for (const suite of module.children.allSuites()) keep(`${module.relativeModuleId}: ${suite.fullName}`, suite.errors());
      for (const test of module.children.allTests()) {
        const { state, errors } = test.result();
        if (state === 'failed') keep(`${module.relativeModuleId}: ${test.fullName}`, errors ?? []);
        else if (test.diagnostic()?.flaky === true) keep(`${module.relativeModuleId}: ${test.fullName}`, errors ?? [], second);
      }
    }
    keep('outside of any test', unhandled);
  }
}
