"""A build under a lock: ``python build.py REPOSITORY COMMAND``."""

import os
import subprocess
import sys

import gitlock


def main(repository: str = ".", command: str = "make") -> int:
    locks = gitlock.LockManager(repository)
    with locks.lock("build-lock", timeout=60, reason="an example in Python") as lock:
        build = subprocess.Popen(command, shell=True, env={**os.environ, "GIT_LOCK_TOKEN": str(lock.token)})
        lock.on_lost(lambda error: build.kill())  # whoever is next must not meet it
        status = build.wait()
    return status if status >= 0 else 1


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:3]))
    except gitlock.LockError as error:  # it says what happened, who holds the lock, and what to do
        print(f"build: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, gitlock.LockLost) else 1)
