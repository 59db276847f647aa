"""A tenure as something that can be sent elsewhere."""

from __future__ import annotations

from ._gitlock import describe_handle, handle_by_fingerprint


class LockHandle:
    """A tenure and the right to it. ``str()`` of it, or a pickle, can be handed to another process,
    in whatever language, which may then extend, release or resume the tenure: treat it like a password.

    >>> handle = LockHandle.by_fingerprint("build", "build-session-123")
    >>> LockHandle(str(handle)) == handle
    True
    """

    __slots__ = ("_text", "name", "id", "token")

    #: The lock.
    name: str
    #: The tenure's id, if it is known.
    id: str | None
    #: The fencing token, if it is known.
    token: int | None

    def __init__(self, text: str) -> None:
        self._text = text
        self.name, self.id, self.token = describe_handle(text)

    @classmethod
    def by_fingerprint(cls, name: str, fingerprint: str) -> LockHandle:
        """The handle of the tenure that was acquired with this fingerprint."""
        return cls(handle_by_fingerprint(name, fingerprint))

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        # Without the secret, so that it can be logged.
        return f"<{type(self).__module__}.{type(self).__qualname__} name={self.name!r} id={self.id!r}>"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, LockHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> tuple[type[LockHandle], tuple[str]]:
        return type(self), (self._text,)
