// What the process, its event loop and its threads have to do with locks.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { pbkdf2 } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';

import { LockManager } from 'gitlock';
import { queued, repository, run, sleep, until } from './help.mjs';

const alive = setInterval(() => {}, 1_000);
after(() => clearInterval(alive));

const OPEN = `import { LockManager } from 'gitlock'; const locks = await LockManager.open(process.argv[1]);`;

test('a process that only holds locks ends, and its locks with it', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  const source = `${OPEN}
    const lock = await locks.acquire('x', { ttl: 600_000 });
    lock.on('lost', () => {});
    lock.on('wanted', () => {});
    lock.signal;
    await locks.acquire('y', { ttl: 600_000, fingerprint: 'f' });
    console.log('held');`;
  assert.deepEqual(await run(source, folder), { code: 0, out: 'held' });
  await (await locks.acquire('x')).release();
  // With a fingerprint it outlives the process, as it says.
  assert.equal((await locks.status('y')).held, true);
});

test('a process that ends by itself in the midst of work frees its locks', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  const source = `${OPEN} await locks.acquire('x', { ttl: 600_000 }); process.exit(3);`;
  assert.equal((await run(source, folder)).code, 3);
  await (await locks.acquire('x')).release();
  const killed = `${OPEN} await locks.acquire('x', { ttl: 600_000 }); process.kill(process.pid, 'SIGKILL');`;
  assert.equal((await run(killed, folder)).code, 'SIGKILL');
  await (await locks.acquire('x')).release();
});

test('a wait keeps the process alive until it is over', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  const lock = await locks.acquire('x');
  const child = run(`${OPEN} const lock = await locks.acquire('x'); console.log('acquired'); await lock.release();`, folder);
  await queued(locks, 'x', 1);
  await sleep(200);
  await lock.release();
  assert.deepEqual(await child, { code: 0, out: 'acquired' });
});

test('a release that nobody waits for is carried out before the process ends', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  await run(`${OPEN} const lock = await locks.acquire('x', { fingerprint: 'f' }); lock.release();`, folder);
  assert.equal((await locks.status('x')).held, false);
});

test('worker threads open their own, and what they hold ends with them', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { LockManager } = require('gitlock');
    (async () => {
      const locks = await LockManager.open(workerData);
      for (let round = 0; round < 20; round++) {
        await locks.with('counter', (lock) => parentPort.postMessage(lock.token));
      }
      await locks.acquire('kept', { slots: 4, ttl: 600_000 });
      parentPort.postMessage('holds');
      await locks.acquire('blocked');
    })();`;
  const blocked = await locks.acquire('blocked');
  const tokens = [];
  let holding = 0;
  const workers = Array.from({ length: 4 }, () => new Worker(source, { eval: true, workerData: folder }));
  for (const worker of workers) {
    worker.on('message', (message) => (message === 'holds' ? holding++ : tokens.push(message)));
    worker.on('error', (error) => assert.fail(error));
  }
  await until(() => holding === 4);
  await queued(locks, 'blocked', 4);
  assert.equal(new Set(tokens).size, 80);
  await Promise.all(workers.map((worker) => worker.terminate()));
  // Their waits go, and their slots are free at once, though the process goes on.
  await queued(locks, 'blocked', 0);
  const slots = await Promise.all([1, 2, 3, 4].map(() => locks.acquire('kept', { slots: 4 })));
  await Promise.all([blocked, ...slots].map((lock) => lock.release()));
});

test('a lock that is granted to a thread as it ends is free again', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  const source = `
    const { parentPort, workerData } = require('node:worker_threads');
    const { LockManager } = require('gitlock');
    LockManager.open(workerData).then((locks) => {
      locks.acquire('x');
      setTimeout(() => {
        parentPort.postMessage('busy');
        for (;;);
      }, 50);
    });`;
  const lock = await locks.acquire('x');
  const worker = new Worker(source, { eval: true, workerData: folder });
  await once(worker, 'message');
  await queued(locks, 'x', 1);
  await lock.release();
  // Granted for longer than the claim window, and never taken: its event loop is blocked for ever.
  await until(async () => (await locks.status('x')).holders.some((holder) => holder.remaining > 10_000));
  await worker.terminate();
  await (await locks.acquire('x')).release();
});

test('a blocked event loop loses no lease', async (t) => {
  const folder = repository(t);
  const source = `${OPEN}
    const lock = await locks.acquire('x', { ttl: 300 });
    const end = performance.now() + 2_000;
    while (performance.now() < end);
    console.log(lock.isLost);
    await lock.release();`;
  assert.deepEqual(await run(source, folder), { code: 0, out: 'false' });
});

test("waits fill none of libuv's threads, and 1,000 of them end in order", async (t) => {
  const folder = repository(t);
  const [locks, others] = [await LockManager.open(folder), await LockManager.open(folder)];
  const [waits, order] = [[], []];
  // Other work of the process: files, hashes on libuv's threads, and a child's output.
  let going = true;
  let reads = 0;
  const hash = promisify(pbkdf2);
  const others_work = (async () => {
    while (going) {
      await Promise.all([readFile(import.meta.filename), hash('a', 'b', 10, 8, 'sha256')]);
      reads++;
      await sleep(1);
    }
  })();
  const measure = async (work) => {
    const delay = monitorEventLoopDelay({ resolution: 5 });
    const before = reads;
    const start = performance.now();
    delay.enable();
    await work();
    delay.disable();
    const time = performance.now() - start;
    return { p50: delay.percentile(50) / 1e6, p99: delay.percentile(99) / 1e6, rate: ((reads - before) / time) * 1e3 };
  };
  const shown = ({ p50, p99, rate }) => `delay p50 ${p50.toFixed(1)} ms, p99 ${p99.toFixed(1)} ms; ${rate.toFixed(0)} reads/s`;
  const idle = await measure(() => sleep(1_000));
  const first = await locks.acquire('x');
  for (let number = 0; number < 1_000; number++) {
    const wait = others.acquire('x').then((lock) => {
      order.push(number);
      return lock.release();
    });
    waits.push(wait);
  }
  await queued(locks, 'x', 1_000);
  const waiting = await measure(() => sleep(1_000));
  await first.release();
  const served = await measure(() => Promise.all(waits));
  going = false;
  await others_work;
  t.diagnostic(`without waits: ${shown(idle)}`);
  t.diagnostic(`with 1,000 waits: ${shown(waiting)}`);
  t.diagnostic(`while they are served: ${shown(served)}`);
  assert.deepEqual(order, Array.from({ length: 1_000 }, (_, number) => number));
  // Who waits disturbs nobody: the two seconds side by side, with room for a busy machine.
  assert.ok(waiting.p50 < idle.p50 * 5 + 5, 'the loop is late while waits go on');
  assert.ok(waiting.rate > idle.rate / 5, 'other work is held up while waits go on');
});

test('a process can have as many waits as it likes with one thread in libuv', async (t) => {
  const folder = repository(t);
  const locks = await LockManager.open(folder);
  const lock = await locks.acquire('x');
  const source = `${OPEN}
    const { readFile } = await import('node:fs/promises');
    const waits = Array.from({ length: 50 }, () => locks.acquire('x').then((lock) => lock.release()));
    for (let round = 0; round < 50; round++) await readFile('help.mjs');
    console.log('read');
    await Promise.all(waits);
    console.log('done');`;
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' };
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source, folder], {
    cwd: import.meta.dirname,
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (text) => (out += text));
  await queued(locks, 'x', 50);
  await until(() => out === 'read\n');
  await lock.release();
  await once(child, 'close');
  assert.equal(out, 'read\ndone\n');
});
