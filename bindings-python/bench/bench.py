"""``cargo xtask bench --surfaces``: acquire and release of a free lock from Rust, C and Python, and what else Python has.

    python bench.py RUST-PROGRAM C-PROGRAM

Medians of rounds that take turns in one run, so that the ratios hold on a machine that does other things, too. The repository
and the lock file are on tmpfs where there is one; Redis, on loopback, keeps nothing on a disk.
"""

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gitlock

ROUNDS, PAIRS = 25, 200

Arm = Callable[[], float]
skipped: list[str] = []


def timed(pair: Callable[[], object]) -> Arm:
    def run() -> float:
        start = time.perf_counter_ns()
        for _ in range(PAIRS):
            pair()
        return (time.perf_counter_ns() - start) / PAIRS

    return run


def program(path: str, repository: Path) -> Arm:
    child = subprocess.Popen([path, repository], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def run() -> float:
        assert child.stdin and child.stdout
        child.stdin.write(f"{PAIRS}\n")
        child.stdin.flush()
        return float(child.stdout.readline())

    return run


def python(repository: Path) -> Arm:
    lock = gitlock.LockManager(repository).lock("python")

    def pair() -> None:
        lock.acquire()
        lock.release()

    return timed(pair)


def with_filelock(folder: Path) -> Arm | None:
    try:
        import filelock
    except ImportError:
        return skipped.append("filelock isn't installed")
    lock = filelock.FileLock(folder / "file.lock")

    def pair() -> None:
        lock.acquire()
        lock.release()

    return timed(pair)


def with_redis(folder: Path) -> Arm | None:
    if shutil.which("redis-server") is None:
        return skipped.append("redis-server isn't installed: apt-get install redis-server")
    try:
        import redis
    except ImportError:
        return skipped.append("redis-py isn't installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
        stdout=subprocess.DEVNULL,
    )
    children.append(server)
    client = redis.Redis(port=port)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.02)
    lock = client.lock("build", timeout=30)

    def pair() -> None:
        lock.acquire()
        lock.release()

    return timed(pair)


children: list[subprocess.Popen[bytes]] = []


def main(rust: str, c: str) -> None:
    shm = Path("/dev/shm")
    folder = shm if shm.is_dir() else None
    # gitlock tidies up a while after a change, and may put a file there meanwhile.
    with tempfile.TemporaryDirectory(prefix="gitlock-bench-", dir=folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        repository = folder / "repository"
        subprocess.run(["git", "init", "-q", repository], check=True)
        all_arms = {
            "Rust": program(rust, repository),
            "C": program(c, repository),
            "Python": python(repository),
            "Python: filelock": with_filelock(folder),
            "Python: redis-py": with_redis(folder),
        }
        arms = {what: arm for what, arm in all_arms.items() if arm is not None}
        times: dict[str, list[float]] = {what: [] for what in arms}
        try:
            for turn in range(ROUNDS + 1):
                for what, arm in arms.items():
                    nanos = arm()
                    if turn > 0:  # the first warms up
                        times[what].append(nanos)
        finally:
            for child in children:
                child.terminate()
                child.wait()
    print(f"acquire + release of a free lock: medians of {ROUNDS} rounds of {PAIRS} pairs that took turns")
    for what, each in times.items():
        median = statistics.median(each) / 1000
        # Differences of the same round, so that what slows the machine for a while slows both.
        added = statistics.median(one - base for one, base in zip(each, times["Rust"])) / 1000
        ratio = statistics.median(one / base for one, base in zip(each, times["Rust"]))
        print(f"{what:20} {median:9.1f} µs   {added:+9.1f} µs to Rust   {ratio:6.2f}x")
    for what in skipped:
        print(f"NOT RUN: {what}")


main(*sys.argv[1:3])
