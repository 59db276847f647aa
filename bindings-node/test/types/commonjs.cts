import gitlock = require('gitlock');
import gitvan = require('gitlock/gitvan');

async function main(): Promise<void> {
  const locks: gitlock.LockManager = await gitlock.LockManager.open(process.argv[2]);
  await using lock = await locks.acquire('build');
  const old: gitvan.LockManager = new gitvan.LockManager({ cwd: process.argv[2] });
  if ((await old.isLocked(lock.name)) !== true) throw new Error('not locked');
  console.log('fine');
}

void main();
