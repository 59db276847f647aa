// A build under a lock: build REPOSITORY COMMAND
//
//     c++ -std=c++17 build.cpp $(pkg-config --cflags --libs gitlock) -o build
#include <gitlock.hpp>

#include <cstdlib>
#include <iostream>
#include <sys/wait.h>

int main(int count, char **words) {
  using namespace std::chrono_literals;
  const std::string repository = count > 1 ? words[1] : ".", command = count > 2 ? words[2] : "make";
  try {
    const gitlock::manager locks(repository);
    gitlock::acquire_options options;
    options.wait = 60s;
    options.reason = "an example in C++";
    gitlock::guard build = locks.acquire("build-lock", options);

    setenv("GIT_LOCK_TOKEN", std::to_string(build.token()).c_str(), 1);
    const int status = std::system(command.c_str());
    build.release(); // throws if the lock had been lost before; the destructor couldn't tell
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  } catch (const gitlock::error &error) {
    std::cerr << "build: " << error.what() << '\n';
    return error.number() == GITLOCK_LOCK_LOST ? 3 : 1;
  }
}
