"""The files that a compile looks for because of a flag, besides sources and headers.

Sources: GCC manual, "Optimize Options" (-fprofile-use, -fauto-profile) with gcc/coverage.cc,
coverage_init; Clang's addPGOAndCoverageFlags and the option reference. Each name was seen in a
system call trace of the compilers in `table.ASKED_GCC` and `table.ASKED_CLANG`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final

from hpcc.compilers.invocation.interfaces import IMPORT_FLAG, imported_file
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Bypass, Effect, Flag
from hpcc.core.reasons.bypass import BypassReason

_CLANG_DEFAULT: Final = b"default.profdata"
_AUTO_DEFAULT: Final = b"fbdata.afdo"
_COUNTS: Final = frozenset({"-fprofile-use", "-fprofile-use=", "-fbranch-probabilities"})
# Each of these changes where the counts of an earlier run are (gcc/opts.cc: profile_data_prefix).
_PREFIXES: Final = ("-fprofile-use=", "-fprofile-dir=", "-fprofile-generate=")


def files_looked_for(
    invocation: Invocation, *, is_clang: bool, directories: tuple[bytes, ...]
) -> tuple[bytes, ...] | Bypass:
    """Return every file that is read if it exists; relative names are the compiler's own.

    `directories` are the spellings of the current directory that the compiler may use ($PWD).
    """
    flags = [f for f in invocation.flags if f.spec.effect is Effect.INPUT]
    if not flags:
        return ()
    found: dict[bytes, None] = {}
    for flag in flags:
        if flag.value == b"-" or not (flag.value or _may_be_empty(flag)):
            return Bypass(BypassReason.ODD_INPUT)
        found.update(dict.fromkeys(_named_by(flag, is_clang=is_clang)))
    if not is_clang and any(f.spec.spelling in _COUNTS for f in flags):
        if invocation.values("-fprofile-prefix-path="):
            return Bypass(BypassReason.PROFILE)  # shortens the name derived from the object's path
        found.update(dict.fromkeys(_counts(invocation, directories)))
    return tuple(found)


def _may_be_empty(flag: Flag) -> bool:
    return not flag.spec.spelling.endswith("=") or flag.spec.spelling == "-fprofile-use="


def _named_by(flag: Flag, *, is_clang: bool) -> Iterator[bytes]:
    spelling, value = flag.spec.spelling, flag.value
    if spelling == "-fauto-profile":
        yield _AUTO_DEFAULT
    elif spelling == IMPORT_FLAG:
        yield imported_file(value) or value
    elif spelling not in _COUNTS | {"-fprofile-instr-use"}:
        yield value
    elif is_clang:
        # A directory means the default file in it.
        if value:
            yield value
        yield posixpath.join(value, _CLANG_DEFAULT)


def _counts(invocation: Invocation, directories: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield where GCC looks for .gcda: by the output's name; below a prefix by its full path."""
    head, slash, base = invocation.output.rpartition(b"/")
    dot = base.rfind(b".")
    stem = head + slash + (base[:dot] if dot > 0 else base)
    yield stem + b".gcda"
    for prefix in invocation.values(*_PREFIXES):
        if stem.startswith(b"/"):
            yield prefix + b"/" + stem + b".gcda"
            continue
        for directory in directories:
            whole = directory.rstrip(b"/") + b"/" + stem
            parts = (b"^" if part == b".." else part for part in whole.split(b"/"))
            yield prefix + b"/" + b"#".join(parts) + b".gcda"
