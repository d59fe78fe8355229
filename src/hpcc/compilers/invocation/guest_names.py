"""What an object that a guest makes calls the project's root, and which flags decide that.

With a marker the root is called `.`, so that the object is the same in every checkout. Without one
the object must have the bytes that the image's compiler would write here: `/src` is mapped to the
root's own path. Some flags write names past the prefix maps of compilers; with those the compile
stays on this machine, because the object would name `/src`.

The rows below were found by comparing objects of GCC 12 to 14 and Clang 14 to 19 (the tests in
`tests/integration/cache/test_found_root_objects.py`).
"""

from __future__ import annotations

import re
from typing import Final

from hpcc.compilers.invocation.guest import (
    INSTALLED,
    NO_CLOCK,
    RELATIVE,
    GuestMap,
    NotPortableError,
)
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.spec.table import Effect, Operand
from hpcc.core.reasons.fallback import FallbackReason

# The object names the file of its counters, which no map changes and the compiler only copies.
COUNTERS: Final = re.compile(rb"--?coverage|-ftest-coverage|-fprofile-arcs|-fprofile-generate")
_OWN_MAP: Final = re.compile(rb"-f(file|macro|debug|profile|coverage)-prefix-map=(.*)", re.DOTALL)
_COVERED: Final = {b"file": {b"macro", b"debug"}, b"macro": {b"macro"}, b"debug": {b"debug"}}
# They write the working directory or hash it, also if all names in the arguments are relative.
_ALWAYS: Final = re.compile(
    rb"-fprofile-(?!use|partial-training|values|reorder|prefix-map).*|--?coverage|-ftest-coverage"
    rb"|-fcoverage-mapping|-fcs-profile-generate.*|-fprofile-instr-generate.*|-ftime-trace.*"
    rb"|-fsave-optimization-record.*|-fmemory-profile.*|-fpseudo-probe.*|-fembed-bitcode.*"
    rb"|-funique-internal-linkage-names|-frecord-.*|-grecord-.*|-ftime-report.*"
)
# They write the names of sources as the command line spells them.
_SPELLED: Final = re.compile(
    rb"-fsanitize(?!-trap).*|-flto.*|-fwhole-program|-emit-llvm|-fverbose-asm|-fxray.*|-fdump.*"
    rb"|-fbasic-block.*|-fprofile-use.*|-fauto-profile.*|-fsplit-machine-functions"
)
# Clang describes parallel regions with the names of sources if there is debug information.
_SPELLED_BY_CLANG: Final = re.compile(rb"-fopenmp.*")
# GCC lists a mapped source twice in DWARF before version 5, and the compilers' other formats are
# not tried.
_DWARF_5: Final = 5
_OLD_DEBUG: Final = re.compile(
    rb"-gdwarf(?:-([0-9]))?|-g(?:stabs|xcoff|vms|codeview|sce|dbx|lldb).*"
)
_DEBUG: Final = re.compile(rb"-g(?!0$|z|no-|[a-z]*columns|toggle).*")
_GCC_WITH_DWARF_5: Final = 11


def name_flags(
    invocation: Invocation, guest: GuestMap, *, is_clang: bool, major: int
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return flags to put in front of the arguments, and flags to put behind them.

    Raises:
        NotPortableError: no flag makes the object call the root `guest.shown`.
    """
    own = [m for m in map(_OWN_MAP.fullmatch, invocation.arguments) if m is not None]
    if guest.is_wide or guest.shown != RELATIVE:
        _check(invocation, guest, is_clang=is_clang, major=major)
    outside: tuple[bytes, ...] = ()
    if guest.is_wide:
        if own:
            # The user's map may be meant for the directories outside, too.
            raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, _text(own[0][0]))
        outside = (b"-ffile-prefix-map=" + INSTALLED + b"=",)
    if guest.shown == RELATIVE:
        return (), (b"-ffile-prefix-map=" + guest.base + b"=" + RELATIVE, *outside, NO_CLOCK)
    covered: set[bytes] = set()
    for match in own:
        old = match[2].rpartition(b"=")[0]
        # Macros never show the root itself, only names below it.
        is_whole = match[1] == b"macro" and old == guest.root + b"/"
        if guest.root.startswith(old) or is_whole:
            covered |= _COVERED.get(match[1], set())
        elif is_clang and old.startswith(guest.root):
            # Versions differ in which of two maps wins.
            raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, _text(match[0]))
    to = guest.base + b"=" + guest.shown
    if not covered:
        maps: tuple[bytes, ...] = (b"-ffile-prefix-map=" + to,)
    else:
        missing = sorted({b"macro", b"debug"} - covered)
        maps = tuple(b"-f" + kind + b"-prefix-map=" + to for kind in missing)
    # The user's own maps come later and win, as they do here.
    return (maps, (NO_CLOCK,)) if own else ((), (*maps, *outside, NO_CLOCK))


def _check(invocation: Invocation, guest: GuestMap, *, is_clang: bool, major: int) -> None:
    """Refuse flags that write names past the prefix maps.

    Raises:
        NotPortableError: there is such a flag.
    """
    arguments = invocation.arguments
    is_spelled = names_root(invocation)
    is_debug = any(map(_DEBUG.fullmatch, arguments))
    for argument in arguments:
        is_shown = _SPELLED.fullmatch(argument) or (
            is_clang and is_debug and _SPELLED_BY_CLANG.fullmatch(argument)
        )
        if guest.has_same_length and COUNTERS.fullmatch(argument):
            continue
        if _ALWAYS.fullmatch(argument) or (is_spelled and is_shown):
            raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, _text(argument))
    if is_clang and is_debug and invocation.language is Language.ASSEMBLER:
        # Clang 14 does not map the working directory of assembler sources.
        raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, "-g with an assembler source")
    if is_spelled and not is_clang and (flag := _old_debug(arguments, major)):
        raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, _text(flag))
    if b"=" in guest.root or b"=" in guest.shown:
        raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, "the root's name has a `=`")


def check_absolute_names(invocation: Invocation, guest: GuestMap, major: int) -> None:
    """Refuse flags of GCC that write absolute names past the prefix maps.

    Headers may have such names although no argument has one.

    Raises:
        NotPortableError: there is such a flag.
    """
    if guest.shown == RELATIVE:
        return
    flag = next(filter(_SPELLED.fullmatch, invocation.arguments), b"")
    if flag := flag or _old_debug(invocation.arguments, major):
        raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, _text(flag))


def names_root(invocation: Invocation) -> bool:
    """Tell whether the compiler gets a path of the project that is not relative."""
    names = [p.name for p in invocation.parts if isinstance(p, Operand)]
    effects = {Effect.INCLUDE_DIR, Effect.FORCED_INCLUDE}
    names += [f.value for f in invocation.flags if f.spec.effect in effects]
    return any(name.startswith(b"/") for name in names)


def _old_debug(arguments: tuple[bytes, ...], major: int) -> bytes:
    """Return the flag that asks for debug information older than DWARF 5; b"" without one."""
    wanted = b""
    for argument in arguments:
        match = _OLD_DEBUG.fullmatch(argument)
        if match is not None:
            version = int(match[1] or 0)
            is_old = version < _DWARF_5 and not (
                argument == b"-gdwarf" and major >= _GCC_WITH_DWARF_5
            )
            wanted = argument if is_old else b""
            if not is_old:
                return b""
        elif _DEBUG.fullmatch(argument) and major < _GCC_WITH_DWARF_5:
            wanted = wanted or argument
    return wanted


def _text(flag: bytes) -> str:
    return flag.decode("utf-8", "replace")[:200]
