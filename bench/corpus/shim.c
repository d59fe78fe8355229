/* Stands before a compiler (recording) or in the place of one of its programs (counting).
 *
 * Built with -DREAL_DIRECTORY="…", it runs the program with the same base name in that directory, with the
 * same arguments and environment.
 *   CORPUS_RECORD=DIR  writes working directory, arguments and environment to a new file in DIR
 *   CORPUS_COUNT=FILE  appends "NAME compile" or "NAME other" to FILE; other: only preprocesses, asks
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void put(FILE *file, const char *text) { fwrite(text, 1, strlen(text) + 1, file); }

static void record(const char *directory, char **argv) {
    char path[PATH_MAX], cwd[PATH_MAX];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(path, sizeof path, "%s/%lld.%09ld.%d", directory, (long long)now.tv_sec, now.tv_nsec, (int)getpid());
    FILE *file = fopen(path, "wx");
    if (!file || !getcwd(cwd, sizeof cwd)) return;
    put(file, cwd);
    for (char **word = argv; *word; word++) put(file, word == argv ? strrchr(*word, '/') ? strrchr(*word, '/') + 1 : *word : *word);
    put(file, "");
    put(file, "environment");
    for (char **word = environ; *word; word++) put(file, *word);
    fclose(file);
}

static void count(const char *path, const char *name, char **argv) {
    char line[256];
    int is_compile = 1, fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    for (char **word = argv + 1; *word; word++)
        if (!strcmp(*word, "-E") || !strcmp(*word, "--version") || !strcmp(*word, "-fsyntax-only")) is_compile = 0;
    int bytes = snprintf(line, sizeof line, "%s %s\n", name, is_compile ? "compile" : "other");
    if (fd < 0 || write(fd, line, (size_t)bytes) != bytes) _exit(125); /* a run that is not counted would look like a hit */
    close(fd);
}

int main(int argc, char **argv) {
    char real[PATH_MAX];
    if (argc < 1) return 125;
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    const char *records = getenv("CORPUS_RECORD"), *counts = getenv("CORPUS_COUNT");
    if (records) record(records, argv);
    if (counts) count(counts, name, argv);
    snprintf(real, sizeof real, "%s/%s", REAL_DIRECTORY, name);
    if (records) argv[0] = real; /* the driver looks for its programs beside the name it was called by */
    execve(real, argv, environ);
    perror(real);
    return errno == ENOENT ? 127 : 126;
}
