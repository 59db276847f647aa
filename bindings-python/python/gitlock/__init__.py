"""A lock manager whose only database is a Git repository.

>>> import gitlock
>>> locks = gitlock.LockManager(repository)
>>> with locks.lock("build") as lock:
...     print(lock.token > 0)
True

A lock is the ref ``refs/gitvan/locks/<name>`` of the repository: everybody who can write it, in
whatever language, shares it. Locks are leases. They are renewed while they are held, and a lock
that is lost all the same, because the process was stopped for too long or somebody broke it, says
so: see :meth:`Lock.is_lost`, :meth:`Lock.on_lost`, and :attr:`Lock.token` for what must never
happen twice.
"""

from ._asyncio import AsyncLock
from ._errors import (
    BY_CODE,
    Cancelled,
    Deadlock,
    Forked,
    Held,
    InternalError,
    InvalidArgument,
    InvalidName,
    LockError,
    LockLost,
    NameBlocked,
    NotARepository,
    NotOwner,
    QueueFull,
    RecordCorrupt,
    RecordMissing,
    RecordTooNew,
    RefChanged,
    RefsRefused,
    RepositoryBusy,
    RepositoryError,
    RepositoryNotWritable,
    SlotsDiffer,
    StorageFull,
    SyncConflict,
    Timeout,
    Unsupported,
    Untrusted,
)
from ._gitlock import CancelToken, __version__
from ._handle import LockHandle
from ._locks import Lock, RLock
from ._manager import LockManager
from ._multi import AsyncMultiLock, MultiLock, Repositories

__all__ = [
    "AsyncLock",
    "AsyncMultiLock",
    "BY_CODE",
    "CancelToken",
    "Cancelled",
    "Deadlock",
    "Forked",
    "Held",
    "InternalError",
    "InvalidArgument",
    "InvalidName",
    "Lock",
    "LockError",
    "LockHandle",
    "LockLost",
    "LockManager",
    "MultiLock",
    "NameBlocked",
    "NotARepository",
    "NotOwner",
    "QueueFull",
    "RLock",
    "RecordCorrupt",
    "RecordMissing",
    "RecordTooNew",
    "RefChanged",
    "RefsRefused",
    "Repositories",
    "RepositoryBusy",
    "RepositoryError",
    "RepositoryNotWritable",
    "SlotsDiffer",
    "StorageFull",
    "SyncConflict",
    "Timeout",
    "Unsupported",
    "Untrusted",
    "__version__",
]
