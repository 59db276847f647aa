// A worker of the hosts, in JavaScript: first the folder that gitlock is installed in. What it does is in README.md.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const [, , gitlock, root, repo, remote, role, seed] = process.argv;
const { LockError, LockManager } = createRequire(import.meta.url)(gitlock);

const NAMES = ['build', 'deploy', 'docs', 'release', 'site', 'test'];

let state = (Number(seed) % 2_147_483_647) || 1;
/** From 0 to below 1. */
const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;

const say = (line) =>
  new Promise((resolve, reject) => {
    const resource = createConnection(join(root, 'resource'));
    resource.on('error', reject);
    resource.on('data', () => resource.end());
    resource.on('close', resolve);
    resource.write(`${line.replaceAll('\n', ' | ')}\n`);
  });

const locks = await LockManager.open({ cwd: repo, remote, pollInterval: 150, remoteTimeout: 2_000 });
while (!existsSync(join(root, 'stop'))) {
  const name = NAMES[Math.floor(random() * NAMES.length)];
  try {
    const lock = await locks.acquire(name, { ttl: 3_000, wait: 15_000 });
    const { token } = lock;
    await say(`enter ${name} ${token} ${role}`);
    await sleep(random() * 30);
    await say(`leave ${name} ${token}`);
    const result = await lock.release().then(
      () => 'ok',
      (error) => error.code,
    );
    await say(`result ${name} ${token} ${result}`);
  } catch (error) {
    if (!(error instanceof LockError)) throw error;
    await say(`failed ${role} ${error.code} ${error.message}`);
  }
  await sleep(random() * 20);
}
await locks.close();
