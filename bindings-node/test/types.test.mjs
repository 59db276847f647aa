import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { join } from 'node:path';

import { repository } from './help.mjs';

test('TypeScript compiles what uses the types, and it runs', (t) => {
  const types = join(import.meta.dirname, 'types');
  // TYPESCRIPT is where the compiler and Node's types are installed.
  const modules = process.env.TYPESCRIPT;
  const tsc = [join(modules, 'typescript/bin/tsc'), '-p', types, '--typeRoots', join(modules, '@types')];
  try {
    execFileSync(process.execPath, tsc, { encoding: 'utf8' });
  } catch (error) {
    assert.fail(error.stdout);
  }
  for (const file of ['using.mjs', 'commonjs.cjs']) {
    const out = execFileSync(process.execPath, [join(types, 'out', file), repository(t)], { encoding: 'utf8' });
    assert.equal(out, 'fine\n');
  }
});
