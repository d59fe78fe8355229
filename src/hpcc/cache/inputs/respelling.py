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
# In a relative name: `./a`, `a/./b`, `a/.`, `a//b`.
_DOTS: Final = re.compile(rb"(?:^|/)\.(?:/|$)|//")
_UP: Final = re.compile(rb"(?:^|/)\.\.(?:/|$)")
# In a text: `"./a`, `<./a`, `/./`, and `//` in the name of an include line.
_TEXT_DOTS: Final = re.compile(
    rb'["<]\./|/\./|(?:include|import|embed)[^"<\n]*["<][^">\n]*//|["<][^">\s]*///'
)
_TEXT_UP: Final = re.compile(rb'["</]\.\./')


class Text(enum.Flag):
    """What a file's text says about names of headers."""

    NOTHING = 0
    SYSTEM = enum.auto()  # it may call itself a system's header
    DOTS = enum.auto()
    UP = enum.auto()


_ODD: Final = Text.DOTS | Text.UP
_ALL: Final = Text.SYSTEM | _ODD


def text_of(memo: FileMemo, path: bytes, digest: bytes) -> Text:
    """Return what a file's text says; everything if it has changed."""
    found = memo.derived(path, digest, b"respelling", _read)
    return _ALL if found is None else found


def _read(text: bytes) -> Text:
    found = Text.NOTHING
    if b"system_header" in text:
        found |= Text.SYSTEM
    if _TEXT_DOTS.search(text):
        found |= Text.DOTS
    if _TEXT_UP.search(text):
        found |= Text.UP
    return found


def has_relative_names(invocation: Invocation) -> bool:
    """Tell whether a header may have a relative name: those of one beside it begin as its own."""
    names = (invocation.source, *invocation.include_dirs, *invocation.forced_includes)
    return any(not name.startswith(b"/") for name in names)


def names_vary(
    memo: FileMemo, invocation: Invocation, cwd: bytes, own: Sequence[tuple[bytes, bytes]]
) -> bool:
    """Tell whether a header's two names may differ in which is shorter, without links.

    `own` are the project's files by absolute path, as the compiler has them, and by SHA-256. It may
    have the real names already, so the texts count.
    """
    if not has_relative_names(invocation):
        return False
    texts = [text_of(memo, path, digest) for path, digest in own]
    is_any = any(Text.SYSTEM in text for text in texts)
    named = invocation.values(*SYSTEM_DIRS)
    below = tuple(absolute(cwd, d + b"/.").removesuffix(b".") for d in named)
    if not is_any and not below:
        return False
    counted = [
        (path, text)
        for (path, _), text in zip(own, texts, strict=True)
        if is_any or path.startswith(below)
    ]
    if any(text & _ODD or b"/../" in path for path, text in counted):
        return True
    plain = (invocation.source, *invocation.include_dirs, *invocation.forced_includes)
    return any(map(_is_odd, plain if is_any else named))


def names_may_vary(
    memo: FileMemo, invocation: Invocation, own: Sequence[tuple[bytes, bytes]]
) -> bool:
    """Like `names_vary`, for files whose paths are without the `..` that the compiler has."""
    if not has_relative_names(invocation):
        return False
    texts = [text_of(memo, path, digest) for path, digest in own]
    if not invocation.values(*SYSTEM_DIRS) and not any(Text.SYSTEM in text for text in texts):
        return False
    spelled = (invocation.source, *invocation.include_dirs, *invocation.forced_includes)
    return any(text & _ODD for text in texts) or any(map(_is_odd, spelled))


def _is_odd(name: bytes) -> bool:
    """Tell whether a name of an argument is relative and may be longer than the real one."""
    return not name.startswith(b"/") and bool(_DOTS.search(name) or _UP.search(name))


def are_system_headers(
    memo: FileMemo, invocation: Invocation, own: Iterable[tuple[bytes, bytes]]
) -> bool:
    """Tell whether a compile may have system's headers among the project's files."""
    return bool(invocation.values(*SYSTEM_DIRS)) or has_system_text(memo, own)


def has_system_text(memo: FileMemo, files: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether one of these (path, SHA-256) files may call itself a system's header."""
    return any(Text.SYSTEM in text_of(memo, path, digest) for path, digest in files)


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
