/* What libgitlock promises, in C11: `library REPOSITORY [no-fork]`, built and run by `cargo xtask c`. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <gitlock.h>

#define CHECK(what)                                                                                \
  do {                                                                                             \
    if (!(what)) {                                                                                 \
      fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #what,                   \
              gitlock_last_error_message());                                                       \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

static const char *repository;

static gitlock_manager *open_manager(void) {
  gitlock_manager *manager = NULL;
  CHECK(gitlock_open(repository, NULL, &manager) == GITLOCK_OK);
  return manager;
}

static void pause_ms(long ms) {
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

static void acquire_and_release(void) {
  gitlock_manager *manager = open_manager();
  gitlock_guard *guard = NULL, *other = NULL;
  CHECK(gitlock_acquire(manager, "build", NULL, &guard) == GITLOCK_OK);
  CHECK(strcmp(gitlock_guard_name(guard), "build") == 0 && strlen(gitlock_guard_id(guard)) == 36);
  CHECK(gitlock_guard_mode(guard) == GITLOCK_EXCLUSIVE && !gitlock_guard_is_lost(guard));
  CHECK(gitlock_guard_remaining_ms(guard) > 20000);
  uint64_t token = gitlock_guard_token(guard);
  CHECK(gitlock_try_acquire(manager, "build", NULL, &other) == GITLOCK_HELD && other == NULL);
  CHECK(strcmp(gitlock_code_name(gitlock_last_error_code()), "HELD") == 0);
  CHECK(strstr(gitlock_last_error_message(), "is held by") != NULL);
  CHECK(strstr(gitlock_last_error_json(), "\"holder\":{") != NULL);
  CHECK(gitlock_code_retry(GITLOCK_HELD) == GITLOCK_RETRY_LATER);
  CHECK(gitlock_guard_extend(guard, 60000) == GITLOCK_OK && gitlock_guard_remaining_ms(guard) > 50000);
  CHECK(gitlock_guard_release(guard) == GITLOCK_OK);
  CHECK(gitlock_guard_release(guard) == GITLOCK_LOCK_LOST && gitlock_guard_is_lost(guard));
  CHECK(gitlock_guard_extend(guard, -1) == GITLOCK_LOCK_LOST);
  CHECK(gitlock_guard_token(guard) == token);
  gitlock_guard_free(guard);
  CHECK(gitlock_acquire(manager, "build", NULL, &guard) == GITLOCK_OK);
  CHECK(gitlock_guard_token(guard) > token);
  gitlock_guard_free(guard); /* which releases it */
  CHECK(gitlock_try_acquire(manager, "build", NULL, &guard) == GITLOCK_OK);
  gitlock_guard_free(guard);
  gitlock_manager_free(manager);
}

static void shared_and_options(void) {
  gitlock_manager *manager = open_manager();
  gitlock_guard *first = NULL, *second = NULL, *third = NULL;
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  options.mode = GITLOCK_SHARED;
  options.reason = "reading";
  CHECK(gitlock_acquire(manager, "data", &options, &first) == GITLOCK_OK);
  CHECK(gitlock_acquire(manager, "data", &options, &second) == GITLOCK_OK);
  CHECK(gitlock_guard_mode(second) == GITLOCK_SHARED);
  options.mode = GITLOCK_EXCLUSIVE;
  options.wait_ms = 20;
  CHECK(gitlock_acquire(manager, "data", &options, &third) == GITLOCK_TIMEOUT && third == NULL);
  options.mode = 7;
  CHECK(gitlock_acquire(manager, "data", &options, &third) == GITLOCK_INVALID_ARGUMENT);
  gitlock_acquire_options_init(&options, sizeof options);
  options.ttl_ms = 0;
  CHECK(gitlock_acquire(manager, "x", &options, &third) == GITLOCK_INVALID_ARGUMENT);
  options.ttl_ms = -5;
  CHECK(gitlock_acquire(manager, "x", &options, &third) == GITLOCK_INVALID_ARGUMENT);
  CHECK(gitlock_acquire(manager, "a//b", NULL, &third) == GITLOCK_INVALID_NAME);
  CHECK(gitlock_acquire(manager, "\xff", NULL, &third) == GITLOCK_INVALID_ARGUMENT);
  memset(&options, 0, sizeof options);
  CHECK(gitlock_acquire(manager, "x", &options, &third) == GITLOCK_INVALID_ARGUMENT);
  CHECK(gitlock_guard_release(first) == GITLOCK_OK && gitlock_guard_release(second) == GITLOCK_OK);
  gitlock_guard_free(first);
  gitlock_guard_free(second);
  gitlock_manager *none = NULL;
  CHECK(gitlock_open("/", NULL, &none) == GITLOCK_NOT_A_REPOSITORY && none == NULL);
  gitlock_manager_free(manager);
}

/* A header that is older, or newer, than the library. */
static void other_versions(void) {
  gitlock_manager *manager = open_manager();
  gitlock_guard *guard = NULL;
  struct {
    gitlock_acquire_options known;
    int64_t later;
  } newer;
  gitlock_acquire_options_init(&newer.known, sizeof newer);
  CHECK(newer.later == 0);
  CHECK(gitlock_acquire(manager, "v", &newer.known, &guard) == GITLOCK_OK);
  gitlock_guard_free(guard);
  newer.later = 1;
  CHECK(gitlock_acquire(manager, "v", &newer.known, &guard) == GITLOCK_UNSUPPORTED);
  gitlock_acquire_options older;
  gitlock_acquire_options_init(&older, offsetof(gitlock_acquire_options, renew));
  CHECK(gitlock_acquire(manager, "v", &older, &guard) == GITLOCK_OK);
  gitlock_guard_free(guard);
  gitlock_manager_free(manager);
}

struct waits {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int ended, code, progress, lost, freed;
  gitlock_guard *guard;
};

static void on_done(void *data, int32_t code, gitlock_guard *guard) {
  struct waits *waits = data;
  pthread_mutex_lock(&waits->mutex);
  waits->ended++, waits->code = code, waits->guard = guard;
  pthread_cond_signal(&waits->changed);
  pthread_mutex_unlock(&waits->mutex);
}

static void on_wait(void *data, size_t ahead, const char *status) {
  struct waits *waits = data;
  CHECK(ahead == 0 && strstr(status, "\"held\":true") != NULL);
  pthread_mutex_lock(&waits->mutex);
  waits->progress++;
  pthread_cond_signal(&waits->changed);
  pthread_mutex_unlock(&waits->mutex);
}

static void on_lost(void *data, const char *error) {
  struct waits *waits = data;
  CHECK(strstr(error, "LOCK_LOST") != NULL);
  pthread_mutex_lock(&waits->mutex);
  waits->lost++;
  pthread_cond_signal(&waits->changed);
  pthread_mutex_unlock(&waits->mutex);
}

static void free_waits(void *data) {
  struct waits *waits = data;
  pthread_mutex_lock(&waits->mutex);
  waits->freed++;
  pthread_cond_signal(&waits->changed);
  pthread_mutex_unlock(&waits->mutex);
}

static void until(struct waits *waits, const int *number, int reached) {
  pthread_mutex_lock(&waits->mutex);
  while (*number < reached) pthread_cond_wait(&waits->changed, &waits->mutex);
  pthread_mutex_unlock(&waits->mutex);
}

static void *cancel_soon(void *cancel) {
  pause_ms(50);
  gitlock_cancel_cancel(cancel);
  return NULL;
}

static void waiting(void) {
  struct waits waits = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  gitlock_manager *manager = open_manager();
  gitlock_guard *holder = NULL, *guard = NULL;
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  CHECK(gitlock_acquire(manager, "queue", NULL, &holder) == GITLOCK_OK);
  /* Cancelled from another thread. */
  gitlock_cancel *cancel = gitlock_cancel_new();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, cancel_soon, cancel) == 0);
  options.cancel = cancel;
  CHECK(gitlock_acquire(manager, "queue", &options, &guard) == GITLOCK_CANCELLED && guard == NULL);
  CHECK(pthread_join(thread, NULL) == 0);
  gitlock_cancel_free(cancel);
  options.cancel = NULL;
  /* In the background: granted, and cancelled. */
  options.on_wait = on_wait, options.on_wait_data = &waits;
  gitlock_waiting *wait = NULL;
  CHECK(gitlock_acquire_start(manager, "queue", &options, on_done, &waits, &wait) == GITLOCK_OK);
  until(&waits, &waits.progress, 1);
  CHECK(gitlock_guard_release(holder) == GITLOCK_OK);
  gitlock_guard_free(holder);
  until(&waits, &waits.ended, 1);
  CHECK(waits.code == GITLOCK_OK && waits.guard != NULL);
  gitlock_waiting_cancel(wait);
  gitlock_waiting_free(wait);
  gitlock_guard *granted = waits.guard;
  CHECK(gitlock_acquire_start(manager, "queue", NULL, on_done, &waits, &wait) == GITLOCK_OK);
  gitlock_waiting_cancel(wait);
  until(&waits, &waits.ended, 2);
  CHECK(waits.code == GITLOCK_CANCELLED && waits.guard == NULL);
  CHECK(gitlock_guard_release(granted) == GITLOCK_OK);
  gitlock_guard_free(granted);
  gitlock_waiting_free(wait);
  /* The first guard again, and its loss. */
  CHECK(gitlock_acquire(manager, "loss", NULL, &guard) == GITLOCK_OK);
  CHECK(gitlock_guard_on_lost(guard, on_lost, &waits, free_waits) == GITLOCK_OK);
  char *json = NULL;
  CHECK(gitlock_break(manager, "loss", NULL, "a test", &json) == GITLOCK_OK && strstr(json, "\"broken\":[{") != NULL);
  gitlock_string_free(json);
  until(&waits, &waits.freed, 1);
  CHECK(waits.lost == 1 && gitlock_guard_is_lost(guard));
  CHECK(gitlock_guard_release(guard) == GITLOCK_LOCK_LOST);
  gitlock_guard_free(guard);
  CHECK(gitlock_guard_on_lost(NULL, on_lost, &waits, free_waits) == GITLOCK_INVALID_ARGUMENT && waits.freed == 2);
  gitlock_manager_free(manager);
}

static void handles_and_json(void) {
  gitlock_manager *manager = open_manager();
  gitlock_guard *guard = NULL, *again = NULL;
  char *handle = NULL, *json = NULL;
  CHECK(gitlock_acquire(manager, "handed", NULL, &guard) == GITLOCK_OK);
  CHECK(gitlock_guard_handle(guard, &handle) == GITLOCK_OK);
  gitlock_string_free(handle);
  CHECK(gitlock_guard_detach(guard, &handle) == GITLOCK_OK);
  gitlock_guard_free(guard);
  CHECK(gitlock_resume(manager, handle, &again) == GITLOCK_OK);
  uint64_t left = 0;
  CHECK(gitlock_extend(manager, handle, 90000, &left) == GITLOCK_OK && left > 80000);
  CHECK(gitlock_status(manager, "handed", &json) == GITLOCK_OK && strstr(json, "\"held\":true") != NULL);
  gitlock_string_free(json);
  CHECK(gitlock_list(manager, &json) == GITLOCK_OK && strstr(json, "\"handed\"") != NULL);
  gitlock_string_free(json);
  CHECK(gitlock_release(manager, handle) == GITLOCK_OK);
  CHECK(gitlock_release(manager, handle) == GITLOCK_LOCK_LOST);
  gitlock_guard_free(again);
  CHECK(gitlock_log(manager, "handed", 5, &json) == GITLOCK_OK && strstr(json, "\"released\"") != NULL);
  gitlock_string_free(json);
  gitlock_string_free(handle);
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  options.fingerprint = "session-1";
  CHECK(gitlock_acquire(manager, "printed", &options, &guard) == GITLOCK_OK);
  CHECK(gitlock_handle_by_fingerprint("printed", "another", &handle) == GITLOCK_OK);
  CHECK(gitlock_release(manager, handle) == GITLOCK_NOT_OWNER);
  gitlock_string_free(handle);
  CHECK(gitlock_handle_by_fingerprint("printed", "session-1", &handle) == GITLOCK_OK);
  CHECK(gitlock_release(manager, handle) == GITLOCK_OK);
  gitlock_string_free(handle);
  gitlock_guard_free(guard);
  CHECK(gitlock_clean(manager, -1, &json) == GITLOCK_OK && strstr(json, "objectsDeleted") != NULL);
  gitlock_string_free(json);
  CHECK(gitlock_doctor(manager, false, &json) == GITLOCK_OK && strstr(json, "findings") != NULL);
  gitlock_string_free(json);
  gitlock_manager_free(manager);
}

/* Trees, sets, slots, and who takes a lock once more. */
static void several(void) {
  gitlock_manager *manager = open_manager(), *other = NULL;
  gitlock_options mine;
  gitlock_options_init(&mine, sizeof mine);
  mine.owner = "somebody else";
  CHECK(gitlock_open(repository, &mine, &other) == GITLOCK_OK);
  gitlock_guard *whole = NULL, *part = NULL, *none = NULL;
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  char *handle = NULL;
  CHECK(gitlock_acquire(manager, "tree", NULL, &whole) == GITLOCK_OK);
  CHECK(gitlock_try_acquire(other, "tree/part", NULL, &none) == GITLOCK_HELD && none == NULL);
  CHECK(gitlock_guard_handle(whole, &handle) == GITLOCK_OK);
  options.within = handle;
  CHECK(gitlock_try_acquire(other, "tree/part", &options, &part) == GITLOCK_OK);
  options.owner = "me";
  CHECK(gitlock_try_acquire(other, "tree/part", &options, &none) == GITLOCK_INVALID_ARGUMENT);
  options.owner = NULL, options.within = "no handle";
  CHECK(gitlock_try_acquire(other, "tree/part", &options, &none) == GITLOCK_INVALID_ARGUMENT);
  gitlock_string_free(handle);
  gitlock_guard_free(part);
  gitlock_guard_free(whole);
  /* A set: all or none. */
  const char *names[] = {"set-b", "set-a", "tree/x"};
  gitlock_acquire_options_init(&options, sizeof options);
  options.wait_ms = 0;
  CHECK(gitlock_acquire(manager, "set-a", NULL, &whole) == GITLOCK_OK);
  CHECK(gitlock_acquire_all(other, names, 3, &options, &none) == GITLOCK_HELD && none == NULL);
  gitlock_guard_free(whole);
  CHECK(gitlock_acquire_all(other, names, 3, &options, &whole) == GITLOCK_OK);
  CHECK(gitlock_guard_token(whole) == gitlock_guard_token_of(whole, "set-b"));
  CHECK(gitlock_guard_token_of(whole, "tree/x") > 0 && gitlock_guard_token_of(whole, "tree") == 0);
  CHECK(gitlock_verify(manager, "set-a", gitlock_guard_token_of(whole, "set-a")) == GITLOCK_OK);
  /* Other refs, while it is held; a value may be whatever Git knows. */
  const char *const changes[] = {"create refs/heads/by-c refs/gitvan/journal/set-a", "verify refs/heads/never"}, *const missing[] = {NULL};
  CHECK(gitlock_guard_update_refs(whole, changes, 2, "from C") == GITLOCK_OK);
  CHECK(gitlock_guard_update_refs(whole, changes, 1, NULL) == GITLOCK_REF_CHANGED);
  CHECK(gitlock_guard_update_refs(whole, missing, 1, NULL) == GITLOCK_INVALID_ARGUMENT);
  CHECK(gitlock_guard_update_refs(whole, NULL, 0, NULL) == GITLOCK_OK);
  CHECK(gitlock_guard_slot(whole) == -1 && gitlock_guard_release(whole) == GITLOCK_OK);
  CHECK(gitlock_guard_update_refs(whole, changes, 1, NULL) == GITLOCK_LOCK_LOST);
  CHECK(gitlock_verify(manager, "set-a", 1) == GITLOCK_LOCK_LOST && gitlock_guard_token_of(whole, "set-a") == 0);
  gitlock_guard_free(whole);
  CHECK(gitlock_acquire_all(manager, names, 0, &options, &none) == GITLOCK_INVALID_ARGUMENT);
  /* Slots. */
  options.slots = 2;
  CHECK(gitlock_acquire(manager, "port", &options, &whole) == GITLOCK_OK && gitlock_guard_slot(whole) == 0);
  CHECK(gitlock_acquire(manager, "port", &options, &part) == GITLOCK_OK && gitlock_guard_slot(part) == 1);
  CHECK(gitlock_acquire(manager, "port", &options, &none) == GITLOCK_HELD);
  options.slots = 3;
  CHECK(gitlock_acquire(manager, "port", &options, &none) == GITLOCK_SLOTS_DIFFER);
  CHECK(gitlock_guard_upgrade(part, 0, NULL) == GITLOCK_INVALID_ARGUMENT);
  gitlock_guard_free(part);
  gitlock_guard_free(whole);
  /* Once more, by the same thread. */
  options.slots = 0, options.reentrant = 1;
  CHECK(gitlock_acquire(manager, "again", &options, &whole) == GITLOCK_OK);
  CHECK(gitlock_acquire(manager, "again", &options, &part) == GITLOCK_OK);
  CHECK(gitlock_guard_release(whole) == GITLOCK_OK && !gitlock_guard_is_lost(part));
  CHECK(gitlock_try_acquire(other, "again", NULL, &none) == GITLOCK_HELD);
  options.reentrant = 2;
  CHECK(gitlock_acquire(manager, "again", &options, &none) == GITLOCK_INVALID_ARGUMENT);
  gitlock_guard_free(part);
  gitlock_guard_free(whole);
  gitlock_manager_free(other);
  gitlock_manager_free(manager);
}

static void on_wanted(void *data, size_t waiters, int32_t priority) {
  struct waits *waits = data;
  CHECK((waiters == 1 && priority == 7) || (waiters == 0 && priority == 0));
  pthread_mutex_lock(&waits->mutex);
  waits->progress++;
  pthread_cond_signal(&waits->changed);
  pthread_mutex_unlock(&waits->mutex);
}

/* Refs of the repository, to a server by what stands in for ssh: it runs its command here. */
static void pushes(void) {
  char command[4096];
  const char *const made = "cd '%s' && git init -q --bare server.git"
                           " && git config core.sshCommand \"sh -c 'for last; do :; done; exec sh -c \\\"\\$last\\\"' ssh\""
                           " && git config ssh.variant ssh && git remote add origin \"ssh://host$PWD/server.git\"";
  snprintf(command, sizeof command, made, repository);
  CHECK(system(command) == 0);
  gitlock_options options;
  gitlock_options_init(&options, sizeof options);
  options.remote = "origin";
  gitlock_manager *there = NULL, *here = open_manager();
  gitlock_guard *guard = NULL;
  CHECK(gitlock_open(repository, &options, &there) == GITLOCK_OK);
  const char *const one[] = {"refs/gitvan/journal/build:refs/heads/by-c"};
  const char *const two[] = {"refs/gitvan/journal/build:refs/heads/next", ":by-c"}, *const missing[] = {NULL};
  CHECK(gitlock_acquire(here, "push", NULL, &guard) == GITLOCK_OK);
  CHECK(gitlock_guard_push(guard, one, 1) == GITLOCK_UNSUPPORTED);
  gitlock_guard_free(guard);
  CHECK(gitlock_acquire(there, "push", NULL, &guard) == GITLOCK_OK);
  CHECK(gitlock_guard_push(guard, one, 1) == GITLOCK_OK && gitlock_guard_push(guard, two, 2) == GITLOCK_OK);
  CHECK(gitlock_guard_push(guard, two, 2) == GITLOCK_REF_CHANGED);
  CHECK(gitlock_guard_push(guard, missing, 1) == GITLOCK_INVALID_ARGUMENT);
  CHECK(gitlock_guard_push(guard, NULL, 0) == GITLOCK_INVALID_ARGUMENT);
  CHECK(gitlock_guard_release(guard) == GITLOCK_OK && gitlock_guard_push(guard, one, 1) == GITLOCK_LOCK_LOST);
  gitlock_guard_free(guard);
  gitlock_manager_free(there);
  gitlock_manager_free(here);
  snprintf(command, sizeof command, "cd '%s/server.git' && test \"$(git for-each-ref --format='%%(refname)' refs/heads)\" = refs/heads/next", repository);
  CHECK(system(command) == 0);
}

static void upgrades_and_who_waits(void) {
  struct waits waits = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
  gitlock_manager *manager = open_manager();
  gitlock_guard *first = NULL, *second = NULL;
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  options.mode = GITLOCK_SHARED;
  CHECK(gitlock_acquire(manager, "up", &options, &first) == GITLOCK_OK);
  CHECK(gitlock_acquire(manager, "up", &options, &second) == GITLOCK_OK);
  CHECK(gitlock_guard_upgrade(first, 0, NULL) == GITLOCK_HELD);
  CHECK(gitlock_guard_upgrade(first, 20, NULL) == GITLOCK_TIMEOUT);
  CHECK(gitlock_guard_upgrade(first, -7, NULL) == GITLOCK_INVALID_ARGUMENT);
  gitlock_cancel *cancel = gitlock_cancel_new();
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, cancel_soon, cancel) == 0);
  CHECK(gitlock_guard_upgrade(first, GITLOCK_FOREVER, cancel) == GITLOCK_CANCELLED);
  CHECK(pthread_join(thread, NULL) == 0);
  gitlock_cancel_free(cancel);
  CHECK(gitlock_guard_mode(first) == GITLOCK_SHARED && gitlock_guard_release(second) == GITLOCK_OK);
  gitlock_guard_free(second);
  uint64_t token = gitlock_guard_token(first);
  CHECK(gitlock_guard_upgrade(first, GITLOCK_FOREVER, NULL) == GITLOCK_OK);
  CHECK(gitlock_guard_mode(first) == GITLOCK_EXCLUSIVE && gitlock_guard_token(first) > token);
  token = gitlock_guard_token(first);
  /* Who waits, and that it is told. */
  size_t waiters = 9;
  int32_t priority = 9;
  CHECK(gitlock_guard_wanted(first, &waiters, &priority) == GITLOCK_OK && waiters == 0 && priority == 0);
  CHECK(gitlock_guard_on_wanted(first, on_wanted, &waits, free_waits) == GITLOCK_OK);
  options.mode = GITLOCK_EXCLUSIVE, options.priority = 7, options.owner = "another";
  gitlock_waiting *wait = NULL;
  const char *name = "up";
  CHECK(gitlock_acquire_all_start(manager, &name, 1, &options, on_done, &waits, &wait) == GITLOCK_OK);
  until(&waits, &waits.progress, 1);
  CHECK(gitlock_guard_wanted(first, &waiters, &priority) == GITLOCK_OK && waiters == 1 && priority == 7);
  CHECK(gitlock_guard_wanted(first, &waiters, NULL) == GITLOCK_OK);
  char *text = NULL;
  CHECK(gitlock_graph(manager, &text) == GITLOCK_OK && strstr(text, "\"blockedBy\"") != NULL);
  gitlock_string_free(text);
  CHECK(gitlock_graph_dot(manager, &text) == GITLOCK_OK && strstr(text, "\"another\" -> ") != NULL);
  gitlock_string_free(text);
  CHECK(gitlock_sync(manager, manager, NULL, &text) == GITLOCK_INVALID_ARGUMENT && text == NULL);
  gitlock_waiting_cancel(wait);
  gitlock_waiting_free(wait);
  until(&waits, &waits.ended, 1);
  until(&waits, &waits.progress, 2);
  CHECK(waits.code == GITLOCK_CANCELLED);
  /* And down again. */
  CHECK(gitlock_guard_downgrade(first) == GITLOCK_OK && gitlock_guard_mode(first) == GITLOCK_SHARED);
  CHECK(gitlock_guard_release(first) == GITLOCK_OK && gitlock_guard_upgrade(first, 0, NULL) == GITLOCK_LOCK_LOST);
  CHECK(gitlock_guard_token(first) >= token && gitlock_guard_mode(first) == GITLOCK_SHARED);
  gitlock_guard_free(first);
  gitlock_manager_free(manager);
  until(&waits, &waits.freed, 1);
}

/* Every function with NULL wherever a pointer goes. */
static void on_multi_lost(void *data) { __sync_fetch_and_add((int *)data, 1); }

/* Three repositories, of which two are enough. */
static void several_repositories(void) {
  gitlock_manager *managers[3];
  char path[600], command[700];
  for (int at = 0; at < 3; at++) {
    snprintf(path, sizeof path, "%s/three-%d", repository, at);
    snprintf(command, sizeof command, "git init -q --bare '%s'", path);
    CHECK(system(command) == 0);
    CHECK(gitlock_open(path, NULL, &managers[at]) == GITLOCK_OK);
  }
  const gitlock_manager *const given[] = {managers[0], managers[1], managers[2]}, *const twice[] = {managers[0], managers[0]};
  gitlock_repositories *three = NULL;
  CHECK(gitlock_repositories_open(twice, 2, &three) == GITLOCK_INVALID_ARGUMENT && three == NULL);
  CHECK(gitlock_repositories_open(given, 3, &three) == GITLOCK_OK);
  gitlock_acquire_options now;
  gitlock_acquire_options_init(&now, sizeof now);
  now.wait_ms = 0;
  gitlock_guard *other = NULL;
  gitlock_multi_guard *most = NULL, *none = NULL;
  CHECK(gitlock_repositories_acquire_quorum(three, "deploy", &now, &most) == GITLOCK_OK);
  CHECK(gitlock_multi_guard_token(most) > 0 && !gitlock_multi_guard_is_lost(most) && gitlock_multi_guard_validity_ms(most) > 1000);
  CHECK(gitlock_repositories_acquire_quorum(three, "deploy", &now, &none) == GITLOCK_HELD && none == NULL);
  CHECK(strstr(gitlock_last_error_message(), "three-") != NULL);
  CHECK(gitlock_multi_guard_extend(most, -1) == GITLOCK_OK);
  char *text = NULL;
  CHECK(gitlock_multi_guard_held_in(most, &text) == GITLOCK_OK && strstr(text, "three-2") != NULL);
  gitlock_string_free(text);
  int lost = 0;
  CHECK(gitlock_multi_guard_on_lost(most, on_multi_lost, &lost, NULL) == GITLOCK_OK);
  CHECK(gitlock_multi_guard_release(most) == GITLOCK_OK && gitlock_multi_guard_is_lost(most));
  CHECK(gitlock_multi_guard_release(most) == GITLOCK_LOCK_LOST && lost == 0);
  gitlock_multi_guard_free(most);
  const char *names[] = {"a", "b"};
  CHECK(gitlock_acquire(managers[1], "b", NULL, &other) == GITLOCK_OK);
  CHECK(gitlock_repositories_acquire_all(three, names, 2, &now, &none) == GITLOCK_HELD && none == NULL);
  gitlock_guard_free(other);
  CHECK(gitlock_repositories_acquire_all(three, names, 2, &now, &most) == GITLOCK_OK);
  CHECK(gitlock_try_acquire(managers[2], "a", NULL, &other) == GITLOCK_HELD);
  gitlock_multi_guard_free(most);
  CHECK(gitlock_try_acquire(managers[2], "a", NULL, &other) == GITLOCK_OK);
  gitlock_guard_free(other);
  gitlock_repositories_free(three);
  for (int at = 0; at < 3; at++) gitlock_manager_free(managers[at]);
  const int32_t bad = GITLOCK_INVALID_ARGUMENT;
  CHECK(gitlock_repositories_open(NULL, 0, &three) == bad && gitlock_repositories_open(NULL, 1, &three) == bad);
  CHECK(gitlock_repositories_open(given, 3, NULL) == bad && gitlock_repositories_acquire_all(NULL, names, 2, NULL, &none) == bad);
  CHECK(gitlock_repositories_acquire_quorum(NULL, "x", NULL, &none) == bad && gitlock_multi_guard_release(NULL) == bad);
  CHECK(gitlock_multi_guard_extend(NULL, -1) == bad && gitlock_multi_guard_held_in(NULL, &text) == bad);
  CHECK(gitlock_multi_guard_on_lost(NULL, NULL, NULL, NULL) == bad && gitlock_multi_guard_token(NULL) == 0);
  CHECK(gitlock_multi_guard_is_lost(NULL) && gitlock_multi_guard_validity_ms(NULL) == 0);
  gitlock_repositories_free(NULL);
  gitlock_multi_guard_free(NULL);
}

static void nulls(void) {
  gitlock_manager *manager = NULL;
  gitlock_guard *guard = NULL;
  char *text = NULL;
  const int32_t bad = GITLOCK_INVALID_ARGUMENT;
  CHECK(gitlock_open(NULL, NULL, &manager) == bad && manager == NULL);
  CHECK(gitlock_open(repository, NULL, NULL) == bad);
  manager = open_manager();
  CHECK(gitlock_acquire(NULL, "x", NULL, &guard) == bad && gitlock_acquire(manager, NULL, NULL, &guard) == bad);
  CHECK(gitlock_acquire(manager, "x", NULL, NULL) == bad && gitlock_try_acquire(NULL, NULL, NULL, NULL) == bad);
  CHECK(gitlock_acquire_start(NULL, NULL, NULL, NULL, NULL, NULL) == bad);
  CHECK(gitlock_status(NULL, "x", &text) == bad && gitlock_status(manager, NULL, &text) == bad);
  CHECK(gitlock_status(manager, "x", NULL) == bad && gitlock_list(NULL, &text) == bad);
  CHECK(gitlock_list(manager, NULL) == bad && gitlock_log(manager, NULL, 1, &text) == bad);
  CHECK(gitlock_break(manager, NULL, NULL, NULL, &text) == bad && gitlock_clean(NULL, -1, &text) == bad);
  CHECK(gitlock_doctor(NULL, false, &text) == bad && gitlock_release(manager, NULL) == bad);
  CHECK(gitlock_release(NULL, "x") == bad && gitlock_extend(NULL, NULL, -1, NULL) == bad);
  CHECK(gitlock_resume(manager, NULL, &guard) == bad && gitlock_resume(NULL, NULL, NULL) == bad);
  CHECK(gitlock_handle_by_fingerprint(NULL, NULL, &text) == bad && text == NULL);
  CHECK(gitlock_handle_by_fingerprint("x", "y", NULL) == bad);
  CHECK(gitlock_guard_release(NULL) == bad && gitlock_guard_extend(NULL, -1) == bad);
  CHECK(gitlock_guard_handle(NULL, &text) == bad && gitlock_guard_detach(NULL, NULL) == bad);
  CHECK(gitlock_guard_on_lost(NULL, NULL, NULL, NULL) == bad);
  const char *names[] = {"x", NULL};
  CHECK(gitlock_acquire_all(NULL, names, 1, NULL, &guard) == bad && gitlock_acquire_all(manager, NULL, 1, NULL, &guard) == bad);
  CHECK(gitlock_acquire_all(manager, names, 2, NULL, &guard) == bad && gitlock_acquire_all(manager, names, 1, NULL, NULL) == bad);
  CHECK(gitlock_acquire_all(manager, NULL, 0, NULL, &guard) == bad && guard == NULL);
  CHECK(gitlock_acquire_all_start(NULL, NULL, 0, NULL, NULL, NULL, NULL) == bad);
  CHECK(gitlock_acquire_all_start(manager, names, 2, NULL, NULL, NULL, NULL) == bad);
  size_t waiters;
  CHECK(gitlock_guard_upgrade(NULL, 0, NULL) == bad && gitlock_guard_downgrade(NULL) == bad);
  CHECK(gitlock_guard_wanted(NULL, &waiters, NULL) == bad && gitlock_guard_wanted(NULL, NULL, NULL) == bad);
  CHECK(gitlock_guard_on_wanted(NULL, NULL, NULL, NULL) == bad);
  CHECK(gitlock_guard_slot(NULL) == -1 && gitlock_guard_token_of(NULL, NULL) == 0);
  CHECK(gitlock_guard_update_refs(NULL, NULL, 0, NULL) == bad);
  CHECK(gitlock_guard_push(NULL, NULL, 0) == bad);
  CHECK(gitlock_verify(NULL, "x", 1) == bad && gitlock_verify(manager, NULL, 1) == bad);
  CHECK(gitlock_graph(NULL, &text) == bad && gitlock_graph(manager, NULL) == bad);
  CHECK(gitlock_graph_dot(NULL, &text) == bad && gitlock_graph_dot(manager, NULL) == bad);
  CHECK(gitlock_sync(NULL, manager, NULL, &text) == bad && gitlock_sync(manager, NULL, NULL, &text) == bad);
  CHECK(gitlock_sync(manager, manager, "newest", &text) == bad && gitlock_sync(manager, manager, NULL, NULL) == bad);
  CHECK(gitlock_guard_name(NULL) == NULL && gitlock_guard_id(NULL) == NULL && gitlock_guard_token(NULL) == 0);
  CHECK(gitlock_guard_is_lost(NULL) && gitlock_guard_remaining_ms(NULL) == 0 && gitlock_guard_mode(NULL) == -1);
  CHECK(gitlock_code_name(12345) == NULL && gitlock_code_retry(12345) == GITLOCK_RETRY_NEVER);
  CHECK(strcmp(gitlock_code_name(0), "OK") == 0 && strlen(gitlock_version()) > 0);
  gitlock_options_init(NULL, 0);
  gitlock_acquire_options_init(NULL, 100);
  gitlock_cancel_cancel(NULL);
  gitlock_cancel_free(NULL);
  gitlock_waiting_cancel(NULL);
  gitlock_waiting_free(NULL);
  gitlock_guard_free(NULL);
  gitlock_string_free(NULL);
  gitlock_manager_free(NULL);
  gitlock_manager_free(manager);
}

struct shared_guard {
  gitlock_guard *guard;
  int released;
};

static void *use_guard(void *data) {
  gitlock_guard *guard = ((struct shared_guard *)data)->guard;
  for (int round = 0; round < 200; round++) {
    (void)gitlock_guard_is_lost(guard);
    (void)gitlock_guard_remaining_ms(guard);
    if (round % 20 == 0) (void)gitlock_guard_extend(guard, -1);
  }
  if (gitlock_guard_release(guard) == GITLOCK_OK) __sync_fetch_and_add(&((struct shared_guard *)data)->released, 1);
  return NULL;
}

static void two_threads(void) {
  gitlock_manager *manager = open_manager();
  struct shared_guard shared = {NULL, 0};
  CHECK(gitlock_acquire(manager, "threads", NULL, &shared.guard) == GITLOCK_OK);
  pthread_t threads[2];
  for (int at = 0; at < 2; at++) CHECK(pthread_create(&threads[at], NULL, use_guard, &shared) == 0);
  for (int at = 0; at < 2; at++) CHECK(pthread_join(threads[at], NULL) == 0);
  CHECK(shared.released == 1);
  gitlock_guard_free(shared.guard);
  gitlock_manager_free(manager);
}

static void after_a_fork(void) {
  gitlock_manager *manager = open_manager();
  gitlock_guard *guard = NULL, *other = NULL;
  CHECK(gitlock_acquire(manager, "fork", NULL, &guard) == GITLOCK_OK);
  pid_t child = fork();
  if (child == 0) {
    CHECK(gitlock_guard_is_lost(guard) && gitlock_guard_extend(guard, -1) == GITLOCK_FORKED);
    CHECK(gitlock_try_acquire(manager, "fork", NULL, &other) == GITLOCK_HELD);
    CHECK(gitlock_try_acquire(manager, "child", NULL, &other) == GITLOCK_OK);
    CHECK(gitlock_guard_release(other) == GITLOCK_OK);
    gitlock_guard_free(other);
    gitlock_guard_free(guard);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(!gitlock_guard_is_lost(guard) && gitlock_guard_release(guard) == GITLOCK_OK);
  gitlock_guard_free(guard);
  gitlock_manager_free(manager);
}

int main(int count, char **arguments) {
  if (count < 2) return 2;
  repository = arguments[1];
  acquire_and_release();
  shared_and_options();
  other_versions();
  waiting();
  handles_and_json();
  several();
  several_repositories();
  pushes();
  upgrades_and_who_waits();
  nulls();
  two_threads();
  /* What threads that a fork doesn't copy own looks leaked to Valgrind. */
  if (count == 2) after_a_fork();
  puts("libgitlock in C: every check holds");
  return 0;
}
