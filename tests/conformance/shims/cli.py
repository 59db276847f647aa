"""The shim of the command line: ``cli.py PATH-OF-git-lock``. It does with commands what programs do
with objects: a lock with a fingerprint is one of ``git lock acquire``; any other is held by a
``git lock run`` whose command waits until its input is closed.

tests/conformance/README.md says what is asked and answered.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading

from wire import decode, say

GIT_LOCK = sys.argv[1]
OPERATIONS = (
    "open close acquire try start cancel look extend release token-of wanted watch handle detach handle-of "
    "resume extend-handle release-handle status update-refs push verify list graph log break clean doctor sync everywhere quorum let-go"
)
#: What a run's command prints once it holds the lock; it ends with its input.
HOLD = 'echo "$GIT_LOCK_TOKEN $GIT_LOCK_HANDLE"; exec cat >/dev/null'
#: Option of an acquire, as the command line has it.
NAMES = ("ttl", "wait", "priority", "reason", "max_hold", "slots", "owner")
FLAGS = {name: "--" + name.replace("_", "-") for name in NAMES}
TIMES = ("ttl", "wait", "max_hold")


class Failed(Exception):
    """What a command said on stderr, and how it ended."""

    def __init__(self, exit, said):
        lines = [line for line in said.splitlines() if line.startswith("{")]
        self.exit, self.error = exit, json.loads(lines[-1])["error"] if lines else {"message": said}
        self.error.setdefault("holder", None)

    def told(self):
        return {"class": f"exit {self.exit}", "error": json.dumps(self.error)}


def asked(fields):
    """The options of what is to be acquired. Not to wait is a word of its own."""
    flags = {key: flag for key, flag in FLAGS.items() if key in fields and (key, fields[key]) != ("wait", "0")}
    words = [word for key, flag in flags.items() for word in (flag, as_time(key, fields[key]))]
    if "no_wait" in fields or fields.get("wait") == "0":
        words.append("--no-wait")
    if "shared" in fields:
        words.append("--shared")
    return words + [word for name in fields.get("also", "").split(",") if name for word in ("--also", name)]


class Shim:
    def __init__(self):
        self.where, self.held, self.waits, self.owner = [], {}, {}, None

    def command(self, *words):
        return [GIT_LOCK, *self.where, "--json", *map(str, words)]

    def run(self, *words):
        """Runs a command to its end, and gives what it printed."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, restore_signals=False)
        # The doctor's exit code tells of problems that it has found, which is no failure.
        if done.returncode != 0 and not done.stdout:
            raise Failed(done.returncode, done.stderr)
        return done.stdout

    def acquire(self, fields, wait_as=None):
        if self.owner and "within" not in fields:
            fields = {"owner": self.owner, **fields}
        words = asked(fields) + (["--verbose"] if wait_as else [])
        if "renew" in fields or "reentrant" in fields:
            raise NotImplementedError("renew and reentrant")
        # What another process hands on, as to a command that it runs.
        more = {"GIT_LOCK_HANDLE": fields["within"]} if "within" in fields else {}
        if "fingerprint" in fields:
            command = self.command("acquire", *words, "--fingerprint", fields["fingerprint"], "--", fields["name"])
        else:
            command = self.command("run", *words, "--", fields["name"], "sh", "-c", HOLD)
        return Tenure(self, fields["name"], command, wait_as, more=more)

    def several(self, verb, fields):
        """Holds a lock in several repositories, as only `git lock run` does."""
        words = [word for place in fields["places"].split(",") for word in ("--remote", place)] + ["run"]
        words += ["--quorum"] if verb == "quorum" else []
        words += asked(fields)
        tenure = Tenure(self, fields["name"], [GIT_LOCK, "--json", *words, "--", fields["name"], "sh", "-c", HOLD])
        self.held[fields.get("as", fields["name"])] = tenure
        return tenure.taken_in_several()

    def take(self, tenure, name):
        told = tenure.taken()
        self.held[name] = tenure
        return told

    def start(self, fields):
        about = fields["wait_as"]
        tenure = self.waits[about] = self.acquire(fields, about)

        def wait():
            try:
                ended = self.take(tenure, about)
            except Failed as failed:
                ended = failed.told()
            say("event", kind="ended", about=about, **ended)

        threading.Thread(target=wait, daemon=True).start()

    def answer(self, verb, fields):
        get, held = fields.get, self.held.get(fields.get("guard"))
        ttl = ["--ttl", as_time("ttl", fields["ttl"])] if "ttl" in fields else []
        match verb:
            case "supports":
                return {"operations": OPERATIONS}
            case "open":
                if set(fields) - {"n", "path", "prefix", "owner", "remote"}:
                    raise NotImplementedError("only path, prefix, owner and remote")
                self.owner = get("owner")
                given = [word for key in ("prefix", "remote") if key in fields for word in (f"--{key}", fields[key])]
                self.where = ["-C", fields["path"], *given]
                self.run("list")
            case "close":
                self.where = []
            case "acquire" | "try":
                fields = fields if verb == "acquire" else {**fields, "no_wait": "yes"}
                return self.take(self.acquire(fields), fields.get("as", fields["name"]))
            case "start":
                self.start(fields)
            case "cancel":
                self.waits[fields["wait_as"]].process.send_signal(signal.SIGTERM)
            case "look":
                return held.look()
            case "extend":
                self.run("extend", *ttl, held.handle)
            case "everywhere" | "quorum":
                return self.several(verb, fields)
            case "release" | "let-go":
                held.release()
            case "watch":
                held.watch(fields["guard"])
            case "handle":
                return {"handle": held.handle}
            case "detach":
                # `git lock acquire` has left it already.
                return {"handle": self.held.pop(fields["guard"]).handle}
            case "handle-of":
                # The command line names a tenure by a name and a word instead of making a handle of them.
                return {"handle": json.dumps([fields["name"], fields["fingerprint"]])}
            case "resume":
                self.run("extend", *tenure_of(fields["handle"]))
                tenure = Tenure(self, name_of(fields["handle"]), handle=fields["handle"])
                self.held[fields.get("as", tenure.name)] = tenure
                return tenure.look()
            case "extend-handle":
                return {"json": self.run("extend", *ttl, *tenure_of(fields["handle"]))}
            case "release-handle":
                self.run("release", *tenure_of(fields["handle"]))
            case "update-refs":
                words = [word for key in ("change", "also") if get(key) for word in ("--change", fields[key])]
                message = ["-m", fields["message"]] if get("message") else []
                self.run("update-ref", *words, *message, held.handle)
            case "push":
                self.run("push", held.handle, *[fields[key] for key in ("refspec", "also") if get(key)])
            case "verify":
                self.run("verify", fields["name"], fields["token"])
            case "status":
                return {"json": self.run("status", "--", fields["name"])}
            case "token-of":
                return held.token_of(fields["name"])
            case "wanted":
                # The nearest thing: who waits for the lock.
                queue = json.loads(self.run("status", "--", held.name))["queue"]
                return {"waiters": len(queue), "priority": max((waiter["priority"] for waiter in queue), default=0)}
            case "sync":
                strategy = ["--strategy", fields["strategy"]] if get("strategy") else []
                return {"json": self.run("sync", *strategy, "--", fields["there"])}
            case "graph":
                return {"json": self.run("graph")}
            case "list":
                return {"json": self.run("list")}
            case "log":
                return {"json": self.run("log", "-n", get("most", 100), "--", fields["name"])}
            case "break":
                words = [word for key, flag in (("tenure", "--id"), ("reason", "--reason")) if get(key) for word in (flag, fields[key])]
                return {"json": self.run("break", *words, "--", fields["name"])}
            case "clean":
                return {"json": self.run("clean", *(["--grace", as_time("grace", fields["grace"])] if get("grace") else []))}
            case "doctor":
                return {"json": self.run("doctor", *(["--fix"] if get("fix") else []))}
            case other:
                raise NotImplementedError(other)
        return {}


def as_time(key, value):
    return f"{value}ms" if key in (*TIMES, "grace") else value


def tenure_of(handle):
    """The words that name a tenure."""
    if not handle.startswith("["):
        return ["--", handle]
    name, word = json.loads(handle)
    return ["--fingerprint", word, "--", name]


def name_of(handle):
    return json.loads(handle)[0] if handle.startswith("[") else handle.split(":")[2]


class Tenure:
    """One that a command of this shim has taken, or takes."""

    def __init__(self, shim, name, command=None, wait_as=None, handle=None, more=()):
        self.shim, self.name, self.wait_as, self.handle = shim, name, wait_as, handle
        self.token, self.said, self.ended, self.about, self.process = None, "", threading.Event(), None, None
        #: Whether it lives as long as a command of this shim.
        self.runs = False
        if command is None:
            return
        pipe = subprocess.PIPE
        env = {**os.environ, **dict(more)}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, restore_signals=False, env=env
        )
        threading.Thread(target=self.hear, daemon=True).start()

    def hear(self):
        """What the command says on stderr: of its wait, and at its end."""
        for line in self.process.stderr:
            self.said += line
            place = re.search(r"place (\d+) of", line)
            if place and self.wait_as:
                say("event", kind="waiting", about=self.wait_as, ahead=int(place[1]) - 1)
        self.process.wait()
        self.ended.set()
        if self.about:
            self.tell()

    def failure(self):
        self.ended.wait()
        return Failed(self.process.returncode, self.said)

    def taken(self):
        """Waits until the lock is held."""
        line = self.process.stdout.readline().strip()
        if line.startswith("{"):
            told = json.loads(line)
            self.handle, self.token = told["handle"], told["token"]
            return {key: told[key] for key in ("id", "token", "mode", "slot") if told[key] is not None}
        if not line:
            raise self.failure()
        self.token, self.handle, self.runs = int(line.split()[0]), line.split()[1], True
        return {key: value for key, value in self.look().items() if key in ("id", "token", "mode", "slot")}

    def taken_in_several(self):
        """Waits until it is held: there is no handle then."""
        line = self.process.stdout.readline().strip()
        if not line:
            raise self.failure()
        self.token, self.runs = int(line), True
        return {"token": self.token}

    def look(self):
        """The tenure as the status shows it, found by its token or, if that is unknown, because it is alone."""
        holders = json.loads(self.shim.run("status", "--", self.name))["holders"]
        for holder in holders:
            if self.token in (None, holder["token"]):
                self.token = holder["token"]
                shown = ("id", "token", "mode", "remaining", "slot")
                told = {key: holder[key] for key in shown if holder[key] is not None}
                return {**told, "lost": "false"}
        return {"id": "", "token": self.token, "mode": "", "remaining": 0, "lost": "true"}

    def token_of(self, name):
        """What the tenure has of one of several locks: found by its id, which is the same for all."""
        own = self.look()["id"]
        holders = json.loads(self.shim.run("status", "--", name))["holders"]
        return next(({"token": holder["token"]} for holder in holders if holder["id"] == own), {})

    def release(self):
        if not self.runs:
            self.shim.run("release", *tenure_of(self.handle))
            return
        self.process.stdin.close()
        self.ended.wait()
        if self.process.returncode != 0:
            raise self.failure()

    def watch(self, about):
        """Only a run notices a loss: it ends then."""
        self.about = about
        if self.ended.is_set():
            self.tell()

    def tell(self):
        if self.process.returncode == 3:
            say("event", kind="lost", about=self.about, **self.failure().told())


shim = Shim()
for line in sys.stdin:
    verb, *words = line.rstrip("\n").split("\t")
    fields = {key: decode(value) for key, value in (word.split("=", 1) for word in words)}
    try:
        say("ok", n=fields["n"], **shim.answer(verb, fields))
    except Failed as failed:
        say("error", n=fields["n"], **failed.told())

for tenure in shim.held.values():
    if tenure.runs and not tenure.ended.is_set():
        tenure.process.stdin.close()
        tenure.ended.wait()
