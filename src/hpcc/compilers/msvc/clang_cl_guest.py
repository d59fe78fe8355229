"""Translates one compile of clang-cl for a guest on Linux, where the project root is `/src`.

The counterpart of `compilers.invocation.guest` for cl's command line. `compilers.msvc.guest` is for
guests on Windows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hpcc.compilers.invocation.guest import GuestMap, NotPortableError, prefix_map
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.flags import DEPFILE, FULL_PATHS, TO_CLANG
from hpcc.compilers.scan.includes import Includes
from hpcc.compilers.scan.questions import Definitions
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core.reasons.fallback import FallbackReason

INJECTED_CL: Final = (b"-Werror=date-time",)
"""Behind the flags of `reproducible_flags`: a clock in the object is an early, clear failure."""

_SOURCES: Final = frozenset({"Tc", "Tp"})
_MAP: Final = b"-prefix-map="
# Clang's HeaderIncludeGen.cpp. It is never translated; one space for each level follows.
_NOTE: Final = b"Note: including file:"


def clang_cl_guest_arguments(
    invocation: Invocation, guest: GuestMap, injected: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    """Return the arguments with every path rewritten, and with `injected`.

    Raises:
        NotPortableError: an argument has a meaning only on this machine.
    """
    if invocation.is_native:
        raise NotPortableError(FallbackReason.NATIVE)
    flags: list[bytes] = []
    sources: list[bytes] = []
    for part in invocation.parts:
        if isinstance(part, Operand):
            sources.append(guest.spell(part.name))
        else:
            flags.extend(_flag(part, guest))
    # After `--`, because `/Users/x.c` would be /U, and `/src/x.c` may become an option one day.
    return (*flags, *injected, *((b"--", *sources) if sources else ()))


def _flag(flag: Flag, guest: GuestMap) -> tuple[bytes, ...]:
    effect, spelling = flag.spec.effect, flag.spec.spelling
    if effect is Effect.INCLUDE_DIR:
        return _respell(flag, guest.spell_directory(flag.value))
    if spelling == FULL_PATHS:
        raise NotPortableError(FallbackReason.FULL_PATHS)
    if effect is Effect.OUTPUT:
        return _respell(flag, _output(flag.value, guest)) if flag.value else flag.raw
    if effect is Effect.FORCED_INCLUDE or spelling in _SOURCES or spelling == DEPFILE:
        return _respell(flag, guest.spell(flag.value))
    if spelling == "Fd":
        return ()  # clang-cl ignores it
    if effect is Effect.SEARCH and b"/" in flag.value and spelling != "-target=":
        _check_system(flag.value, guest)
    if spelling == TO_CLANG and _MAP in flag.value:
        return (b"-" + TO_CLANG.encode() + prefix_map(flag.value, guest.root),)
    if _MAP in flag.raw[0]:
        return (prefix_map(flag.raw[0], guest.root), *flag.raw[1:])
    return flag.raw


def _output(value: bytes, guest: GuestMap) -> bytes:
    """Spell the object relative to the working directory: /Z7 records its name (S_OBJNAME)."""
    inside = guest.relative(value)
    if not value.startswith(b"/"):
        return value
    tail = b"/" if value.endswith(b"/") else b""
    return posixpath.relpath(b"/" + inside, b"/" + guest.relative(guest.cwd)) + tail


def _check_system(directory: bytes, guest: GuestMap) -> None:
    """Accept a toolchain directory that is in the image, like its system headers."""
    is_plain = directory.startswith(b"/") and guest.is_system(posixpath.normpath(directory))
    if not is_plain:
        raise NotPortableError(FallbackReason.SYSROOT)


def _respell(flag: Flag, value: bytes) -> tuple[bytes, ...]:
    """Write the flag with a dash: an unknown `/x` is a file name."""
    name = b"-" + flag.spec.spelling.encode()
    return (name, value) if len(flag.raw) > 1 else (name + value,)


def client_notes(text: bytes, is_here: Callable[[bytes], bool]) -> bytes:
    """Return `/showIncludes` output without headers of the image that this machine lacks.

    Ninja records these lines as dependencies, and a missing file is always out of date. `text`
    already has this machine's paths (`guest_text`).
    """
    kept = []
    for line in text.splitlines(keepends=True):
        name = line[len(_NOTE) :].strip() if line.startswith(_NOTE) else b""
        if not name or is_here(name):
            kept.append(line)
    return b"".join(kept)


def with_slashes(found: Includes) -> Includes:
    """Add each name with slashes in place of backslashes, which is how clang-cl reads it."""
    return Includes(
        found.quoted | {_slashed(n) for n in found.quoted},
        found.angled | {_slashed(n) for n in found.angled},
        replace(found.asked, names=found.asked.names | slashed_names(found.asked.names)),
        found.computed,
        found.is_opaque,
    )


def definitions_with_slashes(found: Definitions) -> Definitions:
    """Return names behind macros, changed as `with_slashes` changes those of directives."""
    names = found.names | slashed_names(found.names)
    return replace(found, names=names)


def slashed_names(names: frozenset[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
    """Return (is quoted, name) pairs with a slash in place of each backslash."""
    return frozenset((is_quoted, _slashed(name)) for is_quoted, name in names)


def _slashed(name: bytes) -> bytes:
    return name.replace(b"\\", b"/")
