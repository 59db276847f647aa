import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';

import * as gitlock from 'gitlock';
import { queued, repository } from './help.mjs';

const { LockManager, Repositories } = gitlock;
// Neither a lock nor a listener keeps a process alive.
const alive = setInterval(() => {}, 1_000);
after(() => clearInterval(alive));

const code = (code) => (error) => error instanceof gitlock.LockError && error.code === code;

const three = (t) => Promise.all([1, 2, 3].map(() => LockManager.open(repository(t))));
const held = async (managers, name) => {
  const statuses = await Promise.all(managers.map((manager) => manager.status(name)));
  return statuses.filter((status) => status.held).length;
};

test('a majority holds, and whoever is left with a minority is told', async (t) => {
  const managers = await three(t);
  const repositories = new Repositories(managers);
  const lock = await repositories.quorum('deploy', { reason: 'from Node', ttl: 60_000 });
  assert.ok(Number.isSafeInteger(lock.token) && lock.token > 0 && !lock.isLost);
  assert.ok(lock.validity() > 10_000);
  assert.deepEqual(lock.names, ['deploy']);
  await assert.rejects(repositories.quorum('deploy', { wait: 0 }), code('HELD'));
  await assert.rejects(repositories.all(['other', 'deploy'], { wait: 50 }), (error) => {
    return code('TIMEOUT')(error) && error.message.includes('from Node');
  });
  assert.equal(await held(managers, 'other'), 0);
  await lock.extend();
  assert.equal(lock.heldIn.length, 3);
  const lost = once(lock.signal, 'abort');
  const told = once(lock, 'lost');
  for (const manager of [...managers].sort((a, b) => (a.location < b.location ? -1 : 1)).slice(1)) {
    await manager.break('deploy');
  }
  await lost;
  assert.equal((await told)[0].code, 'LOCK_LOST');
  assert.ok(lock.isLost && lock.validity() === 0);
  await assert.rejects(lock.release(), code('LOCK_LOST'));
  const token = await repositories.with('deploy', (next) => next.token);
  assert.ok(token > lock.token);
  assert.equal(await held(managers, 'deploy'), 0);
});

test('all of them, or none, and a wait that is cancelled leaves nothing', async (t) => {
  const managers = await three(t);
  const repositories = new Repositories(managers);
  const lock = await repositories.all(['web', 'db']);
  assert.equal(await held(managers, 'db'), 3);
  await lock[Symbol.asyncDispose]();
  assert.equal(await held(managers, 'db'), 0);
  await assert.rejects(lock.release(), code('LOCK_LOST'));
  const [first] = [...managers].sort((a, b) => (a.location < b.location ? 1 : -1));
  const other = await first.acquire('web');
  const stop = new AbortController();
  const waits = repositories.all('web', { signal: stop.signal });
  await queued(first, 'web', 1);
  stop.abort('enough');
  await assert.rejects(waits, (error) => code('CANCELLED')(error) && error.cause === 'enough');
  await other.release();
  assert.equal(await held(managers, 'web'), 0);
});

test('what are no repositories is said', (t) => {
  const one = LockManager.openSync(repository(t));
  assert.throws(() => new Repositories([one, one]), code('INVALID_ARGUMENT'));
  assert.throws(() => new Repositories([]), code('INVALID_ARGUMENT'));
  assert.throws(() => new Repositories(['.']), code('INVALID_ARGUMENT'));
  assert.throws(() => new Repositories(), code('INVALID_ARGUMENT'));
});

test('options are checked', async (t) => {
  const repositories = new Repositories(await three(t));
  await assert.rejects(repositories.quorum('a', { patience: 1 }), code('INVALID_ARGUMENT'));
  await assert.rejects(repositories.quorum(), code('INVALID_ARGUMENT'));
  await assert.rejects(repositories.all([]), code('INVALID_ARGUMENT'));
});
