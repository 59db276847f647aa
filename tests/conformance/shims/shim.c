/* The shim of the C surface: `shim blocking|start`. With `start` every acquire goes through
 * gitlock_acquire_start. tests/conformance/README.md says what is asked and answered. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <gitlock.h>

#define MOST 64

static const char *const OPERATIONS =
    "open close acquire try start cancel look extend release upgrade start-upgrade downgrade "
    "token-of wanted heed watch handle detach fork handle-of resume extend-handle release-handle "
    "status update-refs push verify list graph log break clean doctor sync everywhere quorum let-go";

/* ------------------------------------------------------------------ lines */

static void decode(char *text) {
  char *to = text;
  for (; *text != '\0'; text++) {
    unsigned code;
    if (*text == '%' && sscanf(text + 1, "%2x", &code) == 1) *to++ = (char)code, text += 2;
    else *to++ = *text;
  }
  *to = '\0';
}

struct fields {
  size_t count;
  char *keys[MOST], *values[MOST];
};

static const char *get(const struct fields *fields, const char *key) {
  for (size_t at = 0; at < fields->count; at++)
    if (strcmp(fields->keys[at], key) == 0) return fields->values[at];
  return NULL;
}

static int64_t number(const struct fields *fields, const char *key, int64_t otherwise) {
  const char *value = get(fields, key);
  return value != NULL ? strtoll(value, NULL, 10) : otherwise;
}

/* Appends `\tkey=value` to a line that is being made. */
static void add(char **line, const char *key, const char *value) {
  size_t length = strlen(*line);
  char *to = *line = realloc(*line, length + strlen(key) + 3 * strlen(value) + 3);
  to += length + (size_t)sprintf(to + length, "\t%s=", key);
  for (; *value != '\0'; value++) {
    if (strchr("%\t\n\r", *value) != NULL) to += sprintf(to, "%%%02X", (unsigned)*value);
    else *to++ = *value;
  }
  *to = '\0';
}

static void add_number(char **line, const char *key, uint64_t value) {
  char text[24];
  snprintf(text, sizeof text, "%llu", (unsigned long long)value);
  add(line, key, text);
}

/* Adds this thread's last error: the class of an error is its number here. */
static void add_error(char **line) {
  add_number(line, "class", (uint64_t)gitlock_last_error_code());
  add(line, "error", gitlock_last_error_json());
}

static void add_guard(char **line, const gitlock_guard *guard) {
  add(line, "id", gitlock_guard_id(guard));
  add_number(line, "token", gitlock_guard_token(guard));
  if (gitlock_guard_slot(guard) >= 0) add_number(line, "slot", (uint64_t)gitlock_guard_slot(guard));
  add(line, "mode", gitlock_guard_mode(guard) == GITLOCK_SHARED ? "shared" : "exclusive");
}

static void say(char *line) {
  printf("%s\n", line);
  fflush(stdout);
  free(line);
}

static char *event(const char *kind, const char *about) {
  char *line = strdup("event");
  add(&line, "kind", kind);
  add(&line, "about", about);
  return line;
}

/* ------------------------------------------------------------------ what is kept */

static int starts;
static gitlock_manager *manager;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept {
  char *name;
  gitlock_guard *guard;
} guards[MOST];

static struct waiting {
  char *name;
  struct fields fields;
  gitlock_guard *guard;     /* of an upgrade */
  gitlock_cancel *cancel;   /* of what blocks a thread of its own */
  gitlock_waiting *waiting; /* of one that was started */
} *waits[MOST];

static void keep(const char *name, gitlock_guard *guard) {
  pthread_mutex_lock(&lock);
  size_t at = 0;
  while (guards[at].name != NULL && strcmp(guards[at].name, name) != 0) at++;
  gitlock_guard_free(guards[at].guard);
  free(guards[at].name);
  guards[at] = (struct kept){strdup(name), guard};
  pthread_mutex_unlock(&lock);
}

static gitlock_guard *find(const char *name) {
  gitlock_guard *found = NULL;
  pthread_mutex_lock(&lock);
  for (size_t at = 0; at < MOST; at++)
    if (guards[at].name != NULL && strcmp(guards[at].name, name) == 0) found = guards[at].guard;
  pthread_mutex_unlock(&lock);
  return found;
}

/* ------------------------------------------------------------------ acquiring */

static void on_wait(void *data, size_t ahead, const char *status) {
  (void)status;
  char *line = event("waiting", ((struct waiting *)data)->name);
  add_number(&line, "ahead", ahead);
  say(line);
}

static void on_ended(void *data, int32_t code, gitlock_guard *guard) {
  const struct waiting *wait = data;
  char *line = event("ended", wait->name);
  if (code == GITLOCK_OK) add_guard(&line, guard), keep(wait->name, guard);
  else add_error(&line);
  say(line);
}

static gitlock_acquire_options acquire_options(const struct fields *fields) {
  gitlock_acquire_options options;
  gitlock_acquire_options_init(&options, sizeof options);
  if (get(fields, "shared") != NULL) options.mode = GITLOCK_SHARED;
  options.priority = (int32_t)number(fields, "priority", 0);
  options.ttl_ms = number(fields, "ttl", GITLOCK_DEFAULT);
  options.wait_ms = number(fields, "wait", GITLOCK_FOREVER);
  options.max_hold_ms = number(fields, "max_hold", GITLOCK_DEFAULT);
  options.slots = (uint32_t)number(fields, "slots", 0);
  const char *renew = get(fields, "renew");
  if (renew != NULL) options.renew = strcmp(renew, "yes") == 0;
  options.owner = get(fields, "owner");
  options.fingerprint = get(fields, "fingerprint");
  options.reason = get(fields, "reason");
  options.within = get(fields, "within");
  options.reentrant = get(fields, "reentrant") != NULL;
  return options;
}

/* The names of a set: `name`, and those of `also`, separated by commas, in memory that is never freed. */
static size_t names_of(const struct fields *fields, const char **names) {
  size_t count = 0;
  names[count++] = get(fields, "name");
  char *rest = NULL, *also = get(fields, "also") != NULL ? strdup(get(fields, "also")) : NULL;
  for (char *name = also; also != NULL && (name = strtok_r(name, ",", &rest)) != NULL; name = NULL) names[count++] = name;
  return count;
}

static int32_t acquire(const struct fields *fields, gitlock_acquire_options *options, int waits_not, gitlock_guard **guard) {
  const char *names[MOST];
  size_t count = names_of(fields, names);
  if (count == 1) return (waits_not ? gitlock_try_acquire : gitlock_acquire)(manager, names[0], options, guard);
  if (waits_not) options->wait_ms = 0;
  return gitlock_acquire_all(manager, names, count, options, guard);
}

static int32_t acquire_start(const struct fields *fields, const gitlock_acquire_options *options, gitlock_on_done done,
                             void *data, gitlock_waiting **waiting) {
  const char *names[MOST];
  size_t count = names_of(fields, names);
  if (count == 1) return gitlock_acquire_start(manager, names[0], options, done, data, waiting);
  return gitlock_acquire_all_start(manager, names, count, options, done, data, waiting);
}

#define MOST_PLACES 8

static struct kept_in_several {
  char *name;
  gitlock_multi_guard *guard;
} several[MOST];

static gitlock_multi_guard **find_in_several(const char *name) {
  size_t at = 0;
  while (several[at].name != NULL && strcmp(several[at].name, name) != 0) at++;
  if (several[at].name == NULL) several[at].name = strdup(name);
  return &several[at].guard;
}

/* Opens the repositories of `places`, separated by commas. */
static int32_t open_several(const struct fields *fields, gitlock_repositories **repositories) {
  gitlock_manager *managers[MOST_PLACES];
  const gitlock_manager *given[MOST_PLACES];
  size_t count = 0;
  int32_t code = GITLOCK_OK;
  char *rest = NULL, *places = strdup(get(fields, "places"));
  for (char *place = strtok_r(places, ",", &rest); place != NULL; place = strtok_r(NULL, ",", &rest)) {
    if ((code = gitlock_open(place, NULL, &managers[count])) != GITLOCK_OK) break;
    given[count] = managers[count], count++;
  }
  if (code == GITLOCK_OK) code = gitlock_repositories_open(given, count, repositories);
  while (count > 0) gitlock_manager_free(managers[--count]);
  free(places);
  return code;
}

static int32_t take_several(char **line, const char *verb, const struct fields *fields) {
  const char *names[MOST];
  gitlock_repositories *repositories = NULL;
  gitlock_multi_guard *guard = NULL;
  gitlock_acquire_options options = acquire_options(fields);
  int32_t code = open_several(fields, &repositories);
  if (code == GITLOCK_OK && strcmp(verb, "quorum") == 0)
    code = gitlock_repositories_acquire_quorum(repositories, get(fields, "name"), &options, &guard);
  else if (code == GITLOCK_OK)
    code = gitlock_repositories_acquire_all(repositories, names, names_of(fields, names), &options, &guard);
  gitlock_repositories_free(repositories);
  if (code != GITLOCK_OK) return code;
  add_number(line, "token", gitlock_multi_guard_token(guard));
  gitlock_multi_guard **kept = find_in_several(get(fields, get(fields, "as") != NULL ? "as" : "name"));
  gitlock_multi_guard_free(*kept);
  *kept = guard;
  return code;
}

struct rendezvous {
  pthread_mutex_t mutex;
  pthread_cond_t there;
  int ended;
  int32_t code;
  gitlock_guard *guard;
  char *class, *error;
};

static void on_done(void *data, int32_t code, gitlock_guard *guard) {
  struct rendezvous *here = data;
  pthread_mutex_lock(&here->mutex);
  here->code = code, here->guard = guard, here->ended = 1;
  if (code != GITLOCK_OK) here->error = strdup(""), add_error(&here->error);
  pthread_cond_signal(&here->there);
  pthread_mutex_unlock(&here->mutex);
}

/* Acquires on the path that was chosen. Returns 0, or 1 with the error in the line. */
static int take(char **line, const struct fields *fields, int waits_not) {
  gitlock_acquire_options options = acquire_options(fields);
  gitlock_guard *guard = NULL;
  const char *name = get(fields, "name");
  int32_t code;
  if (!starts) {
    code = acquire(fields, &options, waits_not, &guard);
    if (code != GITLOCK_OK) return add_error(line), 1;
  } else {
    struct rendezvous here = {.mutex = PTHREAD_MUTEX_INITIALIZER, .there = PTHREAD_COND_INITIALIZER};
    if (waits_not) options.wait_ms = 0;
    if (acquire_start(fields, &options, on_done, &here, NULL) != GITLOCK_OK) return add_error(line), 1;
    pthread_mutex_lock(&here.mutex);
    while (!here.ended) pthread_cond_wait(&here.there, &here.mutex);
    pthread_mutex_unlock(&here.mutex);
    if (here.code != GITLOCK_OK) {
      *line = realloc(*line, strlen(*line) + strlen(here.error) + 1);
      strcat(*line, here.error);
      free(here.error);
      return 1;
    }
    guard = here.guard;
  }
  add_guard(line, guard);
  keep(get(fields, "as") != NULL ? get(fields, "as") : name, guard);
  return 0;
}

static void *wait_on_a_thread(void *data) {
  struct waiting *wait = data;
  gitlock_acquire_options options = acquire_options(&wait->fields);
  options.cancel = wait->cancel, options.on_wait = on_wait, options.on_wait_data = wait;
  gitlock_guard *guard = NULL;
  int32_t code = acquire(&wait->fields, &options, 0, &guard);
  on_ended(wait, code, guard);
  return NULL;
}

static void *upgrade_on_a_thread(void *data) {
  const struct waiting *wait = data;
  int32_t code = gitlock_guard_upgrade(wait->guard, number(&wait->fields, "wait", GITLOCK_FOREVER), wait->cancel);
  char *line = event("ended", wait->name);
  if (code == GITLOCK_OK) add_guard(&line, wait->guard);
  else add_error(&line);
  say(line);
  return NULL;
}

/* An acquire in the background; with a guard, its upgrade. */
static int32_t start(const struct fields *fields, gitlock_guard *guard) {
  struct waiting *wait = calloc(1, sizeof *wait); /* for as long as the process lives */
  wait->name = strdup(get(fields, "wait_as"));
  for (size_t at = 0; at < fields->count; at++) {
    wait->fields.keys[at] = strdup(fields->keys[at]), wait->fields.values[at] = strdup(fields->values[at]);
  }
  wait->fields.count = fields->count;
  size_t at = 0;
  while (waits[at] != NULL) at++;
  waits[at] = wait;
  wait->guard = guard;
  if (starts && guard == NULL) {
    gitlock_acquire_options options = acquire_options(&wait->fields);
    options.on_wait = on_wait, options.on_wait_data = wait;
    return acquire_start(&wait->fields, &options, on_ended, wait, &wait->waiting);
  }
  wait->cancel = gitlock_cancel_new();
  pthread_t thread;
  void *(*run)(void *) = guard != NULL ? upgrade_on_a_thread : wait_on_a_thread;
  return pthread_create(&thread, NULL, run, wait) == 0 && pthread_detach(thread) == 0 ? GITLOCK_OK : 1;
}

static void on_lost(void *data, const char *error) {
  char *line = event("lost", data), class[16];
  snprintf(class, sizeof class, "%d", GITLOCK_LOCK_LOST);
  add(&line, "class", class);
  add(&line, "error", error);
  say(line);
}

static void on_wanted(void *data, size_t waiters, int32_t priority) {
  char *line = event("wanted", data), text[16];
  add_number(&line, "waiters", waiters);
  snprintf(text, sizeof text, "%d", (int)priority);
  add(&line, "priority", text);
  say(line);
}

static int32_t add_wanted(char **line, const gitlock_guard *guard) {
  size_t waiters = 0;
  int32_t priority = 0, code = gitlock_guard_wanted(guard, &waiters, &priority);
  char text[16];
  if (code != GITLOCK_OK) return code;
  add_number(line, "waiters", waiters);
  snprintf(text, sizeof text, "%d", (int)priority);
  add(line, "priority", text);
  return code;
}

/* ------------------------------------------------------------------ answers */

static int32_t open_manager(const struct fields *fields) {
  gitlock_options options;
  gitlock_options_init(&options, sizeof options);
  options.lock_prefix = get(fields, "prefix");
  options.owner = get(fields, "owner");
  options.remote = get(fields, "remote");
  options.keep = number(fields, "keep", GITLOCK_DEFAULT);
  options.lock_timeout_ms = number(fields, "lock_timeout", GITLOCK_DEFAULT);
  options.max_clock_skew_ms = number(fields, "max_clock_skew", GITLOCK_DEFAULT);
  gitlock_manager_free(manager);
  return gitlock_open(get(fields, "path"), &options, &manager);
}

/* Carries out one request. Returns 0 for `ok`, or a code, with everything else in the line. */
static int32_t carry_out(const char *verb, const struct fields *fields, char **line) {
  const char *name = get(fields, "name"), *handle = get(fields, "handle");
  gitlock_guard *guard = get(fields, "guard") != NULL ? find(get(fields, "guard")) : NULL, *again = NULL;
  char *text = NULL;
  const char *key = "json";
  int32_t code = GITLOCK_OK;
  if (strcmp(verb, "supports") == 0) add(line, "operations", OPERATIONS);
  else if (strcmp(verb, "open") == 0) code = open_manager(fields);
  else if (strcmp(verb, "close") == 0) gitlock_manager_free(manager), manager = NULL;
  else if (strcmp(verb, "acquire") == 0) return take(line, fields, 0);
  else if (strcmp(verb, "try") == 0) return take(line, fields, 1);
  else if (strcmp(verb, "everywhere") == 0 || strcmp(verb, "quorum") == 0) code = take_several(line, verb, fields);
  else if (strcmp(verb, "let-go") == 0)
    code = gitlock_multi_guard_release(*find_in_several(get(fields, "guard")));
  else if (strcmp(verb, "start") == 0) code = start(fields, NULL);
  else if (strcmp(verb, "start-upgrade") == 0) code = start(fields, guard);
  else if (strcmp(verb, "upgrade") == 0)
    code = gitlock_guard_upgrade(guard, number(fields, "wait", GITLOCK_FOREVER), NULL);
  else if (strcmp(verb, "downgrade") == 0) code = gitlock_guard_downgrade(guard);
  else if (strcmp(verb, "token-of") == 0) {
    if (gitlock_guard_token_of(guard, name) != 0) add_number(line, "token", gitlock_guard_token_of(guard, name));
  } else if (strcmp(verb, "wanted") == 0) code = add_wanted(line, guard);
  else if (strcmp(verb, "heed") == 0)
    code = gitlock_guard_on_wanted(guard, on_wanted, strdup(get(fields, "guard")), free);
  else if (strcmp(verb, "graph") == 0) code = gitlock_graph(manager, &text);
  else if (strcmp(verb, "sync") == 0) {
    gitlock_manager *there = NULL;
    code = gitlock_open(get(fields, "there"), NULL, &there);
    if (code == GITLOCK_OK) code = gitlock_sync(manager, there, get(fields, "strategy"), &text);
    gitlock_manager_free(there);
  } else if (strcmp(verb, "cancel") == 0) {
    for (size_t at = 0; waits[at] != NULL; at++) {
      if (strcmp(waits[at]->name, get(fields, "wait_as")) != 0) continue;
      gitlock_cancel_cancel(waits[at]->cancel);
      gitlock_waiting_cancel(waits[at]->waiting);
    }
  } else if (strcmp(verb, "look") == 0) {
    add_guard(line, guard);
    add(line, "lost", gitlock_guard_is_lost(guard) ? "true" : "false");
    add_number(line, "remaining", gitlock_guard_remaining_ms(guard));
  } else if (strcmp(verb, "extend") == 0) code = gitlock_guard_extend(guard, number(fields, "ttl", GITLOCK_DEFAULT));
  else if (strcmp(verb, "release") == 0) code = gitlock_guard_release(guard);
  else if (strcmp(verb, "watch") == 0) code = gitlock_guard_on_lost(guard, on_lost, strdup(get(fields, "guard")), free);
  else if (strcmp(verb, "handle") == 0) code = gitlock_guard_handle(guard, &text), key = "handle";
  else if (strcmp(verb, "detach") == 0) code = gitlock_guard_detach(guard, &text), key = "handle";
  else if (strcmp(verb, "handle-of") == 0)
    code = gitlock_handle_by_fingerprint(name, get(fields, "fingerprint"), &text), key = "handle";
  else if (strcmp(verb, "resume") == 0) {
    code = gitlock_resume(manager, handle, &again);
    if (code == GITLOCK_OK)
      add_guard(line, again), keep(get(fields, "as") ? get(fields, "as") : gitlock_guard_name(again), again);
  } else if (strcmp(verb, "extend-handle") == 0) {
    uint64_t left = 0;
    code = gitlock_extend(manager, handle, number(fields, "ttl", GITLOCK_DEFAULT), &left);
    add_number(line, "remaining", left);
  } else if (strcmp(verb, "release-handle") == 0) code = gitlock_release(manager, handle);
  else if (strcmp(verb, "update-refs") == 0) {
    const char *const changes[] = {get(fields, "change"), get(fields, "also")};
    code = gitlock_guard_update_refs(guard, changes, changes[1] != NULL ? 2 : 1, get(fields, "message"));
  } else if (strcmp(verb, "push") == 0) {
    const char *const refspecs[] = {get(fields, "refspec"), get(fields, "also")};
    code = gitlock_guard_push(guard, refspecs, refspecs[1] != NULL ? 2 : 1);
  } else if (strcmp(verb, "verify") == 0) code = gitlock_verify(manager, name, strtoull(get(fields, "token"), NULL, 10));
  else if (strcmp(verb, "status") == 0) code = gitlock_status(manager, name, &text);
  else if (strcmp(verb, "list") == 0) code = gitlock_list(manager, &text);
  else if (strcmp(verb, "log") == 0) code = gitlock_log(manager, name, (size_t)number(fields, "most", 100), &text);
  else if (strcmp(verb, "break") == 0)
    code = gitlock_break(manager, name, get(fields, "tenure"), get(fields, "reason"), &text);
  else if (strcmp(verb, "clean") == 0) code = gitlock_clean(manager, number(fields, "grace", GITLOCK_DEFAULT), &text);
  else if (strcmp(verb, "doctor") == 0) code = gitlock_doctor(manager, get(fields, "fix") != NULL, &text);
  else fprintf(stderr, "nobody knows how to %s\n", verb), exit(2);
  if (code != GITLOCK_OK) add_error(line);
  else if (text != NULL) add(line, key, text);
  gitlock_string_free(text);
  return code;
}

static void answer(const char *verb, const struct fields *fields) {
  char *more = strdup(""), *line;
  int32_t code = carry_out(verb, fields, &more);
  line = strdup(code == GITLOCK_OK ? "ok" : "error");
  add(&line, "n", get(fields, "n"));
  line = realloc(line, strlen(line) + strlen(more) + 1);
  strcat(line, more);
  free(more);
  say(line);
}

int main(int count, char **arguments) {
  starts = count > 1 && strcmp(arguments[1], "start") == 0;
  char *line = NULL;
  size_t size = 0;
  while (getline(&line, &size, stdin) > 0) {
    struct fields fields = {0};
    char *rest = NULL, *verb = strtok_r(line, "\t\n", &rest);
    for (char *word; (word = strtok_r(NULL, "\t\n", &rest)) != NULL && fields.count < MOST; fields.count++) {
      char *value = strchr(word, '=');
      *value++ = '\0';
      decode(value);
      fields.keys[fields.count] = word, fields.values[fields.count] = value;
    }
    if (strcmp(verb, "fork") != 0) answer(verb, &fields);
    /* A copy of this process tries to use a guard, and answers in its place. */
    else if (fork() == 0) answer("extend", &fields), _exit(0);
    else wait(NULL);
  }
  for (size_t at = 0; at < MOST; at++) gitlock_guard_free(guards[at].guard), gitlock_multi_guard_free(several[at].guard);
  gitlock_manager_free(manager);
  free(line);
  return 0;
}
