"""CPython's own tests of locks (test.lock_tests), run against gitlock's.

Every case runs but those in ``NOT_APPLICABLE``, which says why; a case there that CPython doesn't
have, or that passes, fails the suite.
"""

import itertools
import subprocess
import tempfile
import unittest

import gitlock
import pytest

lock_tests = pytest.importorskip("test.lock_tests", reason="this Python comes without its own tests")

NOT_APPLICABLE = {
    # A fork must not free what its parent holds: that is what a lock between processes is for.
    "test_at_fork_reinit": "the hook by which threading frees its locks in a forked child, private to it",
    # Newer Pythons count; test_reacquire and test_release_save_unacquired cover what is promised.
    "test_recursion_count": "RLock._recursion_count(), private to threading",
}

_numbers = itertools.count()
_folder = tempfile.TemporaryDirectory()
_manager = None


def manager():
    global _manager
    if _manager is None:
        subprocess.run(["git", "init", "-q", _folder.name], check=True)
        _manager = gitlock.LockManager(_folder.name)
    return _manager


def lock():
    """Each of CPython's locks is one of its own."""
    return manager().lock(f"lock-{next(_numbers)}")


def rlock():
    return manager().rlock(f"rlock-{next(_numbers)}")


class Lock(lock_tests.LockTests):
    locktype = staticmethod(lock)


class RLock(lock_tests.RLockTests):
    locktype = staticmethod(rlock)


class ConditionOnLock(unittest.TestCase):
    """threading.Condition over them."""

    def test_conditions_wait_on_both_kinds(self):
        import threading

        for make in (lock, rlock):
            condition, ready = threading.Condition(make()), []

            def work():
                with condition:
                    ready.append(True)
                    condition.notify()

            with condition:
                thread = threading.Thread(target=work)
                thread.start()
                self.assertTrue(condition.wait_for(lambda: ready, timeout=30))
            thread.join()


def _leave_out(case):
    for name, why in NOT_APPLICABLE.items():
        if hasattr(case, name):
            setattr(case, name, unittest.skip(why)(getattr(case, name)))


_leave_out(Lock)
_leave_out(RLock)


def test_what_is_left_out_exists_somewhere():
    known = [name for name in NOT_APPLICABLE if hasattr(Lock, name) or hasattr(RLock, name)]
    assert "test_at_fork_reinit" in known
