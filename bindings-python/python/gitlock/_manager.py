"""The locks of one repository."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from ._asyncio import AsyncLock
from ._gitlock import CancelToken, Manager
from ._handle import LockHandle
from ._locks import Lock, RLock

#: Told while a wait goes on: how many wait before it, and the lock as :meth:`LockManager.status` gives it.
OnWait = Callable[[int, dict[str, Any]], object]

#: What several things are told as; a name of its own, since a manager's ``list`` is another.
Dicts = list[dict[str, Any]]


class AcquireOptions(TypedDict):
    """How a lock is acquired, as the core is told."""

    shared: bool
    priority: int
    ttl: float | None
    wait: float | None
    max_hold: float | None
    renew: bool | None
    owner: str | None
    fingerprint: str | None
    reason: str | None
    cancel: CancelToken | None
    on_wait: Callable[[int, str], object] | None
    slots: int | None
    within: str | None
    reentrant: bool


def _options(
    timeout: float | None,
    shared: bool,
    ttl: float | None,
    priority: int,
    reason: str | None,
    owner: str | None,
    fingerprint: str | None,
    renew: bool | None,
    max_hold: float | None,
    cancel: CancelToken | None,
    on_wait: OnWait | None,
    slots: int | None = None,
    within: LockHandle | str | None = None,
    reentrant: bool = False,
) -> AcquireOptions:
    def told(ahead: int, status: str) -> object:
        assert on_wait is not None
        return on_wait(ahead, json.loads(status))

    return {
        "shared": shared,
        "priority": priority,
        "ttl": ttl,
        "wait": timeout,
        "max_hold": max_hold,
        "renew": renew,
        "owner": owner,
        "fingerprint": fingerprint,
        "reason": reason,
        "cancel": cancel,
        "on_wait": None if on_wait is None else told,
        "slots": slots,
        "within": None if within is None else str(within),
        "reentrant": reentrant,
    }


class LockManager:
    """The locks of the repository that ``path`` is in. Any number of threads may share one.

    What is ``None`` is taken from the repository's configuration (``gitlock.prefix``,
    ``gitlock.keep``, ``gitlock.durable``, ``gitlock.staleLockAge``, ``gitlock.maxClockSkew``), and
    from the defaults after that. Times are in seconds.

    :param lock_prefix: where lock refs are kept; ``refs/gitvan/locks``
    :param owner: the session that holds and waits; one for each thread, or task of asyncio
    :param keep: how many ended tenures a journal keeps; all
    :param durable: whether to sync to disk; no
    :param stale_lock_age: how old a ``.lock`` file of Git's must be to count as left behind; 600
    :param max_clock_skew: how far the wall clocks of different boots may differ; 1
    :param claim_window: how long a grant from the queue lasts until it is claimed; 2
    :param poll_interval: how often a waiter looks when nothing wakes it; 1
    :param lock_timeout: how long to wait for a ``.lock`` file that another process holds; 10
    :param environment: whether ``GIT_DIR`` and its kin are heeded, as a Git command does
    :param remote: a remote of the repository to keep the locks at, such as ``"origin"``, or a URL, for
        which the path needn't be in a repository; ``gitlock.remote``, or the repository itself
    :param remote_timeout: how long one question to the remote and its answer may take; 10
    :raises NotARepository: if there is none
    :raises Untrusted: if it is somebody else's
    :raises Unsupported: if it has what would be misread

    After a fork the child owns nothing that its parent took: locks that the parent holds raise
    :class:`Forked` there, and a manager works on its own.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ".",
        *,
        lock_prefix: str | None = None,
        owner: str | None = None,
        keep: int | None = None,
        durable: bool | None = None,
        stale_lock_age: float | None = None,
        max_clock_skew: float | None = None,
        claim_window: float | None = None,
        poll_interval: float | None = None,
        lock_timeout: float | None = None,
        environment: bool = False,
        remote: str | None = None,
        remote_timeout: float | None = None,
    ) -> None:
        self._owner = owner
        self._manager = Manager(
            os.fspath(path),
            {
                "lock_prefix": lock_prefix,
                "owner": owner,
                "keep": keep,
                "durable": durable,
                "stale_lock_age": stale_lock_age,
                "max_clock_skew": max_clock_skew,
                "claim_window": claim_window,
                "poll_interval": poll_interval,
                "lock_timeout": lock_timeout,
                "environment": environment,
                "remote": remote,
                "remote_timeout": remote_timeout,
            },
        )

    @property
    def location(self) -> str:
        """Where the locks are, in words."""
        return self._manager.location()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} of {self._manager.location()!r}>"

    def lock(
        self,
        name: str | Sequence[str],
        *,
        timeout: float | None = None,
        ttl: float | None = None,
        shared: bool = False,
        priority: int = 0,
        reason: str | None = None,
        owner: str | None = None,
        fingerprint: str | None = None,
        renew: bool | None = None,
        max_hold: float | None = None,
        cancel: CancelToken | None = None,
        on_wait: OnWait | None = None,
        slots: int | None = None,
        within: LockHandle | str | None = None,
        reentrant: bool = False,
    ) -> Lock:
        """A lock that behaves as :class:`threading.Lock` does, between processes. Nothing is acquired yet.

        :param name: the lock; with several, all of them or none. ``a/b`` is part of ``a``: who holds the
            one keeps others from the other
        :param timeout: for how many seconds ``with`` waits at most, and raises :class:`Timeout` then, or
            :class:`Held` after 0; as long as it takes. ``acquire`` has one of its own
        :param ttl: the length of the lease in seconds; 30
        :param shared: whether other shared holders are welcome beside it
        :param priority: higher goes first; each step is worth 30 s of waiting
        :param reason: why it is wanted, for whoever waits and for the journal
        :param owner: the session that holds and waits; the manager's, or one for each thread
        :param fingerprint: a word as the right to release and extend; the lock then outlives this
            process, until its lease ends, and isn't renewed unless asked for
        :param renew: whether the lease is renewed while it is held; yes, unless there is a fingerprint
        :param max_hold: for how many seconds it is renewed at most, so that a holder that hangs loses it
        :param cancel: ends a wait from another thread, which raises :class:`Cancelled`
        :param on_wait: called while a wait goes on, on a thread of gitlock's own
        :param slots: take one of so many slots instead of the whole; everybody has to say the same number
        :param within: the handle of a tenure, maybe another process's: what is below its lock is taken at once
        :param reentrant: whether an owner who holds it already, by this manager, gets it once more; it is held
            until each of its locks was released
        """
        options = _options(
            timeout, shared, ttl, priority, reason, owner, fingerprint, renew, max_hold, cancel, on_wait, slots,
            within, reentrant,
        )
        return Lock(self._manager, name, options)

    def rlock(
        self,
        name: str,
        *,
        timeout: float | None = None,
        ttl: float | None = None,
        priority: int = 0,
        reason: str | None = None,
        owner: str | None = None,
        max_hold: float | None = None,
        cancel: CancelToken | None = None,
        on_wait: OnWait | None = None,
    ) -> RLock:
        """As :meth:`lock`, for :class:`threading.RLock`: the thread that holds it may acquire it again."""
        options = _options(
            timeout, False, ttl, priority, reason, owner, None, None, max_hold, cancel, on_wait
        )
        return RLock(self._manager, name, options)

    def alock(
        self,
        name: str | Sequence[str],
        *,
        timeout: float | None = None,
        ttl: float | None = None,
        shared: bool = False,
        priority: int = 0,
        reason: str | None = None,
        owner: str | None = None,
        fingerprint: str | None = None,
        renew: bool | None = None,
        max_hold: float | None = None,
        cancel: CancelToken | None = None,
        on_wait: OnWait | None = None,
        slots: int | None = None,
        within: LockHandle | str | None = None,
        reentrant: bool = False,
    ) -> AsyncLock:
        """As :meth:`lock`, for asyncio: ``async with manager.alock("build"):``. A wait costs no thread.
        The owner is the task that acquires, unless somebody says otherwise."""
        owner = owner or (self._owner if within is None else None)
        options = _options(
            timeout, shared, ttl, priority, reason, owner, fingerprint, renew, max_hold, cancel, on_wait, slots,
            within, reentrant,
        )
        return AsyncLock(self._manager, name, options)

    def status(self, name: str) -> dict[str, Any]:
        """The lock as it is: ``name``, ``held``, ``holders``, ``queue``, ``problem``. Times are in
        milliseconds, as in the JSON of every other surface."""
        status: dict[str, Any] = json.loads(self._manager.status(name))
        return status

    def verify(self, name: str, token: int) -> None:
        """Whether somebody holds the lock with this token at this moment.

        :raises LockLost: if nobody does
        """
        self._manager.verify(name, token)

    def graph(self) -> dict[str, Any]:
        """Who waits for whom, as ``edges``, and the deadlocks among them, as ``cycles``."""
        graph: dict[str, Any] = json.loads(self._manager.graph())
        return graph

    def graph_dot(self) -> str:
        """The same in the language of Graphviz."""
        return self._manager.graph_dot()

    def sync(self, remote: LockManager, strategy: str = "remote-wins") -> dict[str, Any]:
        """Brings this repository's locks and those of a remote of it together, for those who worked without a
        connection: what is held in one is held in both, and what has ended in one has ended in both. Call it
        again within every lease. It blocks; in asyncio use ``asyncio.to_thread(locks.sync, remote)``.

        :param remote: a manager of the remote: ``LockManager(path, remote="origin")``
        :param strategy: who keeps a lock that two took: ``"remote-wins"``, ``"oldest"``, ``"highest-priority"``,
            ``"highest-token"``, or ``"fail"`` for nobody; the other one's lock is lost
        :returns: what was changed, as ``changes``, and what couldn't be read, as ``left``
        :raises SyncConflict: with ``"fail"``, once all else is done
        """
        synced: dict[str, Any] = json.loads(self._manager.sync(remote._manager, strategy))
        return synced

    def list(self) -> dict[str, Any]:
        """Every lock that is held, as ``locks``, and what else is under the prefix, as ``foreign``."""
        listing: dict[str, Any] = json.loads(self._manager.list())
        return listing

    def log(self, name: str, most: int = 100) -> Dicts:
        """The newest entries of a lock's journal, newest first."""
        entries: Dicts = json.loads(self._manager.log(name, most))["entries"]
        return entries

    def break_lock(self, name: str, *, id: str | None = None, reason: str | None = None) -> Dicts:
        """Ends tenures by force, whoever holds them: that of this id, or all of the lock's. The journal
        says who did it and why. Returns the holders that were.

        :raises LockLost: if there is nothing to break
        """
        broken: Dicts = json.loads(self._manager.break_lock(name, id, reason))["broken"]
        return broken

    def clean(self, grace: float | None = None) -> dict[str, Any]:
        """Ends what has ended by itself in every lock, and deletes superseded objects that are older
        than ``grace`` seconds; 600."""
        cleaned: dict[str, Any] = json.loads(self._manager.clean(grace))
        return cleaned

    def doctor(self, fix: bool = False) -> Dicts:
        """Looks for what crashes leave behind, and for records that can't be read; with ``fix``, does what is safe."""
        findings: Dicts = json.loads(self._manager.doctor(fix))["findings"]
        return findings

    def release(self, handle: LockHandle | str) -> None:
        """Releases a tenure by its handle.

        :raises LockLost: if it has ended
        :raises NotOwner: if it is somebody else's
        """
        self._manager.release(str(handle))

    def extend(self, handle: LockHandle | str, ttl: float | None = None) -> float:
        """Extends a tenure by its handle, to its own length or the given one from now. Returns the
        seconds it lasts from here on. Raises what :meth:`release` does."""
        return self._manager.extend(str(handle), ttl)

    def resume(self, handle: LockHandle | str) -> Lock:
        """Goes on with a tenure that another process, or a lock that was detached, began. Returns the
        lock, acquired. Raises what :meth:`release` does."""
        guard = self._manager.resume(str(handle))
        options = _options(None, guard.shared, None, 0, None, None, None, None, None, None, None)
        return Lock(self._manager, guard.name, options, guard)
