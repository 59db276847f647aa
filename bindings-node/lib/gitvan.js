'use strict';

// The drop-in for GitVan's lock manager, over the real one.

const { randomUUID } = require('node:crypto');

const { InvalidArgument, LockError } = require('./errors.js');
const { LockHandle } = require('./handle.js');
const { LockManager, RECORDS } = require('./manager.js');

/** Codes that say that the lock isn't to be had, and not that something is wrong with the question or the repository. */
const NOT_TO_BE_HAD = new Set([
  'HELD',
  'NAME_BLOCKED',
  'QUEUE_FULL',
  'RECORD_CORRUPT',
  'RECORD_MISSING',
  'RECORD_TOO_NEW',
  'SLOTS_DIFFER',
]);

/** Codes that say that a tenure isn't there, or isn't this caller's. */
const NOT_OURS = new Set(['LOCK_LOST', 'NOT_OWNER']);

/** The holder whose lease ends last, as a record shows it. */
function latest(records) {
  const end = (record) => record.acquiredAt + record.timeout;
  return records.reduce((last, record) => (last === null || end(record) > end(last) ? record : last), null);
}

class GitNativeLockManager {
  #opened = null;
  #chatty;
  /** What this instance has acquired and not released: handles by the lock's name, oldest first. */
  #acquired = new Map();

  constructor(options = {}) {
    const lock = options.lock ?? {};
    this.cwd = options.cwd || process.cwd();
    this.logger = options.logger || console;
    this.defaultTimeout = options.defaultTimeout || lock.defaultTimeout || 30000;
    this.lockPrefix = options.lockPrefix || lock.lockPrefix || 'refs/gitvan/locks';
    this.#chatty = Boolean(options.logger);
  }

  async initialize() {
    await this._locks();
  }

  async acquireLock(lockName, options = {}) {
    const locks = await this._locks();
    const fingerprint = options.fingerprint || randomUUID();
    const ttl = options.timeout || this.defaultTimeout;
    const shared = options.exclusive === false;
    let lock;
    try {
      lock = await locks.tryAcquire(lockName, { fingerprint, ttl, shared });
    } catch (error) {
      if (!NOT_TO_BE_HAD.has(error.code)) throw error;
      this.#log('warn', error.message);
      return false;
    }
    if (lock === null) {
      this.#log('debug', `The lock ${lockName} is held by somebody else`);
      return false;
    }
    this.#log('debug', `Acquired the lock ${lockName} (${lock.id})`);
    // Nothing renews it, and it outlives this process: the lease says how long.
    const mine = this.#acquired.get(lockName) ?? [];
    this.#acquired.set(lockName, [...mine, { fingerprint, handle: lock.detach() }]);
    return true;
  }

  async releaseLock(lockName, fingerprint) {
    const locks = await this._locks();
    const handle = this.#take(lockName, fingerprint);
    if (handle === null) {
      this.#log('debug', `The lock ${lockName} wasn't acquired here, and there is no fingerprint`);
      return false;
    }
    const released = await this.#ours(lockName, () => locks.release(handle));
    if (released) this.#log('debug', `Released the lock ${lockName}`);
    return released;
  }

  async extendLock(lockName, fingerprint, additionalTime) {
    if (!Number.isFinite(additionalTime) || additionalTime < 0) {
      throw new InvalidArgument(`a lock can't be extended by ${additionalTime}; give milliseconds, 0 or more`);
    }
    const locks = await this._locks();
    const word = fingerprint || this.#acquired.get(lockName)?.[0]?.fingerprint;
    const record = (await locks[RECORDS](lockName)).find((record) => record.fingerprint === word);
    if (word === undefined || record === undefined) return false;
    const handle = LockHandle.byFingerprint(lockName, word);
    return this.#ours(lockName, () => locks.extend(handle, record.remaining + additionalTime));
  }

  async isLocked(lockName) {
    const locks = await this._locks();
    return (await locks.status(lockName)).held;
  }

  async getLockInfo(lockName) {
    const locks = await this._locks();
    const record = latest(await locks[RECORDS](lockName));
    if (record === null) return null;
    const { remaining, ...info } = record;
    return info;
  }

  async listLocks() {
    const locks = await this._locks();
    const byName = new Map();
    for (const record of await locks[RECORDS]()) {
      byName.set(record.name, [...(byName.get(record.name) ?? []), record]);
    }
    return [...byName.values()].map((records) => {
      const { remaining, ...info } = latest(records);
      return info;
    });
  }

  async cleanupExpiredLocks() {
    const locks = await this._locks();
    const { length } = (await locks.clean()).locks;
    if (length > 0) this.#log('info', `Cleaned up ${length} expired locks`);
    return length;
  }

  async clearAllLocks() {
    const locks = await this._locks();
    let cleared = 0;
    for (const { name, held } of (await locks.list()).locks) {
      // What is only held below itself is freed with what holds it.
      if (held && (await this.#ours(name, () => locks.break(name, { reason: 'clearAllLocks' })))) cleared++;
    }
    this.#acquired.clear();
    this.#log('warn', `Cleared ${cleared} locks`);
    return cleared;
  }

  async validateFingerprint(lockName, fingerprint) {
    const locks = await this._locks();
    return (await locks[RECORDS](lockName)).some((record) => record.fingerprint === fingerprint);
  }

  /** The manager, opened by whoever comes first. A failure is tried again. */
  _locks() {
    this.#opened ??= LockManager.open(this._where()).catch((error) => {
      this.#opened = null;
      throw error;
    });
    return this.#opened;
  }

  _where() {
    return { cwd: this.cwd, lockPrefix: this.lockPrefix };
  }

  /** The handle of what this fingerprint acquired, or this instance without one; it is forgotten. */
  #take(lockName, fingerprint) {
    const mine = this.#acquired.get(lockName) ?? [];
    const at = fingerprint ? mine.findIndex((own) => own.fingerprint === fingerprint) : 0;
    const own = mine[at];
    if (own !== undefined) this.#acquired.set(lockName, mine.toSpliced(at, 1));
    if (mine.length <= 1 && own !== undefined) this.#acquired.delete(lockName);
    if (own !== undefined) return own.handle;
    return fingerprint ? LockHandle.byFingerprint(lockName, fingerprint) : null;
  }

  /** Whether something could be done with a tenure. */
  async #ours(lockName, act) {
    try {
      await act();
      return true;
    } catch (error) {
      if (!(error instanceof LockError) || !NOT_OURS.has(error.code)) throw error;
      this.#log(error.code === 'NOT_OWNER' ? 'warn' : 'debug', error.message);
      return false;
    }
  }

  #log(level, message) {
    // Without a logger of its own a program isn't told of what is as it should be.
    if (this.#chatty || level === 'warn') this.logger[level]?.(message);
  }
}

class GitDistributedLockManager extends GitNativeLockManager {
  constructor(options = {}) {
    super(options);
    this.remote = options.remote || 'origin';
    this.syncInterval = options.syncInterval || 5000;
  }

  // The server is asked each time, so there is nothing to fetch now and then, and nothing to stop.
  async shutdown() {}

  _where() {
    return { ...super._where(), remote: this.remote };
  }
}

module.exports = { GitDistributedLockManager, GitNativeLockManager, LockManager: GitNativeLockManager };
