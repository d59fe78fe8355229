// Stands for a compiler in the scale-out bench of distcc and icecream: it preprocesses with the real
// one, and instead of a compile it sleeps and copies its input. Static, so that it runs in icecream's
// chroot. SLEEP_MS and REAL are defined by the bench.
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int is_source(const char *word) {
  size_t n = strlen(word);
  if (!strcmp(word, "-")) return 1;
  return n > 2 && word[0] != '-' && (!strcmp(word + n - 2, ".c") || !strcmp(word + n - 2, ".i"));
}

int main(int argc, char **argv) {
  const char *in = 0, *out = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "-E")) {
      argv[0] = REAL;
      execv(REAL, argv);
      return 127;
    }
    if (!strcmp(argv[i], "-o") && i + 1 < argc)
      out = argv[++i];
    else if (is_source(argv[i]))
      in = argv[i];
  }
  if (!in || !out) return 0;
  int from = strcmp(in, "-") ? open(in, O_RDONLY) : 0;
  int to = open(out, O_CREAT | O_TRUNC | O_WRONLY, 0644);
  char buffer[65536];
  for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
    if (write(to, buffer, n) != n) return 1;
  struct timespec pause = {SLEEP_MS / 1000, SLEEP_MS % 1000 * 1000000L};
  nanosleep(&pause, 0);
  return 0;
}
