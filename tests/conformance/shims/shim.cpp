/* The shim of the C++ surface. tests/conformance/README.md says what is asked and answered. */
#include <sys/wait.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include <gitlock.hpp>

namespace {

const char *const operations = "open close acquire try start cancel look extend release upgrade start-upgrade downgrade "
                               "token-of wanted heed watch handle detach fork handle-of resume extend-handle "
                               "release-handle status update-refs push verify list graph log break clean doctor sync everywhere quorum let-go";

using fields = std::map<std::string, std::string>;
using gitlock::milliseconds;

std::string encode(const std::string &value) {
  static const char *const digits = "0123456789ABCDEF";
  std::string text;
  for (char c : value) {
    if (c == '%' || c == '\t' || c == '\n' || c == '\r') text += {'%', digits[c / 16], digits[c % 16]};
    else text += c;
  }
  return text;
}

std::string decode(const std::string &value) {
  std::string text;
  for (std::size_t at = 0; at < value.size(); at++) {
    if (value[at] == '%') text += static_cast<char>(std::stoi(value.substr(at + 1, 2), nullptr, 16)), at += 2;
    else text += value[at];
  }
  return text;
}

/** A line that is being made, written in one piece. */
struct line {
  explicit line(const std::string &verb) : text(verb) {}
  line &add(const std::string &key, const std::string &value) {
    text += "\t" + key + "=" + encode(value);
    return *this;
  }
  line &add(const gitlock::guard &guard) {
    if (guard.slot()) add("slot", std::to_string(*guard.slot()));
    return add("id", guard.id()).add("token", std::to_string(guard.token())).add("mode", guard.is_shared() ? "shared" : "exclusive");
  }
  line &add(const gitlock::error &error) {
    const char *name = "error";
    if (dynamic_cast<const gitlock::held *>(&error)) name = "held";
    if (dynamic_cast<const gitlock::timeout *>(&error)) name = "timeout";
    if (dynamic_cast<const gitlock::cancelled *>(&error)) name = "cancelled";
    if (dynamic_cast<const gitlock::lock_lost *>(&error)) name = "lock_lost";
    if (dynamic_cast<const gitlock::deadlock *>(&error)) name = "deadlock";
    if (dynamic_cast<const gitlock::not_owner *>(&error)) name = "not_owner";
    return add("class", std::string("gitlock::") + name).add("error", error.json());
  }
  void say() const {
    static std::mutex one;
    std::lock_guard<std::mutex> alone(one);
    std::cout << text << std::endl;
  }
  std::string text;
};

std::optional<std::string> get(const fields &given, const std::string &key) {
  auto found = given.find(key);
  return found != given.end() ? std::optional<std::string>(found->second) : std::nullopt;
}

std::optional<milliseconds> time(const fields &given, const std::string &key) {
  auto value = get(given, key);
  return value ? std::optional<milliseconds>(std::stoll(*value)) : std::nullopt;
}

gitlock::acquire_options options_of(const fields &given) {
  gitlock::acquire_options options;
  options.shared = given.count("shared") != 0;
  options.priority = static_cast<std::int32_t>(std::stoll(get(given, "priority").value_or("0")));
  options.ttl = time(given, "ttl");
  options.wait = time(given, "wait");
  options.max_hold = time(given, "max_hold");
  options.slots = static_cast<std::uint32_t>(std::stoul(get(given, "slots").value_or("0")));
  if (auto renew = get(given, "renew")) options.renew = *renew == "yes";
  options.owner = get(given, "owner").value_or("");
  options.fingerprint = get(given, "fingerprint").value_or("");
  options.reason = get(given, "reason").value_or("");
  options.within = get(given, "within").value_or("");
  options.reentrant = given.count("reentrant") != 0;
  return options;
}

/** The names of a set: `name`, and those of `also`, separated by commas. */
std::vector<std::string> names_of(const fields &given) {
  std::vector<std::string> names{given.at("name")};
  std::istringstream also(get(given, "also").value_or(""));
  for (std::string name; std::getline(also, name, ',');) names.push_back(name);
  return names;
}

gitlock::guard acquire(const gitlock::manager &manager, const fields &given, const gitlock::acquire_options &options) {
  const auto names = names_of(given);
  return names.size() == 1 ? manager.acquire(names[0], options) : manager.acquire_all(names, options);
}

struct shim {
  std::optional<gitlock::manager> manager;
  std::mutex mutex;
  std::map<std::string, gitlock::guard> guards;
  std::map<std::string, gitlock::multi_guard> several;
  std::map<std::string, gitlock::cancel_token> waits;

  gitlock::guard &guard(const fields &given) {
    std::lock_guard<std::mutex> alone(mutex);
    return guards.at(given.at("guard"));
  }

  void keep(line &told, const fields &given, gitlock::guard guard) {
    std::lock_guard<std::mutex> alone(mutex);
    told.add(guard);
    auto name = get(given, "as").value_or(guard.name());
    guards[name] = std::move(guard);
  }

  void take_several(const std::string &verb, const fields &given, line &told) {
    std::vector<gitlock::manager> managers;
    std::istringstream places(given.at("places"));
    for (std::string place; std::getline(places, place, ',');) managers.emplace_back(place);
    std::vector<const gitlock::manager *> all;
    for (const auto &manager : managers) all.push_back(&manager);
    const gitlock::repositories repositories(all);
    auto taken = verb == "quorum" ? repositories.quorum(given.at("name"), options_of(given))
                                  : repositories.all(names_of(given), options_of(given));
    told.add("token", std::to_string(taken.token()));
    several[get(given, "as").value_or(given.at("name"))] = std::move(taken);
  }

  /** Waits on a thread of its own, and tells when that is over. */
  void start(fields given) {
    std::thread([this, given, token = &waits[given.at("wait_as")]]() mutable {
      const std::string about = given["as"] = given.at("wait_as");
      line told("event");
      told.add("kind", "ended").add("about", about);
      try {
        auto options = options_of(given);
        options.cancel = token;
        options.on_wait = [&about](std::size_t ahead, std::string_view) {
          line("event").add("kind", "waiting").add("about", about).add("ahead", std::to_string(ahead)).say();
        };
        keep(told, given, acquire(*manager, given, options));
      } catch (const gitlock::error &error) {
        told.add(error);
      }
      told.say();
    }).detach();
  }

  /** Upgrades on a thread of its own, and tells when that is over. */
  void start_upgrade(const fields &given) {
    std::thread([&held = guard(given), given, token = &waits[given.at("wait_as")]] {
      line told("event");
      told.add("kind", "ended").add("about", given.at("wait_as"));
      try {
        held.upgrade(time(given, "wait"), token);
        told.add(held);
      } catch (const gitlock::error &error) {
        told.add(error);
      }
      told.say();
    }).detach();
  }

  static void add(line &told, std::size_t waiters, std::int32_t priority) {
    told.add("waiters", std::to_string(waiters)).add("priority", std::to_string(priority));
  }

  void carry_out(const std::string &verb, const fields &given, line &told) {
    auto name = get(given, "name").value_or(""), handle = get(given, "handle").value_or("");
    if (verb == "supports") told.add("operations", operations);
    else if (verb == "open") {
      gitlock::options options;
      options.lock_prefix = get(given, "prefix").value_or("");
      options.owner = get(given, "owner").value_or("");
      options.remote = get(given, "remote").value_or("");
      if (auto keep = get(given, "keep")) options.keep = std::stoll(*keep);
      options.lock_timeout = time(given, "lock_timeout");
      options.max_clock_skew = time(given, "max_clock_skew");
      manager.reset();
      manager.emplace(given.at("path"), options);
    } else if (verb == "close") manager.reset();
    else if (verb == "acquire") keep(told, given, acquire(*manager, given, options_of(given)));
    else if (verb == "try") {
      // With a std::error_code, as those who don't throw do it; what failed is told in full all the same.
      auto options = options_of(given);
      options.wait = milliseconds(0);
      std::error_code code;
      const auto names = names_of(given);
      gitlock::guard taken =
          names.size() == 1 ? manager->acquire(name, options, code) : manager->acquire_all(names, options, code);
      if (code) gitlock::detail::raise(code.value());
      keep(told, given, std::move(taken));
    } else if (verb == "everywhere" || verb == "quorum") take_several(verb, given, told);
    else if (verb == "let-go") several.at(given.at("guard")).release();
    else if (verb == "start") start(given);
    else if (verb == "cancel") waits.at(given.at("wait_as")).cancel();
    else if (verb == "look") {
      auto &held = guard(given);
      told.add(held).add("lost", held.is_lost() ? "true" : "false").add("remaining", std::to_string(held.remaining().count()));
    } else if (verb == "extend") guard(given).extend(time(given, "ttl"));
    else if (verb == "release") guard(given).release();
    else if (verb == "upgrade") guard(given).upgrade(time(given, "wait"));
    else if (verb == "start-upgrade") start_upgrade(given);
    else if (verb == "downgrade") guard(given).downgrade();
    else if (verb == "token-of") {
      if (auto token = guard(given).token_of(name)) told.add("token", std::to_string(token));
    } else if (verb == "wanted") {
      auto wanted = guard(given).wanted();
      add(told, wanted.first, wanted.second);
    } else if (verb == "heed") {
      guard(given).on_wanted([about = given.at("guard")](std::size_t waiters, std::int32_t priority) {
        line told("event");
        add(told.add("kind", "wanted").add("about", about), waiters, priority);
        told.say();
      });
    } else if (verb == "graph") told.add("json", manager->graph());
    else if (verb == "sync") {
      const gitlock::manager there(given.at("there"));
      const auto strategy = get(given, "strategy");
      told.add("json", strategy ? manager->sync(there, *strategy) : manager->sync(there));
    }
    else if (verb == "watch") {
      guard(given).on_lost([about = given.at("guard")](std::string_view error) {
        line("event").add("kind", "lost").add("about", about).add("class", "gitlock::lock_lost").add("error", std::string(error)).say();
      });
    } else if (verb == "handle") told.add("handle", guard(given).handle());
    else if (verb == "detach") told.add("handle", guard(given).detach());
    else if (verb == "handle-of") told.add("handle", gitlock::handle_by_fingerprint(name, given.at("fingerprint")));
    else if (verb == "resume") keep(told, given, manager->resume(handle));
    else if (verb == "extend-handle") told.add("remaining", std::to_string(manager->extend(handle, time(given, "ttl")).count()));
    else if (verb == "release-handle") manager->release(handle);
    else if (verb == "update-refs") {
      std::vector<std::string> changes{given.at("change")};
      if (given.count("also") != 0) changes.push_back(given.at("also"));
      guard(given).update_refs(changes, get(given, "message").value_or(""));
    } else if (verb == "push") {
      std::vector<std::string> refspecs{given.at("refspec")};
      if (given.count("also") != 0) refspecs.push_back(given.at("also"));
      guard(given).push(refspecs);
    } else if (verb == "verify") manager->verify(name, std::stoull(given.at("token")));
    else if (verb == "status") told.add("json", manager->status(name));
    else if (verb == "list") told.add("json", manager->list());
    else if (verb == "log") told.add("json", manager->log(name, std::stoul(get(given, "most").value_or("100"))));
    else if (verb == "break") told.add("json", manager->break_lock(name, get(given, "reason").value_or(""), get(given, "tenure").value_or("")));
    else if (verb == "clean") told.add("json", manager->clean(time(given, "grace")));
    else if (verb == "doctor") told.add("json", manager->doctor(given.count("fix") != 0));
    else throw std::invalid_argument("nobody knows how to " + verb);
  }

  void answer(const std::string &verb, const fields &given) {
    line ok("ok"), failed("error");
    ok.add("n", given.at("n"));
    failed.add("n", given.at("n"));
    try {
      carry_out(verb, given, ok);
      ok.say();
    } catch (const gitlock::error &error) {
      failed.add(error).say();
    }
  }
};

} // namespace

int main() {
  static shim here; // waits on other threads may look at it until the very end
  for (std::string text; std::getline(std::cin, text);) {
    std::istringstream words(text);
    std::string verb, word;
    std::getline(words, verb, '\t');
    fields given;
    while (std::getline(words, word, '\t')) {
      auto at = word.find('=');
      given[word.substr(0, at)] = decode(word.substr(at + 1));
    }
    if (verb != "fork") here.answer(verb, given);
    // A copy of this process tries to use a guard, and answers in its place.
    else if (fork() == 0) here.answer("extend", given), _exit(0);
    else wait(nullptr);
  }
  here.guards.clear();
  here.several.clear();
  here.manager.reset();
  std::cout.flush();
  _exit(0); // without ending what detached threads use
}
