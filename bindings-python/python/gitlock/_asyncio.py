"""Locks for asyncio. A wait lives on the core's own thread and blocks no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, TypeVar

from ._errors import LockError
from ._gitlock import CancelToken, Guard
from ._locks import _Holding, _words
from ._tenures import owner


class Cancellable(Protocol):
    """A wait."""

    def cancel(self) -> None: ...


class Releasable(Protocol):
    """What a wait is granted."""

    def release(self) -> None: ...


G = TypeVar("G", bound=Releasable)


async def granted(start: Callable[[Callable[[G | None, LockError | None], None]], Cancellable]) -> G:
    """What a wait is granted that ``start(done)`` starts. Cancelling the task ends the wait, and gives back what
    was granted at the same moment."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[G] = loop.create_future()

    def settle(guard: G | None, error: LockError | None) -> None:
        if future.cancelled():
            if guard is not None:
                give_back(guard)
        elif guard is not None:
            future.set_result(guard)
        elif error is not None:
            future.set_exception(error)

    def give_back(guard: G) -> None:
        # Somebody else may be waiting for it; and a release waits for the disk.
        loop.run_in_executor(None, _release, guard)

    def done(guard: G | None, error: LockError | None) -> None:
        # On another thread.
        try:
            loop.call_soon_threadsafe(settle, guard, error)
        except RuntimeError:
            # The loop is closed: nobody waits any more.
            if guard is not None:
                _release(guard)

    waiting = start(done)
    try:
        return await future
    except asyncio.CancelledError:
        waiting.cancel()
        if future.done() and not future.cancelled() and future.exception() is None:
            give_back(future.result())
        raise


def _release(guard: Releasable) -> None:
    try:
        guard.release()
    except LockError:
        # Nobody worked under it.
        pass


class AsyncLock(_Holding):
    """A lock as :class:`asyncio.Lock`, between processes. :meth:`gitlock.LockManager.alock` makes it."""

    async def acquire(self, timeout: float | None = None) -> bool:
        """Acquires the lock, waiting for it in the order of arrival; returns ``True``. Cancelling the
        task ends the wait, and gives back what was granted at the same moment.

        :param timeout: for how many seconds at most; ``None``: as long as it takes
        :raises Timeout: when they are over
        :raises Held: if that is 0, and somebody holds it
        :raises Cancelled: if the lock's ``cancel`` ended the wait
        """
        # Within another tenure its owner acquires.
        session = self._options["owner"] or (None if self._options["within"] else owner())
        options = {**self._options, "wait": timeout, "owner": session}

        def start(done: Callable[[Guard | None, LockError | None], None]) -> Cancellable:
            return self._manager.start(self.names, options, done)  # type: ignore[arg-type]

        guard = await granted(start)
        self._guards.add(guard)
        return True

    async def upgrade(self, timeout: float | None = None) -> None:
        """As :meth:`Lock.upgrade`, on a thread of the loop's executor. Cancelling the task ends the wait,
        and turns back what was granted at the same moment.

        :param timeout: for how many seconds at most; ``None``: as long as it takes
        """
        guard, token = self._guards.meant(), CancelToken()
        loop = asyncio.get_running_loop()
        upgrading = loop.run_in_executor(None, guard.upgrade, timeout, token)

        def turn_back(done: asyncio.Future[None]) -> None:
            if not done.cancelled() and done.exception() is None:
                loop.run_in_executor(None, guard.downgrade)

        try:
            await asyncio.shield(upgrading)
        except asyncio.CancelledError:
            token.cancel()
            upgrading.add_done_callback(turn_back)
            raise

    async def update_refs(self, updates: Iterable[Sequence[str]], *, message: str | None = None) -> None:
        """As :meth:`Lock.update_refs`, on a thread of the loop's executor. Cancelling the task leaves it to
        its end."""
        guard = self._guards.meant()
        await asyncio.get_running_loop().run_in_executor(None, guard.update_refs, _words(updates), message)

    async def push(self, *refspecs: str) -> None:
        """As :meth:`Lock.push`, on a thread of the loop's executor. Cancelling the task leaves it to its end."""
        guard = self._guards.meant()
        await asyncio.get_running_loop().run_in_executor(None, guard.push, list(refspecs))

    async def release(self) -> None:
        """Releases the lock, and hands it to whoever is next.

        :raises RuntimeError: if it isn't acquired here
        :raises LockLost: if the tenure had ended before
        """
        guard = self._guards.take()
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, guard.release))

    async def __aenter__(self) -> AsyncLock:
        await self.acquire(self._options["wait"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()
