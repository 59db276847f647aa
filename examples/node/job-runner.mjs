// A job runner in GitVan's style: `node job-runner.mjs [FOLDER]`. Whoever else runs it in the same repository meanwhile
// is told that the build goes on.

import { execFileSync } from 'node:child_process';

import { GitNativeLockManager } from 'gitlock/gitvan';

const cwd = process.argv[2] ?? process.cwd();
const fingerprint = 'build-session-123';

const locks = new GitNativeLockManager({ cwd, lockPrefix: 'refs/gitvan/locks' });
await locks.initialize();

const acquired = await locks.acquireLock('build-lock', { timeout: 30000, fingerprint });
if (!acquired) {
  const { pid, hostname } = (await locks.getLockInfo('build-lock')) ?? {};
  console.log(`a build is going on already (pid ${pid} on ${hostname})`);
  process.exit(1);
}
try {
  execFileSync('git', ['status', '--short'], { cwd });
  console.log('built');
} finally {
  await locks.releaseLock('build-lock', fingerprint);
}
