"""The shim of the Python surface: ``python.py blocking|asyncio``. With ``asyncio`` every lock is an
:class:`gitlock.AsyncLock`.

tests/conformance/README.md says what is asked and answered.
"""

import asyncio
import json
import os
import sys
import threading

import gitlock
from wire import decode, say

TIMES = ("ttl", "timeout", "max_hold", "grace", "lock_timeout", "max_clock_skew")


def told(error):
    assert isinstance(error, gitlock.LockError)
    what = {"code": error.code, "message": str(error), "retry": error.retry, "holder": error.holder}
    return {"class": f"{type(error).__module__.split('.')[0]}.{type(error).__name__}", "error": json.dumps(what)}


def described(lock, shared):
    told = {"id": lock.id, "token": lock.token, "mode": "shared" if shared else "exclusive"}
    return told if lock.slot is None else {**told, "slot": lock.slot}


def wait_of(fields, forever):
    return int(fields["wait"]) / 1000 if "wait" in fields else forever


def asked(fields):
    """The names and the options of what is to be acquired."""
    options = {key: fields[key] for key in ("fingerprint", "reason", "owner", "within") if key in fields}
    options |= {key: int(fields[key]) / 1000 for key in TIMES if key in fields}
    options |= {key: int(fields[key]) for key in ("priority", "slots") if key in fields}
    options |= {"reentrant": True} if "reentrant" in fields else {}
    options |= {"renew": fields["renew"] == "yes"} if "renew" in fields else {}
    options |= {"timeout": wait_of(fields, None), "shared": "shared" in fields}
    return [fields["name"], *(fields["also"].split(",") if "also" in fields else [])], options


class Shim:
    """What both paths have in common."""

    def __init__(self):
        self.manager = None
        self.held = {}
        self.waits = {}

    def lock(self, fields, **more):
        """The lock that is asked for. A wait of 0 is a try."""
        names, options = asked(fields)
        return self.make(names[0] if len(names) == 1 else names, **options, **more)

    def keep(self, fields, lock):
        self.held[fields.get("as", lock.name)] = lock
        return described(lock, "shared" in fields)

    def several(self, verb, fields):
        """The lock in several repositories that is asked for."""
        places = [gitlock.LockManager(place) for place in fields["places"].split(",")]
        names, options = asked(fields)
        make = getattr(gitlock.Repositories(places), self.IN_SEVERAL[verb])
        return make(*names, **options)

    def keep_several(self, fields, lock):
        self.held[fields.get("as", fields["name"])] = lock
        return {"token": lock.token}

    def progress(self, about):
        return lambda ahead, status: say("event", kind="waiting", about=about, ahead=ahead)

    def ask(self, verb, fields):
        get, seconds = fields.get, lambda key: int(fields[key]) / 1000 if key in fields else None
        lock = self.held.get(get("guard"))
        match verb:
            case "supports":
                return {"operations": OPERATIONS}
            case "open":
                options = {key: fields[key] for key in ("owner", "remote") if key in fields}
                options |= {key: seconds(key) for key in ("lock_timeout", "max_clock_skew") if key in fields}
                keep = int(fields["keep"]) if "keep" in fields else None
                self.manager = gitlock.LockManager(fields["path"], lock_prefix=get("prefix"), keep=keep, **options)
            case "close":
                self.manager = None
            case "cancel":
                self.cancel(self.waits[get("wait_as")])
            case "look":
                shared = next(
                    (at["mode"] == "shared" for at in self.manager.status(lock.name)["holders"] if at["id"] == lock.id),
                    False,
                )
                lost = str(lock.is_lost()).lower()
                return {**described(lock, shared), "lost": lost, "remaining": int(lock.remaining() * 1000)}
            case "extend" | "fork":
                lock.extend(seconds("ttl"))
            case "downgrade":
                lock.downgrade()
            case "token-of":
                return {"token": lock.tokens[fields["name"]]} if fields["name"] in lock.tokens else {}
            case "wanted":
                return {"json": json.dumps(lock.wanted())}
            case "heed":
                about = fields["guard"]
                lock.on_wanted(
                    lambda waiters, priority: say(
                        "event", kind="wanted", about=about, waiters=waiters, priority=priority
                    )
                )
            case "sync":
                given = {key: fields[key] for key in ("strategy",) if key in fields}
                return {"json": json.dumps(self.manager.sync(gitlock.LockManager(fields["there"]), **given))}
            case "graph":
                return {"json": json.dumps(self.manager.graph())}
            case "watch":
                lock.on_lost(lambda error: say("event", kind="lost", about=fields["guard"], **told(error)))
            case "handle":
                return {"handle": lock.handle()}
            case "detach":
                return {"handle": lock.detach()}
            case "handle-of":
                return {"handle": gitlock.LockHandle.by_fingerprint(fields["name"], fields["fingerprint"])}
            case "resume":
                lock = self.manager.resume(fields["handle"])
                self.keep(fields, lock)
                return self.ask("look", {"guard": fields.get("as", lock.name)})
            case "extend-handle":
                return {"remaining": int(self.manager.extend(fields["handle"], seconds("ttl")) * 1000)}
            case "release-handle":
                self.manager.release(fields["handle"])
            case "update-refs":
                lock.update_refs(changes(fields), message=get("message"))
            case "push":
                lock.push(*refspecs(fields))
            case "verify":
                self.manager.verify(fields["name"], int(fields["token"]))
            case "status":
                return {"json": json.dumps(self.manager.status(fields["name"]))}
            case "list":
                return {"json": json.dumps(self.manager.list())}
            case "log":
                entries = self.manager.log(fields["name"], int(get("most", 100)))
                return {"json": json.dumps({"name": fields["name"], "entries": entries})}
            case "break":
                broken = self.manager.break_lock(fields["name"], id=get("tenure"), reason=get("reason"))
                return {"json": json.dumps({"name": fields["name"], "broken": broken})}
            case "clean":
                return {"json": json.dumps(self.manager.clean(seconds("grace")))}
            case "doctor":
                return {"json": json.dumps({"findings": self.manager.doctor("fix" in fields)})}
            case other:
                raise NotImplementedError(other)
        return {}


def refspecs(fields):
    return [fields[key] for key in ("refspec", "also") if key in fields]


def changes(fields):
    return [fields[key] for key in ("change", "also") if key in fields]


class Blocking(Shim):
    """Threads. A lock is entered, as ``with`` enters it: ``acquire`` answers with a bool instead of an error."""

    IN_SEVERAL = {"everywhere": "all", "quorum": "quorum"}

    def make(self, name, **options):
        return self.manager.lock(name, **options)

    def take(self, fields, **more):
        lock = self.lock(fields, **more)
        lock.__enter__()
        return self.keep(fields, lock)

    def start(self, fields):
        about, token = fields["wait_as"], gitlock.CancelToken()
        self.waits[about] = token

        def wait():
            try:
                ended = self.take({**fields, "as": about}, cancel=token, on_wait=self.progress(about))
            except gitlock.LockError as error:
                ended = told(error)
            say("event", kind="ended", about=about, **ended)

        threading.Thread(target=wait, daemon=True).start()

    def start_upgrade(self, about, lock, seconds):
        def wait():
            try:
                lock.upgrade(seconds)
                ended = described(lock, False)
            except gitlock.LockError as error:
                ended = told(error)
            say("event", kind="ended", about=about, **ended)

        threading.Thread(target=wait, daemon=True).start()

    def cancel(self, token):
        token.cancel()

    async def answer(self, verb, fields):
        match verb:
            case "acquire":
                return self.take(fields)
            case "try":
                return self.take({**fields, "wait": "0"})
            case "start":
                self.start(fields)
            case "everywhere" | "quorum":
                lock = self.several(verb, fields)
                lock.__enter__()
                return self.keep_several(fields, lock)
            case "release" | "let-go":
                self.held[fields["guard"]].release()
            case "upgrade":
                self.held[fields["guard"]].upgrade(wait_of(fields, -1))
            case "start-upgrade":
                self.start_upgrade(fields["wait_as"], self.held[fields["guard"]], wait_of(fields, -1))
            case _:
                return self.ask(verb, fields)
        return {}


class Asyncio(Shim):
    """One loop. A wait is a task."""

    IN_SEVERAL = {"everywhere": "aall", "quorum": "aquorum"}

    def make(self, name, **options):
        return self.manager.alock(name, **options)

    async def take(self, fields, **more):
        lock = self.lock(fields, **more)
        await lock.__aenter__()
        return self.keep(fields, lock)

    def start(self, fields):
        about, token = fields["wait_as"], gitlock.CancelToken()

        async def wait():
            try:
                ended = await self.take({**fields, "as": about}, cancel=token, on_wait=self.progress(about))
            except gitlock.LockError as error:
                ended = told(error)
            say("event", kind="ended", about=about, **ended)

        self.waits[about] = (token, asyncio.ensure_future(wait()))

    def start_upgrade(self, about, lock, seconds):
        async def wait():
            try:
                await lock.upgrade(seconds)
                ended = described(lock, False)
            except gitlock.LockError as error:
                ended = told(error)
            say("event", kind="ended", about=about, **ended)

        self.waits[about] = (None, asyncio.ensure_future(wait()))

    def cancel(self, wait):
        wait[0].cancel()

    async def answer(self, verb, fields):
        match verb:
            case "acquire":
                return await self.take(fields)
            case "try":
                return await self.take({**fields, "wait": "0"})
            case "start":
                self.start(fields)
            case "update-refs":
                changed = self.held[fields["guard"]].update_refs(changes(fields), message=fields.get("message"))
                if changed is not None:
                    await changed
            case "push":
                pushed = self.held[fields["guard"]].push(*refspecs(fields))
                if pushed is not None:
                    await pushed
            case "everywhere" | "quorum":
                lock = self.several(verb, fields)
                await lock.__aenter__()
                return self.keep_several(fields, lock)
            case "let-go":
                await self.held[fields["guard"]].release()
            case "release":
                # What was resumed is a lock for threads.
                ended = self.held[fields["guard"]].release()
                if ended is not None:
                    await ended
            case "upgrade":
                await self.held[fields["guard"]].upgrade(wait_of(fields, None))
            case "start-upgrade":
                self.start_upgrade(fields["wait_as"], self.held[fields["guard"]], wait_of(fields, None))
            case _:
                return self.ask(verb, fields)
        return {}


OPERATIONS = (
    "open close acquire try start cancel look extend release upgrade start-upgrade downgrade "
    "token-of wanted heed watch handle detach fork handle-of resume extend-handle release-handle "
    "status update-refs push verify list graph log break clean doctor sync everywhere quorum let-go"
)


async def main(shim):
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        verb, *words = line.rstrip("\n").split("\t")
        fields = {key: decode(value) for key, value in (word.split("=", 1) for word in words)}
        # A copy of this process tries to use a guard, and answers in its place.
        if verb == "fork" and (child := os.fork()) != 0:
            os.waitpid(child, 0)
            continue
        try:
            say("ok", n=fields["n"], **await shim.answer(verb, fields))
        except gitlock.LockError as error:
            say("error", n=fields["n"], **told(error))
        if verb == "fork":
            os._exit(0)


asyncio.run(main(Asyncio() if sys.argv[1] == "asyncio" else Blocking()))
