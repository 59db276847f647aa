import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { inspect } from 'node:util';

import * as gitlock from 'gitlock';
import { git, queued, repository, sleep, until } from './help.mjs';

const { LockHandle, LockManager } = gitlock;
// Neither a lock nor a listener keeps a process alive.
const alive = setInterval(() => {}, 1_000);
after(() => clearInterval(alive));

const code = (code) => (error) => error instanceof gitlock.LockError && error.code === code;

test('a lock is a ref, and its release is in the journal', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open({ cwd: folder });
  const lock = await locks.acquire('build', { reason: 'release 1.2', ttl: 5_000 });
  assert.equal(git(folder, 'for-each-ref', '--format=%(refname)'), 'refs/gitvan/locks/build');
  assert.equal(lock.name, 'build');
  assert.equal(lock.mode, 'exclusive');
  assert.equal(lock.slot, null);
  assert.ok(Number.isSafeInteger(lock.token) && lock.token > 0);
  assert.deepEqual(lock.tokens, { build: lock.token });
  assert.ok(lock.remaining() > 1_000 && lock.remaining() <= 5_000);
  const [holder] = (await locks.status('build')).holders;
  assert.equal(holder.id, lock.id);
  assert.equal(holder.reason, 'release 1.2');
  await lock.release();
  assert.equal(lock.isLost, true);
  assert.equal(git(folder, 'for-each-ref', '--format=%(refname)'), 'refs/gitvan/journal/build');
  const [entry] = await locks.log('build');
  assert.equal(entry.outcome, 'released');
  assert.equal(entry.token, lock.token);
  const again = await locks.acquire('build');
  assert.ok(again.token > lock.token);
  await again.release();
  assert.equal(git(folder, 'fsck', '--strict', '--no-dangling'), '');
});

test('who is first is served first, and a try never waits', async (t) => {
  const folder = repository(t);
  const [mine, theirs] = [await LockManager.open(folder), LockManager.openSync({ cwd: folder })];
  const lock = await mine.acquire('x');
  assert.equal(await theirs.tryAcquire('x'), null);
  assert.equal(theirs.tryAcquireSync('x'), null);
  await assert.rejects(theirs.acquire('x', { wait: 0 }), code('HELD'));
  await assert.rejects(theirs.acquire('x', { wait: 20 }), code('TIMEOUT'));
  const order = [];
  const news = [];
  const waits = [1, 2, 3].map(async (number) => {
    const onWait = (ahead, status) => news.push([number, ahead, status.name]);
    const own = await theirs.acquire('x', { onWait });
    order.push(number);
    await own.release();
  });
  await queued(mine, 'x', 3);
  await until(() => news.length >= 3);
  assert.deepEqual(news.find(([number]) => number === 3), [3, 2, 'x']);
  await lock.release();
  await Promise.all(waits);
  assert.deepEqual(order, [1, 2, 3]);
});

test('a try on this thread acquires, and releases', async (t) => {
  const locks = await LockManager.open(repository(t));
  const lock = locks.tryAcquireSync('x', { ttl: 10_000 });
  assert.ok(lock.token > 0);
  lock.releaseSync();
  assert.throws(() => lock.releaseSync(), code('LOCK_LOST'));
  const both = locks.tryAcquireSync(['a', 'b']);
  assert.deepEqual(Object.keys(both.tokens), ['a', 'b']);
  both[Symbol.dispose]();
  both[Symbol.dispose]();
  assert.deepEqual((await locks.list()).locks, []);
});

test('an abort ends a wait, and leaves no waiter', async (t) => {
  const locks = await LockManager.open(repository(t));
  await assert.rejects(locks.acquire('x', { signal: AbortSignal.abort('no more') }), (error) => {
    return error instanceof gitlock.Cancelled && error.cause === 'no more' && error.message.includes('x');
  });
  const lock = await locks.acquire('x');
  const controller = new AbortController();
  const wait = locks.acquire('x', { signal: controller.signal });
  await queued(locks, 'x', 1);
  controller.abort(new Error('enough'));
  await assert.rejects(wait, (error) => error.code === 'CANCELLED' && error.cause.message === 'enough');
  assert.equal((await locks.status('x')).queue.length, 0);
  const timed = locks.acquire('x', { signal: AbortSignal.timeout(20) });
  await assert.rejects(timed, (error) => error.code === 'CANCELLED' && error.cause.name === 'TimeoutError');
  await lock.release();
});

test('a lock that is granted at the moment of the abort is released again', async (t) => {
  const locks = await LockManager.open(repository(t));
  let [granted, cancelled] = [0, 0];
  for (let round = 0; round < 60; round++) {
    const lock = await locks.acquire('x');
    const controller = new AbortController();
    const wait = locks.acquire('x', { signal: controller.signal });
    await queued(locks, 'x', 1);
    const ended = wait.then((own) => own.release().then(() => granted++), (error) => {
      assert.equal(error.code, 'CANCELLED');
      cancelled++;
    });
    const release = lock.release();
    if (round % 3 === 0) controller.abort();
    else if (round % 3 === 1) setTimeout(() => controller.abort(), 1);
    else {
      // The lock is granted, and this thread doesn't take it.
      const end = performance.now() + 20;
      while (performance.now() < end);
      controller.abort();
    }
    await Promise.all([release, ended]);
    const status = await locks.status('x');
    assert.equal(status.held || status.queue.length > 0, false);
  }
  t.diagnostic(`${granted} granted, ${cancelled} cancelled`);
  assert.ok(cancelled >= 20, 'where the abort came first, or while the grant was on its way');
});

test('the signal aborts on a loss, with the loss as its reason', async (t) => {
  const folder = repository(t);
  const [locks, others] = [await LockManager.open(folder), await LockManager.open(folder)];
  const lock = await locks.acquire('x');
  const heard = [];
  lock.on('lost', (error) => heard.push(error));
  const aborted = once(lock.signal, 'abort');
  assert.equal(lock.signal.aborted, false);
  const [broken] = await others.break('x', { reason: 'a test' });
  assert.equal(broken.id, lock.id);
  await aborted;
  assert.ok(lock.signal.reason instanceof gitlock.LockLost);
  assert.deepEqual(heard, [lock.signal.reason]);
  assert.equal(lock.isLost, true);
  assert.equal(lock.remaining(), 0);
  const late = new Promise((resolve) => lock.once('lost', resolve));
  assert.equal(await late, lock.signal.reason);
  await assert.rejects(lock.extend(), code('LOCK_LOST'));
  await assert.rejects(lock.release(), code('LOCK_LOST'));
  assert.equal((await locks.log('x'))[0].breakReason, 'a test');
  const late2 = await locks.acquire('y');
  await others.break('y');
  assert.equal((await once(late2, 'lost'))[0].code, 'LOCK_LOST');
  const released = await locks.acquire('z');
  const { signal } = released;
  await released.release();
  await sleep(50);
  assert.equal(signal.aborted, false, 'a release is no loss');
});

test('with() releases whatever happens, and tells of a loss', async (t) => {
  const locks = await LockManager.open(repository(t));
  assert.equal(await locks.with('x', async (lock) => [lock.name, (await locks.status('x')).held].join()), 'x,true');
  await assert.rejects(locks.with('x', { ttl: 5_000 }, () => { throw new Error('the work'); }), { message: 'the work' });
  await assert.rejects(locks.with('x', () => locks.break('x')), code('LOCK_LOST'));
  assert.equal(await locks.with(['x', 'y'], { reason: 'both' }, (lock) => lock.names.join()), 'x,y');
  assert.equal(await locks.with('x', async (lock) => lock.release()), undefined);
  assert.deepEqual((await locks.list()).locks, []);
});

test('disposing releases once', async (t) => {
  const locks = await LockManager.open(repository(t));
  const lock = await locks.acquire('x');
  await lock[Symbol.asyncDispose]();
  await lock[Symbol.asyncDispose]();
  assert.equal((await locks.status('x')).held, false);
  await locks[Symbol.asyncDispose]();
});

test('a session is one owner, and each call without one is another', async (t) => {
  const locks = await LockManager.open(repository(t));
  const [session, other] = [locks.session(), locks.session('deploy-7')];
  assert.equal(other.owner, 'deploy-7');
  const parent = await session.acquire('deploy');
  assert.equal(await locks.tryAcquire('deploy/eu'), null);
  assert.equal(await other.tryAcquire('deploy/eu'), null);
  const child = await session.acquire('deploy/eu');
  await child.release();
  const within = await locks.acquire('deploy/us', { within: parent });
  await within.release();
  const byHandle = await locks.acquire('deploy/us', { within: String(parent.handle()) });
  await byHandle.release();
  const bySession = await locks.acquire('deploy/us', { session });
  await bySession.release();
  await assert.rejects(locks.acquire('x', { reentrant: true }), code('INVALID_ARGUMENT'));
  const twice = [await session.acquire('x', { reentrant: true }), await session.acquire('x', { reentrant: true })];
  assert.equal(twice[0].id, twice[1].id);
  await twice[0].release();
  assert.equal((await locks.status('x')).held, true);
  await twice[1].release();
  assert.equal((await locks.status('x')).held, false);
  await parent.release();
});

test('several at once, slots, and who waits', async (t) => {
  const locks = await LockManager.open(repository(t));
  const both = await locks.acquireAll(['b', 'a']);
  assert.equal(both.name, 'b');
  assert.equal(await locks.tryAcquireAll(['a', 'c']), null);
  assert.equal((await locks.status('c')).held, false);
  await both.release();
  const slots = [await locks.acquire('port', { slots: 2 }), await locks.acquire('port', { slots: 2 })];
  assert.deepEqual(slots.map((lock) => lock.slot).sort(), [0, 1]);
  assert.equal(await locks.tryAcquire('port', { slots: 2 }), null);
  await assert.rejects(locks.acquire('port', { slots: 3 }), code('SLOTS_DIFFER'));
  const wanted = once(slots[0], 'wanted');
  const wait = locks.acquire('port', { slots: 2, priority: 3 });
  assert.deepEqual((await wanted)[0], { waiters: 1, priority: 3 });
  assert.deepEqual(await slots[0].wanted(), { waiters: 1, priority: 3 });
  await slots[0].release();
  const third = await wait;
  await Promise.all([third.release(), slots[1].release()]);
});

test('readers upgrade and downgrade', async (t) => {
  const locks = await LockManager.open(repository(t));
  const [one, other] = [await locks.acquire('x', { shared: true }), await locks.acquire('x', { shared: true })];
  assert.equal(one.mode, 'shared');
  await assert.rejects(one.upgrade({ wait: 0 }), code('HELD'));
  await assert.rejects(one.upgrade({ wait: 20 }), code('TIMEOUT'));
  await assert.rejects(one.upgrade({ signal: AbortSignal.timeout(20) }), code('CANCELLED'));
  const [before, upgrading] = [one.token, one.upgrade({ wait: Infinity })];
  await queued(locks, 'x', 1);
  await assert.rejects(other.upgrade(), code('DEADLOCK'));
  await other.release();
  await upgrading;
  assert.equal(one.mode, 'exclusive');
  assert.ok(one.token > before);
  await one.downgrade();
  const reader = await locks.tryAcquire('x', { shared: true });
  await Promise.all([reader.release(), one.release()]);
});

test('a deadlock between sessions ends for one of them', async (t) => {
  const locks = await LockManager.open(repository(t));
  const [a, b] = [locks.session('A'), locks.session('B')];
  const held = [await a.acquire('x'), await b.acquire('y')];
  const waits = [a.acquire('y')];
  await queued(locks, 'y', 1);
  // Ranks count milliseconds, and who comes last gives up.
  await sleep(5);
  waits.push(b.acquire('x'));
  await queued(locks, 'x', 1);
  const { edges, cycles } = await locks.graph();
  assert.equal(edges.length, 2);
  assert.equal(cycles.length, 1);
  assert.match(await locks.graphDot(), /^digraph/);
  const ended = await Promise.allSettled([waits[0], waits[1].catch((error) => held[1].release().then(() => Promise.reject(error)))]);
  assert.equal(ended[1].reason.code, 'DEADLOCK');
  assert.match(ended[1].reason.message, /B holds y, waits for x; A holds x, waits for y/);
  await Promise.all([held[0].release(), ended[0].value.release()]);
});

test('a handle is the right to a tenure, in any process', async (t) => {
  const folder = repository(t);
  const [locks, others] = [await LockManager.open(folder), await LockManager.open(folder)];
  const lock = await locks.acquire('x', { ttl: 20_000 });
  const handle = new LockHandle(JSON.parse(JSON.stringify({ handle: lock.handle() })).handle);
  assert.deepEqual([handle.name, handle.names, handle.id, handle.token], ['x', ['x'], lock.id, lock.token]);
  const secret = String(handle).split(':').at(-1);
  assert.ok(!inspect(handle).includes(secret) && !inspect(lock).includes(secret));
  assert.ok((await others.extend(handle, 40_000)) > 30_000);
  const detached = lock.detach();
  assert.equal(String(detached), String(handle));
  const resumed = await others.resume(detached);
  assert.equal(resumed.id, handle.id);
  await resumed.release();
  await assert.rejects(others.release(handle), code('LOCK_LOST'));
  const mine = await locks.acquire('y', { fingerprint: 'build-session-123' });
  await assert.rejects(others.release(LockHandle.byFingerprint('y', 'other')), code('NOT_OWNER'));
  await others.release(LockHandle.byFingerprint('y', 'build-session-123'));
  await assert.rejects(mine.release(), code('LOCK_LOST'));
  assert.throws(() => new LockHandle('build'), code('INVALID_ARGUMENT'));
  assert.throws(() => LockHandle.byFingerprint('a//b', 'f'), code('INVALID_NAME'));
});

test('tokens can be verified, and what is left behind is cleaned up', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open({ cwd: folder, prefix: 'refs/our/locks', keep: 5 });
  assert.equal(locks.lockPrefix, 'refs/our/locks');
  const lock = await locks.acquire('x', { fingerprint: 'f', ttl: 100 });
  await locks.verify('x', lock.token);
  await assert.rejects(locks.verify('x', lock.token + 1), code('LOCK_LOST'));
  await sleep(120);
  assert.equal(lock.isLost, true);
  assert.deepEqual((await locks.clean({ grace: 0 })).locks, ['x']);
  assert.deepEqual((await locks.list()), { locks: [], foreign: [] });
  assert.deepEqual(await locks.doctor({ fix: true }), []);
  assert.equal((await locks.log('x', { most: 1 }))[0].outcome, 'expired');
});

test('refs change under a lock, and not without', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  await locks.with('for-refs', () => {});
  const commit = git(folder, 'rev-parse', 'refs/gitvan/journal/for-refs');
  const value = (ref) => git(folder, 'for-each-ref', '--format=%(objectname)', ref);
  const lock = await locks.acquire('release');
  await lock.updateRefs([['create', 'refs/heads/a', commit], `create refs/heads/b ${commit}`], { message: 'from Node' });
  await lock.updateRefs([['update', 'refs/heads/b', 'refs/heads/a', commit], ['delete', 'refs/heads/a']]);
  assert.deepEqual([value('refs/heads/a'), value('refs/heads/b')], ['', commit]);
  await assert.rejects(lock.updateRefs([['create', 'refs/heads/b', commit]]), code('REF_CHANGED'));
  await assert.rejects(lock.updateRefs([['create', 'refs/heads/b/below', commit]]), code('REFS_REFUSED'));
  await assert.rejects(lock.updateRefs([['update', 'refs/heads/b', 'x\ndelete refs/heads/b']]), code('INVALID_ARGUMENT'));
  await assert.rejects(lock.updateRefs('delete refs/heads/b'), code('INVALID_ARGUMENT'));
  await assert.rejects(lock.updateRefs([[1]]), code('INVALID_ARGUMENT'));
  await locks.break('release');
  await assert.rejects(lock.updateRefs([['delete', 'refs/heads/b']]), code('LOCK_LOST'));
  assert.equal(value('refs/heads/b'), commit);
});

test('refs are pushed under a lock, and not without', async (t) => {
  const [folder, server] = [repository(t), repository(t)];
  // What stands in for ssh runs its command here.
  git(folder, 'config', 'core.sshCommand', `sh -c 'for last; do :; done; exec sh -c "$last"' ssh`);
  git(folder, 'config', 'ssh.variant', 'ssh');
  git(folder, 'remote', 'add', 'origin', `ssh://host${server}`);
  const here = await LockManager.open(folder);
  const locks = await LockManager.open({ cwd: folder, remote: 'origin' });
  const lost = await here.acquire('for-refs');
  await assert.rejects(lost.push('HEAD'), code('UNSUPPORTED'));
  await lost.release();
  const commit = git(folder, 'rev-parse', 'refs/gitvan/journal/for-refs');
  git(folder, 'update-ref', 'refs/heads/topic', commit);
  const value = (ref) => git(server, 'for-each-ref', '--format=%(objectname)', ref);
  const lock = await locks.acquire('release');
  await lock.push('topic', `${commit}:refs/heads/other`);
  assert.deepEqual([value('refs/heads/topic'), value('refs/heads/other')], [commit, commit]);
  await lock.push(':other', '+topic');
  assert.equal(value('refs/heads/other'), '');
  await assert.rejects(lock.push(':refs/heads/other'), code('REF_CHANGED'));
  await assert.rejects(lock.push('topic:refs/heads/topic/below'), code('REFS_REFUSED'));
  for (const bad of [[], [''], ['nothing'], ['refs/heads/*'], [['topic']], [undefined]]) {
    await assert.rejects(lock.push(...bad), code('INVALID_ARGUMENT'));
  }
  await locks.break('release');
  await assert.rejects(lock.push('topic:refs/heads/new'), code('LOCK_LOST'));
  assert.equal(value('refs/heads/new'), '');
});

test('two repositories are brought together', async (t) => {
  const [here, there] = [await LockManager.open(repository(t)), await LockManager.open(repository(t))];
  const [mine, theirs] = [await here.acquire('report', { priority: 1 }), await there.acquire('docs')];
  const { changes, left } = await here.sync(there);
  assert.deepEqual(changes.map(({ name, fate }) => `${name} ${fate}`).sort(), ['docs received', 'report sent']);
  assert.deepEqual(left, []);
  const [copy] = (await there.status('report')).holders;
  assert.deepEqual([copy.id, copy.priority, copy.from], [mine.id, 1, null]);
  assert.equal((await here.status('docs')).holders[0].from, there.location);
  await theirs.release();
  assert.equal((await here.sync(there, { strategy: 'oldest' })).changes[0].fate, 'ended-here');
  const loser = await here.acquire('docs');
  const winner = await there.acquire('docs');
  const lost = once(loser.signal, 'abort');
  const [{ fate, holder, other }] = (await here.sync(there)).changes;
  assert.deepEqual([fate, holder.id, other.id], ['overruled', loser.id, winner.id]);
  await lost;
  assert.match(loser.signal.reason.message, /keeps it, by a sync with/);
  await winner.release();
  await mine.release();
  for (const bad of [undefined, '.', {}, here]) await assert.rejects(here.sync(bad), code('INVALID_ARGUMENT'));
  await assert.rejects(here.sync(there, { strategy: 'newest' }), code('INVALID_ARGUMENT'));
});

test('what is held stays held when nobody refers to it', async (t) => {
  const locks = await LockManager.open(repository(t));
  await (async () => void (await locks.acquire('x')))();
  for (let round = 0; round < 5; round++) {
    globalThis.gc?.();
    await sleep(5);
  }
  assert.equal(typeof globalThis.gc, 'function', 'run with --expose-gc');
  assert.equal((await locks.status('x')).held, true);
  await locks.break('x');
});

test('options that mean nothing are refused', async (t) => {
  const locks = await LockManager.open(repository(t));
  const wrong = [
    { timeout: 5 },
    { ttl: '5s' },
    { ttl: 0 },
    { ttl: -1 },
    { wait: NaN },
    { slots: 1.5 },
    { slots: 0 },
    { priority: 2 ** 40 },
    { signal: {} },
    { session: 'me' },
    { owner: 'a', session: locks.session() },
    { shared: 'yes' },
    { fingerprint: '' },
    { within: 5 },
    5,
  ];
  for (const options of wrong) {
    await assert.rejects(locks.acquire('x', options), code('INVALID_ARGUMENT'), inspect(options));
    assert.throws(() => locks.tryAcquireSync('x', options), code('INVALID_ARGUMENT'), inspect(options));
  }
  await assert.rejects(locks.acquire(), code('INVALID_ARGUMENT'));
  await assert.rejects(locks.acquireAll('x'), code('INVALID_ARGUMENT'));
  await assert.rejects(locks.acquireAll([]), code('INVALID_ARGUMENT'));
  await assert.rejects(locks.with('x'), code('INVALID_ARGUMENT'));
  await assert.rejects(locks.acquire('a//b'), code('INVALID_NAME'));
  await assert.rejects(locks.verify('x', 1.5), code('INVALID_ARGUMENT'));
  await assert.rejects(LockManager.open({ keep: 0 }), code('INVALID_ARGUMENT'));
  await assert.rejects(LockManager.open({ cwd: '/' }), code('NOT_A_REPOSITORY'));
  assert.throws(() => LockManager.openSync({ cwd: '/' }), code('NOT_A_REPOSITORY'));
  assert.throws(() => new LockManager(), TypeError);
  assert.deepEqual((await locks.list()).locks, []);
});

test('every code has a class, and every class is a LockError', () => {
  const codes = Object.keys(gitlock.BY_CODE);
  assert.ok(codes.length > 20);
  for (const [word, made] of Object.entries(gitlock.BY_CODE)) {
    const error = new made('what', { cause: 1 });
    assert.ok(error instanceof gitlock.LockError && error instanceof Error);
    assert.deepEqual([error.code, error.name, error.message, error.cause], [word, made.name, 'what', 1]);
    assert.ok(['never', 'later', 'from-start'].includes(error.retry));
    assert.equal(gitlock[made.name], made);
  }
});

test('an error tells where it was waited for', async (t) => {
  const locks = await LockManager.open(repository(t));
  async function whoAsked() {
    await locks.acquire('a//b');
  }
  await assert.rejects(whoAsked(), (error) => error.stack.includes('whoAsked'));
});
