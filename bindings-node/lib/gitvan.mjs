import gitvan from './gitvan.js';

export const { GitDistributedLockManager, GitNativeLockManager, LockManager } = gitvan;
