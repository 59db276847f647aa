// A worker of the torture, in JavaScript: `worker.mjs PACKAGE ROOT SEED`, with the folder that gitlock is installed in. What it
// does is in README.md.

import { existsSync, linkSync, appendFileSync, readFileSync, readdirSync, unlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const [, , gitlock, root, seed] = process.argv;
const { LockError, LockManager } = createRequire(import.meta.url)(gitlock);

const ROLE = 'node';
const oracle = join(root, 'oracle');
const start = readFileSync('/proc/self/stat', 'utf8').split(') ').at(-1).split(' ')[19];
const stamp = `${process.pid} ${start} ${ROLE}`;
const mine = join(oracle, `me.${process.pid}.${ROLE}`);
writeFileSync(mine, stamp);

let state = Number(BigInt(seed) % 2_147_483_647n) || 1;
/** From 0 to below 1. */
const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
const oneIn = (count) => random() * count < 1;

const append = (file, line) => appendFileSync(join(root, file), `${line.replaceAll('\n', ' ')}\n`);
const fault = (what) => append('faults', `${ROLE}: ${what}`);
const gate = (shared) => join(oracle, shared ? `shared.${process.pid}` : 'exclusive');

function enter(shared) {
  try {
    linkSync(mine, gate(shared));
  } catch (error) {
    fault(`DOUBLE GRANT: on entering: ${error.message}`);
  }
  const inside = readdirSync(oracle).filter((name) => (shared ? name === 'exclusive' : name.startsWith('shared.')));
  for (const other of inside) fault(`DOUBLE GRANT: inside beside ${other}`);
}

function leave(shared) {
  let text = null;
  try {
    text = readFileSync(gate(shared), 'utf8');
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
  if (text === stamp) unlinkSync(gate(shared));
  else fault(`DOUBLE GRANT: on leaving, [${text}] is inside`);
}

const locks = await LockManager.open({ cwd: join(root, 'repo') });
while (!existsSync(join(root, 'stop'))) {
  const shared = oneIn(6);
  try {
    await locks.with('build', { shared, ttl: 3_000, wait: 20_000 }, async (lock) => {
      append('log', `E ${ROLE} ${shared ? 's' : 'x'} ${lock.token}`);
      enter(shared);
      if (oneIn(16)) await sleep(random() * 3);
      leave(shared);
    });
  } catch (error) {
    if (!(error instanceof LockError)) throw error;
    fault(`acquire or release failed: ${error.code} ${error.message}`);
  }
  await sleep(oneIn(40) ? random() * 60 : random() * 1.5);
}
unlinkSync(mine);
