// `cargo xtask bench --node`: acquire and release of a free lock, beside one hop to a thread and back, and beside what
// others use. Medians of rounds that take turns in one run; the ratios are what counts.

import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';

import { LockManager } from '../lib/index.mjs';

const require = createRequire(import.meta.url);
const { bridge, call } = require('../lib/calls.js');

const ROUNDS = 30;
const EACH = 50;

const folder = mkdtempSync(join(tmpdir(), 'gitlock-bench-'));
execFileSync('git', ['init', '-q', '-b', 'main', folder]);
const locks = await LockManager.open({ cwd: folder });

const arms = new Map([
  ['one hop to a thread and back', () => call((number) => bridge.hop(number))],
  [
    'gitlock, on this thread',
    () => locks.tryAcquireSync('sync').releaseSync(),
  ],
  [
    'gitlock, acquire and release',
    async () => {
      const lock = await locks.acquire('async');
      await lock.release();
    },
  ],
]);
const notRun = [];
const ends = [];

async function withLockfile() {
  const lockfile = require('proper-lockfile');
  const file = join(folder, 'file');
  writeFileSync(file, '');
  arms.set('proper-lockfile, lock and release', async () => {
    const release = await lockfile.lock(file);
    await release();
  });
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function withRedis() {
  const [Redis, Redlock] = [require('ioredis'), require('redlock')];
  const port = await freePort();
  const server = spawn('redis-server', ['--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'], {
    cwd: folder,
    stdio: 'ignore',
  });
  await once(server, 'spawn');
  ends.push(() => server.kill());
  // It tries again until the server listens.
  const client = new (Redis.default ?? Redis)(port, '127.0.0.1').on('error', () => {});
  ends.unshift(() => client.disconnect());
  await client.ping();
  const redlock = new (Redlock.default ?? Redlock)([client]);
  arms.set('redlock on a local Redis, lock and unlock', async () => {
    const lock = await redlock.lock('build', 30_000);
    await lock.unlock();
  });
}

const advice = { 'spawn redis-server ENOENT': 'there is no redis-server (Debian: apt-get install redis-server)' };
for (const [what, prepare] of [['proper-lockfile', withLockfile], ['redlock', withRedis]]) {
  await prepare().catch((error) => notRun.push(`${what}: ${advice[error.message] ?? error.message}`));
}

const times = new Map([...arms.keys()].map((arm) => [arm, []]));
for (let round = -1; round < ROUNDS; round++) {
  for (const [arm, work] of arms) {
    for (let count = 0; count < EACH; count++) {
      const start = process.hrtime.bigint();
      await work();
      // The first round warms up.
      if (round >= 0) times.get(arm).push(Number(process.hrtime.bigint() - start) / 1e3);
    }
  }
}
const median = (all) => all.toSorted((a, b) => a - b)[all.length >> 1];
const medians = new Map([...times].map(([arm, all]) => [arm, median(all)]));
const [hop, sync, async_] = medians.values();
console.log(`A free lock from Node ${process.version}: medians of ${ROUNDS * EACH}, in microseconds`);
for (const [arm, time] of medians) {
  console.log(`  ${arm.padEnd(44)} ${time.toFixed(0).padStart(7)}   ${(time / async_).toFixed(2).padStart(7)} x gitlock`);
}
console.log(`  each of acquire and release adds ${((async_ - sync) / 2 / hop).toFixed(2)} hops to what it takes on this thread`);
for (const what of notRun) console.log(`  not run: ${what}`);
ends.forEach((end) => end());
try {
  rmSync(folder, { recursive: true, force: true });
} catch (error) {
  // gitlock tidies up a while after a change, and may put a file there meanwhile.
  if (error.code !== 'ENOTEMPTY') throw error;
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  rmSync(folder, { recursive: true, force: true });
}
process.exit(0);
