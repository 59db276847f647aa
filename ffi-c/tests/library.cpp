// What gitlock.hpp promises, in C++17: `library REPOSITORY`, built and run by `cargo xtask c`.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <type_traits>

#include <gitlock.hpp>

#define CHECK(what)                                                                                \
  do {                                                                                             \
    if (!(what)) {                                                                                 \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);                              \
      std::exit(1);                                                                                \
    }                                                                                              \
  } while (0)

static_assert(!std::is_copy_constructible_v<gitlock::guard> && std::is_nothrow_move_constructible_v<gitlock::guard>);
static_assert(!std::is_copy_constructible_v<gitlock::manager>);

template <class Error, class Call> void throws(int code, Call call) {
  try {
    call();
  } catch (const Error &error) {
    CHECK(error.number() == code && std::string(error.what()).size() > 10 && !error.json().empty());
    return;
  }
  CHECK(!"nothing was thrown");
}

int main(int count, char **arguments) {
  using namespace std::chrono_literals;
  if (count < 2) return 2;
  const gitlock::manager locks(arguments[1]);
  throws<gitlock::error>(GITLOCK_NOT_A_REPOSITORY, [] { gitlock::manager nowhere("/"); });
  throws<gitlock::error>(GITLOCK_INVALID_NAME, [&] { locks.acquire("a//b"); });

  std::uint64_t token;
  {
    gitlock::guard build = locks.acquire("build++");
    token = build.token();
    CHECK(build && !build.is_lost() && build.name() == "build++" && build.remaining() > 20s && !build.is_shared());
    CHECK(!locks.try_acquire("build++"));
    gitlock::acquire_options brief;
    brief.wait = 20ms;
    throws<gitlock::timeout>(GITLOCK_TIMEOUT, [&] { locks.acquire("build++", brief); });
    brief.wait = 0ms;
    throws<gitlock::held>(GITLOCK_HELD, [&] { locks.acquire("build++", brief); });
    std::error_code code;
    CHECK(!locks.acquire("build++", brief, code) && code.value() == GITLOCK_HELD);
    CHECK(code.category() == gitlock::category() && code.message() == "HELD");
    gitlock::guard moved = std::move(build);
    CHECK(!build && moved);
  } // released here
  gitlock::guard again = locks.try_acquire("build++");
  CHECK(again && again.token() > token);
  again.extend(90s);
  CHECK(again.remaining() > 80s);
  again.release();
  throws<gitlock::lock_lost>(GITLOCK_LOCK_LOST, [&] { again.release(); });

  // A wait that is told of, cancelled, and one that is granted.
  gitlock::guard held = locks.acquire("queue++");
  gitlock::cancel_token cancel;
  gitlock::acquire_options waits;
  waits.cancel = &cancel;
  std::atomic<int> told{0};
  waits.on_wait = [&](std::size_t ahead, std::string_view status) {
    if (ahead == 0 && status.find("\"held\":true") != status.npos) told++;
  };
  std::thread canceller([&] {
    while (told == 0) std::this_thread::sleep_for(1ms);
    cancel.cancel();
  });
  throws<gitlock::cancelled>(GITLOCK_CANCELLED, [&] { locks.acquire("queue++", waits); });
  canceller.join();

  // A loss, told to a listener whose data is freed by the library.
  auto alive = std::make_shared<int>(0);
  std::atomic<bool> lost{false};
  held.on_lost([&lost, alive](std::string_view error) { lost = error.find("LOCK_LOST") != error.npos; });
  CHECK(alive.use_count() == 2);
  CHECK(locks.break_lock("queue++", "a test").find("\"broken\"") != std::string::npos);
  while (!lost) std::this_thread::sleep_for(1ms);
  CHECK(held.is_lost());
  throws<gitlock::lock_lost>(GITLOCK_LOCK_LOST, [&] { held.release(); });
  held = gitlock::guard();
  while (alive.use_count() > 1) std::this_thread::sleep_for(1ms);

  gitlock::acquire_options printed;
  printed.fingerprint = "session";
  gitlock::guard lease = locks.acquire("lease++", printed);
  throws<gitlock::not_owner>(GITLOCK_NOT_OWNER,
                             [&] { locks.release(gitlock::handle_by_fingerprint("lease++", "other")); });
  const std::string handle = lease.detach();
  CHECK(locks.extend(handle, 60s) > 50s);
  gitlock::guard resumed = locks.resume(handle);
  CHECK(resumed.id().size() == 36 && resumed.handle() == handle);
  resumed.release();
  CHECK(locks.status("lease++").find("\"held\":false") != std::string::npos);
  CHECK(locks.list().find("locks") != std::string::npos && locks.log("lease++", 3).find("released") != std::string::npos);
  CHECK(locks.clean().find("objects") != std::string::npos && locks.doctor().find("findings") != std::string::npos);

  // Several locks, slots, parts, upgrades, and who waits.
  {
    gitlock::options mine;
    mine.owner = "somebody else";
    const gitlock::manager others(arguments[1], mine);
    gitlock::acquire_options once;
    once.wait = 0ms;
    gitlock::guard set = locks.acquire_all({"set++/b", "set++/a"});
    CHECK(set.token() == set.token_of("set++/b") && set.token_of("set++") == 0 && !set.slot());
    locks.verify("set++/a", set.token_of("set++/a"));
    throws<gitlock::lock_lost>(GITLOCK_LOCK_LOST, [&] { locks.verify("set++/a", 0); });
    std::error_code code;
    CHECK(!others.acquire_all({"set++/a", "set++/c"}, once, code) && code.value() == GITLOCK_HELD);
    locks.acquire("for-refs").release();
    const std::string create = "create refs/heads/by-c++ refs/gitvan/journal/for-refs";
    set.update_refs({create, "verify refs/heads/never"}, "from C++");
    set.update_refs({create}, "", code);
    CHECK(code.value() == GITLOCK_REF_CHANGED);
    throws<gitlock::error>(GITLOCK_UNSUPPORTED, [&] { set.push({"refs/heads/by-c++"}); });
    set.push({"refs/heads/*"}, code);
    CHECK(code.value() == GITLOCK_INVALID_ARGUMENT);
    set.release();
    throws<gitlock::lock_lost>(GITLOCK_LOCK_LOST, [&] { set.update_refs({"delete refs/heads/by-c++"}); });
    // To a server, by what stands in for ssh: it runs its command here.
    const std::string server = std::string(arguments[1]) + "/server.git";
    CHECK(std::system(("git init -q --bare '" + server + "'").c_str()) == 0);
    setenv("GIT_SSH_COMMAND", "sh -c 'for last; do :; done; exec sh -c \"$last\"' ssh", 1);
    setenv("GIT_SSH_VARIANT", "ssh", 1);
    mine.remote = "ssh://host" + server;
    gitlock::guard pushing = gitlock::manager(arguments[1], mine).acquire("push++");
    pushing.push({"refs/heads/by-c++", "refs/heads/by-c++:refs/heads/again"});
    pushing.push({":refs/heads/gone"}, code);
    CHECK(code.value() == GITLOCK_REF_CHANGED);
    CHECK(std::system(("git -C '" + server + "' rev-parse -q --verify refs/heads/again >/dev/null").c_str()) == 0);
    pushing.release();
    once.slots = 2;
    gitlock::guard slot = locks.acquire("slots++", once), next = locks.acquire("slots++", once);
    CHECK(slot.slot() == 0u && next.slot() == 1u);
    once.slots = 3;
    throws<gitlock::error>(GITLOCK_SLOTS_DIFFER, [&] { locks.acquire("slots++", once); });

    gitlock::guard whole = locks.acquire("tree++");
    gitlock::acquire_options part;
    part.within = whole.handle();
    CHECK(!others.try_acquire("tree++/x") && others.try_acquire("tree++/x", part));
    gitlock::acquire_options again;
    again.reentrant = true;
    gitlock::guard outer = locks.acquire("again++", again), inner = locks.acquire("again++", again);
    outer.release();
    CHECK(!inner.is_lost());

    gitlock::acquire_options reads;
    reads.shared = true;
    gitlock::guard reader = locks.acquire("up++", reads), other = others.acquire("up++", reads);
    reader.upgrade(0ms, nullptr, code);
    CHECK(code.value() == GITLOCK_HELD && reader.is_shared());
    std::thread upgrading([&] { reader.upgrade(); });
    while (locks.status("up++").find("\"queue\":[]") != std::string::npos) std::this_thread::sleep_for(1ms);
    throws<gitlock::deadlock>(GITLOCK_DEADLOCK, [&] { other.upgrade(); });
    CHECK(locks.graph().find("\"edges\":[{") != std::string::npos && locks.graph_dot().find("->") != std::string::npos);
    other.release();
    upgrading.join();
    CHECK(!reader.is_shared());
    std::atomic<std::size_t> waiting{0};
    reader.on_wanted([&waiting](std::size_t waiters, std::int32_t) { waiting = waiters; });
    gitlock::cancel_token stop;
    gitlock::acquire_options wants;
    wants.cancel = &stop;
    std::thread wanting([&] { throws<gitlock::cancelled>(GITLOCK_CANCELLED, [&] { others.acquire("up++", wants); }); });
    while (waiting != 1) std::this_thread::sleep_for(1ms);
    CHECK(reader.wanted().first == 1 && reader.wanted().second == 0);
    stop.cancel();
    wanting.join();
    reader.downgrade();
    CHECK(reader.is_shared());
  }

  // Three repositories, of which two are enough.
  {
    const std::string folder = arguments[1];
    std::vector<gitlock::manager> managers;
    for (const char *name : {"/of-three-0", "/of-three-1", "/of-three-2"}) {
      CHECK(std::system(("git init -q --bare '" + folder + name + "'").c_str()) == 0);
      managers.emplace_back(folder + name);
    }
    throws<gitlock::error>(GITLOCK_INVALID_ARGUMENT, [&] { gitlock::repositories{{&managers[0], &managers[0]}}; });
    const gitlock::repositories three({&managers[0], &managers[1], &managers[2]});
    gitlock::acquire_options once;
    once.wait = 0ms;
    gitlock::multi_guard most = three.quorum("deploy", once);
    CHECK(most && most.token() > 0 && !most.is_lost() && most.validity() > 1000ms);
    throws<gitlock::held>(GITLOCK_HELD, [&] { three.quorum("deploy", once); });
    std::error_code code;
    CHECK(!three.all({"deploy", "x"}, once, code) && code.value() == GITLOCK_HELD);
    most.extend();
    CHECK(most.held_in().find("of-three-2") != std::string::npos);
    std::atomic<bool> lost{false};
    most.on_lost([&lost] { lost = true; });
    managers[0].break_lock("deploy");
    managers[1].break_lock("deploy");
    while (!lost) std::this_thread::sleep_for(1ms);
    throws<gitlock::lock_lost>(GITLOCK_LOCK_LOST, [&] { most.release(); });
    most = three.all({"deploy", "x"}, once);
    most.release();
  }
  std::puts("libgitlock in C++: every check holds");
}
