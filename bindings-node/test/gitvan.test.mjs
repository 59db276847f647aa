// The drop-in, used as GitVan's own code and tests use the original.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { test } from 'node:test';

import { LockManager as Locks } from 'gitlock';
import { GitDistributedLockManager, GitNativeLockManager, LockManager } from 'gitlock/gitvan';
import { git, repository, run, sleep } from './help.mjs';

function logger() {
  const said = [];
  const say = (level) => (message) => said.push(`${level}: ${message}`);
  return { said, debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') };
}

test('options and defaults of both originals', () => {
  assert.equal(LockManager, GitNativeLockManager);
  const plain = new GitNativeLockManager();
  assert.deepEqual([plain.cwd, plain.defaultTimeout, plain.lockPrefix], [process.cwd(), 30_000, 'refs/gitvan/locks']);
  assert.equal(plain.logger, console);
  const flat = new GitNativeLockManager({ cwd: '/a', defaultTimeout: 5, lockPrefix: 'refs/b', logger: null });
  assert.deepEqual([flat.cwd, flat.defaultTimeout, flat.lockPrefix, flat.logger], ['/a', 5, 'refs/b', console]);
  const nested = new LockManager({ cwd: '/a', lock: { defaultTimeout: 6, lockPrefix: 'refs/c' } });
  assert.deepEqual([nested.defaultTimeout, nested.lockPrefix], [6, 'refs/c']);
});

test('acquire, look, release', async (t) => {
  const folder = repository(t);
  const locks = new GitNativeLockManager({ cwd: folder, logger: logger() });
  await locks.initialize();
  const before = Date.now();
  const options = { timeout: 30_000, fingerprint: 'test-fingerprint-123' };
  assert.equal(await locks.acquireLock('test-lock', options), true);
  assert.equal(await locks.isLocked('test-lock'), true);
  const info = await locks.getLockInfo('test-lock');
  assert.deepEqual(Object.keys(info).sort(), [
    'acquiredAt', 'exclusive', 'fingerprint', 'hostname', 'id', 'name', 'pid', 'ref', 'timeout',
  ]);
  assert.equal(info.name, 'test-lock');
  assert.equal(info.ref, 'refs/gitvan/locks/test-lock');
  assert.equal(info.fingerprint, 'test-fingerprint-123');
  assert.equal(info.timeout, 30_000);
  assert.equal(info.exclusive, true);
  assert.equal(info.pid, process.pid);
  assert.ok(info.acquiredAt >= before && info.acquiredAt <= Date.now());
  assert.match(info.id, /^[0-9a-f-]{36}$/);
  // What the original's own readers find in the blob.
  const blob = JSON.parse(git(folder, 'cat-file', '-p', 'refs/gitvan/locks/test-lock'));
  for (const field of ['id', 'acquiredAt', 'timeout', 'fingerprint', 'exclusive', 'pid', 'hostname']) {
    assert.equal(blob[field], info[field], field);
  }
  assert.deepEqual(await locks.listLocks(), [info]);
  assert.equal(await locks.validateFingerprint('test-lock', 'test-fingerprint-123'), true);
  assert.equal(await locks.validateFingerprint('test-lock', 'wrong-fingerprint'), false);
  assert.equal(await locks.releaseLock('test-lock', 'wrong-fingerprint'), false);
  assert.equal(await locks.isLocked('test-lock'), true);
  assert.equal(await locks.releaseLock('test-lock', 'test-fingerprint-123'), true);
  assert.equal(await locks.isLocked('test-lock'), false);
  assert.equal(await locks.getLockInfo('test-lock'), null);
  assert.deepEqual(await locks.listLocks(), []);
});

test('what is held is not acquired again, by anybody', async (t) => {
  const folder = repository(t);
  const [locks, others] = [new LockManager({ cwd: folder }), new LockManager({ cwd: folder })];
  assert.equal(await locks.acquireLock('x'), true);
  assert.equal(await locks.acquireLock('x'), false);
  assert.equal(await others.acquireLock('x', { fingerprint: 'f' }), false);
  assert.equal(await others.releaseLock('x'), false, 'it is not what this instance acquired');
  assert.equal(await locks.releaseLock('x'), true);
  assert.equal(await locks.releaseLock('x'), false);
  assert.equal(await others.acquireLock('x', { fingerprint: 'f' }), true);
  assert.equal(await others.releaseLock('x'), true, 'also without the fingerprint that it gave');
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => others.acquireLock('race')));
  assert.equal(outcomes.filter(Boolean).length, 1);
});

test('locks that are not exclusive stand beside each other', async (t) => {
  const locks = new LockManager({ cwd: repository(t) });
  assert.equal(await locks.acquireLock('x', { exclusive: false }), true);
  assert.equal(await locks.acquireLock('x', { exclusive: false, timeout: 60_000 }), true);
  assert.equal(await locks.acquireLock('x'), false);
  const info = await locks.getLockInfo('x');
  assert.deepEqual([info.exclusive, info.timeout], [false, 60_000]);
  assert.equal((await locks.listLocks()).length, 1);
  assert.deepEqual([await locks.releaseLock('x'), await locks.releaseLock('x')], [true, true]);
  assert.deepEqual([await locks.releaseLock('x'), await locks.isLocked('x')], [false, false]);
});

test('a lock expires, and nothing renews it', async (t) => {
  const locks = new LockManager({ cwd: repository(t), logger: logger() });
  assert.equal(await locks.acquireLock('x', { timeout: 100 }), true);
  await sleep(200);
  assert.equal(await locks.isLocked('x'), false);
  assert.equal(await locks.getLockInfo('x'), null);
  assert.equal(await locks.cleanupExpiredLocks(), 1);
  assert.equal(await locks.cleanupExpiredLocks(), 0);
  assert.equal(await locks.releaseLock('x'), false);
  assert.equal(await locks.acquireLock('x'), true);
});

test('extending adds to what is left', async (t) => {
  const locks = new LockManager({ cwd: repository(t) });
  await locks.acquireLock('x', { timeout: 10_000, fingerprint: 'f' });
  const before = await locks.getLockInfo('x');
  assert.equal(await locks.extendLock('x', 'f', 30_000), true);
  const after = await locks.getLockInfo('x');
  assert.equal(after.acquiredAt, before.acquiredAt);
  assert.ok(Math.abs(after.timeout - 40_000) < 1_000, `${after.timeout}`);
  assert.equal(await locks.extendLock('x', 'other', 1_000), false);
  assert.equal(await locks.extendLock('x', undefined, 1_000), true, 'what this instance acquired');
  assert.equal(await locks.extendLock('free', 'f', 1_000), false);
  await assert.rejects(locks.extendLock('x', 'f', NaN), { code: 'INVALID_ARGUMENT' });
});

test('clearing ends every lock', async (t) => {
  const folder = repository(t);
  const log = logger();
  const locks = new LockManager({ cwd: folder, logger: log });
  for (const name of ['clear-lock-1', 'clear-lock-2', 'deploy/eu']) await locks.acquireLock(name);
  assert.deepEqual((await locks.listLocks()).map(({ name }) => name).sort(), ['clear-lock-1', 'clear-lock-2', 'deploy/eu']);
  assert.equal(await locks.clearAllLocks(), 3);
  assert.deepEqual(await locks.listLocks(), []);
  assert.equal(git(folder, 'for-each-ref', 'refs/gitvan/locks'), '');
  assert.ok(log.said.includes('warn: Cleared 3 locks'));
  assert.equal(await locks.clearAllLocks(), 0);
});

test('records of the original are understood', async (t) => {
  const folder = repository(t);
  const locks = new LockManager({ cwd: folder });
  const record = { id: 'theirs', acquiredAt: Date.now(), timeout: 60_000, fingerprint: 'f', pid: 1, exclusive: true, hostname: 'h' };
  const blob = execFileSync('git', ['hash-object', '-w', '--stdin'], { cwd: folder, input: JSON.stringify(record) });
  git(folder, 'update-ref', 'refs/gitvan/locks/x', blob.toString().trim());
  assert.deepEqual(await locks.getLockInfo('x'), { name: 'x', ref: 'refs/gitvan/locks/x', ...record });
  assert.equal(await locks.acquireLock('x'), false);
  assert.equal(await locks.releaseLock('x', 'f'), true);
});

test('a lock with a fingerprint outlives its process', async (t) => {
  const folder = repository(t);
  const source = `import { GitNativeLockManager } from 'gitlock/gitvan';
    const locks = new GitNativeLockManager({ cwd: process.argv[1] });
    console.log(await locks.acquireLock('x', { fingerprint: 'f' }));`;
  assert.deepEqual(await run(source, folder), { code: 0, out: 'true' });
  const locks = new LockManager({ cwd: folder });
  assert.equal(await locks.isLocked('x'), true);
  assert.equal(await locks.releaseLock('x', 'f'), true);
});

test('what is wrong with the question or the repository is thrown', async (t) => {
  const folder = repository(t);
  const locks = new LockManager({ cwd: folder, logger: logger() });
  await assert.rejects(locks.acquireLock('a//b'), { code: 'INVALID_NAME' });
  await assert.rejects(new LockManager({ cwd: '/' }).initialize(), { code: 'NOT_A_REPOSITORY' });
  await assert.rejects(new LockManager({ cwd: '/' }).isLocked('x'), { code: 'NOT_A_REPOSITORY' });
  // No shell reads the name.
  assert.equal(await locks.acquireLock('$(touch pwned); `id`'), true);
  assert.equal(spawnSync('ls', [folder], { encoding: 'utf8' }).stdout, '');
  git(folder, 'update-ref', 'refs/gitvan/locks/odd', execFileSync('git', ['hash-object', '-w', '--stdin'], { cwd: folder, input: 'no record' }).toString().trim());
  assert.equal(await locks.acquireLock('odd'), false);
});

test('both kinds of gitlock see each other', async (t) => {
  const folder = repository(t);
  const [locks, others] = [new LockManager({ cwd: folder }), await Locks.open(folder)];
  const lock = await others.acquire('x');
  assert.equal(await locks.acquireLock('x'), false);
  assert.equal(await locks.isLocked('x'), true);
  await lock.release();
  assert.equal(await locks.acquireLock('x'), true);
  assert.equal(await others.tryAcquire('x'), null);
});

test('distributed locks are at the remote', async (t) => {
  const [server, folder, other] = [repository(t), repository(t), repository(t)];
  for (const clone of [folder, other]) git(clone, 'remote', 'add', 'origin', server);
  const [locks, others] = [folder, other].map((cwd) => new GitDistributedLockManager({ cwd, syncInterval: 50 }));
  assert.ok(locks instanceof GitNativeLockManager);
  assert.deepEqual([locks.remote, locks.syncInterval], ['origin', 50]);
  await locks.initialize();
  assert.equal(await locks.acquireLock('global-deploy', { fingerprint: 'f' }), true);
  assert.equal(git(server, 'for-each-ref', '--format=%(refname)', 'refs/gitvan/locks'), 'refs/gitvan/locks/global-deploy');
  assert.equal(git(folder, 'for-each-ref', 'refs/gitvan'), '');
  assert.equal(await others.acquireLock('global-deploy'), false);
  assert.equal((await others.getLockInfo('global-deploy')).fingerprint, 'f');
  assert.equal(await others.releaseLock('global-deploy', 'f'), true);
  assert.equal(await locks.isLocked('global-deploy'), false);
  await Promise.all([locks.shutdown(), others.shutdown()]);
  const nowhere = new GitDistributedLockManager({ cwd: repository(t) });
  await assert.rejects(nowhere.initialize(), (error) => typeof error.code === 'string' && /origin/.test(error.message));
});
