"""Headers for which GCC has two names and takes the shorter one.

Problem: GCC writes the real name of a system's header if it is shorter than the name on the search
path (`maybe_shorter_path` in libcpp/files.cc). A system's header is one in a directory of -isystem
or -idirafter, and one that is found beside a system's header, which `#pragma GCC system_header`
makes of any header. For `-isystem inc`, `#include "../lib/b.h"` in inc/a.h is inc/../lib/b.h in
/home/me/project, and /src/lib/b.h in /src. So the object depends on the length of the directory's
name.

Rule: the two names can be of different length in another place only if the one on the search path
is relative and has a `..`, or `./` or `//`, or leads through a link. In doubt a header is such.
Absolute names with these are longer than the real ones everywhere.
"""

from __future__ import annotations

import enum
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.real_names import RealNames
from hpcc.cache.base.uncacheable import absolute
from hpcc.compilers.invocation.invocation import Invocation

SYSTEM_DIRS: Final = ("-isystem", "-idirafter")
# Names that do not name an entry of the directory before them.
_NO_NAMES: Final = frozenset({b"", b".", b".."})
# The shortest directory is `/x`, and the real name of `a` in it `/x/a`.
_LONGER: Final = 4
# In an argument's name.
_UP: Final = re.compile(rb"(?:^|/)\.\.(?:/|$)")
# In a text: `"./a`, `<./a`, `/./`, and `//` in the first name of a directive. Each is linear in the
# size of the text, which may be hostile. Each new unit is read here, so a pattern is tried only on
# a text that has the pattern's last bytes: `in` takes a hundredth of the time. The first pattern
# begins with a literal line break, because `^` would be tried at each byte.
_DOTTED: Final = (b'"./', b"<./", b"/./")
_SLASHES: Final = re.compile(rb'\n[ \t]*(?:#|%:|\?\?=)[^"<\n]*["<][^">\n]*//')
_TEXT_UP: Final = re.compile(rb'["</]\.\./')


class Text(enum.Flag):
    """What a file's text says about names of headers."""

    NOTHING = 0
    SYSTEM = enum.auto()  # it may call itself a system's header
    DOTS = enum.auto()
    UP = enum.auto()


_ODD: Final = Text.DOTS | Text.UP
_ALL: Final = Text.SYSTEM | _ODD
# SHA-256 of texts that say nothing, which nearly all texts do: a look at 300 headers then costs
# 20 microseconds. About 100 bytes each.
_MOST_SILENT: Final = 65_536
_silent: Final[set[bytes]] = set()


def text_of(memo: FileMemo, path: bytes, digest: bytes) -> Text:
    """Return what a file's text says; everything if it has changed."""
    found = memo.derived(path, digest, b"respelling", _read)
    if found is None:
        return _ALL
    if found is Text.NOTHING:
        if len(_silent) >= _MOST_SILENT:
            _silent.clear()
        _silent.add(digest)
    return found


def _read(text: bytes) -> Text:
    found = Text.NOTHING
    if b"system_header" in text:
        found |= Text.SYSTEM
    if any(name in text for name in _DOTTED) or _has_double_slash(text):
        found |= Text.DOTS
    if b"../" in text and _TEXT_UP.search(text):
        found |= Text.UP
    return found


def _has_double_slash(text: bytes) -> bool:
    """Tell whether the first name of a directive has `//`."""
    return b"//" in text and _SLASHES.search(b"\n" + text) is not None


def system_headers(
    memo: FileMemo, invocation: Invocation, cwd: bytes, own: Sequence[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return those of a project's files, by absolute path and SHA-256, that may be the system's."""
    if has_system_text(memo, own):
        return list(own)
    found = _below(invocation.values(*SYSTEM_DIRS), cwd, own)
    leaves = any(Text.UP in text_of(memo, path, digest) for path, digest in found)
    return list(own) if leaves else found


def names_vary(
    memo: FileMemo, invocation: Invocation, cwd: bytes, own: Sequence[tuple[bytes, bytes]]
) -> bool:
    """Tell whether a header's two names may differ in which is shorter, without links.

    `own` are the project's files by absolute path and SHA-256. The paths may be real names already,
    so the texts count.
    """
    arguments = (invocation.source, *invocation.include_dirs, *invocation.forced_includes)
    relative = tuple(name for name in arguments if not name.startswith(b"/"))
    if not relative:
        return False  # the name of a header beside another begins as that one's
    is_any = has_system_text(memo, own)
    named = tuple(d for d in invocation.values(*SYSTEM_DIRS) if not d.startswith(b"/"))
    if not is_any and not named:
        return False
    counted = own if is_any else _below(named, cwd, own)
    if any(b"/../" in path or text_of(memo, path, digest) & _ODD for path, digest in counted):
        return True
    return any(map(_is_odd, relative if is_any else named))


def _below(
    directories: Iterable[bytes], cwd: bytes, files: Iterable[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """Return the files whose paths begin with a directory's name or with its plain name."""
    spelled = tuple(absolute(cwd, d + b"/.").removesuffix(b".") for d in directories)
    starts = (*spelled, *(posixpath.normpath(d) + b"/" for d in spelled))
    return [file for file in files if file[0].startswith(starts)] if starts else []


def _is_odd(name: bytes) -> bool:
    """Tell whether a relative name may be longer than the real one in some place."""
    return bool(_UP.search(name)) or len(name) - len(posixpath.normpath(name)) >= _LONGER


def has_system_text(memo: FileMemo, files: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether one of these (path, SHA-256) files may call itself a system's header."""
    others = [file for file in files if file[1] not in _silent]
    return any(Text.SYSTEM in text_of(memo, path, digest) for path, digest in others)


def are_real(paths: Iterable[bytes]) -> bool:
    """Tell whether `os.path.realpath` leaves all of these absolute paths as they are."""
    names, homes = RealNames(), dict[bytes, bool]()
    for path in paths:
        home, _, base = path.rpartition(b"/")
        if home not in homes:  # a directory has many files
            homes[home] = names.of_directory(home) == (home or b"/")
        if not homes[home] or base in _NO_NAMES or os.path.islink(path):
            return False
    return True
