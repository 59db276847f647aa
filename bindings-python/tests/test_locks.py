"""What gitlock promises to Python."""

import asyncio
import concurrent.futures
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time

import gitlock
import pytest


@pytest.fixture
def repository(tmp_path):
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


@pytest.fixture
def locks(repository):
    return gitlock.LockManager(repository)


def python(repository, code, **more):
    """Another process, with `locks` ready."""
    prelude = f"import gitlock, sys, os, time\nlocks = gitlock.LockManager({str(repository)!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, **more
    )


def queue_of(locks, name):
    return [waiter["owner"] for waiter in locks.status(name)["queue"]]


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_lock_is_held_between_with_and_its_end(locks):
    with locks.lock("build", reason="a test") as lock:
        assert lock.locked() and not lock.is_lost() and lock.remaining() > 20
        assert not locks.lock("build").acquire(blocking=False)
        status = locks.status("build")
        assert status["holders"][0]["pid"] == os.getpid() and status["holders"][0]["reason"] == "a test"
        first = lock.token
    assert not lock.locked()
    with locks.lock("build") as lock:
        assert lock.token > first
    assert [entry["outcome"] for entry in locks.log("build")] == ["released", "released"]


def test_shared_holders_stand_side_by_side(locks):
    first, second = locks.lock("data", shared=True), locks.lock("data", shared=True)
    assert first.acquire() and second.acquire(timeout=5)
    assert not locks.lock("data").acquire(timeout=0.05)
    first.release()
    second.release()


def test_a_wait_ends_with_its_timeout_or_with_the_release(locks):
    holder, waiter = locks.lock("build"), locks.lock("build")
    holder.acquire()
    assert waiter.acquire(timeout=0.05) is False
    threading.Timer(0.05, holder.release).start()
    assert waiter.acquire(timeout=30) is True
    waiter.release()


def test_a_with_can_be_bounded_and_then_raises_who_holds(locks):
    with locks.lock("build", reason="a test") as held:
        with pytest.raises(gitlock.Held) as raised:
            with locks.lock("build", timeout=0):
                pass
        assert raised.value.holder["id"] == held.id
        for lock in (locks.lock("build", timeout=0.05), locks.rlock("build", timeout=0.05)):
            with pytest.raises(gitlock.Timeout, match="a test"):
                with lock:
                    pass
            with pytest.raises(RuntimeError):
                lock.release()
    lock = locks.rlock("build", timeout=5)
    with lock, lock:
        assert not locks.lock("build").acquire(blocking=False)
    assert not lock.locked()


def test_a_wait_is_cancelled_from_another_thread(locks):
    with locks.lock("build"):
        for make in (locks.lock, locks.rlock):
            token = gitlock.CancelToken()
            threading.Timer(0.05, token.cancel).start()
            with pytest.raises(gitlock.Cancelled):
                make("build", cancel=token).acquire()
            assert token.cancelled()
        with pytest.raises(gitlock.Cancelled):
            locks.lock("build", cancel=token).acquire(timeout=30)
        assert queue_of(locks, "build") == []
    assert locks.lock("build", cancel=token).acquire(blocking=False), "it ends waits alone"


def test_what_a_lock_that_is_not_held_says(locks):
    lock = locks.lock("build")
    with pytest.raises(RuntimeError):
        lock.release()
    for ask in (lambda: lock.token, lock.is_lost, lock.extend, lock.handle, lock.detach):
        with pytest.raises(RuntimeError, match="isn't acquired here"):
            ask()


def test_a_loss_is_told(locks):
    lock, told = locks.lock("build"), threading.Event()
    lock.acquire()
    lock.on_lost(lambda error: isinstance(error, gitlock.LockLost) and told.set())
    assert locks.break_lock("build", reason="a test")[0]["pid"] == os.getpid()
    assert told.wait(30) and lock.is_lost()
    with pytest.raises(gitlock.LockLost):
        lock.extend()
    with pytest.raises(gitlock.LockLost):
        lock.release()
    assert locks.log("build")[0]["breakReason"] == "a test"


def test_a_wait_is_told_of(locks):
    told = []
    holder = locks.lock("build")
    holder.acquire()
    waiter = locks.lock("build", on_wait=lambda ahead, status: told.append((ahead, status["held"])))
    assert not waiter.acquire(timeout=0.2)
    until(lambda: told)
    assert told[0] == (0, True)


def test_handles_go_through_pickles_and_processes(repository, locks):
    lock = locks.lock("build")
    lock.acquire()
    token, handle = lock.token, pickle.loads(pickle.dumps(lock.detach()))
    assert (handle.name, handle.token) == ("build", token) and "gitlock:1:" not in repr(handle)
    code = f"lock = locks.resume({str(handle)!r}); print(lock.token); lock.release()"
    assert int(python(repository, code).communicate()[0]) == token
    with pytest.raises(gitlock.LockLost):
        locks.release(handle)
    printed = locks.lock("lease", fingerprint="session-1")
    printed.acquire()
    with pytest.raises(gitlock.NotOwner):
        locks.release(gitlock.LockHandle.by_fingerprint("lease", "another"))
    handle = gitlock.LockHandle.by_fingerprint("lease", "session-1")
    assert locks.extend(handle, 90) > 80
    locks.release(handle)


def test_control_c_ends_a_wait_and_leaves_no_waiter(repository, locks):
    with locks.lock("build"):
        child = python(
            repository,
            """
            try:
                locks.lock("build").acquire()
            except KeyboardInterrupt:
                print("interrupted")
            """,
        )
        until(lambda: queue_of(locks, "build"))
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=30)[0] == "interrupted\n"
        assert not queue_of(locks, "build")


def test_a_dead_holder_frees_its_lock(repository, locks):
    child = python(repository, "locks.lock('build').acquire(); print('held', flush=True); time.sleep(600)")
    assert child.stdout.readline() == "held\n"
    child.kill()
    child.wait()
    assert locks.lock("build").acquire(timeout=5)


def test_the_interpreter_is_free_for_others_during_a_wait(locks):
    with locks.lock("build"):
        waiter = threading.Thread(target=lambda: locks.lock("build").acquire(timeout=1), daemon=True)
        waiter.start()
        until(lambda: queue_of(locks, "build"))
        assert sum(range(1000)) == 499500
    waiter.join(30)
    assert not waiter.is_alive()


def test_owners_are_per_thread(locks):
    owners = []

    def hold():
        with locks.lock(f"lock-{threading.get_ident()}") as lock:
            owners.append(locks.status(lock.name)["holders"][0]["owner"])

    threads = [threading.Thread(target=hold) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    hold()
    hold()
    assert owners[2] == owners[3] and len(set(owners)) >= 2


def test_a_fork_owns_nothing(locks):
    lock = locks.lock("build")
    lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            assert lock.is_lost()
            try:
                lock.extend()
            except gitlock.Forked:
                pass
            else:
                os._exit(2)
            assert not locks.lock("build").acquire(blocking=False)
            with locks.lock("other"):
                pass
            os._exit(0)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not lock.is_lost()
    lock.release()


def test_sub_interpreters_are_refused():
    code = """
        try:
            import _interpreters as interpreters
            run = lambda interpreter: interpreters.exec(interpreter, "import gitlock")
        except ImportError:
            import _xxsubinterpreters as interpreters
            run = lambda interpreter: interpreters.run_string(interpreter, "import gitlock")
        try:
            failed = run(interpreters.create())
        except Exception as error:
            failed = error
        print("subinterpreters" in str(failed), failed)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert process.stdout.startswith("True"), process


def test_every_code_has_its_class_below_lock_error():
    classes = gitlock.BY_CODE
    assert len(classes) == len(set(classes.values())) >= 21
    for code, kind in classes.items():
        assert issubclass(kind, gitlock.LockError) and kind.code == code
        assert kind.__doc__ and kind.retry in ("never", "later", "from-start")
    assert issubclass(gitlock.Timeout, TimeoutError) and issubclass(gitlock.InvalidName, ValueError)


def test_bad_arguments_are_named(locks, tmp_path):
    with pytest.raises(gitlock.NotARepository, match="git init"):
        gitlock.LockManager("/")
    with pytest.raises(gitlock.InvalidName):
        locks.lock("a//b").acquire()
    for options in ({"ttl": 0}, {"ttl": -1}, {"ttl": float("nan")}, {"fingerprint": ""}, {"priority": 10**6 + 1}):
        with pytest.raises(gitlock.InvalidArgument):
            locks.lock("build", **options).acquire()
    with pytest.raises(gitlock.InvalidArgument):
        gitlock.LockManager(locks._manager.location(), keep=0)
    with pytest.raises(ValueError):
        locks.lock("build").acquire(False, 1)
    with pytest.raises(OverflowError):
        locks.lock("build").acquire(timeout=1e100)
    with pytest.raises(TypeError):
        locks.lock(7).acquire()


def test_an_error_says_who_holds(locks):
    held = locks.lock("build")
    held.acquire()
    with pytest.raises(gitlock.Held, match="is held by") as caught:
        locks._manager.acquire_now(["build"], locks.lock("build")._options)
    assert caught.value.holder["pid"] == os.getpid() and caught.value.retry == "later"


def test_listing_cleaning_and_the_doctor(locks):
    with locks.lock("build"):
        assert [lock["name"] for lock in locks.list()["locks"]] == ["build"]
    assert locks.clean(0)["objectsDeleted"] >= 0 and locks.doctor() == []


def test_every_exception_is_a_lock_error():
    exported = [getattr(gitlock, name) for name in gitlock.__all__]
    exceptions = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, BaseException)}
    assert exceptions == {*gitlock.BY_CODE.values(), gitlock.LockError}
    assert all(issubclass(kind, gitlock.LockError) for kind in exceptions)


# ------------------------------------------------------------------ asyncio


def test_asyncio_waits_are_bounded_and_cancelled_by_a_token(locks):
    async def main():
        with locks.lock("build") as held:
            with pytest.raises(gitlock.Held) as raised:
                await locks.alock("build").acquire(timeout=0)
            assert raised.value.holder["id"] == held.id
            with pytest.raises(gitlock.Timeout):
                async with locks.alock("build", timeout=0.05):
                    pass
            token = gitlock.CancelToken()
            asyncio.get_running_loop().call_later(0.05, token.cancel)
            with pytest.raises(gitlock.Cancelled):
                async with locks.alock("build", cancel=token):
                    pass
            assert queue_of(locks, "build") == []

    asyncio.run(main())


def test_asyncio_holds_waits_and_hands_over_in_order(locks):
    async def main():
        order = []

        async def worker(number):
            async with locks.alock("build") as lock:
                order.append((number, lock.token))
                await asyncio.sleep(0.01)

        holder = locks.alock("build")
        await holder.acquire()
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(worker(number)))
            while len(queue_of(locks, "build")) <= number:
                await asyncio.sleep(0.005)
        assert len(set(queue_of(locks, "build"))) == 5, "each task is an owner of its own"
        await holder.release()
        await asyncio.gather(*tasks)
        assert [number for number, _ in order] == list(range(5))
        assert [token for _, token in order] == sorted(token for _, token in order)
        with pytest.raises(gitlock.LockError):
            await locks.alock("a//b").acquire()
        with pytest.raises(RuntimeError):
            await holder.release()

    asyncio.run(main())


def test_cancelling_a_task_cancels_its_wait(locks):
    async def main():
        async with locks.alock("build"):
            task = asyncio.create_task(locks.alock("build").acquire())
            while not queue_of(locks, "build"):
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while queue_of(locks, "build"):
                await asyncio.sleep(0.005)
            with pytest.raises(gitlock.Timeout):
                await locks.alock("build").acquire(timeout=0.05)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(locks.alock("build").acquire(), 0.05)

    asyncio.run(main())


def test_a_grant_on_its_way_to_a_cancelled_task_is_given_back(locks):
    async def main():
        for _ in range(100):
            holder = locks.alock("build")
            await holder.acquire()
            waiter = locks.alock("build")
            task = asyncio.create_task(waiter.acquire())
            await asyncio.sleep(0)
            # The release and the cancel race for the grant.
            release = asyncio.create_task(holder.release())
            await asyncio.sleep(0.001)
            task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                await release
            else:
                await release
                await waiter.release()
            async with asyncio.timeout(5) if hasattr(asyncio, "timeout") else locks.alock("other"):
                async with locks.alock("build"):
                    pass

    asyncio.run(main())


def test_a_thousand_waits_leave_the_loop_responsive(locks):
    async def main():
        holder = locks.alock("build")
        await holder.acquire()
        order, tasks, delays = [], [], []

        async def worker(number):
            async with locks.alock("build", ttl=60):
                order.append(number)

        async def watch():
            while True:
                started = time.perf_counter()
                await asyncio.sleep(0.01)
                delays.append(time.perf_counter() - started - 0.01)

        threads = threading.active_count()
        watcher = asyncio.create_task(watch())
        for number in range(1000):
            tasks.append(asyncio.create_task(worker(number)))
        while len(queue_of(locks, "build")) < 1000:
            await asyncio.sleep(0.05)
        assert threading.active_count() <= threads + 1, "no thread a wait"
        arrived = queue_of(locks, "build")
        await holder.release()
        await asyncio.gather(*tasks)
        watcher.cancel()
        assert len(arrived) == 1000 and len(order) == 1000 and len(delays) > 10
        return sorted(delays)[len(delays) // 2]

    print(f"the loop's delay, median: {asyncio.run(main()) * 1000:.1f} ms")


def test_json_is_what_every_surface_says(locks):
    assert json.loads(locks._manager.status("free")) == {
        "name": "free",
        "held": False,
        "holders": [],
        "intents": [],
        "queue": [],
        "problem": None,
    }


def test_a_tree_excludes_and_the_handle_lets_in(locks):
    whole = locks.lock("deploy", owner="me")
    assert whole.acquire()
    assert not locks.lock("deploy/eu", owner="you").acquire(blocking=False)
    part = locks.lock("deploy/eu", within=whole.handle())
    assert part.acquire(blocking=False)
    whole.release()
    assert not locks.lock("deploy", owner="you").acquire(blocking=False)
    assert [lock["held"] for lock in locks.list()["locks"]] == [False, True]
    part.release()
    assert locks.list()["locks"] == []


def test_several_at_once_and_slots(locks):
    with locks.lock(["web", "db"]) as both:
        assert set(both.tokens) == {"web", "db"}
        assert both.token == both.tokens["web"]
        locks.verify("db", both.tokens["db"])
        with pytest.raises(gitlock.LockLost):
            locks.verify("db", both.tokens["db"] - 1)
        assert not locks.lock(["db", "x"]).acquire(blocking=False)
    ports = [locks.lock("port", slots=2) for _ in range(3)]
    assert [port.acquire(blocking=False) for port in ports] == [True, True, False]
    assert [port.slot for port in ports[:2]] == [0, 1]
    with pytest.raises(gitlock.SlotsDiffer):
        locks.lock("port", slots=3, timeout=0).__enter__()


def test_refs_change_under_a_lock_and_not_without(repository, locks):
    def git(*words):
        return subprocess.run(["git", "-C", repository, *words], check=True, capture_output=True, text=True).stdout.strip()

    def value(ref):
        return git("for-each-ref", "--format=%(objectname)", ref)

    with locks.lock("for-refs"):
        pass
    commit = git("rev-parse", "refs/gitvan/journal/for-refs")
    with locks.rlock("release") as lock:
        lock.update_refs([("create", "refs/heads/a", commit), f"create refs/heads/b {commit}"], message="from Python")
        lock.update_refs([("no-deref", "update", "refs/heads/b", "refs/heads/a", commit), ("delete", "refs/heads/a")])
        assert (value("refs/heads/a"), value("refs/heads/b")) == ("", commit)
        with pytest.raises(gitlock.RefChanged, match="refs/heads/b"):
            lock.update_refs([("create", "refs/heads/b", commit)])
        with pytest.raises(gitlock.RefsRefused):
            lock.update_refs([("create", "refs/heads/b/below", commit)])
        with pytest.raises(gitlock.InvalidArgument):
            lock.update_refs([("update", "refs/heads/b", "x\ndelete refs/heads/b")])
    lock = locks.lock("release")
    assert lock.acquire()
    locks.break_lock("release")
    with pytest.raises(gitlock.LockLost):
        lock.update_refs([("delete", "refs/heads/b")])
    assert value("refs/heads/b") == commit

    async def main():
        async with locks.alock("other") as lock:
            await lock.update_refs([("delete", "refs/heads/b", commit)])

    asyncio.run(main())
    assert value("refs/heads/b") == ""


def test_refs_are_pushed_under_a_lock_and_not_without(repository, tmp_path):
    def git(*words, folder=repository):
        return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True).stdout.strip()

    def value(ref):
        return git("for-each-ref", "--format=%(objectname)", ref, folder=server)

    server = tmp_path / "server.git"
    git("init", "-q", "--bare", str(server))
    # What stands in for ssh runs its command here.
    git("config", "core.sshCommand", "sh -c 'for last; do :; done; exec sh -c \"$last\"' ssh")
    git("config", "ssh.variant", "ssh")
    git("remote", "add", "origin", f"ssh://host{server}")
    here, there = gitlock.LockManager(repository), gitlock.LockManager(repository, remote="origin")
    with here.lock("for-refs") as lock:
        with pytest.raises(gitlock.Unsupported, match="update_refs"):
            lock.push("HEAD")
    commit = git("rev-parse", "refs/gitvan/journal/for-refs")
    git("update-ref", "refs/heads/topic", commit)
    with there.rlock("release") as lock:
        lock.push("topic", f"{commit}:refs/heads/other")
        assert (value("refs/heads/topic"), value("refs/heads/other")) == (commit, commit)
        lock.push(":other", "+topic")
        assert value("refs/heads/other") == ""
        with pytest.raises(gitlock.RefChanged, match="refs/heads/other"):
            lock.push(":refs/heads/other")
        with pytest.raises(gitlock.RefsRefused):
            lock.push("topic:refs/heads/topic/below")
        for bad in ["", "refs/heads/*", "nothing"]:
            with pytest.raises(gitlock.InvalidArgument):
                lock.push("topic:refs/heads/new", bad)
        with pytest.raises(gitlock.InvalidArgument):
            lock.push()
    lock = there.lock("release")
    assert lock.acquire()
    there.break_lock("release")
    with pytest.raises(gitlock.LockLost):
        lock.push("topic:refs/heads/new")

    async def main():
        async with there.alock("other") as lock:
            await lock.push("topic:refs/heads/async")

    asyncio.run(main())
    assert (value("refs/heads/new"), value("refs/heads/async")) == ("", commit)


def test_two_repositories_are_brought_together(locks, tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "there.git"], check=True)
    there = gitlock.LockManager(tmp_path / "there.git")
    mine, theirs = locks.lock("report"), there.lock("docs", shared=True)
    assert mine.acquire() and theirs.acquire()
    synced = locks.sync(there)
    assert sorted(f"{one['name']} {one['fate']}" for one in synced["changes"]) == ["docs received", "report sent"]
    assert locks.status("docs")["holders"][0]["from"] == there.location
    theirs.release()
    assert locks.sync(there, "oldest")["changes"][0]["fate"] == "ended-here"
    loser, winner = locks.lock("docs"), there.lock("docs")
    assert loser.acquire() and winner.acquire()
    told = []
    loser.on_lost(told.append)
    with pytest.raises(gitlock.SyncConflict, match="strategy"):
        locks.sync(there, strategy="fail")
    assert locks.sync(there)["changes"][0]["other"]["id"] == winner.id
    with pytest.raises(gitlock.LockLost, match="keeps it, by a sync with"):
        loser.release()
    assert len(told) == 1
    for bad in [locks, gitlock.LockManager(locks.location)]:
        with pytest.raises(gitlock.InvalidArgument):
            locks.sync(bad)
    with pytest.raises(gitlock.InvalidArgument, match="highest-token"):
        locks.sync(there, "newest")
    winner.release()
    mine.release()


def test_up_and_down_and_who_waits(locks):
    first, second = locks.lock("x", shared=True), locks.lock("x", shared=True)
    assert first.acquire() and second.acquire()
    with pytest.raises(gitlock.Held):
        first.upgrade(timeout=0)
    with pytest.raises(gitlock.Timeout):
        first.upgrade(timeout=0.05)
    token = second.token
    second.release()
    first.upgrade()
    assert first.token > token
    told = queue.Queue()
    first.on_wanted(lambda waiters, priority: told.put((waiters, priority)))
    waiting = threading.Thread(target=lambda: locks.lock("x", priority=3).acquire())
    waiting.start()
    assert told.get(timeout=20) == (1, 3)
    assert first.wanted() == {"waiters": 1, "priority": 3}
    assert [edge["lock"] for edge in locks.graph()["edges"]] == ["x"]
    assert "label=\"x\"" in locks.graph_dot()
    first.downgrade()
    first.release()
    waiting.join()


def test_a_deadlock_has_one_victim_and_says_why(locks):
    errors = []
    ready = threading.Barrier(2)

    def work(mine, other):
        with locks.lock(mine):
            ready.wait()
            try:
                with locks.lock(other, timeout=20):
                    pass
            except gitlock.Deadlock as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in [("x", "y"), ("y", "x")]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert "holds x, waits for y" in str(errors[0]) and "holds y, waits for x" in str(errors[0])


def test_cancelling_a_task_ends_its_upgrade(locks):
    async def main():
        first, second = locks.alock("x", shared=True), locks.alock("x", shared=True)
        await first.acquire()
        await second.acquire()
        upgrading = asyncio.create_task(first.upgrade())
        while not queue_of(locks, "x"):
            await asyncio.sleep(0.01)
        upgrading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upgrading
        while queue_of(locks, "x"):
            await asyncio.sleep(0.01)
        await second.release()
        await first.upgrade(timeout=20)
        assert locks.status("x")["holders"][0]["mode"] == "exclusive"
        await first.release()

    asyncio.run(main())


def test_the_interpreter_ends_while_calls_are_on_their_way(repository):
    code = """
        def done(guard, error):
            for _ in range(200):
                time.sleep(0)
        options = locks.lock("x", timeout=0)._options
        for at in range(300):
            locks._manager.start(["x"], options, done)
        time.sleep(0.01)
    """
    for _ in range(5):
        ending = python(repository, code, stderr=subprocess.PIPE)
        assert (ending.communicate()[1], ending.returncode) == ("", 0)


def managers_of_three(folder):
    paths = [folder / f"of-three-{number}" for number in range(3)]
    for path in paths:
        subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    return [gitlock.LockManager(path) for path in paths]


def each_its_own(lock, holders):
    """Two threads hold a lock by one object; the first to come is the first to go, and ends its own."""
    tokens, first_is_in, second_is_in, first_is_out = {}, threading.Event(), threading.Event(), threading.Event()

    def first():
        lock.acquire()
        tokens["first"] = lock.token
        first_is_in.set()
        assert second_is_in.wait(30)
        assert lock.token == tokens["first"]
        lock.release()
        first_is_out.set()

    def second():
        assert first_is_in.wait(30)
        lock.acquire()
        tokens["second"] = lock.token
        second_is_in.set()
        assert first_is_out.wait(30)
        assert lock.token == tokens["second"] and not lock.is_lost()
        assert holders() == 1
        lock.release()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result(60)
    assert tokens["first"] < tokens["second"] and holders() == 0


def test_threads_that_share_a_lock_object_release_their_own(locks, tmp_path):
    count = lambda manager: len(manager.status("read")["holders"])
    each_its_own(locks.lock("read", shared=True), lambda: count(locks))
    managers = managers_of_three(tmp_path)
    each_its_own(gitlock.Repositories(managers).all("read", shared=True), lambda: count(managers[0]))
    # One that was lost isn't taken for the next one's.
    lock = locks.lock("write")
    lock.acquire()
    locks.break_lock("write")
    until(lock.is_lost)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(lock.acquire).result(30)
        with pytest.raises(gitlock.LockLost):
            lock.release()
        assert locks.status("write")["held"]
        pool.submit(lock.release).result(30)
    assert not locks.status("write")["held"]


def test_threads_that_share_a_lock_in_several_repositories_wait_for_each_other(tmp_path):
    lock = gitlock.Repositories(managers_of_three(tmp_path)).quorum("write")
    inside = []
    with lock, concurrent.futures.ThreadPoolExecutor(1) as pool:
        with pytest.raises(RuntimeError, match="already"):
            lock.acquire()

        def second():
            with lock:
                inside.append("second")

        waits = pool.submit(second)
        time.sleep(0.2)
        inside.append("first")
        lock.release()
        waits.result(30)
        assert lock.acquire(timeout=30)
    assert inside == ["first", "second"]


def test_several_repositories_and_a_majority_of_them(tmp_path):
    managers = managers_of_three(tmp_path)
    with pytest.raises(gitlock.InvalidArgument):
        gitlock.Repositories([managers[0], managers[0]])
    three = gitlock.Repositories(managers)
    lock = three.quorum("deploy", reason="from Python")
    with pytest.raises(RuntimeError):
        lock.release()
    with lock:
        assert lock.token > 0 and lock.validity() > 20 and not lock.is_lost()
        assert not three.quorum("deploy").acquire(blocking=False)
        with pytest.raises(gitlock.Timeout, match="from Python"):
            with three.all("deploy", "other", timeout=0.05):
                pass
        assert not managers[2].status("other")["held"]
        lock.extend()
        assert len(lock.held_in()) == 3
        first = lock.token
    assert not any(manager.status("deploy")["held"] for manager in managers)
    lost = threading.Event()
    assert lock.acquire() and lock.token > first
    lock.on_lost(lost.set)
    for manager in managers[:2]:
        manager.break_lock("deploy")
    assert lost.wait(30) and lock.is_lost() and lock.validity() == 0
    with pytest.raises(gitlock.LockLost):
        lock.release()
    holder = managers[1].lock("deploy")
    holder.acquire()
    token = gitlock.CancelToken()
    waits = threading.Thread(target=lambda: pytest.raises(gitlock.Cancelled, three.all("deploy", cancel=token).acquire))
    waits.start()
    until(lambda: queue_of(managers[1], "deploy"))
    token.cancel()
    waits.join()
    holder.release()
    assert not managers[0].status("deploy")["held"]


def test_asyncio_in_several_repositories(tmp_path):
    managers = managers_of_three(tmp_path)
    three = gitlock.Repositories(managers)
    free = lambda: not any(manager.status("deploy")["held"] for manager in managers)

    async def main():
        lock = three.aquorum("deploy", reason="from asyncio")
        with pytest.raises(RuntimeError):
            await lock.release()
        async with lock:
            assert lock.token > 0 and lock.validity() > 20 and not lock.is_lost()
            with pytest.raises(RuntimeError, match="already"):
                await lock.acquire()
            # Not even once more by the same task.
            with pytest.raises(gitlock.Held):
                await three.aquorum("deploy").acquire(timeout=0)
            with pytest.raises(gitlock.Timeout, match="from asyncio"):
                await three.aall("deploy", "other", timeout=0.05).__aenter__()
            await lock.extend()
            assert len(lock.held_in()) == 3
            waiting = asyncio.create_task(three.aall("deploy", "other").acquire())
            while not any(queue_of(manager, "deploy") for manager in managers):
                await asyncio.sleep(0.001)
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            while any(queue_of(manager, "deploy") for manager in managers):
                await asyncio.sleep(0.001)
        assert free()
        # Cancelled at any moment, also when the grant is on its way, it leaves nothing.
        for at in range(40):
            task = asyncio.create_task(three.aquorum("deploy").acquire())
            await asyncio.sleep(at / 4_000)
            if not task.cancel():
                continue
            with pytest.raises(asyncio.CancelledError):
                await task
        lost = asyncio.Event()
        loop = asyncio.get_running_loop()
        assert await lock.acquire(timeout=30)
        lock.on_lost(lambda: loop.call_soon_threadsafe(lost.set))
        for manager in managers[:2]:
            manager.break_lock("deploy")
        await asyncio.wait_for(lost.wait(), 30)
        with pytest.raises(gitlock.LockLost):
            await lock.release()

    asyncio.run(main())
