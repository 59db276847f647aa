// A build under a lock: `node build.mjs REPOSITORY COMMAND`. The command finds its fencing token in GIT_LOCK_TOKEN, is stopped
// when the lock is lost, and its exit code is the build's: 1 if the lock wasn't to be had within a minute, 3 if it was lost.

import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { LockLost, LockManager, Timeout } from 'gitlock';

const [, , cwd, command] = process.argv;
const locks = await LockManager.open({ cwd });

try {
  process.exitCode = await locks.with('build-lock', { wait: 60_000, reason: command }, async (lock) => {
    const env = { ...process.env, GIT_LOCK_TOKEN: `${lock.token}` };
    const build = spawn(command, { cwd, env, shell: true, stdio: 'inherit', signal: lock.signal });
    // A signal that aborts ends the command, and comes as its error.
    const [code] = await once(build, 'exit').catch((error) => Promise.reject(lock.signal.reason ?? error));
    return code ?? 1;
  });
} catch (error) {
  if (!(error instanceof Timeout || error instanceof LockLost)) throw error;
  console.error(error.message); // who holds it, since when, and what to do
  process.exitCode = error instanceof Timeout ? 1 : 3;
}
