/* Prints the socket that the launcher would use for three variables ("-" stands for unset) and a
 * uid. The tests compare it with the daemon's own answer. */
#include <stdio.h>
#include <stdlib.h>

#include "wire.h"

static const char *variable(const char *text) { return strcmp(text, "-") ? text : NULL; }

int main(int argc, char **argv) {
    static char run[PATH_MAX];
    struct place place;
    if (argc != 5) return 2;
    unsigned uid = (unsigned)strtoul(argv[4], NULL, 10);
    if (find_place(&place, run, variable(argv[1]), variable(argv[2]), variable(argv[3]), uid)) return 1;
    printf("%s\n%s\n", place.run, place.socket);
    return 0;
}
