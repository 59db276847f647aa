/* A worker of the hosts, in C. What it does is in README.md. */
#define _GNU_SOURCE
#include <gitlock.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static const char *root, *role;
static uint64_t state;

static uint64_t below(uint64_t end) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % end;
}

static void rest(uint64_t millis) {
  struct timespec time = {0, (long)(below(millis) * 1000000)};
  nanosleep(&time, NULL);
}

static void say(const char *format, ...) {
  char line[2048];
  va_list words;
  va_start(words, format);
  int length = vsnprintf(line, sizeof line - 1, format, words);
  va_end(words);
  if (length < 0)
    abort();
  if ((size_t)length > sizeof line - 2)
    length = sizeof line - 2;
  for (int at = 0; at < length; at++)
    if (line[at] == '\n')
      line[at] = ' ';
  line[length] = '\n';
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s/resource", root);
  int resource = socket(AF_UNIX, SOCK_STREAM, 0);
  if (resource < 0 || connect(resource, (struct sockaddr *)&address, sizeof address))
    abort();
  if (write(resource, line, (size_t)length + 1) != length + 1 || read(resource, line, sizeof line) < 0)
    abort();
  close(resource);
}

int main(int count, char **words) {
  static const char *const names[] = {"build", "deploy", "docs", "release", "site", "test"};
  char stop[4096];
  if (count != 6)
    return 2;
  root = words[1];
  role = words[4];
  state = strtoull(words[5], NULL, 10);
  snprintf(stop, sizeof stop, "%s/stop", root);
  gitlock_options options;
  gitlock_options_init(&options, sizeof options);
  options.remote = words[3];
  options.poll_interval_ms = 150;
  options.remote_timeout_ms = 2000;
  gitlock_manager *manager = NULL;
  int code = gitlock_open(words[2], &options, &manager);
  if (code) {
    say("failed %s %s %s", role, gitlock_code_name(code), gitlock_last_error_message());
    return 1;
  }
  while (access(stop, F_OK)) {
    const char *name = names[below(6)];
    gitlock_acquire_options how;
    gitlock_acquire_options_init(&how, sizeof how);
    how.ttl_ms = 3000;
    how.wait_ms = 15000;
    gitlock_guard *guard = NULL;
    code = gitlock_acquire(manager, name, &how, &guard);
    if (code) {
      say("failed %s %s %s", role, gitlock_code_name(code), gitlock_last_error_message());
      continue;
    }
    unsigned long long token = (unsigned long long)gitlock_guard_token(guard);
    say("enter %s %llu %s", name, token, role);
    rest(30);
    say("leave %s %llu", name, token);
    code = gitlock_guard_release(guard);
    say("result %s %llu %s", name, token, code ? gitlock_code_name(code) : "ok");
    gitlock_guard_free(guard);
    rest(20);
  }
  gitlock_manager_free(manager);
  return 0;
}
