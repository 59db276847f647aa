/* A build under a lock: build REPOSITORY COMMAND
 *
 *     cc -std=c11 build.c $(pkg-config --cflags --libs gitlock) -o build
 */
#define _POSIX_C_SOURCE 200809L
#include <gitlock.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

/* The message says what happened, who holds the lock, and what to do. */
static int failed(int code) {
  fprintf(stderr, "build: %s\n", gitlock_last_error_message());
  return code == GITLOCK_LOCK_LOST ? 3 : 1;
}

int main(int count, char **words) {
  const char *repository = count > 1 ? words[1] : ".", *command = count > 2 ? words[2] : "make";
  gitlock_manager *locks = NULL;
  gitlock_guard *build = NULL;

  int code = gitlock_open(repository, NULL, &locks);
  if (code)
    return failed(code);
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  options.wait_ms = 60 * 1000;
  options.reason = "an example in C";
  code = gitlock_acquire(locks, "build-lock", &options, &build);
  if (code) {
    int exit_code = failed(code);
    gitlock_manager_free(locks);
    return exit_code;
  }

  char token[32];
  snprintf(token, sizeof token, "%" PRIu64, gitlock_guard_token(build));
  setenv("GIT_LOCK_TOKEN", token, 1);
  int status = system(command);
  int exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;

  /* An error here says that the lock had been lost before: somebody else may have been building. */
  code = gitlock_guard_release(build);
  if (code)
    exit_code = failed(code);
  gitlock_guard_free(build);
  gitlock_manager_free(locks);
  return exit_code;
}
