import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

import { GitNativeLockManager } from 'gitlock/gitvan';
import { repository } from './help.mjs';

const example = (name, ...words) => {
  const file = join(import.meta.dirname, '../examples', name);
  const { status, stdout, stderr } = spawnSync(process.execPath, [file, ...words], { encoding: 'utf8' });
  return { status, said: stdout.trim() || stderr.trim() };
};

test('the job runner builds, or says who does', async (t) => {
  const folder = repository(t);
  assert.deepEqual(example('job-runner.mjs', folder), { status: 0, said: 'built' });
  const locks = new GitNativeLockManager({ cwd: folder });
  assert.equal(await locks.isLocked('build-lock'), false);
  assert.equal(await locks.acquireLock('build-lock'), true);
  const { status, said } = example('job-runner.mjs', folder);
  assert.equal(status, 1);
  assert.match(said, new RegExp(`going on already \\(pid ${process.pid} on `));
});

test('the build runs under its lock, and ends as its command', async (t) => {
  const folder = repository(t);
  const { said } = example('build.mjs', folder, 'echo "token $GIT_LOCK_TOKEN"; git for-each-ref --format="%(refname)"');
  assert.match(said, /^token \d+\nrefs\/gitvan\/locks\/build-lock$/);
  assert.equal(example('build.mjs', folder, 'exit 7').status, 7);
  const lost = example('build.mjs', folder, 'git update-ref -d refs/gitvan/locks/build-lock; exec sleep 60');
  assert.equal(lost.status, 3);
  assert.match(lost.said, /is lost/);
});

test('the migration refuses a token that is lower than one that was there', (t) => {
  const folder = repository(t);
  const database = join(folder, 'database.json');
  assert.equal(example('migrate.mjs', folder, database).said, 'at version 1');
  assert.equal(example('migrate.mjs', folder, database).said, 'at version 2');
});
