// Each code, on the paths that answer later and on those that answer at once. The rest of the table, which takes a full
// disk, another user, a thousand waiters or a seeded fault, is raised by the conformance set.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { BY_CODE, LockError, LockHandle, LockManager } from 'gitlock';
import { git, queued, repository, sleep } from './help.mjs';

const raised = { later: new Set(), now: new Set() };

function is(code, how) {
  return (error) => {
    assert.ok(error instanceof LockError, `${error}`);
    assert.deepEqual([error.code, error.constructor, error.name], [code, BY_CODE[code], BY_CODE[code].name]);
    assert.equal(error.retry, BY_CODE[code].retry);
    assert.ok(error.message.length > 20 && !error.message.startsWith('{'), error.message);
    assert.ok(error.stack.includes(error.message));
    raised[how].add(code);
    return true;
  };
}

const later = (code, promise) => assert.rejects(promise, is(code, 'later'));
const now = (code, ask) => assert.throws(ask, is(code, 'now'));

async function both(code, locks, name, options) {
  await later(code, locks.acquire(name, { ...options, wait: 0 }));
  await later(code, locks.tryAcquire(name, options));
  now(code, () => locks.tryAcquireSync(name, options));
}

async function opening(code, options) {
  await later(code, LockManager.open(options));
  now(code, () => LockManager.openSync(options));
}

const record = (folder, name, text) => {
  const blob = execFileSync('git', ['hash-object', '-w', '--stdin'], { cwd: folder, input: text });
  git(folder, 'update-ref', `refs/gitvan/locks/${name}`, blob.toString().trim());
};

test('what a name, an option or a record can have', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open({ cwd: folder, lockTimeout: 50 });
  await both('INVALID_NAME', locks, 'a//b');
  await both('INVALID_ARGUMENT', locks, 'x', { ttl: 0 });
  record(folder, 'corrupt', 'no record');
  await both('RECORD_CORRUPT', locks, 'corrupt');
  const theirs = { id: 'i', acquiredAt: Date.now(), timeout: 60_000, fingerprint: 'f', exclusive: true, pid: 1, hostname: 'h' };
  record(folder, 'new', JSON.stringify({ ...theirs, v: 2 }));
  await both('RECORD_TOO_NEW', locks, 'new');
  writeFileSync(join(folder, '.git/refs/gitvan/locks/gone'), '1234567890123456789012345678901234567890\n');
  await both('RECORD_MISSING', locks, 'gone');
  mkdirSync(join(folder, '.git/refs/gitvan/locks/blocked'));
  writeFileSync(join(folder, '.git/refs/gitvan/locks/blocked/theirs'), git(folder, 'rev-parse', 'refs/gitvan/locks/new'));
  await both('NAME_BLOCKED', locks, 'blocked');
  writeFileSync(join(folder, '.git/refs/gitvan/locks/busy.lock'), '');
  await both('REPOSITORY_BUSY', locks, 'busy');
  const slot = await locks.acquire('port', { slots: 2 });
  await both('SLOTS_DIFFER', locks, 'port', { slots: 3 });
  await slot.release();
});

test('what a repository can be', async (t) => {
  await opening('NOT_A_REPOSITORY', { cwd: '/' });
  const [odd, theirs] = [repository(t), repository(t)];
  git(odd, 'config', 'core.repositoryFormatVersion', '1');
  git(odd, 'config', 'extensions.somethingNew', 'true');
  await opening('UNSUPPORTED', { cwd: odd });
  const unreadable = repository(t);
  const locks = await LockManager.open(unreadable);
  mkdirSync(join(unreadable, '.git/packed-refs'));
  await both('IO', locks, 'x');
  if (process.getuid() !== 0) return t.diagnostic('UNTRUSTED: only root can give files to somebody else');
  for (const path of ['.', '.git']) chownSync(join(theirs, path), 12_345, 12_345);
  await opening('UNTRUSTED', { cwd: theirs });
});

test('what two repositories can come to', async (t) => {
  const [here, there] = [await LockManager.open(repository(t)), await LockManager.open(repository(t))];
  const both = [await here.acquire('x'), await there.acquire('x')];
  await later('SYNC_CONFLICT', here.sync(there, { strategy: 'fail' }));
  for (const lock of both) await lock.release();
});

test('what a tenure and a wait can come to', async (t) => {
  const locks = await LockManager.open(repository(t));
  const [a, b] = [locks.session('A'), locks.session('B')];
  const held = await a.acquire('x', { fingerprint: 'f', renew: true });
  await later('HELD', locks.acquire('x', { wait: 0 }));
  await later('TIMEOUT', locks.acquire('x', { wait: 10 }));
  await later('CANCELLED', locks.acquire('x', { signal: AbortSignal.timeout(10) }));
  await later('NOT_OWNER', locks.release(LockHandle.byFingerprint('x', 'g')));
  const other = await b.acquire('y');
  const wait = a.acquire('y');
  await queued(locks, 'y', 1);
  await sleep(5);
  await later('DEADLOCK', b.acquire('x'));
  await other.release();
  await (await wait).release();
  await locks.break('x');
  await later('LOCK_LOST', held.extend());
  now('LOCK_LOST', () => held.releaseSync());
  await later('LOCK_LOST', held.release());
  now('INVALID_NAME', () => LockHandle.byFingerprint('a//b', 'f'));
});

after(() => {
  // Who never waits is never told of a wait, and a try has `null` for what is held.
  const waits = ['CANCELLED', 'DEADLOCK', 'HELD', 'NOT_OWNER', 'SYNC_CONFLICT', 'TIMEOUT'];
  assert.deepEqual([...raised.later].filter((code) => !raised.now.has(code)).sort(), waits);
  const elsewhere = ['FORKED', 'INTERNAL', 'PERMISSION_DENIED', 'QUEUE_FULL', 'REFS_REFUSED', 'REF_CHANGED', 'STORAGE_FULL', 'UNTRUSTED'];
  for (const code of Object.keys(BY_CODE)) assert.ok(raised.later.has(code) || elsewhere.includes(code), code);
});
