/* A command line for CreateProcess: what CommandLineToArgvW and the C runtime read back as the same
 * arguments. Source: Microsoft, "Parsing C command-line arguments". */
#ifndef HPCC_WIN_LINE_H
#define HPCC_WIN_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <wchar.h>

#define MAX_LINE 32768 /* limit of CreateProcess, in UTF-16 units with the final zero */

static wchar_t line[MAX_LINE];

static bool put(wchar_t c, size_t *at) {
    if (*at + 1 >= MAX_LINE) return false;
    line[(*at)++] = c;
    line[*at] = L'\0';
    return true;
}

static bool put_quoted(const wchar_t *argument, size_t *at) {
    if (*at && !put(L' ', at)) return false;
    bool is_plain = *argument && !wcspbrk(argument, L" \t\n\v\"");
    if (!is_plain && !put(L'"', at)) return false;
    for (const wchar_t *c = argument;; c++) {
        size_t slashes = 0;
        while (*c == L'\\') c++, slashes++;
        size_t count = slashes;
        if (!is_plain && (*c == L'"' || !*c)) count = slashes * 2 + (*c == L'"');
        while (count--)
            if (!put(L'\\', at)) return false;
        if (!*c) break;
        if (!put(*c, at)) return false;
    }
    return is_plain || put(L'"', at);
}

static bool put_line(wchar_t **argv) {
    size_t at = 0;
    line[0] = L'\0';
    for (; *argv; argv++)
        if (!put_quoted(*argv, &at)) return false;
    return true;
}

#endif
