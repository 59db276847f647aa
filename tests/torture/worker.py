"""A worker of the torture, in Python. What it does is in README.md."""

import os
import random
import sys
import time
from pathlib import Path

import gitlock

ROLE = "python"


class Worker:
    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        start = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]
        self.stamp = f"{os.getpid()} {start} {ROLE}"
        self.mine = root / "oracle" / f"me.{os.getpid()}.{ROLE}"
        self.mine.write_text(self.stamp)

    def append(self, file: str, line: str) -> None:
        out = os.open(self.root / file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o666)
        os.write(out, (line.replace("\n", " ") + "\n").encode())
        os.close(out)

    def fault(self, what: str) -> None:
        self.append("faults", f"{ROLE}: {what}")

    def rest(self, seconds: float) -> None:
        time.sleep(self.random.random() * seconds)

    def gate(self, shared: bool) -> Path:
        return self.root / "oracle" / (f"shared.{os.getpid()}" if shared else "exclusive")

    def enter(self, shared: bool) -> None:
        try:
            os.link(self.mine, self.gate(shared))
        except OSError as error:
            self.fault(f"DOUBLE GRANT: on entering: {error}")
        if shared:
            others = [self.gate(False)] if self.gate(False).exists() else []
        else:
            others = list((self.root / "oracle").glob("shared.*"))
        for other in others:
            self.fault(f"DOUBLE GRANT: inside beside {other.name}")

    def leave(self, shared: bool) -> None:
        gate = self.gate(shared)
        text = gate.read_text() if gate.exists() else None
        if text == self.stamp:
            gate.unlink()
        else:
            self.fault(f"DOUBLE GRANT: on leaving, [{text}] is inside")

    def turn(self, locks: gitlock.LockManager) -> None:
        shared = self.random.randrange(6) == 0
        lock = locks.lock("build", shared=shared, ttl=3.0)
        try:
            if not lock.acquire(timeout=20):
                return self.fault("acquire failed: 20 s were not enough")
            self.append("log", f"E {ROLE} {'s' if shared else 'x'} {lock.token}")
            self.enter(shared)
            if self.random.randrange(16) == 0:
                self.rest(0.003)
            self.leave(shared)
            lock.release()
        except gitlock.LockError as error:
            self.fault(f"acquire or release failed: {error.code} {error}")

    def run(self) -> None:
        locks = gitlock.LockManager(self.root / "repo")
        while not (self.root / "stop").exists():
            self.turn(locks)
            self.rest(0.0015 if self.random.randrange(40) else 0.06)
        self.mine.unlink()


Worker(Path(sys.argv[1]), int(sys.argv[2])).run()
