"""A worker of the hosts, in Python. What it does is in README.md."""

import random
import select
import socket
import sys
from pathlib import Path

import gitlock

ROOT, REPO, REMOTE, ROLE, SEED = sys.argv[1:6]
RANDOM = random.Random(int(SEED))


def rest(seconds: float) -> None:
    # time.sleep fails under libfaketime.
    select.select([], [], [], RANDOM.random() * seconds)


def say(line: str) -> None:
    with socket.socket(socket.AF_UNIX) as resource:
        resource.connect(f"{ROOT}/resource")
        resource.sendall((line.replace("\n", " | ") + "\n").encode())
        resource.recv(64)


def turn(locks: gitlock.LockManager) -> None:
    name = RANDOM.choice(("build", "deploy", "docs", "release", "site", "test"))
    lock = locks.lock(name, ttl=3.0)
    try:
        if not lock.acquire(timeout=15):
            return say(f"failed {ROLE} TIMEOUT")
    except gitlock.LockError as error:
        return say(f"failed {ROLE} {error.code} {error}")
    token = lock.token
    say(f"enter {name} {token} {ROLE}")
    rest(0.03)
    say(f"leave {name} {token}")
    try:
        lock.release()
        result = "ok"
    except gitlock.LockError as error:
        result = error.code
    say(f"result {name} {token} {result}")


manager = gitlock.LockManager(REPO, remote=REMOTE, poll_interval=0.15, remote_timeout=2.0)
while not Path(ROOT, "stop").exists():
    turn(manager)
    rest(0.02)
