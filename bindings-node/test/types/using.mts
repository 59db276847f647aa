// Compiled by tsc, and run: what Node has no syntax for yet.

import assert from 'node:assert/strict';

import { BY_CODE, Held, LockError, LockHandle, LockManager, Timeout } from 'gitlock';
import type { ErrorCode, Holder, Lock, LockStatus, Retry, Synced, Wanted } from 'gitlock';
import { GitNativeLockManager } from 'gitlock/gitvan';
import type { LockRecord } from 'gitlock/gitvan';

const locks: LockManager = await LockManager.open({ cwd: process.argv[2]!, lockTimeout: 5_000 });

async function held(name: string): Promise<boolean> {
  const status: LockStatus = await locks.status(name);
  return status.held;
}

{
  await using lock = await locks.acquire('build', { ttl: 30_000, wait: 10_000, signal: AbortSignal.timeout(10_000) });
  const token: number = lock.token;
  assert.ok(token > 0);
  assert.equal(await held('build'), true);
  await using nobody: Lock | null = await locks.tryAcquire('build');
  assert.equal(nobody, null);
}
assert.equal(await held('build'), false);

{
  using lock = locks.tryAcquireSync(['a', 'b'], { reason: 'both' })!;
  assert.equal(lock.mode, 'exclusive');
}
assert.equal(await held('a'), false);

await assert.rejects(async () => {
  await using lock = await locks.acquire('build');
  await locks.break('build', { id: lock.id });
}, { code: 'LOCK_LOST' });

const length: number = await locks.with('build', { shared: true, priority: 1 }, async (lock) => lock.name.length);
assert.equal(length, 5);

try {
  await using session = await locks.session('me').acquire('x', { slots: 2, reentrant: true });
  session.on('wanted', ({ waiters, priority }: Wanted) => console.log(waiters, priority));
  session.once('lost', (error) => console.log(error.code satisfies 'LOCK_LOST'));
  const handle: LockHandle = session.handle();
  assert.equal(new LockHandle(`${handle}`).token, session.token);
  await locks.acquire('x', { slots: 2, wait: 0, within: handle });
  await locks.acquire('x', { slots: 2, wait: 0 });
} catch (error) {
  assert.ok(error instanceof LockError && error instanceof Held && !(error instanceof Timeout));
  const code: ErrorCode = error.code;
  const retry: Retry = error.retry;
  const holder: Holder | null = error.holder;
  assert.deepEqual([code, retry, holder?.mode], ['HELD', 'later', 'exclusive']);
  assert.equal(BY_CODE[code], Held);
}

const synced: Promise<Synced> = locks.sync(locks, { strategy: 'oldest' });
await assert.rejects(synced, { code: 'INVALID_ARGUMENT' });
// @ts-expect-error: there is no such strategy
await locks.sync(locks, { strategy: 'newest' }).catch(() => {});
// @ts-expect-error: there is no such option
await locks.acquire('x', { timeout: 5 }).catch(() => {});
// @ts-expect-error: only open() makes one
assert.throws(() => new LockManager());
// @ts-expect-error: a code that there isn't
const wrong: ErrorCode = 'NO_SUCH_CODE';
assert.ok(wrong);

const old = new GitNativeLockManager({ cwd: process.argv[2]!, lock: { defaultTimeout: 1_000 } });
const acquired: boolean = await old.acquireLock('build-lock', { timeout: 30_000, fingerprint: 'build-session-123' });
const info: LockRecord | null = await old.getLockInfo('build-lock');
assert.deepEqual([acquired, info?.exclusive], [true, true]);
assert.equal(await old.releaseLock('build-lock', 'build-session-123'), true);
console.log('fine');
process.exit(0);
