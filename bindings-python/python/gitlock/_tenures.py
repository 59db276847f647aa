"""What one lock object holds, for each thread or task that uses it."""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from ._gitlock import thread_owner

G = TypeVar("G")

_numbers = itertools.count(1)
_owners: weakref.WeakKeyDictionary[asyncio.Task[Any], str] = weakref.WeakKeyDictionary()


def owner() -> str:
    """The session of the present task, or of the thread where there is none."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        # No loop runs here.
        task = None
    if task is None:
        return thread_owner()
    if task not in _owners:
        _owners[task] = f"{thread_owner()}/task-{next(_numbers)}"
    return _owners[task]


class Tenures(Generic[G]):
    """The guards of a lock object. Whoever acquired one means that one; anybody else the newest, since a lock may be
    released by another thread than acquired it."""

    def __init__(self, name: str, guards: Iterable[G] = ()) -> None:
        self._name = name
        # Changed by single operations of the list alone, which no other thread can come in between.
        self._guards: list[tuple[str, G]] = [(owner(), guard) for guard in guards]

    def add(self, guard: G) -> None:
        """Keeps what was granted to this thread or task."""
        self._guards.append((owner(), guard))

    def own(self) -> G | None:
        """The newest that this thread or task acquired, if it has one."""
        me = owner()
        return next((guard for whose, guard in reversed(self._guards[:]) if whose == me), None)

    def meant(self) -> G:
        """The one that is meant here."""
        own, guards = self.own(), self._guards[:]
        if own is not None:
            return own
        if not guards:
            raise RuntimeError(f"the lock {self._name!r} isn't acquired here")
        return guards[-1][1]

    def take(self) -> G:
        """The same, and it isn't kept any more."""
        while self._guards:
            meant = self.meant()
            if self.drop(meant):
                return meant
        raise RuntimeError("release unlocked lock")

    def drop(self, guard: G) -> bool:
        """Keeps it no longer. Returns whether it was kept, and no other thread dropped it at the same moment."""
        for entry in self._guards[:]:
            if entry[1] is guard:
                try:
                    self._guards.remove(entry)
                except ValueError:
                    return False
                return True
        return False

    def __bool__(self) -> bool:
        return bool(self._guards)
