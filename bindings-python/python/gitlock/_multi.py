"""Locks in several repositories at once: in all of them, or in most."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from ._errors import Held, Timeout
from ._gitlock import CancelToken, MultiGuard
from ._gitlock import Repositories as Core
from ._locks import _wait
from ._manager import AcquireOptions, LockManager, OnWait, _options


class MultiLock:
    """A lock in several repositories. :meth:`Repositories.all` and :meth:`Repositories.quorum` make it."""

    def __init__(self, core: Core, names: list[str], quorum: bool, options: AcquireOptions) -> None:
        self._core = core
        self._quorum = quorum
        self._options = options
        #: Every lock that is taken together.
        self.names = names
        self._guard: MultiGuard | None = None

    def _held(self) -> MultiGuard:
        if self._guard is None:
            raise RuntimeError(f"the lock {self.names[0]!r} isn't acquired here")
        return self._guard

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquires the lock, waiting for it where it is held. Returns whether it did.

        :param blocking: whether to wait
        :param timeout: for how many seconds at most, for all repositories together; -1: as long as it takes
        :raises RepositoryError: if too few of the repositories can be used
        """
        if self._guard is not None and not self._guard.is_lost():
            raise RuntimeError(f"the lock {self.names[0]!r} is acquired here already")
        wait = _wait(blocking, timeout)
        try:
            self._guard = self._core.acquire(self.names, self._quorum, {**self._options, "wait": wait})
        except (Held, Timeout):
            return False
        return True

    def release(self) -> None:
        """Ends it in every repository.

        :raises RuntimeError: if it isn't acquired here
        :raises LockLost: if it was held in too few, so that the work under it may have overlapped another's
        """
        guard = self._held()
        self._guard = None
        guard.release()

    def __enter__(self) -> MultiLock:
        if self._guard is not None and not self._guard.is_lost():
            raise RuntimeError(f"the lock {self.names[0]!r} is acquired here already")
        self._guard = self._core.acquire(self.names, self._quorum, self._options)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def token(self) -> int:
        """The fencing token: it grows with every grant by the same repositories in the same way, whichever of them
        took part."""
        return self._held().token

    def is_lost(self) -> bool:
        """Whether it is held in too few repositories. ``False`` is as old as the question."""
        return self._held().is_lost()

    def validity(self) -> float:
        """For how many seconds it is safe from here on without another renewal."""
        return self._held().validity()

    def held_in(self) -> list[str]:
        """Where it is held at this moment."""
        return self._held().held_in()

    def extend(self, ttl: float | None = None) -> None:
        """Makes the leases last another ttl from now, or the given one, and acquires it in the repositories that can
        be used again.

        :raises LockLost: if it is held in too few
        """
        self._held().extend(ttl)

    def on_lost(self, listener: Callable[[], object]) -> None:
        """Calls ``listener()`` once, on a thread of gitlock's own, when it is held in too few. A release doesn't."""
        self._held().on_lost(listener)


class Repositories:
    """Several repositories in which locks are taken together. Everybody has to name the same ones, in the same words;
    the order doesn't matter.

    :param managers: one for each
    :raises InvalidArgument: for none, and for the same one twice
    """

    def __init__(self, managers: Iterable[LockManager]) -> None:
        self._core = Core([manager._manager for manager in managers])

    def all(
        self,
        *names: str,
        timeout: float | None = None,
        ttl: float | None = None,
        shared: bool = False,
        priority: int = 0,
        reason: str | None = None,
        owner: str | None = None,
        max_hold: float | None = None,
        cancel: CancelToken | None = None,
        on_wait: OnWait | None = None,
    ) -> MultiLock:
        """These locks in every repository, or none. The options are those of :meth:`LockManager.lock`."""
        options = _options(timeout, shared, ttl, priority, reason, owner, None, None, max_hold, cancel, on_wait)
        return MultiLock(self._core, list(names), False, options)

    def quorum(self, name: str, **options: Any) -> MultiLock:
        """A lock in a majority of the repositories, whichever can be used, and in the others when they can. The
        options are those of :meth:`all`."""
        lock = self.all(name, **options)
        lock._quorum = True
        return lock
