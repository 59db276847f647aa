/* For the benchmark of the surfaces: pairs REPOSITORY. For each number that it reads from stdin it acquires and releases a
 * free lock so many times, and prints how many nanoseconds a pair took. */
#define _POSIX_C_SOURCE 200809L
#include <gitlock.h>
#include <stdio.h>
#include <time.h>

static long long nanos(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(int count, char **words) {
  gitlock_manager *manager = NULL;
  if (count != 2 || gitlock_open(words[1], NULL, &manager))
    return 1;
  long pairs;
  while (scanf("%ld", &pairs) == 1 && pairs > 0) {
    long long start = nanos();
    for (long at = 0; at < pairs; at++) {
      gitlock_guard *guard = NULL;
      if (gitlock_acquire(manager, "c", NULL, &guard) || gitlock_guard_release(guard)) {
        fprintf(stderr, "%s\n", gitlock_last_error_message());
        return 1;
      }
      gitlock_guard_free(guard);
    }
    printf("%lld\n", (nanos() - start) / pairs);
    fflush(stdout);
  }
  gitlock_manager_free(manager);
  return 0;
}
