import gitlock from './index.js';

export * from './errors.mjs';
export const { Lock, LockHandle, LockManager, MultiLock, Repositories, Session } = gitlock;
