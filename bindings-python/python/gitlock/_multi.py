"""Locks in several repositories at once: in all of them, or in most."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from ._asyncio import granted
from ._errors import Held, LockError, Timeout
from ._gitlock import CancelToken, MultiGuard
from ._gitlock import Repositories as Core
from ._locks import _wait
from ._manager import AcquireOptions, LockManager, OnWait, _options
from ._tenures import Tenures, owner


class _MultiTenure:
    """What a lock in several repositories can tell about what it holds."""

    def __init__(self, core: Core, names: list[str], quorum: bool, options: AcquireOptions) -> None:
        self._core = core
        self._quorum = quorum
        self._options = options
        #: Every lock that is taken together.
        self.names = names
        # Several where threads or tasks share it.
        self._guards: Tenures[MultiGuard] = Tenures(names[0] if names else "")

    def _check_free(self) -> None:
        # In several repositories nobody would find that it waits for itself.
        own = self._guards.own()
        if own is None:
            return
        if not own.is_lost():
            raise RuntimeError(f"the lock {self.names[0]!r} is acquired here already")
        self._guards.drop(own)

    @property
    def token(self) -> int:
        """The fencing token: it grows with every grant by the same repositories in the same way, whichever of them
        took part."""
        return self._guards.meant().token

    def is_lost(self) -> bool:
        """Whether it is held in too few repositories. ``False`` is as old as the question."""
        return self._guards.meant().is_lost()

    def validity(self) -> float:
        """For how many seconds it is safe from here on without another renewal."""
        return self._guards.meant().validity()

    def held_in(self) -> list[str]:
        """Where it is held at this moment."""
        return self._guards.meant().held_in()

    def on_lost(self, listener: Callable[[], object]) -> None:
        """Calls ``listener()`` once, on a thread of gitlock's own, when it is held in too few. A release doesn't."""
        self._guards.meant().on_lost(listener)


class MultiLock(_MultiTenure):
    """A lock in several repositories. :meth:`Repositories.all` and :meth:`Repositories.quorum` make it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Acquires the lock, waiting for it where it is held. Returns whether it did.

        :param blocking: whether to wait
        :param timeout: for how many seconds at most, for all repositories together; -1: as long as it takes
        :raises RepositoryError: if too few of the repositories can be used
        """
        self._check_free()
        wait = _wait(blocking, timeout)
        try:
            guard = self._core.acquire(self.names, self._quorum, {**self._options, "wait": wait})
        except (Held, Timeout):
            return False
        self._guards.add(guard)
        return True

    def release(self) -> None:
        """Ends it in every repository.

        :raises RuntimeError: if it isn't acquired here
        :raises LockLost: if it was held in too few, so that the work under it may have overlapped another's
        """
        self._guards.take().release()

    def extend(self, ttl: float | None = None) -> None:
        """Makes the leases last another ttl from now, or the given one, and acquires it in the repositories that can
        be used again.

        :raises LockLost: if it is held in too few
        """
        self._guards.meant().extend(ttl)

    def __enter__(self) -> MultiLock:
        self._check_free()
        self._guards.add(self._core.acquire(self.names, self._quorum, self._options))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class AsyncMultiLock(_MultiTenure):
    """A lock in several repositories, for asyncio. :meth:`Repositories.aall` and :meth:`Repositories.aquorum` make
    it. What asks the repositories happens on another thread."""

    async def acquire(self, timeout: float | None = None) -> bool:
        """Acquires the lock, waiting for it where it is held; returns ``True``. Cancelling the task ends the wait,
        and gives back what was granted at the same moment.

        :param timeout: for how many seconds at most, for all repositories together; ``None``: as long as it takes
        :raises Timeout: when they are over
        :raises Held: if that is 0, and somebody holds it
        :raises RepositoryError: if too few of the repositories can be used
        """
        self._check_free()
        options: AcquireOptions = {**self._options, "wait": timeout, "owner": self._options["owner"] or owner()}

        def start(done: Callable[[MultiGuard | None, LockError | None], None]) -> CancelToken:
            return self._core.start(self.names, self._quorum, options, done)

        self._guards.add(await granted(start))
        return True

    async def release(self) -> None:
        """As :meth:`MultiLock.release`."""
        guard = self._guards.take()
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, guard.release))

    async def extend(self, ttl: float | None = None) -> None:
        """As :meth:`MultiLock.extend`. Cancelling the task leaves it to its end."""
        guard = self._guards.meant()
        await asyncio.get_running_loop().run_in_executor(None, guard.extend, ttl)

    async def __aenter__(self) -> AsyncMultiLock:
        await self.acquire(self._options["wait"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()


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
        """A lock in a majority of the repositories, whichever can be used, and in the others when they can. One
        that is away isn't waited for; one in which somebody holds the lock is. The options are those of :meth:`all`."""
        lock = self.all(name, **options)
        lock._quorum = True
        return lock

    def aall(self, *names: str, **options: Any) -> AsyncMultiLock:
        """As :meth:`all`, for asyncio: ``async with three.aall("deploy"):``. The owner is the task that acquires,
        unless somebody says otherwise."""
        return AsyncMultiLock(self._core, list(names), False, self.all(*names, **options)._options)

    def aquorum(self, name: str, **options: Any) -> AsyncMultiLock:
        """As :meth:`quorum`, for asyncio."""
        lock = self.aall(name, **options)
        lock._quorum = True
        return lock
