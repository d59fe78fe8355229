"""Compilers that are shell scripts: `c99-gcc`, `c89-gcc`, `musl-gcc` and their like.

Problem: a script may read any file and any variable, so its bytes do not say what it does.

Rule: a script of a proved form is replaced by the command that it would execute. That command is
keyed and cached like any other, and the script does not matter after that: another script gives
another command, and thereby another key. The script is read for each request. The forms are

- one line `exec PROGRAM WORD… "$@" WORD…`, where words hold no shell syntax, and PROGRAM may be
  `"${REALGCC:-PROGRAM}"`, the only variable that the launcher sends for it (musl);
- the loop of Debian's `c99-gcc` and `c89-gcc`, which adds `-std=…` if the user gave no standard.

Example: `c99-gcc -O2 -c a.c` becomes `gcc -std=c99 -O2 -c a.c`, with the gcc that PATH leads to.

What must never happen: a script that does anything else is replaced. In every doubt the script runs
as it is, and the bypass is counted.
"""

from __future__ import annotations

import fnmatch
import os
import re
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.compilers.spec.drivers import OTHER_CACHES

_MAX_SCRIPT_BYTES: Final = 4096
_SHELL: Final = re.compile(rb"#! ?/bin/sh\n")
_COMMENT: Final = re.compile(rb"(?:[ \t]*#[^\n]*)?\n")
# No quotes, variables, patterns, home directories or assignments.
_WORD: Final = rb"[\w/.,+:@%-][\w/.,+:@%=-]*"
_QUOTED: Final = rb'(?:%s|"%s")' % (_WORD, _WORD)
_ALL: Final = rb'(?:"\$@"|\$\{1\+"\$@"\})'
_EXEC: Final = re.compile(
    rb'exec (?:"\$\{REALGCC:-(?P<default>%s)\}"|(?P<program>%s))'
    rb"(?P<before>(?: %s)*) %s(?P<behind>(?: %s)*)\n" % (_WORD, _WORD, _QUOTED, _ALL, _QUOTED)
)
_PATTERNS: Final = rb"[\w=:*\[\]|-]+"
_LOOP: Final = re.compile(
    rb"(?P<name>[a-z_]+)=(?P<flag>-std=[\w:]+)\n"
    rb"for i; do\n"
    rb'case "\$i" in\n'
    rb"(?P<same>%s)\)\n(?P=name)=\n;;\n"
    rb"(?P<other>%s)\)\n"
    rb'echo >&2 "`basename \$0` called with non [A-Z/ ]*ISO C\w* option \$i"\nexit 1\n;;\n'
    rb"esac\ndone\n"
    rb"exec (?P<program>%s) \$(?P=name) %s\n" % (_PATTERNS, _PATTERNS, _WORD, _ALL)
)


def executed_by(request: CompileRequest) -> CompileRequest | None:
    """Return the request with the command that its compiler, a script, would execute.

    None if the compiler is not a script of a proved form.
    """
    text = _script(request.compiler)
    if text is None:
        return None
    found = _command(text, request.argv[1:], request.env.get(b"REALGCC", b""))
    # A shell corrects a PWD that is wrong, and the compiler would see the corrected one.
    if found is None or not _is_right(request.env.get(b"PWD"), request.cwd):
        return None
    program, *arguments = found
    path = _which(program, request.env.get(b"PATH"))
    if path is None:
        return None
    return request._replace(compiler=path, argv=(program, *arguments))


def _script(path: bytes) -> bytes | None:
    """Return a script without comments and indentation; None for anything else."""
    try:
        # No file object: nearly all compilers end here, and its making asks the kernel thrice.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if os.read(fd, 2) != b"#!":
                return None
            with open(fd, "rb", closefd=False) as file:
                text = b"#!" + file.read(_MAX_SCRIPT_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return None
    if len(text) > _MAX_SCRIPT_BYTES or not text.endswith(b"\n"):
        return None
    shell = _SHELL.match(text)
    if shell is None or b"\\" in text or b"\r" in text or b"\0" in text:
        return None
    lines = [line.strip(b" \t") for line in text[shell.end() :].splitlines(keepends=False)]
    return b"".join(line + b"\n" for line in lines if line and not line.startswith(b"#"))


def _command(text: bytes, arguments: tuple[bytes, ...], realgcc: bytes) -> tuple[bytes, ...] | None:
    match = _EXEC.fullmatch(text)
    if match is not None:
        # The launcher sends REALGCC as it is; like the shell, take an empty one for unset.
        program = match["program"] or realgcc or match["default"]
        before, behind = (_words(match[name]) for name in ("before", "behind"))
        return (program, *before, *arguments, *behind)
    match = _LOOP.fullmatch(text)
    if match is None:
        return None
    flag: tuple[bytes, ...] = (match["flag"],)
    for argument in arguments:
        if _fits(argument, match["same"]):
            flag = ()
        elif _fits(argument, match["other"]):
            return None  # the script refuses it
    return (match["program"], *flag, *arguments)


def _words(text: bytes) -> list[bytes]:
    return [word.strip(b'"') for word in text.split()]


def _fits(argument: bytes, patterns: bytes) -> bool:
    return any(fnmatch.fnmatchcase(argument, pattern) for pattern in patterns.split(b"|"))


def _is_right(pwd: bytes | None, cwd: bytes) -> bool:
    if pwd is None or pwd == cwd:
        return True
    try:
        return pwd.startswith(b"/") and os.path.samefile(pwd, cwd)
    except OSError:
        return False


def _which(program: bytes, path: bytes | None) -> bytes | None:
    """Return the program as the shell finds it; None if that is another cache, or in doubt."""
    if b"/" in program:
        found = program if program.startswith(b"/") else None
    elif path is None or not all(part.startswith(b"/") for part in path.split(b":")):
        return None
    else:
        places = (part.rstrip(b"/") + b"/" + program for part in path.split(b":"))
        found = next((p for p in places if os.path.isfile(p) and os.access(p, os.X_OK)), None)
    if found is None or os.path.realpath(found).rpartition(b"/")[2] in OTHER_CACHES:
        return None
    return found
