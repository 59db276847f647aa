import type { EventEmitter } from 'node:events';

import type {
  Cleaned,
  Finding,
  Holder,
  Listing,
  LockStatus,
  LogEntry,
  Synced,
  SyncStrategy,
  WaitGraph,
  Wanted,
} from './types.js';

export * from './errors.js';
export type * from './types.js';

/**
 * How a manager works. What isn't given is taken from the repository's configuration (`gitlock.prefix`,
 * `gitlock.keep`, `gitlock.durable`, `gitlock.remote`, `gitlock.staleLockAge`, `gitlock.maxClockSkew`), and from the defaults
 * named here after that. Times are in milliseconds.
 */
export interface ManagerOptions {
  /** A folder in the repository. Default: the working directory. */
  cwd?: string | URL;
  /** Where lock refs are kept. Default: `refs/gitvan/locks`. */
  lockPrefix?: string;
  /** The same. */
  prefix?: string;
  /** The session that holds and waits. Default: each acquire is one of its own. */
  owner?: string;
  /** How many ended tenures a journal keeps. Default: all. */
  keep?: number;
  /** Whether to sync to disk, so that locks survive power loss. Default: `false`. */
  durable?: boolean;
  /** How old one of Git's `.lock` files must be to count as left behind. Default: 600,000. */
  staleLockAge?: number;
  /** How far the wall clocks of different boots may differ. Default: 1,000. */
  maxClockSkew?: number;
  /** How long a grant from the queue lasts until it is claimed. Default: 2,000. */
  claimWindow?: number;
  /** How often a waiter looks when nothing wakes it. Default: 1,000. */
  pollInterval?: number;
  /** How long to wait for a `.lock` file that another process holds. Default: 10,000. */
  lockTimeout?: number;
  /** How long superseded objects stay. Default: 600,000. */
  sweepGrace?: number;
  /** Whether `GIT_DIR` and its kin are heeded, as a Git command does. Default: `false`. */
  environment?: boolean;
  /**
   * A remote of the repository to keep the locks at, such as `origin`, or a URL, for which `cwd` needn't be in a
   * repository. Default: `gitlock.remote`, else the repository itself.
   */
  remote?: string;
  /** How long one question to the remote and its answer may take. Default: 10,000. */
  remoteTimeout?: number;
}

/** How a lock is acquired. Times are in milliseconds. */
export interface AcquireOptions {
  /** Beside other shared holders. Default: exclusive. */
  shared?: boolean;
  /** The length of the lease, each time it is claimed, renewed or extended. Default: 30,000. */
  ttl?: number;
  /** How long to queue; 0: not at all, which ends with {@link Held}. Default: as long as it takes. */
  wait?: number;
  /** Ends the wait, which rejects with {@link Cancelled}, whose `cause` is the signal's reason. */
  signal?: AbortSignal;
  /** Higher goes first: each step is worth 30 s of waiting. Default: 0. */
  priority?: number;
  /** Why the lock is wanted, for whoever waits and for the journal. At most 512 bytes. */
  reason?: string;
  /**
   * A word of the caller's own as the right to release and extend. The tenure is then bound to its lease
   * alone, outlives this process, and isn't renewed unless asked for. It stands in the record for everybody
   * to read. At most 256 bytes.
   */
  fingerprint?: string;
  /** Whether the lease is renewed while the lock is held. Default: yes, unless there is a fingerprint. */
  renew?: boolean;
  /** For how long it is renewed at most, so that a holder that hangs loses the lock. Default: no limit. */
  maxHold?: number;
  /** One of so many slots, 1 to 1,024: as many may hold at once. Everybody has to say the same number. */
  slots?: number;
  /** As part of this tenure, maybe another process's: what is below its lock is taken at once. */
  within?: Lock | LockHandle | string;
  /** The session that holds and waits. Default: the manager's, or one of this call's own. */
  session?: Session;
  /** The same by its name. */
  owner?: string;
  /**
   * Once more, if the same owner holds the lock already through this manager. It is held until each of
   * its locks is released. Needs a session or an owner.
   */
  reentrant?: boolean;
  /** A process group that works under the lock: the owner doesn't count as dead while any of it runs. */
  processGroup?: number;
  /** Called when the wait begins and whenever what it waits for changes: how many are ahead, and the lock as it is. */
  onWait?: (ahead: number, status: LockStatus) => void;
}

/** As {@link AcquireOptions}, for what never waits. */
export type TryOptions = Omit<AcquireOptions, 'wait' | 'signal' | 'onWait'>;

/** What a manager and its sessions have in common. */
declare abstract class Acquirer {
  protected constructor();

  /**
   * Acquires a lock, queueing for it in the order of arrival. A pending wait keeps the process alive, a held
   * lock doesn't. What is held stays held until it is released, also when nobody refers to it any more.
   *
   * A name with a `/` is part of a tree: who holds `deploy/eu` keeps others from `deploy`, and who holds
   * `deploy` has all below it.
   *
   * @throws {Timeout} when `wait` is over; {@link Held} if that is 0
   * @throws {Cancelled} if the signal aborts; the lock is given back if it was granted at the same moment
   * @throws {Deadlock} if the wait would never have ended
   * @throws {LockError} for what can be wrong with the name, the options, the record and the repository
   */
  acquire(name: string, options?: AcquireOptions): Promise<Lock>;

  /** As {@link acquire}, for several locks: all of them or none, in whatever order they are named. */
  acquireAll(names: readonly string[], options?: AcquireOptions): Promise<Lock>;

  /** Acquires a lock if that is possible at once; `null` if somebody holds it, or is first. */
  tryAcquire(name: string, options?: TryOptions): Promise<Lock | null>;

  /** As {@link tryAcquire}, for several locks. */
  tryAcquireAll(names: readonly string[], options?: TryOptions): Promise<Lock | null>;

  /** As {@link tryAcquire}, on this thread: it may wait for the disk, and up to `lockTimeout` for a `.lock` file. */
  tryAcquireSync(name: string | readonly string[], options?: TryOptions): Lock | null;

  /**
   * Runs `work` under a lock, or several, and releases it whatever happens. Resolves with what `work` does.
   *
   * @throws {LockLost} if the tenure had ended before, so that the work may have overlapped another's; what
   *   `work` throws comes first
   */
  with<T>(name: string | readonly string[], work: (lock: Lock) => T | PromiseLike<T>): Promise<T>;
  with<T>(
    name: string | readonly string[],
    options: AcquireOptions | undefined,
    work: (lock: Lock) => T | PromiseLike<T>,
  ): Promise<T>;
}

/** The locks of one repository. Each worker thread opens its own. */
export declare class LockManager extends Acquirer {
  private constructor();

  /**
   * Opens the repository that a folder is in.
   *
   * @throws {NotARepository} if there is none
   * @throws {Untrusted} if it is somebody else's
   * @throws {Unsupported} if it has what would be misread
   * @throws {InvalidArgument} for options out of their range
   */
  static open(options?: ManagerOptions | string | URL): Promise<LockManager>;

  /** As {@link open}, on this thread. */
  static openSync(options?: ManagerOptions | string | URL): LockManager;

  /** Where the locks are, in words. */
  readonly location: string;
  /** Under which refs they are. */
  readonly lockPrefix: string;

  /**
   * A session: an owner of its own, the same across locks. Deadlocks, what is below a lock, and reentrancy go
   * by it. Without one each call is its own owner, so that it waits for every other.
   *
   * @param owner its name, if another process is to use the same
   */
  session(owner?: string): Session;

  /** A lock as it is. A record that can't be read is no error here: it is the `problem`. */
  status(name: string): Promise<LockStatus>;

  /** Every lock that is held, and what else is under the prefix. */
  list(): Promise<Listing>;

  /** The newest entries of a lock's journal, newest first. `most`: 100 unless given. */
  log(name: string, options?: { most?: number }): Promise<LogEntry[]>;

  /**
   * Ends tenures by force, whoever holds them: that of this id, or all of the lock's. The journal says who did it
   * and why. Resolves with the holders that were.
   *
   * @throws {LockLost} if there is nothing to break
   */
  break(name: string, options?: { id?: string; reason?: string }): Promise<Holder[]>;

  /**
   * Whether somebody holds the lock with this token at this moment: for what the lock protects, where it can't
   * remember the highest token it has seen.
   *
   * @throws {LockLost} if nobody does
   */
  verify(name: string, token: number): Promise<void>;

  /** Who waits for whom, and the deadlocks among them. */
  graph(): Promise<WaitGraph>;

  /** The same in the language of Graphviz. */
  graphDot(): Promise<string>;

  /**
   * Brings this repository's locks and those of a remote of it together, for those who worked without a connection:
   * what is held in one is held in both, and what has ended in one has ended in both. Call it again within every lease.
   *
   * @param remote a manager of the remote: `await LockManager.open({ cwd, remote: 'origin' })`
   * @param options.strategy who keeps a lock that two took, `'remote-wins'` unless given; the other one's lock is lost
   * @throws {SyncConflict} with `'fail'`, once all else is done
   */
  sync(remote: LockManager, options?: { strategy?: SyncStrategy }): Promise<Synced>;

  /** Ends what has ended by itself in every lock, and deletes superseded objects older than `grace` ms; 600,000 unless given. */
  clean(options?: { grace?: number }): Promise<Cleaned>;

  /** Looks for what crashes leave behind, and for records that can't be read; with `fix`, does what is safe. */
  doctor(options?: { fix?: boolean }): Promise<Finding[]>;

  /**
   * Releases a tenure by its handle.
   *
   * @throws {LockLost} if it has ended
   * @throws {NotOwner} if it is somebody else's
   */
  release(handle: LockHandle | string): Promise<void>;

  /** Extends a tenure by its handle, to its own length or `ttl` ms from now. Resolves with the ms it lasts from here on. */
  extend(handle: LockHandle | string, ttl?: number): Promise<number>;

  /** Goes on with a tenure that another process, or a lock that was detached, began. */
  resume(handle: LockHandle | string): Promise<Lock>;

  /** Finishes what waits for a better moment, for a process that is about to end. Locks and waits go on. */
  close(): Promise<void>;

  /** As {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** An owner, and its way to acquire. */
export declare class Session extends Acquirer {
  private constructor();

  /** Its name, as the records have it. */
  readonly owner: string;
}

/** How a lock is acquired in several repositories: as in one, with one wait for all of them together. */
export type MultiOptions = Pick<
  AcquireOptions,
  'shared' | 'priority' | 'ttl' | 'wait' | 'maxHold' | 'owner' | 'reason' | 'signal'
>;

/**
 * Several repositories in which locks are taken together. Everybody has to name the same ones, in the same words; the
 * order doesn't matter.
 */
export declare class Repositories {
  /** @throws {InvalidArgument} for none, and for the same one twice */
  constructor(managers: LockManager[]);

  /** Acquires these locks in every repository, or none. Rejects as {@link LockManager.acquire} does. */
  all(names: string | string[], options?: MultiOptions): Promise<MultiLock>;

  /**
   * Acquires a lock in a majority of the repositories, whichever can be used, and in the others when they can. One that
   * is away isn't waited for; one in which somebody holds the lock is. Rejects as {@link LockManager.acquire} does, and
   * with {@link RepositoryError} if too few can be used.
   */
  quorum(name: string, options?: MultiOptions): Promise<MultiLock>;

  /** Does some work while a majority holds the lock, and releases it. */
  with<T>(name: string, work: (lock: MultiLock) => T | Promise<T>): Promise<T>;
  with<T>(name: string, options: MultiOptions | undefined, work: (lock: MultiLock) => T | Promise<T>): Promise<T>;
}

/** What a {@link MultiLock} tells of. */
export interface MultiLockEvents {
  /** Once, when it is held in too few repositories; soon, if it is already. A release doesn't. */
  lost: [error: import('./errors.js').LockLost];
}

/** A lock in several repositories. Its leases are renewed until it is released. */
export declare class MultiLock extends (EventEmitter as new () => EventEmitter<MultiLockEvents>) {
  private constructor();

  /** Every lock that was asked for. */
  readonly names: string[];
  /** The fencing token, below 2^53: it grows with every grant by the same repositories, whichever of them took part. */
  readonly token: number;
  /** Whether it is held in too few repositories. `false` is as old as the question. */
  readonly isLost: boolean;
  /** Where it is held at this moment. */
  readonly heldIn: string[];
  /** Aborts when it is lost; the reason is a {@link LockLost}. */
  readonly signal: AbortSignal;

  /** For how many milliseconds it is safe from here on without another renewal. */
  validity(): number;

  /**
   * Makes the leases last another ttl from now, or so many milliseconds, and acquires it in the repositories that can be
   * used again. Rejects with {@link LockLost} if it is held in too few.
   */
  extend(ttl?: number): Promise<void>;

  /** Ends it everywhere. Rejects with {@link LockLost} if it was held in too few. */
  release(): Promise<void>;

  [Symbol.asyncDispose](): Promise<void>;
}

/** What a {@link Lock} tells of. */
export interface LockEvents {
  /** Once, when the tenure is lost; soon, if it is lost already. A release doesn't. */
  lost: [error: import('./errors.js').LockLost];
  /** Whenever others begin or cease to wait for what this holds, so that it can let go early. */
  wanted: [wanted: Wanted];
}

/**
 * One tenure of a lock, or of several taken together. It is renewed in the background, also while the event loop
 * is blocked, and ends when it is released, when its lease runs out, or when somebody breaks it.
 */
export declare class Lock extends (EventEmitter as new () => EventEmitter<LockEvents>) {
  private constructor();

  /** The lock; of several the first that was asked for. */
  readonly name: string;
  /** Every lock that was asked for. */
  readonly names: string[];
  /** The tenure's id. */
  readonly id: string;
  /**
   * The fencing token, below 2^53: it grows with every grant of this lock. Give it to whatever the lock protects,
   * and let that refuse a token lower than one it has seen. An upgrade gives a higher one.
   */
  readonly token: number;
  /** The fencing token of each of several locks. */
  readonly tokens: Record<string, number>;
  /** Which slot it has, from 0, if it was taken as one of several. */
  readonly slot: number | null;
  readonly mode: 'exclusive' | 'shared';
  /**
   * Whether the tenure has ended, by this process's own clock or by what was found in the repository. `false` is as
   * old as the question.
   */
  readonly isLost: boolean;
  /** Aborts when the tenure is lost, with the {@link LockLost} as its reason. Give it to what works under the lock. */
  readonly signal: AbortSignal;

  /** For how many ms the tenure is safe from here on without another renewal; 0 once it is lost. */
  remaining(): number;

  /**
   * Makes the lease last another ttl from now, or the given one in ms.
   *
   * @throws {LockLost} if it has ended, even if nobody has taken the lock since
   */
  extend(ttl?: number): Promise<void>;

  /**
   * Changes other refs of the repository, so that a holder which has lost its lease can't: in one transaction of
   * `git update-ref`, in which the lock must still be held. Reflogs, symbolic refs and hooks are Git's own. Either all
   * of the changes are made or none, and the lease lasts another ttl.
   *
   * @param updates what `git update-ref --stdin` reads, each as a line or as its words: `['update', ref, new]`,
   *   `['update', ref, new, old]`, `['create', ref, new]`, `['delete', ref]`, `['delete', ref, old]`,
   *   `['verify', ref, old]`, and `['no-deref', …]` where a symbolic ref is itself meant
   * @param options `message`: for the reflogs; by default it names the lock
   * @throws {LockLost} if the tenure has ended
   * @throws {RefChanged} if a ref isn't as expected
   * @throws {RefsRefused} if Git or a hook says no
   * @throws {InvalidArgument} for what isn't there, or belongs to gitlock
   * @throws {Unsupported} without a `git` program
   */
  updateRefs(updates: readonly (string | readonly string[])[], options?: { message?: string }): Promise<void>;

  /**
   * Pushes refs of the repository on this machine to the server that the lock lives on, so that a holder which has lost
   * its lease can't: in one atomic push with the lock's renewal, of which the server takes all or nothing. What they lead
   * to is sent along, after the repository's pre-push hook. The lease lasts another ttl; while the pack is sent it isn't
   * renewed otherwise, so give it one longer than that takes.
   *
   * @param refspecs what `git push` reads: `'main'`, `'HEAD'`, `'source:target'`, `':target'` to delete, and with `+`
   *   before it to let a branch go elsewhere than forward, or a tag change
   * @throws {LockLost} if the tenure has ended
   * @throws {RefChanged} if a ref there isn't what comes before the pushed one
   * @throws {RefsRefused} if the server or a hook says no
   * @throws {InvalidArgument} for what isn't there, or belongs to gitlock
   * @throws {Unsupported} if the server has no atomic pushes, if the lock isn't at a server, without a repository to push
   *   from, or without a `git` program
   */
  push(...refspecs: string[]): Promise<void>;

  /**
   * Ends the tenure, and hands the lock to whoever is next.
   *
   * @throws {LockLost} if it had ended before, so that the work under it may have overlapped another's
   */
  release(): Promise<void>;

  /** As {@link release}, on this thread: for handlers of `exit`. */
  releaseSync(): void;

  /**
   * Turns a shared tenure into an exclusive one without letting go: waits for the other holders to leave, before
   * everybody who queues. It stays shared if that fails.
   *
   * @throws {Timeout} when `wait` ms are over; {@link Held} if that is 0
   * @throws {Deadlock} if another holder waits to upgrade too
   * @throws {Cancelled} if the signal aborts
   * @throws {LockLost} if it has ended
   */
  upgrade(options?: { wait?: number; signal?: AbortSignal }): Promise<void>;

  /** Turns an exclusive tenure into a shared one, and lets in the readers who are first in the queue. */
  downgrade(): Promise<void>;

  /** Who waits for what this holds. */
  wanted(): Promise<Wanted>;

  /** The tenure as something for another process to go on with: treat it like a password. */
  handle(): LockHandle;

  /** The same, and the tenure goes on without this process, until its lease ends or somebody releases it. */
  detach(): LockHandle;

  /** Releases it, unless that was done. */
  [Symbol.asyncDispose](): Promise<void>;

  /** As {@link releaseSync}, unless that was done. */
  [Symbol.dispose](): void;
}

/** A tenure and the right to it, as a string that can be handed to another process, in whatever language. */
export declare class LockHandle {
  /** @throws {InvalidArgument} if the text isn't one */
  constructor(text: LockHandle | string);

  /** The handle of the tenure that was acquired with this fingerprint. */
  static byFingerprint(name: string, fingerprint: string): LockHandle;

  readonly name: string;
  readonly names: readonly string[];
  /** The tenure's id, if it is known. */
  readonly id: string | null;
  /** The fencing token, if it is known. */
  readonly token: number | null;

  toString(): string;
  toJSON(): string;
}
