/*
 * libgitlock: a lock manager whose only database is a Git repository.
 *
 * docs/c-conventions.md says what holds for every function: who owns what, NULL, threads, errors,
 * versions. Generated from the Rust source by `cargo xtask codegen`. Don't edit.
 */

#ifndef GITLOCK_H
#define GITLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * A number of milliseconds, or a switch, that is left to the default.
 */
#define GITLOCK_DEFAULT -1

/**
 * For `wait_ms`: for as long as it takes. The default.
 */
#define GITLOCK_FOREVER -1

/**
 * Exclusive: nobody beside the holder. The default.
 */
#define GITLOCK_EXCLUSIVE 0

/**
 * Shared: beside other shared holders.
 */
#define GITLOCK_SHARED 1

/**
 * What went wrong. Numbers and words are fixed for ever; retired ones stay reserved.
 */
typedef enum {
  /**
   * Nothing.
   */
  GITLOCK_OK = 0,
  /**
   * Somebody else holds the lock, and the caller didn't want to wait.
   */
  GITLOCK_HELD = 1,
  /**
   * The wait ended before the lock was granted.
   */
  GITLOCK_TIMEOUT = 2,
  /**
   * The wait was cancelled.
   */
  GITLOCK_CANCELLED = 3,
  /**
   * The tenure has ended: its lease ran out, it was broken, or its record was overwritten.
   */
  GITLOCK_LOCK_LOST = 4,
  /**
   * The lock is somebody else's to release or extend.
   */
  GITLOCK_NOT_OWNER = 5,
  /**
   * The queue takes no more waiters.
   */
  GITLOCK_QUEUE_FULL = 6,
  /**
   * The name can't be a lock's.
   */
  GITLOCK_INVALID_NAME = 7,
  /**
   * An option is out of its range, or two don't go together.
   */
  GITLOCK_INVALID_ARGUMENT = 8,
  /**
   * There is no repository there.
   */
  GITLOCK_NOT_A_REPOSITORY = 9,
  /**
   * The repository has something that this version would misread, or git is needed and isn't there.
   */
  GITLOCK_UNSUPPORTED = 10,
  /**
   * The repository belongs to somebody else.
   */
  GITLOCK_UNTRUSTED = 11,
  /**
   * The repository can't be written.
   */
  GITLOCK_PERMISSION_DENIED = 12,
  /**
   * The disk is full, or a quota is used up.
   */
  GITLOCK_STORAGE_FULL = 13,
  /**
   * The lock's ref points at something that is no record.
   */
  GITLOCK_RECORD_CORRUPT = 14,
  /**
   * The lock's record is of a newer version.
   */
  GITLOCK_RECORD_TOO_NEW = 15,
  /**
   * The object behind the lock's ref is missing.
   */
  GITLOCK_RECORD_MISSING = 16,
  /**
   * Another tool's ref is where the lock would be.
   */
  GITLOCK_NAME_BLOCKED = 17,
  /**
   * Another process holds the ref's .lock file, or packed-refs.lock, for too long.
   */
  GITLOCK_REPOSITORY_BUSY = 18,
  /**
   * Reading or writing the repository failed.
   */
  GITLOCK_IO = 19,
  /**
   * The object belongs to the process that this one was forked from.
   */
  GITLOCK_FORKED = 20,
  /**
   * The wait would never have ended: whoever it waited for waited for it in turn.
   */
  GITLOCK_DEADLOCK = 22,
  /**
   * Others take the lock as one of another number of slots.
   */
  GITLOCK_SLOTS_DIFFER = 23,
  /**
   * Another ref, which was to be changed under the lock, isn't as was expected.
   */
  GITLOCK_REF_CHANGED = 24,
  /**
   * Git, a server, or one of their hooks, refused to change other refs under the lock.
   */
  GITLOCK_REFS_REFUSED = 25,
  /**
   * Two hold the same lock in two repositories that were to be synced, and neither was to be overruled.
   */
  GITLOCK_SYNC_CONFLICT = 26,
  /**
   * gitlock itself failed: a panic was caught at the border to another language. A bug.
   */
  GITLOCK_INTERNAL = 21,
} gitlock_code;

/**
 * Whether, and how, trying again can help.
 */
typedef enum {
  /**
   * It can't: something has to change first.
   */
  GITLOCK_RETRY_NEVER = 0,
  /**
   * It can, once somebody else has let go: wait, or ask with a longer wait.
   */
  GITLOCK_RETRY_LATER = 1,
  /**
   * It can at once: acquire again from the start.
   */
  GITLOCK_RETRY_FROM_START = 2,
} gitlock_retry;

/**
 * Ends waits from another thread. One may be given to any number of acquires.
 */
typedef struct gitlock_cancel gitlock_cancel;

/**
 * One tenure of a lock: it ends when it is released or freed, when its lease runs out, or when
 * somebody breaks it. Every function may be called from any thread, also at the same time as
 * others, but for `gitlock_guard_free`.
 */
typedef struct gitlock_guard gitlock_guard;

/**
 * The locks of one repository. Every function may be called from any thread, also at the same
 * time as others, but for `gitlock_manager_free`. After a fork the child owns nothing that the
 * parent took: its copy of a manager works on its own, its copies of guards say GITLOCK_FORKED.
 */
typedef struct gitlock_manager gitlock_manager;

/**
 * A lock in several repositories. Every function may be called from any thread, also at the same
 * time as others, but for `gitlock_multi_guard_free`.
 */
typedef struct gitlock_multi_guard gitlock_multi_guard;

/**
 * Several repositories in which locks are taken together. Every function may be called from any
 * thread, also at the same time as others, but for `gitlock_repositories_free`.
 */
typedef struct gitlock_repositories gitlock_repositories;

/**
 * A wait that goes on in the background.
 */
typedef struct gitlock_waiting gitlock_waiting;

/**
 * What is called when a tenure is lost; `error` is as `gitlock_last_error_json` gives it, valid
 * during the call. It must not block, nor unwind.
 */
typedef void (*gitlock_on_lost)(void *data, const char *error);

/**
 * What is called once when a callback's data is not going to be used any more, on whichever thread
 * that turns out. It must not block, nor unwind.
 */
typedef void (*gitlock_free_data)(void *data);

/**
 * What is called when others begin or cease to wait for what a guard holds: as
 * `gitlock_guard_wanted` tells it. It must not block, nor unwind.
 */
typedef void (*gitlock_on_wanted)(void *data, size_t waiters, int32_t priority);

/**
 * How a manager works. Fill it with `gitlock_options_init`, then set what is to differ.
 */
typedef struct {
  /**
   * The size of this struct, as the caller knows it.
   */
  size_t size;
  /**
   * Where lock refs are kept. NULL: `gitlock.prefix` in the repository's configuration, else
   * "refs/gitvan/locks".
   */
  const char *lock_prefix;
  /**
   * The session that holds and waits. NULL: one for each thread.
   */
  const char *owner;
  /**
   * How many ended tenures a journal keeps, at least 1. -1: `gitlock.keep`, else all.
   */
  int64_t keep;
  /**
   * Whether to sync to disk: 1, 0, or -1: `gitlock.durable`, else no.
   */
  int64_t durable;
  /**
   * How old one of Git's own `.lock` files must be before it counts as left behind. -1:
   * `gitlock.staleLockAge`, else ten minutes.
   */
  int64_t stale_lock_age_ms;
  /**
   * How far the wall clocks of different boots may differ. -1: `gitlock.maxClockSkew`, else 1000.
   */
  int64_t max_clock_skew_ms;
  /**
   * How long a grant from the queue lasts until it is claimed. -1: 2000.
   */
  int64_t claim_window_ms;
  /**
   * How often a waiter looks when nothing wakes it; at a remote the pauses grow to twice this. -1: 1000.
   */
  int64_t poll_interval_ms;
  /**
   * How long to wait for a `.lock` file that another process holds. -1: 10000.
   */
  int64_t lock_timeout_ms;
  /**
   * Whether GIT_DIR and its kin are heeded, as a Git command does: 1, or 0 or -1: no.
   */
  int64_t environment;
  /**
   * A remote of the repository to keep the locks at: its name, such as "origin", or a URL, for which
   * the path needn't be in a repository. NULL: `gitlock.remote`, else in the repository itself.
   */
  const char *remote;
  /**
   * How long one question to the remote and its answer may take. 0 or -1: 10000.
   */
  int64_t remote_timeout_ms;
} gitlock_options;

/**
 * What is called while a wait goes on: `ahead` wait before it, and `status` is the lock as
 * `gitlock_status` gives it, valid during the call. On the manager's background thread or the
 * acquiring one; it must not block, nor unwind.
 */
typedef void (*gitlock_on_wait)(void *data, size_t ahead, const char *status);

/**
 * How a lock is acquired. Fill it with `gitlock_acquire_options_init`, then set what is to differ.
 */
typedef struct {
  /**
   * The size of this struct, as the caller knows it.
   */
  size_t size;
  /**
   * GITLOCK_EXCLUSIVE or GITLOCK_SHARED.
   */
  int32_t mode;
  /**
   * Higher goes first: each step is worth 30 s of waiting. Default: 0.
   */
  int32_t priority;
  /**
   * The length of the lease, from 1. -1: 30000.
   */
  int64_t ttl_ms;
  /**
   * How long it may queue; 0: not at all. Default: GITLOCK_FOREVER.
   */
  int64_t wait_ms;
  /**
   * For how long it is renewed at most. -1: without limit.
   */
  int64_t max_hold_ms;
  /**
   * Whether the lease is renewed in the background: 1, 0, or -1: yes unless there is a fingerprint.
   */
  int64_t renew;
  /**
   * The session that holds and waits. NULL: the manager's, or one for each thread.
   */
  const char *owner;
  /**
   * A word of the caller's own as the right to release and extend; the tenure is then bound to its
   * lease alone. NULL: a secret, and the tenure ends with this process.
   */
  const char *fingerprint;
  /**
   * Why the lock is wanted, for whoever waits and for the journal. May be NULL.
   */
  const char *reason;
  /**
   * What cancels the wait. May be NULL. It may be freed at any time.
   */
  const gitlock_cancel *cancel;
  /**
   * Called when the wait begins, and whenever what it waits for changes. May be NULL.
   */
  gitlock_on_wait on_wait;
  /**
   * Handed to `on_wait`. It must be valid until the acquire has ended.
   */
  void *on_wait_data;
  /**
   * One of so many slots, 1 to 1024, instead of the whole lock; everybody has to say the same
   * number, or hears GITLOCK_SLOTS_DIFFER. 0: the whole lock.
   */
  uint32_t slots;
  /**
   * Whether an owner who holds the lock already, by the same manager, gets it once more: 1 or 0. It
   * is held until each of its guards was released.
   */
  int32_t reentrant;
  /**
   * The handle of a tenure, maybe another process's: its owner acquires, and takes what is below
   * its lock at once. Not together with `owner`. May be NULL.
   */
  const char *within;
} gitlock_acquire_options;

/**
 * What is called when a lock in several repositories is held in too few. It must not block, nor unwind.
 */
typedef void (*gitlock_on_multi_lost)(void *data);

/**
 * How a wait in the background ends: `code` 0 and a guard, which is the callee's to free, or another
 * code and NULL, with what `gitlock_last_error_message` says on this thread. It comes once, on the
 * manager's background thread, and must not block, nor unwind.
 */
typedef void (*gitlock_on_done)(void *data, int32_t code, gitlock_guard *guard);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The code of this thread's last failed call; 0 if none has failed. A success doesn't change it.
 */
int32_t gitlock_last_error_code(void);

/**
 * What happened in this thread's last failed call, who holds the lock, and what to do. Never NULL;
 * valid until this thread's next failed call.
 */
const char *gitlock_last_error_message(void);

/**
 * The same as JSON: `code`, `message`, `retry`, and `holder`, which is null unless somebody's
 * holding the lock is why. Never NULL ("" if no call has failed); valid until this thread's next
 * failed call.
 */
const char *gitlock_last_error_json(void);

/**
 * The library's version, such as "0.1.0". Never NULL, valid for ever.
 */
const char *gitlock_version(void);

/**
 * The word for a code, such as "HELD", the same as in every other language; "OK" for 0, and NULL
 * for a number that is no code. Valid for ever.
 */
const char *gitlock_code_name(int32_t code);

/**
 * Whether trying again can help: one of `gitlock_retry`. For 0, and for a number that is no code: never.
 */
int32_t gitlock_code_retry(int32_t code);

/**
 * The lock's name; of several the first. Valid until the guard is freed; NULL for NULL.
 */
const char *gitlock_guard_name(const gitlock_guard *guard);

/**
 * The tenure's id. Valid until the guard is freed; NULL for NULL.
 */
const char *gitlock_guard_id(const gitlock_guard *guard);

/**
 * The fencing token: it grows with every grant of this lock. Give it to whatever the lock
 * protects, and let that refuse a token lower than one it has seen. Of several locks it is the
 * first one's; an upgrade gives a higher one. 0 for NULL.
 */
uint64_t gitlock_guard_token(const gitlock_guard *guard);

/**
 * The fencing token of one of several locks. 0 if it isn't one of them, for NULL, and once the
 * guard was released or detached.
 */
uint64_t gitlock_guard_token_of(const gitlock_guard *guard, const char *name);

/**
 * Which slot it has, from 0; -1 if the lock wasn't taken as one of several slots, and for NULL.
 */
int32_t gitlock_guard_slot(const gitlock_guard *guard);

/**
 * GITLOCK_EXCLUSIVE or GITLOCK_SHARED; -1 for NULL.
 */
int32_t gitlock_guard_mode(const gitlock_guard *guard);

/**
 * Whether the tenure has ended, by this process's own clock or by what was found in the
 * repository. A `false` is as old as the question: what must never happen twice has to check the
 * token where it happens. True for NULL, and for what was released.
 */
bool gitlock_guard_is_lost(const gitlock_guard *guard);

/**
 * For how many milliseconds the tenure is safe from here on without another renewal; 0 once it is lost.
 */
uint64_t gitlock_guard_remaining_ms(const gitlock_guard *guard);

/**
 * Makes the lease last `ttl_ms` from now; -1: its own length again.
 * GITLOCK_LOCK_LOST if it has ended, even if nobody has taken the lock since.
 */
int32_t gitlock_guard_extend(const gitlock_guard *guard, int64_t ttl_ms);

/**
 * Changes other refs of the repository, so that a holder which has lost its lease can't: in one
 * transaction of `git update-ref`, in which the lock must still be held. Reflogs, symbolic refs and hooks
 * are Git's own. Either all of the `count` changes are made or none, and the lease lasts another ttl.
 *
 * Each is a line as `git update-ref --stdin` reads it: `update REF NEW [OLD]`, `create REF NEW`,
 * `delete REF [OLD]` or `verify REF [OLD]`, with one space between words, and `no-deref` before it where
 * a symbolic ref is itself meant. `message` is for the reflogs; NULL: it names the lock.
 *
 * GITLOCK_LOCK_LOST if the tenure has ended, GITLOCK_REF_CHANGED if a ref isn't as expected,
 * GITLOCK_REFS_REFUSED if Git or a hook says no, GITLOCK_INVALID_ARGUMENT for what isn't there or is gitlock's,
 * GITLOCK_UNSUPPORTED without a `git` program. None was changed then, unless the message says otherwise.
 */
int32_t gitlock_guard_update_refs(const gitlock_guard *guard,
                                  const char *const *updates,
                                  size_t count,
                                  const char *message);

/**
 * Pushes refs of the repository on this machine to the server that the lock lives on, so that a holder which
 * has lost its lease can't: in one atomic push with the lock's renewal, of which the server takes all or
 * nothing. What they lead to is sent along, after the repository's pre-push hook. The lease lasts another ttl; while
 * the pack is sent it isn't renewed otherwise, so give it one longer than that takes.
 *
 * Each of the `count` refspecs is as `git push` reads it: `main`, `HEAD`, `SOURCE:TARGET`, `:TARGET` to delete, and
 * with + before it to let a branch go elsewhere than forward, or a tag change.
 *
 * GITLOCK_LOCK_LOST if the tenure has ended, GITLOCK_REF_CHANGED if a ref there isn't what comes before the pushed one,
 * GITLOCK_REFS_REFUSED if the server or a hook says no, GITLOCK_INVALID_ARGUMENT for what isn't there or is gitlock's,
 * GITLOCK_UNSUPPORTED if the server has no atomic pushes, or the lock isn't at one. Nothing was changed then, unless
 * the message says otherwise.
 */
int32_t gitlock_guard_push(const gitlock_guard *guard,
                           const char *const *refspecs,
                           size_t count);

/**
 * Turns a shared tenure into an exclusive one without letting go: waits for the other holders to
 * leave, before everybody who queues. `wait_ms`: how long, GITLOCK_FOREVER, or 0: not at all. `cancel`
 * may be NULL. Nothing to do if it is exclusive. While it waits, the guard must not be released or
 * detached: cancel it first.
 *
 * GITLOCK_TIMEOUT, GITLOCK_HELD with a wait of 0, GITLOCK_CANCELLED, GITLOCK_DEADLOCK if another
 * holder waits to upgrade too, GITLOCK_INVALID_ARGUMENT for a slot: it stays shared then. And GITLOCK_LOCK_LOST.
 */
int32_t gitlock_guard_upgrade(const gitlock_guard *guard,
                              int64_t wait_ms,
                              const gitlock_cancel *cancel);

/**
 * Turns an exclusive tenure into a shared one, and lets in the readers who are first in the queue.
 * GITLOCK_INVALID_ARGUMENT for a slot, GITLOCK_LOCK_LOST if it has ended.
 */
int32_t gitlock_guard_downgrade(const gitlock_guard *guard);

/**
 * How many wait for what this holds, and the highest priority among them, which is 0 if nobody
 * waits. `priority` may be NULL. GITLOCK_LOCK_LOST if the tenure has ended.
 */
int32_t gitlock_guard_wanted(const gitlock_guard *guard, size_t *waiters, int32_t *priority);

/**
 * Ends the tenure, and hands the lock to whoever is next. The guard is still to be freed.
 * GITLOCK_LOCK_LOST if the tenure had ended before, so that the work under it may have overlapped
 * another's; with other errors it stays held until its lease ends.
 */
int32_t gitlock_guard_release(const gitlock_guard *guard);

/**
 * Frees a guard, and releases its lock if that wasn't done; a failure of that is told to nobody.
 * NULL is fine. No other call with this guard may be under way.
 */
void gitlock_guard_free(gitlock_guard *guard);

/**
 * The tenure as a string, for another process or language to go on with: treat it like a
 * password. Free it with `gitlock_string_free`. GITLOCK_LOCK_LOST once it was released.
 */
int32_t gitlock_guard_handle(const gitlock_guard *guard, char **handle);

/**
 * As `gitlock_guard_handle`, and lets the tenure go on without this guard, until its lease ends or
 * somebody with the handle releases it: this process renews it no more. The guard is still to be freed.
 */
int32_t gitlock_guard_detach(const gitlock_guard *guard,
                             char **handle);

/**
 * Calls `listener` once when the tenure is lost, on the manager's background thread, or at once on
 * this one if it is lost already. A release doesn't call it. `free_data`, which may be NULL, is called
 * with `data` in any case, also if this fails, once `listener` has been called or never will be.
 */
int32_t gitlock_guard_on_lost(const gitlock_guard *guard,
                              gitlock_on_lost listener,
                              void *data,
                              gitlock_free_data free_data);

/**
 * Calls `listener` whenever others begin or cease to wait for what this holds, on the manager's
 * background thread, so that it can let go early; until the tenure ends. `free_data`, which may be
 * NULL, is called with `data` in any case, also if this fails, once `listener` won't be called any more.
 */
int32_t gitlock_guard_on_wanted(const gitlock_guard *guard,
                                gitlock_on_wanted listener,
                                void *data,
                                gitlock_free_data free_data);

/**
 * Opens the repository that `path` is in. `options` may be NULL.
 * GITLOCK_NOT_A_REPOSITORY, GITLOCK_UNTRUSTED for somebody else's, GITLOCK_UNSUPPORTED for what would
 * be misread, GITLOCK_INVALID_ARGUMENT for options out of their range.
 */
int32_t gitlock_open(const char *path,
                     const gitlock_options *options,
                     gitlock_manager **manager);

/**
 * Frees a manager. Its guards and waits go on, and keep what they need. NULL is fine. No other
 * call with this manager may be under way.
 */
void gitlock_manager_free(gitlock_manager *manager);

/**
 * Acquires a lock, queueing for it if it is held. `options` may be NULL.
 * GITLOCK_TIMEOUT when the wait is over, GITLOCK_HELD if it wasn't to wait, GITLOCK_CANCELLED,
 * and what can be wrong with the name, the options, the record and the repository.
 */
int32_t gitlock_acquire(const gitlock_manager *manager,
                        const char *name,
                        const gitlock_acquire_options *options,
                        gitlock_guard **guard);

/**
 * As `gitlock_acquire`, but never waits: GITLOCK_HELD if somebody holds the lock, or is first.
 */
int32_t gitlock_try_acquire(const gitlock_manager *manager,
                            const char *name,
                            const gitlock_acquire_options *options,
                            gitlock_guard **guard);

/**
 * Acquires `count` locks, all of them or none, in whatever order they are named; the guard is that
 * of all of them. Otherwise as `gitlock_acquire`: with a `wait_ms` of 0 it never waits.
 */
int32_t gitlock_acquire_all(const gitlock_manager *manager,
                            const char *const *names,
                            size_t count,
                            const gitlock_acquire_options *options,
                            gitlock_guard **guard);

/**
 * Whether this token is that of somebody who holds the lock at this moment: for what the lock
 * protects, where it can't remember the highest token it has seen. GITLOCK_LOCK_LOST if it isn't.
 */
int32_t gitlock_verify(const gitlock_manager *manager, const char *name, uint64_t token);

/**
 * The lock as it is, as JSON: `name`, `held`, `holders`, `queue`, `problem`. Free it with
 * `gitlock_string_free`. A record that can't be read is no error here: it is the `problem`.
 */
int32_t gitlock_status(const gitlock_manager *manager, const char *name, char **json);

/**
 * Every lock that is held, and what else is under the prefix, as JSON: `locks`, `foreign`.
 */
int32_t gitlock_list(const gitlock_manager *manager, char **json);

/**
 * Who waits for whom, and which of them would wait for ever, as JSON: `edges`, `cycles`.
 */
int32_t gitlock_graph(const gitlock_manager *manager, char **json);

/**
 * The same in the language of Graphviz. Free it with `gitlock_string_free`.
 */
int32_t gitlock_graph_dot(const gitlock_manager *manager, char **dot);

/**
 * Brings this repository's locks and those of a remote of it together, for those who worked without a connection:
 * locks that were taken here are held there too and the other way round, and what has ended in one has ended in both.
 * `strategy` says who keeps a lock that two took: "remote-wins" (also for NULL), "oldest", "highest-priority",
 * "highest-token" or "fail"; the other one's guard is lost. Call it again within every lease. `json` tells of what was
 * changed, `changes`, and of what couldn't be read, `left`. GITLOCK_SYNC_CONFLICT with "fail", once all else is done.
 */
int32_t gitlock_sync(const gitlock_manager *manager,
                     const gitlock_manager *remote,
                     const char *strategy,
                     char **json);

/**
 * The newest entries of a lock's journal, newest first, at most `most`, as JSON: `name`, `entries`.
 */
int32_t gitlock_log(const gitlock_manager *manager, const char *name, size_t most, char **json);

/**
 * Ends tenures by force, whoever holds them: that of this `id`, or all of the lock's if it is
 * NULL. The journal says who did it and why; `reason` may be NULL. `json` tells of those that were
 * ended: `name`, `broken`. GITLOCK_LOCK_LOST if there is nothing to break.
 */
int32_t gitlock_break(const gitlock_manager *manager,
                      const char *name,
                      const char *id,
                      const char *reason,
                      char **json);

/**
 * Ends what has ended by itself in every lock, and deletes superseded objects that are older than
 * `grace_ms`; -1: ten minutes. `json`: `locks`, `objectsDeleted`, `objectsWaiting`.
 */
int32_t gitlock_clean(const gitlock_manager *manager, int64_t grace_ms, char **json);

/**
 * Looks for what crashes leave behind, and for records that can't be read; with `fix`, does what
 * is safe. `json`: `findings`.
 */
int32_t gitlock_doctor(const gitlock_manager *manager, bool fix, char **json);

/**
 * The handle of a tenure that was acquired with a fingerprint. Free it with `gitlock_string_free`.
 */
int32_t gitlock_handle_by_fingerprint(const char *name, const char *fingerprint, char **handle);

/**
 * Releases a tenure by its handle. GITLOCK_LOCK_LOST if it has ended, GITLOCK_NOT_OWNER if it is
 * somebody else's.
 */
int32_t gitlock_release(const gitlock_manager *manager, const char *handle);

/**
 * Extends a tenure by its handle to `ttl_ms` from now; -1: its own length again. `remaining_ms`,
 * which may be NULL, is how long it lasts from here on. Errors as for `gitlock_release`.
 */
int32_t gitlock_extend(const gitlock_manager *manager,
                       const char *handle,
                       int64_t ttl_ms,
                       uint64_t *remaining_ms);

/**
 * Goes on with a tenure that another process, or a guard that was detached, began: extends it,
 * and, if it was bound to a process, binds it to this one, which renews it. Errors as for `gitlock_release`.
 */
int32_t gitlock_resume(const gitlock_manager *manager,
                       const char *handle,
                       gitlock_guard **guard);

/**
 * Puts the repositories of `count` managers together. Everybody has to name the same ones, in the same
 * words; the order doesn't matter. The managers may be freed before.
 * GITLOCK_INVALID_ARGUMENT for none, and for the same one twice.
 */
int32_t gitlock_repositories_open(const gitlock_manager *const *managers,
                                  size_t count,
                                  gitlock_repositories **repositories);

/**
 * Frees repositories. Their guards go on, and keep what they need. NULL is fine. No other call with
 * these repositories may be under way.
 */
void gitlock_repositories_free(gitlock_repositories *repositories);

/**
 * Acquires `count` locks in every repository, or none, queueing where they are held. `options` may be NULL;
 * their wait is for all together. As `gitlock_acquire`; the message names the repository.
 */
int32_t gitlock_repositories_acquire_all(const gitlock_repositories *repositories,
                                         const char *const *names,
                                         size_t count,
                                         const gitlock_acquire_options *options,
                                         gitlock_multi_guard **guard);

/**
 * Acquires a lock in a majority of the repositories, whichever can be used, and in the others when they
 * can. One that is away isn't waited for; one in which somebody holds the lock is. `options` may be NULL; their
 * wait is for all together. As `gitlock_acquire`, and GITLOCK_IO if too few of the repositories can be used.
 */
int32_t gitlock_repositories_acquire_quorum(const gitlock_repositories *repositories,
                                            const char *name,
                                            const gitlock_acquire_options *options,
                                            gitlock_multi_guard **guard);

/**
 * The fencing token: it grows with every grant by the same repositories in the same way, whichever of
 * them took part. 0 for NULL.
 */
uint64_t gitlock_multi_guard_token(const gitlock_multi_guard *guard);

/**
 * Whether it is held in too few repositories. A `false` is as old as the question. True for NULL, and for
 * what was released.
 */
bool gitlock_multi_guard_is_lost(const gitlock_multi_guard *guard);

/**
 * For how many milliseconds it is safe from here on without another renewal: enough of its leases last so
 * long. 0 once it is lost.
 */
uint64_t gitlock_multi_guard_validity_ms(const gitlock_multi_guard *guard);

/**
 * Where it is held at this moment, as a JSON array of locations. Free it with `gitlock_string_free`.
 */
int32_t gitlock_multi_guard_held_in(const gitlock_multi_guard *guard,
                                    char **json);

/**
 * Makes the leases last `ttl_ms` from now; -1: their own length again. Of a majority it is also acquired in
 * the repositories that can be used again. GITLOCK_LOCK_LOST if it is held in too few.
 */
int32_t gitlock_multi_guard_extend(const gitlock_multi_guard *guard,
                                   int64_t ttl_ms);

/**
 * Calls `listener` once when it is held in too few, on a background thread, or at once on this one if it is
 * already. A release doesn't call it. `free_data`, which may be NULL, is called with `data` in any case, also if
 * this fails, once `listener` has been called or never will be.
 */
int32_t gitlock_multi_guard_on_lost(const gitlock_multi_guard *guard,
                                    gitlock_on_multi_lost listener,
                                    void *data,
                                    gitlock_free_data free_data);

/**
 * Ends the tenure in every repository. The guard is still to be freed. GITLOCK_LOCK_LOST if it was held in
 * too few, so that the work under it may have overlapped another's, or was released before. Where it can't be reached while enough
 * others can, its lease ends by itself.
 */
int32_t gitlock_multi_guard_release(const gitlock_multi_guard *guard);

/**
 * Frees a guard, and releases its locks if that wasn't done; a failure of that is told to nobody. NULL is
 * fine. No other call with this guard may be under way.
 */
void gitlock_multi_guard_free(gitlock_multi_guard *guard);

/**
 * Fills `options` with the defaults; `size` is `sizeof *options`.
 */
void gitlock_options_init(gitlock_options *options, size_t size);

/**
 * Fills `options` with the defaults; `size` is `sizeof *options`.
 */
void gitlock_acquire_options_init(gitlock_acquire_options *options, size_t size);

/**
 * Frees a string that a function of this library gave away. NULL is fine.
 */
void gitlock_string_free(char *text);

/**
 * One that isn't cancelled. NULL only if memory is used up.
 */
gitlock_cancel *gitlock_cancel_new(void);

/**
 * Ends every wait that was given this, now and later, with GITLOCK_CANCELLED. NULL is fine.
 * May be called from any thread, while others use the same pointer, and again.
 */
void gitlock_cancel_cancel(const gitlock_cancel *cancel);

/**
 * Frees it; the waits that were given it go on. NULL is fine.
 */
void gitlock_cancel_free(gitlock_cancel *cancel);

/**
 * Starts to acquire without blocking this thread; the wait itself costs no thread. `options` may
 * be NULL. `waiting` may be NULL for a wait that isn't going to be cancelled.
 *
 * Returns 0 if the wait has begun; `done` is called once then, and perhaps before this returns.
 * GITLOCK_INVALID_NAME, GITLOCK_INVALID_ARGUMENT: it isn't called. Concurrent calls are fine.
 */
int32_t gitlock_acquire_start(const gitlock_manager *manager,
                              const char *name,
                              const gitlock_acquire_options *options,
                              gitlock_on_done done,
                              void *data,
                              gitlock_waiting **waiting);

/**
 * As `gitlock_acquire_start`, for `count` locks: all of them or none.
 */
int32_t gitlock_acquire_all_start(const gitlock_manager *manager,
                                  const char *const *names,
                                  size_t count,
                                  const gitlock_acquire_options *options,
                                  gitlock_on_done done,
                                  void *data,
                                  gitlock_waiting **waiting);

/**
 * Ends a wait; its `done` hears GITLOCK_CANCELLED, unless it is being called already. NULL is fine.
 * May be called from any thread, also after `done` has come, and again.
 */
void gitlock_waiting_cancel(const gitlock_waiting *waiting);

/**
 * Frees it; the wait goes on. NULL is fine.
 */
void gitlock_waiting_free(gitlock_waiting *waiting);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* GITLOCK_H */
