/* A worker of the torture, in C. What it does is in README.md. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gitlock.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROLE "c"

static const char *root;
static char stamp[96], mine[4096];
static uint64_t state;

static uint64_t below(uint64_t end) {
  state += 0x9e3779b97f4a7c15u;
  uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (z ^ (z >> 31)) % end;
}

static void rest(uint64_t micros) {
  struct timespec time = {0, (long)(below(micros) * 1000)};
  nanosleep(&time, NULL);
}

static const char *path(const char *name) {
  static char text[2][4096];
  static int which;
  which = !which;
  snprintf(text[which], sizeof text[which], "%s/%s", root, name);
  return text[which];
}

static void append(const char *file, const char *format, ...) {
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
  int out = open(path(file), O_CREAT | O_APPEND | O_WRONLY, 0666);
  if (out < 0 || write(out, line, (size_t)length + 1) != length + 1)
    abort();
  close(out);
}

static const char *gate(int shared) {
  static char name[64];
  if (shared)
    snprintf(name, sizeof name, "oracle/shared.%ld", (long)getpid());
  else
    strcpy(name, "oracle/exclusive");
  return path(name);
}

static void enter(int shared) {
  if (link(mine, gate(shared)))
    append("faults", ROLE ": DOUBLE GRANT: on entering: %s", strerror(errno));
  if (shared) {
    if (!access(gate(0), F_OK))
      append("faults", ROLE ": DOUBLE GRANT: shared, beside an exclusive one");
    return;
  }
  DIR *folder = opendir(path("oracle"));
  for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;)
    if (!strncmp(entry->d_name, "shared.", 7))
      append("faults", ROLE ": DOUBLE GRANT: exclusive, beside %s", entry->d_name);
  if (folder != NULL)
    closedir(folder);
}

static void leave(int shared) {
  char text[96] = "";
  int in = open(gate(shared), O_RDONLY);
  if (in < 0 || read(in, text, sizeof text - 1) < 0 || strcmp(text, stamp) || unlink(gate(shared)))
    append("faults", ROLE ": DOUBLE GRANT: on leaving, [%s] is inside", text);
  if (in >= 0)
    close(in);
}

/* When this process started, as /proc has it; 0 if that can't be read. */
static unsigned long long started(void) {
  char text[1024] = "";
  int in = open("/proc/self/stat", O_RDONLY);
  if (in < 0 || read(in, text, sizeof text - 1) < 0)
    return 0;
  close(in);
  char *field = strrchr(text, ')');
  for (int at = 2; field != NULL && at < 22; at++)
    field = strchr(field + 1, ' ');
  return field == NULL ? 0 : strtoull(field, NULL, 10);
}

int main(int count, char **words) {
  if (count != 3)
    return 2;
  root = words[1];
  state = strtoull(words[2], NULL, 10);
  snprintf(stamp, sizeof stamp, "%ld %llu " ROLE, (long)getpid(), started());
  snprintf(mine, sizeof mine, "%s/oracle/me.%ld." ROLE, root, (long)getpid());
  FILE *file = fopen(mine, "w");
  if (file == NULL || fputs(stamp, file) < 0 || fclose(file))
    return 2;
  gitlock_manager *manager = NULL;
  if (gitlock_open(path("repo"), NULL, &manager)) {
    append("faults", ROLE ": the repository can't be opened: %s", gitlock_last_error_message());
    return 1;
  }
  while (access(path("stop"), F_OK)) {
    int shared = below(6) == 0;
    gitlock_acquire_options options;
    gitlock_acquire_options_init(&options, sizeof options);
    options.mode = shared ? GITLOCK_SHARED : GITLOCK_EXCLUSIVE;
    options.ttl_ms = 3000;
    options.wait_ms = 20000;
    gitlock_guard *guard = NULL;
    int code = gitlock_acquire(manager, "build", &options, &guard);
    if (code) {
      append("faults", ROLE ": acquire failed: %s %s", gitlock_code_name(code), gitlock_last_error_message());
      continue;
    }
    append("log", "E " ROLE " %c %llu", shared ? 's' : 'x', (unsigned long long)gitlock_guard_token(guard));
    enter(shared);
    if (below(16) == 0)
      rest(3000);
    leave(shared);
    if ((code = gitlock_guard_release(guard)))
      append("faults", ROLE ": release failed: %s %s", gitlock_code_name(code), gitlock_last_error_message());
    gitlock_guard_free(guard);
    rest(below(40) ? 1500 : 60000);
  }
  gitlock_manager_free(manager);
  unlink(mine);
  return 0;
}
