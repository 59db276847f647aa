/** What a logger may have. Methods that it hasn't aren't called. */
export interface Logger {
  debug?(message: string): void;
  info?(message: string): void;
  warn?(message: string): void;
  error?(message: string): void;
}

/** Of both originals. Times are in milliseconds. */
export interface LockManagerOptions {
  /** A folder in the repository. Default: the working directory. */
  cwd?: string;
  /** Default: the console, for warnings alone. */
  logger?: Logger;
  /** How long a lock lasts unless `acquireLock` says otherwise. Default: 30,000. */
  defaultTimeout?: number;
  /** Where lock refs are kept. Default: `refs/gitvan/locks`. */
  lockPrefix?: string;
  /** The same two, as the other original has them. */
  lock?: { defaultTimeout?: number; lockPrefix?: string; retryDelay?: number; maxRetries?: number };
  /** Accepted, and without effect, as in the original: `acquireLock` never waits. */
  retryDelay?: number;
  /** Likewise. */
  maxRetries?: number;
}

export interface AcquireLockOptions {
  /** How long the lock lasts, in milliseconds: nothing renews it. */
  timeout?: number;
  /** The right to release and extend it, from any process. Default: this instance's own. */
  fingerprint?: string | null;
  /** `false`: beside others that say so. Default: `true`. */
  exclusive?: boolean;
}

/** What a lock's record says; of several shared holders that of the one whose lease ends last. */
export interface LockRecord {
  name: string;
  ref: string;
  id: string;
  acquiredAt: number;
  timeout: number;
  fingerprint: string;
  exclusive: boolean;
  pid: number;
  hostname: string;
}

/**
 * GitVan's lock manager, over gitlock. An outcome is a boolean; what is wrong with a name or the repository is
 * thrown, as a `LockError`.
 */
export declare class GitNativeLockManager {
  constructor(options?: LockManagerOptions);

  cwd: string;
  logger: Logger;
  defaultTimeout: number;
  lockPrefix: string;

  /** Opens the repository; every other method does so, too. Rejects if there is none. */
  initialize(): Promise<void>;
  /** Acquires a lock if it is free. Never waits. */
  acquireLock(lockName: string, options?: AcquireLockOptions): Promise<boolean>;
  /** Releases what this fingerprint acquired; without one, what this instance acquired, and nothing else. */
  releaseLock(lockName: string, fingerprint?: string | null): Promise<boolean>;
  /** Makes the lock last so many milliseconds longer than it would have. */
  extendLock(lockName: string, fingerprint: string | null | undefined, additionalTime: number): Promise<boolean>;
  /** Whether anybody holds the lock. */
  isLocked(lockName: string): Promise<boolean>;
  /** What its record says; `null` if nobody holds it. */
  getLockInfo(lockName: string): Promise<LockRecord | null>;
  /** Every lock that is held. */
  listLocks(): Promise<LockRecord[]>;
  /** Ends what has expired. Resolves with the number of locks in which something had. */
  cleanupExpiredLocks(): Promise<number>;
  /** Ends every lock by force, whoever holds it. Resolves with their number. */
  clearAllLocks(): Promise<number>;
  /** Whether the lock is held with this fingerprint. */
  validateFingerprint(lockName: string, fingerprint: string): Promise<boolean>;
}

export { GitNativeLockManager as LockManager };

/** The same at a remote: every outcome is the server's. */
export declare class GitDistributedLockManager extends GitNativeLockManager {
  constructor(options?: LockManagerOptions & { remote?: string; syncInterval?: number });

  /** Its name, or a URL. Default: `origin`. */
  remote: string;
  /** Accepted, and without effect: the server is asked each time. */
  syncInterval: number;

  /** Nothing is left to stop. */
  shutdown(): Promise<void>;
}
