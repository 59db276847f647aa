/*
 * libgitlock for C++17: RAII over gitlock.h, and nothing else. Header-only.
 *
 *     gitlock::manager locks(".");
 *     gitlock::guard build = locks.acquire("build");
 *     ...
 *     build.release();   // throws if the lock was lost meanwhile; the destructor can't tell
 *
 * Functions throw gitlock::error, or one of the classes derived from it. Each also comes with a
 * std::error_code& as its last parameter, and doesn't throw then (but std::bad_alloc).
 * Every member function that is const may be called from any thread at the same time.
 */
#ifndef GITLOCK_HPP
#define GITLOCK_HPP

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "gitlock.h"

namespace gitlock {

using std::chrono::milliseconds;

/** The codes of gitlock_code as a std::error_category. */
inline const std::error_category &category() noexcept {
  struct codes final : std::error_category {
    const char *name() const noexcept override { return "gitlock"; }
    std::string message(int code) const override {
      const char *word = gitlock_code_name(code);
      return word != nullptr ? word : "unknown code " + std::to_string(code);
    }
  };
  static const codes category;
  return category;
}

/** What went wrong: what() says what happened, who holds the lock, and what to do. */
class error : public std::system_error {
public:
  error(int code, const std::string &message, std::string json)
      : std::system_error(code, category()), message_(std::make_shared<const std::string>(message)),
        json_(std::make_shared<const std::string>(std::move(json))) {}
  const char *what() const noexcept override { return message_->c_str(); }
  /** One of gitlock_code. */
  int number() const noexcept { return code().value(); }
  /** One of gitlock_retry. */
  int retry() const noexcept { return gitlock_code_retry(number()); }
  /** The same as JSON, with the holder in it. */
  const std::string &json() const noexcept { return *json_; }

private:
  std::shared_ptr<const std::string> message_, json_; // so that a copy can't throw
};

/** Somebody else holds the lock, and the caller didn't want to wait. */
class held : public error { using error::error; };
/** The wait ended before the lock was granted. */
class timeout : public error { using error::error; };
/** The wait was cancelled. */
class cancelled : public error { using error::error; };
/** The tenure has ended: stop what was done under it. */
class lock_lost : public error { using error::error; };
/** The wait would never have ended: whoever it waited for waited for it in turn. */
class deadlock : public error { using error::error; };
/** The lock is somebody else's to release or extend. */
class not_owner : public error { using error::error; };

namespace detail {

[[noreturn]] inline void raise(int code) {
  std::string message = gitlock_last_error_message(), json = gitlock_last_error_json();
  switch (code) {
  case GITLOCK_HELD: throw held(code, message, std::move(json));
  case GITLOCK_TIMEOUT: throw timeout(code, message, std::move(json));
  case GITLOCK_CANCELLED: throw cancelled(code, message, std::move(json));
  case GITLOCK_LOCK_LOST: throw lock_lost(code, message, std::move(json));
  case GITLOCK_DEADLOCK: throw deadlock(code, message, std::move(json));
  case GITLOCK_NOT_OWNER: throw not_owner(code, message, std::move(json));
  default: throw error(code, message, std::move(json));
  }
}

/** Throws, unless there is a place for the code. */
inline bool check(int code, std::error_code *into) {
  if (into != nullptr) {
    into->assign(code, category());
  } else if (code != GITLOCK_OK) {
    raise(code);
  }
  return code == GITLOCK_OK;
}

struct deleter {
  void operator()(gitlock_manager *it) const noexcept { gitlock_manager_free(it); }
  void operator()(gitlock_guard *it) const noexcept { gitlock_guard_free(it); }
  void operator()(gitlock_cancel *it) const noexcept { gitlock_cancel_free(it); }
  void operator()(gitlock_repositories *it) const noexcept { gitlock_repositories_free(it); }
  void operator()(gitlock_multi_guard *it) const noexcept { gitlock_multi_guard_free(it); }
  void operator()(char *it) const noexcept { gitlock_string_free(it); }
};

template <class T> using owned = std::unique_ptr<T, deleter>;

inline std::string take(char *text) {
  owned<char> freed(text);
  return text != nullptr ? std::string(text) : std::string();
}

inline std::int64_t count(const std::optional<milliseconds> &time) { return time ? time->count() : GITLOCK_DEFAULT; }
inline std::int64_t flag(const std::optional<bool> &value) { return value ? *value : GITLOCK_DEFAULT; }
inline std::vector<const char *> texts(const std::vector<std::string> &values) {
  std::vector<const char *> texts;
  for (const std::string &value : values) texts.push_back(value.c_str());
  return texts;
}
inline const char *text(const std::string &value) { return value.empty() ? nullptr : value.c_str(); }

} // namespace detail

/** Ends waits from another thread. */
class cancel_token {
public:
  cancel_token() : cancel_(gitlock_cancel_new()) {}
  /** Ends every wait that was given this, now and later. */
  void cancel() const noexcept { gitlock_cancel_cancel(cancel_.get()); }
  const gitlock_cancel *get() const noexcept { return cancel_.get(); }

private:
  detail::owned<gitlock_cancel> cancel_;
};

/** How a manager works. What is left out is taken from the repository's configuration, or the default. */
struct options {
  std::string lock_prefix, owner;
  std::optional<std::int64_t> keep;
  std::optional<bool> durable;
  std::optional<milliseconds> stale_lock_age, max_clock_skew, claim_window, poll_interval, lock_timeout;
  bool environment = false;
  /** A remote of the repository to keep the locks at: its name, or a URL. */
  std::string remote;
  /** How long one question to the remote and its answer may take. Default: 10 s. */
  std::optional<milliseconds> remote_timeout;
};

/** How a lock is acquired. */
struct acquire_options {
  bool shared = false;
  std::int32_t priority = 0;
  /** The length of the lease. Default: 30 s. */
  std::optional<milliseconds> ttl;
  /** How long it may queue. Default: for ever. */
  std::optional<milliseconds> wait;
  /** For how long it is renewed at most. Default: without limit. */
  std::optional<milliseconds> max_hold;
  /** Whether it is renewed in the background. Default: yes, unless there is a fingerprint. */
  std::optional<bool> renew;
  std::string owner, fingerprint, reason;
  const cancel_token *cancel = nullptr;
  /** One of so many slots, instead of the whole lock; everybody has to say the same number. 0: the whole. */
  std::uint32_t slots = 0;
  /** Whether an owner who holds it already gets it once more. */
  bool reentrant = false;
  /** The handle of a tenure, maybe another process's: what is below its lock is taken at once. */
  std::string within;
  /** Called while it waits with how many wait before it, and the lock's status as JSON. Must not throw. */
  std::function<void(std::size_t, std::string_view)> on_wait;
};

namespace detail {

/** Takes something with these options, by this function. */
template <class Taken, class Take> Taken *acquire(Take take, const acquire_options &with, std::error_code *code) {
  using function = std::function<void(std::size_t, std::string_view)>;
  gitlock_acquire_options given;
  gitlock_acquire_options_init(&given, sizeof given);
  given.mode = with.shared ? GITLOCK_SHARED : GITLOCK_EXCLUSIVE;
  given.priority = with.priority;
  given.ttl_ms = detail::count(with.ttl);
  given.wait_ms = detail::count(with.wait);
  given.max_hold_ms = detail::count(with.max_hold);
  given.renew = detail::flag(with.renew);
  given.owner = detail::text(with.owner);
  given.fingerprint = detail::text(with.fingerprint);
  given.reason = detail::text(with.reason);
  given.slots = with.slots;
  given.reentrant = with.reentrant;
  given.within = detail::text(with.within);
  given.cancel = with.cancel != nullptr ? with.cancel->get() : nullptr;
  if (with.on_wait) {
    given.on_wait = [](void *data, std::size_t ahead, const char *status) {
      (*static_cast<const function *>(data))(ahead, status);
    };
    given.on_wait_data = const_cast<function *>(&with.on_wait);
  }
  Taken *taken = nullptr;
  detail::check(take(&given, &taken), code);
  return taken;
}

} // namespace detail

/** One tenure of a lock. Destroying it releases the lock, and can't tell of a failure. */
class guard {
public:
  guard() = default;
  /** Takes over what a C function gave. */
  explicit guard(gitlock_guard *taken) noexcept : guard_(taken) {}

  explicit operator bool() const noexcept { return guard_ != nullptr; }
  gitlock_guard *get() const noexcept { return guard_.get(); }
  std::string name() const { return or_empty(gitlock_guard_name(get())); }
  std::string id() const { return or_empty(gitlock_guard_id(get())); }
  /** The fencing token, which grows with every grant of the lock. */
  std::uint64_t token() const noexcept { return gitlock_guard_token(get()); }
  /** That of one of several locks; 0 if it isn't one of them. */
  std::uint64_t token_of(const std::string &name) const noexcept { return gitlock_guard_token_of(get(), name.c_str()); }
  /** Which slot it has, from 0, if it was taken as one of several. */
  std::optional<std::uint32_t> slot() const noexcept {
    const std::int32_t slot = gitlock_guard_slot(get());
    return slot >= 0 ? std::optional<std::uint32_t>(static_cast<std::uint32_t>(slot)) : std::nullopt;
  }
  bool is_shared() const noexcept { return gitlock_guard_mode(get()) == GITLOCK_SHARED; }
  bool is_lost() const noexcept { return gitlock_guard_is_lost(get()); }
  milliseconds remaining() const noexcept {
    return milliseconds(static_cast<milliseconds::rep>(gitlock_guard_remaining_ms(get())));
  }
  /** Makes the lease last so long from now; its own length without one. */
  void extend(std::optional<milliseconds> ttl = {}) const { extend(ttl, nullptr); }
  void extend(std::optional<milliseconds> ttl, std::error_code &code) const { extend(ttl, &code); }
  /**
   * Changes other refs of the repository, all or none, while the lock is held and not a moment longer: lock_lost if it
   * is lost. Each is a line of `git update-ref --stdin`, such as "update refs/heads/main NEW OLD". The message is for
   * reflogs.
   */
  void update_refs(const std::vector<std::string> &updates, const std::string &message = {}) const {
    update_refs(updates, message, nullptr);
  }
  void update_refs(const std::vector<std::string> &updates, const std::string &message, std::error_code &code) const {
    update_refs(updates, message, &code);
  }
  /**
   * Pushes refs to the server that the lock lives on, all or none, while the lock is held and not a moment longer:
   * lock_lost if it is lost. Each is a refspec of `git push`, such as "HEAD:refs/heads/main".
   */
  void push(const std::vector<std::string> &refspecs) const { push(refspecs, nullptr); }
  void push(const std::vector<std::string> &refspecs, std::error_code &code) const { push(refspecs, &code); }
  /** Makes a shared tenure exclusive: waits for the other holders to leave. deadlock if one of them does the same. */
  void upgrade(std::optional<milliseconds> wait = {}, const cancel_token *cancel = nullptr) const {
    upgrade(wait, cancel, nullptr);
  }
  void upgrade(std::optional<milliseconds> wait, const cancel_token *cancel, std::error_code &code) const {
    upgrade(wait, cancel, &code);
  }
  /** Makes an exclusive tenure shared, and lets in the readers who are first in the queue. */
  void downgrade() const { detail::check(gitlock_guard_downgrade(get()), nullptr); }
  void downgrade(std::error_code &code) const { detail::check(gitlock_guard_downgrade(get()), &code); }
  /** How many wait for what this holds, and the highest priority among them; 0 if nobody waits. */
  std::pair<std::size_t, std::int32_t> wanted() const {
    std::pair<std::size_t, std::int32_t> wanted{0, 0};
    detail::check(gitlock_guard_wanted(get(), &wanted.first, &wanted.second), nullptr);
    return wanted;
  }
  /** Calls this with the same, whenever it changes, on the library's thread. Must not throw, nor block. */
  void on_wanted(std::function<void(std::size_t, std::int32_t)> listener) const {
    using function = std::function<void(std::size_t, std::int32_t)>;
    auto data = std::make_unique<function>(std::move(listener));
    auto call = [](void *data, std::size_t waiters, std::int32_t priority) {
      (*static_cast<function *>(data))(waiters, priority);
    };
    auto free = [](void *data) { delete static_cast<function *>(data); };
    detail::check(gitlock_guard_on_wanted(get(), call, data.release(), free), nullptr);
  }
  /** Ends the tenure: lock_lost if it had ended before. */
  void release() { detail::check(gitlock_guard_release(get()), nullptr); }
  void release(std::error_code &code) { detail::check(gitlock_guard_release(get()), &code); }
  /** The tenure as a string, for another process or language. Treat it like a password. */
  std::string handle() const { return string(gitlock_guard_handle); }
  /** The same, and the tenure goes on without this guard. */
  std::string detach() { return string(gitlock_guard_detach); }
  /** Calls this once when the tenure is lost, on the library's thread. Must not throw, nor block. */
  void on_lost(std::function<void(std::string_view)> listener) const {
    using function = std::function<void(std::string_view)>;
    auto data = std::make_unique<function>(std::move(listener));
    auto call = [](void *data, const char *error) { (*static_cast<function *>(data))(error); };
    auto free = [](void *data) { delete static_cast<function *>(data); };
    detail::check(gitlock_guard_on_lost(get(), call, data.release(), free), nullptr);
  }

private:
  static std::string or_empty(const char *text) { return text != nullptr ? text : ""; }
  void extend(std::optional<milliseconds> ttl, std::error_code *code) const {
    detail::check(gitlock_guard_extend(get(), detail::count(ttl)), code);
  }
  void update_refs(const std::vector<std::string> &updates, const std::string &message, std::error_code *code) const {
    const auto lines = detail::texts(updates);
    const char *words = message.empty() ? nullptr : message.c_str();
    detail::check(gitlock_guard_update_refs(get(), lines.data(), lines.size(), words), code);
  }
  void push(const std::vector<std::string> &refspecs, std::error_code *code) const {
    const auto texts = detail::texts(refspecs);
    detail::check(gitlock_guard_push(get(), texts.data(), texts.size()), code);
  }
  void upgrade(std::optional<milliseconds> wait, const cancel_token *cancel, std::error_code *code) const {
    const gitlock_cancel *by = cancel != nullptr ? cancel->get() : nullptr;
    detail::check(gitlock_guard_upgrade(get(), detail::count(wait), by), code);
  }
  std::string string(int32_t (*ask)(const gitlock_guard *, char **)) const {
    char *text = nullptr;
    detail::check(ask(get(), &text), nullptr);
    return detail::take(text);
  }
  detail::owned<gitlock_guard> guard_;
};

/** The locks of one repository. */
class manager {
public:
  /** Opens the repository that `path` is in. */
  explicit manager(const std::string &path, const options &with = {}) {
    gitlock_options given;
    gitlock_options_init(&given, sizeof given);
    given.lock_prefix = detail::text(with.lock_prefix);
    given.owner = detail::text(with.owner);
    given.keep = with.keep.value_or(GITLOCK_DEFAULT);
    given.durable = detail::flag(with.durable);
    given.stale_lock_age_ms = detail::count(with.stale_lock_age);
    given.max_clock_skew_ms = detail::count(with.max_clock_skew);
    given.claim_window_ms = detail::count(with.claim_window);
    given.poll_interval_ms = detail::count(with.poll_interval);
    given.lock_timeout_ms = detail::count(with.lock_timeout);
    given.environment = with.environment;
    given.remote = detail::text(with.remote);
    given.remote_timeout_ms = detail::count(with.remote_timeout);
    gitlock_manager *opened = nullptr;
    detail::check(gitlock_open(path.c_str(), &given, &opened), nullptr);
    manager_.reset(opened);
  }

  gitlock_manager *get() const noexcept { return manager_.get(); }

  /** Acquires a lock, queueing for it if it is held. */
  guard acquire(const std::string &name, const acquire_options &with = {}) const {
    return acquire(one{get(), gitlock_acquire, name.c_str()}, with, nullptr);
  }
  guard acquire(const std::string &name, const acquire_options &with, std::error_code &code) const {
    return acquire(one{get(), gitlock_acquire, name.c_str()}, with, &code);
  }
  /** Acquires several locks, all of them or none, in whatever order they are named. */
  guard acquire_all(const std::vector<std::string> &names, const acquire_options &with = {}) const {
    return acquire_all(names, with, nullptr);
  }
  guard acquire_all(const std::vector<std::string> &names, const acquire_options &with, std::error_code &code) const {
    return acquire_all(names, with, &code);
  }
  /** Acquires it if that is possible at once; an empty guard if somebody holds it, or is first. */
  guard try_acquire(const std::string &name, const acquire_options &with = {}) const {
    std::error_code code;
    guard taken = acquire(one{get(), gitlock_try_acquire, name.c_str()}, with, &code);
    if (code && code.value() != GITLOCK_HELD) detail::raise(code.value());
    return taken;
  }
  /** As JSON, like everything below that returns a string: see gitlock.h. */
  std::string status(const std::string &name) const {
    return json([&](char **out) { return gitlock_status(get(), name.c_str(), out); });
  }
  std::string list() const {
    return json([&](char **out) { return gitlock_list(get(), out); });
  }
  /** Who waits for whom, and which waits would never end. */
  std::string graph() const {
    return json([&](char **out) { return gitlock_graph(get(), out); });
  }
  /** The same in the language of Graphviz. */
  std::string graph_dot() const {
    return json([&](char **out) { return gitlock_graph_dot(get(), out); });
  }
  /** Brings this repository's locks and a remote's together, for those who worked offline: see gitlock.h. */
  std::string sync(const manager &remote, const std::string &strategy = "remote-wins") const {
    return json([&](char **out) { return gitlock_sync(get(), remote.get(), strategy.c_str(), out); });
  }
  /** Throws lock_lost unless this token is that of somebody who holds the lock at this moment. */
  void verify(const std::string &name, std::uint64_t token) const {
    detail::check(gitlock_verify(get(), name.c_str(), token), nullptr);
  }
  void verify(const std::string &name, std::uint64_t token, std::error_code &code) const {
    detail::check(gitlock_verify(get(), name.c_str(), token), &code);
  }
  std::string log(const std::string &name, std::size_t most) const {
    return json([&](char **out) { return gitlock_log(get(), name.c_str(), most, out); });
  }
  /** Ends tenures by force, whoever holds them. */
  std::string break_lock(const std::string &name, const std::string &reason = {}, const std::string &id = {}) const {
    return json([&](char **out) {
      return gitlock_break(get(), name.c_str(), detail::text(id), detail::text(reason), out);
    });
  }
  std::string clean(std::optional<milliseconds> grace = {}) const {
    return json([&](char **out) { return gitlock_clean(get(), detail::count(grace), out); });
  }
  std::string doctor(bool fix = false) const {
    return json([&](char **out) { return gitlock_doctor(get(), fix, out); });
  }
  /** Releases a tenure by its handle. */
  void release(const std::string &handle) const { detail::check(gitlock_release(get(), handle.c_str()), nullptr); }
  /** Extends a tenure by its handle. Returns how long it lasts from here on. */
  milliseconds extend(const std::string &handle, std::optional<milliseconds> ttl = {}) const {
    std::uint64_t left = 0;
    detail::check(gitlock_extend(get(), handle.c_str(), detail::count(ttl), &left), nullptr);
    return milliseconds(static_cast<milliseconds::rep>(left));
  }
  /** Goes on with a tenure that another process, or a guard that was detached, began. */
  guard resume(const std::string &handle) const {
    gitlock_guard *taken = nullptr;
    detail::check(gitlock_resume(get(), handle.c_str(), &taken), nullptr);
    return guard(taken);
  }

private:
  using acquiring = int32_t (*)(const gitlock_manager *, const char *, const gitlock_acquire_options *,
                                gitlock_guard **);

  /** Takes one lock by this function. */
  struct one {
    const gitlock_manager *manager;
    acquiring by;
    const char *name;
    int32_t operator()(const gitlock_acquire_options *given, gitlock_guard **taken) const {
      return by(manager, name, given, taken);
    }
  };
  guard acquire_all(const std::vector<std::string> &names, const acquire_options &with, std::error_code *code) const {
    const auto texts = detail::texts(names);
    auto take = [&](const gitlock_acquire_options *given, gitlock_guard **taken) {
      return gitlock_acquire_all(get(), texts.data(), texts.size(), given, taken);
    };
    return acquire(take, with, code);
  }
  template <class Take> static guard acquire(Take take, const acquire_options &with, std::error_code *code) {
    return guard(detail::acquire<gitlock_guard>(take, with, code));
  }
  template <class Ask> static std::string json(Ask ask) {
    char *text = nullptr;
    detail::check(ask(&text), nullptr);
    return detail::take(text);
  }
  detail::owned<gitlock_manager> manager_;
};

/** A lock in several repositories. Released when it goes out of scope. */
class multi_guard {
public:
  multi_guard() = default;
  /** Takes over what a C function gave. */
  explicit multi_guard(gitlock_multi_guard *taken) noexcept : guard_(taken) {}

  explicit operator bool() const noexcept { return guard_ != nullptr; }
  gitlock_multi_guard *get() const noexcept { return guard_.get(); }
  /** The fencing token, which grows with every grant by the same repositories, whichever took part. */
  std::uint64_t token() const noexcept { return gitlock_multi_guard_token(get()); }
  /** Whether it is held in too few repositories. */
  bool is_lost() const noexcept { return gitlock_multi_guard_is_lost(get()); }
  /** For how long it is safe without another renewal. */
  milliseconds validity() const noexcept {
    return milliseconds(static_cast<milliseconds::rep>(gitlock_multi_guard_validity_ms(get())));
  }
  /** Where it is held at this moment, as a JSON array of locations. */
  std::string held_in() const {
    char *text = nullptr;
    detail::check(gitlock_multi_guard_held_in(get(), &text), nullptr);
    return detail::take(text);
  }
  /** Makes the leases last so long from now, and acquires it where it can be again. */
  void extend(std::optional<milliseconds> ttl = {}) const {
    detail::check(gitlock_multi_guard_extend(get(), detail::count(ttl)), nullptr);
  }
  /** Ends it everywhere: lock_lost if it was held in too few. */
  void release() { detail::check(gitlock_multi_guard_release(get()), nullptr); }
  void release(std::error_code &code) { detail::check(gitlock_multi_guard_release(get()), &code); }
  /** Calls this once when it is held in too few, on a thread of the library's. Must not throw, nor block. */
  void on_lost(std::function<void()> listener) const {
    using function = std::function<void()>;
    auto data = std::make_unique<function>(std::move(listener));
    auto call = [](void *data) { (*static_cast<function *>(data))(); };
    auto free = [](void *data) { delete static_cast<function *>(data); };
    detail::check(gitlock_multi_guard_on_lost(get(), call, data.release(), free), nullptr);
  }

private:
  detail::owned<gitlock_multi_guard> guard_;
};

/** Several repositories in which locks are taken together. Everybody has to name the same ones. */
class repositories {
public:
  explicit repositories(const std::vector<const manager *> &managers) {
    std::vector<const gitlock_manager *> given;
    for (const manager *each : managers) given.push_back(each->get());
    gitlock_repositories *opened = nullptr;
    detail::check(gitlock_repositories_open(given.data(), given.size(), &opened), nullptr);
    repositories_.reset(opened);
  }

  gitlock_repositories *get() const noexcept { return repositories_.get(); }
  /** Acquires these locks in every repository, or none. */
  multi_guard all(const std::vector<std::string> &names, const acquire_options &with = {}) const {
    return all(names, with, nullptr);
  }
  multi_guard all(const std::vector<std::string> &names, const acquire_options &with, std::error_code &code) const {
    return all(names, with, &code);
  }
  /** Acquires a lock in a majority of the repositories, whichever can be used. One that is away isn't waited for; one in
   * which somebody holds the lock is. */
  multi_guard quorum(const std::string &name, const acquire_options &with = {}) const {
    return quorum(name, with, nullptr);
  }
  multi_guard quorum(const std::string &name, const acquire_options &with, std::error_code &code) const {
    return quorum(name, with, &code);
  }

private:
  multi_guard all(const std::vector<std::string> &names, const acquire_options &with, std::error_code *code) const {
    const auto texts = detail::texts(names);
    auto take = [&](const gitlock_acquire_options *given, gitlock_multi_guard **taken) {
      return gitlock_repositories_acquire_all(get(), texts.data(), texts.size(), given, taken);
    };
    return multi_guard(detail::acquire<gitlock_multi_guard>(take, with, code));
  }
  multi_guard quorum(const std::string &name, const acquire_options &with, std::error_code *code) const {
    auto take = [&](const gitlock_acquire_options *given, gitlock_multi_guard **taken) {
      return gitlock_repositories_acquire_quorum(get(), name.c_str(), given, taken);
    };
    return multi_guard(detail::acquire<gitlock_multi_guard>(take, with, code));
  }
  detail::owned<gitlock_repositories> repositories_;
};

/** The handle of a tenure that was acquired with a fingerprint. */
inline std::string handle_by_fingerprint(const std::string &name, const std::string &fingerprint) {
  char *text = nullptr;
  detail::check(gitlock_handle_by_fingerprint(name.c_str(), fingerprint.c_str(), &text), nullptr);
  return detail::take(text);
}

} // namespace gitlock

#endif // GITLOCK_HPP
