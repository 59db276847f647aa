'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');

const gitlock = require('gitlock');
const gitvan = require('gitlock/gitvan');

test('require() and import have the same', async (t) => {
  const { repository } = await import('./help.mjs');
  const imported = await import('gitlock');
  assert.deepEqual(Object.keys(imported).sort(), Object.keys(gitlock).sort());
  for (const [name, value] of Object.entries(gitlock)) assert.equal(imported[name], value, name);
  const dropIn = await import('gitlock/gitvan');
  for (const [name, value] of Object.entries(gitvan)) assert.equal(dropIn[name], value, name);
  const locks = await gitlock.LockManager.open(repository(t));
  await locks.with('x', (lock) => assert.ok(lock.token > 0));
});
