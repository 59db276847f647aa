"""Locks for threads: what ``threading.Lock`` and ``threading.RLock`` promise, between processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ._errors import Held, LockError, Timeout
from ._gitlock import Guard, Manager
from ._handle import LockHandle
from ._tenures import Tenures

if TYPE_CHECKING:
    from ._manager import AcquireOptions


def _wait(blocking: bool, timeout: float) -> float | None:
    """How long to wait, checked as ``threading.Lock.acquire`` checks it."""
    if not blocking:
        if timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        return 0.0
    if timeout == -1:
        return None
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")
    return timeout


def _words(updates: Iterable[Sequence[str]]) -> list[list[str]]:
    """Each change as its words: of a string those of the line."""
    return [update.split(" ") if isinstance(update, str) else list(update) for update in updates]


class _Holding:
    """What locks of every kind can tell about what they hold."""

    _manager: Manager
    _options: AcquireOptions
    #: The lock's name; of several the first.
    name: str

    def __init__(
        self,
        manager: Manager,
        name: str | Sequence[str],
        options: AcquireOptions,
        guard: Guard | None = None,
    ) -> None:
        self._manager = manager
        self._options = options
        #: Every lock that is taken together.
        self.names: list[str] = [name] if isinstance(name, str) else list(name)
        self.name = self.names[0] if self.names else ""
        # Several where threads or tasks share it.
        self._guards: Tenures[Guard] = Tenures(self.name, [] if guard is None else [guard])

    def locked(self) -> bool:
        """Whether anybody holds the lock, here or elsewhere."""
        return bool(json.loads(self._manager.status(self.name))["held"])

    @property
    def token(self) -> int:
        """The fencing token: it grows with every grant of this lock. Give it to whatever the lock
        protects, and let that refuse a token lower than one it has seen."""
        return self._guards.meant().token

    @property
    def tokens(self) -> dict[str, int]:
        """The fencing token of each of several locks."""
        return dict(self._guards.meant().tokens())

    @property
    def slot(self) -> int | None:
        """Which slot it has, from 0, if it was taken as one of several."""
        return self._guards.meant().slot

    def downgrade(self) -> None:
        """Turns an exclusive tenure into a shared one, and lets in the readers who are first in the queue."""
        self._guards.meant().downgrade()

    def wanted(self) -> dict[str, Any]:
        """How many wait for what this holds, as ``waiters``, and the highest ``priority`` among them."""
        wanted: dict[str, Any] = json.loads(self._guards.meant().wanted())
        return wanted

    def on_wanted(self, listener: Callable[[int, int | None], object]) -> None:
        """Calls ``listener(waiters, priority)`` whenever others begin or cease to wait for what this
        holds, on a thread of gitlock's own, so that it can let go early."""
        self._guards.meant().on_wanted(listener)

    @property
    def id(self) -> str:
        """The tenure's id."""
        return self._guards.meant().id

    def is_lost(self) -> bool:
        """Whether the tenure has ended, by this process's own clock or by what was found in the
        repository. ``False`` is as old as the question."""
        return self._guards.meant().is_lost()

    def remaining(self) -> float:
        """For how many seconds the tenure is safe from here on without another renewal."""
        return self._guards.meant().remaining()

    def extend(self, ttl: float | None = None) -> None:
        """Makes the lease last another ttl from now, or the given one.

        :raises LockLost: if it has ended, even if nobody has taken the lock since
        """
        self._guards.meant().extend(ttl)

    def on_lost(self, listener: Callable[[LockError], object]) -> None:
        """Calls ``listener`` with a :class:`LockLost` once, on a thread of gitlock's own, when the
        tenure is lost; soon, if it is lost already. A release doesn't call it."""
        self._guards.meant().on_lost(listener)

    def handle(self) -> LockHandle:
        """The tenure as something for another process to go on with."""
        return LockHandle(self._guards.meant().handle())

    def detach(self) -> LockHandle:
        """The same, and the tenure goes on without this process, until its lease ends."""
        guard = self._guards.meant()
        handle = LockHandle(guard.detach())
        self._guards.drop(guard)
        return handle

    def __repr__(self) -> str:
        state = "locked" if self._guards else "unlocked"
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return f"<{state} {kind} object name={self.name!r} at {hex(id(self))}>"


class _Blocking(_Holding):
    """What takes a while, and blocks."""

    def update_refs(self, updates: Iterable[Sequence[str]], *, message: str | None = None) -> None:
        """Changes other refs of the repository, so that a holder which has lost its lease can't: in one
        transaction of ``git update-ref``, in which the lock must still be held. Reflogs, symbolic refs and
        hooks are Git's own. Either all of the changes are made or none, and the lease lasts another ttl.

        :param updates: what ``git update-ref --stdin`` reads, each as a line or as its words:
            ``("update", ref, new)``, ``("update", ref, new, old)``, ``("create", ref, new)``,
            ``("delete", ref)``, ``("delete", ref, old)``, ``("verify", ref, old)``, and ``("no-deref", ...)``
            where a symbolic ref is itself meant
        :param message: for the reflogs; by default it names the lock
        :raises LockLost: if the tenure has ended
        :raises RefChanged: if a ref isn't as expected
        :raises RefsRefused: if Git or a hook says no
        :raises InvalidArgument: for what isn't there, or belongs to gitlock
        :raises Unsupported: without a ``git`` program
        """
        self._guards.meant().update_refs(_words(updates), message)

    def push(self, *refspecs: str) -> None:
        """Pushes refs of the repository on this machine to the server that the lock lives on, so that a holder
        which has lost its lease can't: in one atomic push with the lock's renewal, of which the server takes
        all or nothing. What they lead to is sent along, after the repository's pre-push hook. The lease lasts
        another ttl; while the pack is sent it isn't renewed otherwise, so give it one longer than that takes.

        :param refspecs: what ``git push`` reads: ``"main"``, ``"HEAD"``, ``"source:target"``, ``":target"`` to
            delete, and with ``+`` before it to let a branch go elsewhere than forward, or a tag change
        :raises LockLost: if the tenure has ended
        :raises RefChanged: if a ref there isn't what comes before the pushed one
        :raises RefsRefused: if the server or a hook says no
        :raises InvalidArgument: for what isn't there, or belongs to gitlock
        :raises Unsupported: if the server has no atomic pushes, if the lock isn't at a server, without a
            repository to push from, or without a ``git`` program
        """
        self._guards.meant().push(list(refspecs))


class Lock(_Blocking):
    """A lock that behaves as :class:`threading.Lock` does, between processes.
    :meth:`gitlock.LockManager.lock` makes it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquires the lock, waiting for it in the order of arrival. Returns whether it did.

        :param blocking: whether to wait
        :param timeout: for how many seconds at most; -1: as long as it takes
        :raises Cancelled: if the lock's ``cancel`` ended the wait
        """
        wait = _wait(blocking, timeout)
        try:
            if wait == 0:
                guard = self._manager.acquire_now(self.names, self._options)
            else:
                guard = self._manager.acquire(self.names, {**self._options, "wait": wait})
        except (Held, Timeout):
            return False
        self._guards.add(guard)
        return True

    def _enter(self) -> None:
        self._guards.add(self._manager.acquire(self.names, self._options))

    def upgrade(self, timeout: float = -1) -> None:
        """Turns a shared tenure into an exclusive one without letting go: waits for the other holders
        to leave, before everybody who queues. The token is a higher one from then on.

        :param timeout: for how many seconds at most; -1: as long as it takes
        :raises Timeout: when they are over, or :class:`Held` after 0
        :raises Deadlock: if another holder waits to upgrade too
        """
        self._guards.meant().upgrade(_wait(True, timeout), None)

    def release(self) -> None:
        """Releases the lock, and hands it to whoever is next. Any thread may do it.

        :raises RuntimeError: if it isn't acquired here
        :raises LockLost: if the tenure had ended before, so that the work under it may have
            overlapped another's
        """
        self._guards.take().release()

    def __enter__(self) -> Lock:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class RLock(_Blocking):
    """A lock that behaves as :class:`threading.RLock` does, between processes: the thread that holds
    it may acquire it again, and releases it as often. :meth:`gitlock.LockManager.rlock` makes it."""

    def __init__(self, manager: Manager, name: str, options: AcquireOptions) -> None:
        super().__init__(manager, name, options)
        self._lock = Lock(manager, name, options)
        self._guards = self._lock._guards
        self._thread: int | None = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As :meth:`Lock.acquire`; at once for the thread that holds it."""
        if self._is_owned():
            _wait(blocking, timeout)
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._thread, self._count = threading.get_ident(), 1
        return True

    def release(self) -> None:
        """Undoes one acquire; the last one releases the lock.

        :raises RuntimeError: if this thread doesn't hold it
        :raises LockLost: as :meth:`Lock.release`
        """
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if self._count == 0:
            self._thread = None
            self._lock.release()

    def __enter__(self) -> RLock:
        if not self._is_owned():
            self._lock._enter()
            self._thread = threading.get_ident()
        self._count += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._thread == threading.get_ident()

    # What threading.Condition asks of a lock that may be held several times.

    def _release_save(self) -> int:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        count, self._count, self._thread = self._count, 0, None
        self._lock.release()
        return count

    def _acquire_restore(self, count: int) -> None:
        self._lock.acquire()
        self._thread, self._count = threading.get_ident(), count
