"""One compile of clang-cl as a guest on Linux will see it, where the project root is `/src`.

The twin of `compilers.invocation.guest` for cl's command line. `compilers.msvc.guest` is the one
for guests on Windows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import Final

from hpcc.compilers.invocation.guest import GuestMap, NotPortableError, prefix_map
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.flags import TO_CLANG
from hpcc.compilers.scan.includes import Definitions, Includes
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core.reasons.fallback import FallbackReason

INJECTED_CL: Final = (b"-Werror=date-time",)
"""Behind the flags of `reproducible_flags`: a clock in the object is an early, clear failure."""

_SOURCES: Final = frozenset({"Tc", "Tp"})
_MAP: Final = b"-prefix-map="
# Clang's HeaderIncludeGen.cpp; never translated, and a space for each level behind it.
_NOTE: Final = b"Note: including file:"


def clang_cl_guest_arguments(
    invocation: Invocation, guest: GuestMap, injected: tuple[bytes, ...]
) -> tuple[bytes, ...]:
    """Rewrite every path in the arguments and add `injected`.

    Raises:
        NotPortableError: some argument means something only on this machine.
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
    # `/Users/x.c` would be /U; `/src/x.c` may be an option some day.
    return (*flags, *injected, *((b"--", *sources) if sources else ()))


def _flag(flag: Flag, guest: GuestMap) -> tuple[bytes, ...]:
    effect, spelling = flag.spec.effect, flag.spec.spelling
    if effect is Effect.INCLUDE_DIR:
        return _respell(flag, guest.spell_directory(flag.value))
    if effect is Effect.OUTPUT:
        return _respell(flag, _output(flag.value, guest)) if flag.value else flag.raw
    if effect is Effect.FORCED_INCLUDE or spelling in _SOURCES:
        return _respell(flag, guest.spell(flag.value))
    if spelling == "Fd":
        return ()  # clang-cl does nothing with it
    if effect is Effect.SEARCH and b"/" in flag.value and spelling != "-target=":
        _check_system(flag.value, guest)
    if spelling == TO_CLANG and _MAP in flag.value:
        return (b"-" + TO_CLANG.encode() + prefix_map(flag.value, guest.root),)
    if _MAP in flag.raw[0]:
        return (prefix_map(flag.raw[0], guest.root), *flag.raw[1:])
    return flag.raw


def _output(value: bytes, guest: GuestMap) -> bytes:
    """Spell the object from the working directory: with /Z7 its name is in it (S_OBJNAME)."""
    inside = guest.relative(value)
    if not value.startswith(b"/"):
        return value
    tail = b"/" if value.endswith(b"/") else b""
    return posixpath.relpath(b"/" + inside, b"/" + guest.relative(guest.cwd)) + tail


def _check_system(directory: bytes, guest: GuestMap) -> None:
    """Let a toolchain's directory be that is the image's own, as headers of the system are."""
    is_plain = directory.startswith(b"/") and guest.is_system(posixpath.normpath(directory))
    if not is_plain:
        raise NotPortableError(FallbackReason.SYSROOT)


def _respell(flag: Flag, value: bytes) -> tuple[bytes, ...]:
    """Write it with a dash: an unknown `/x` is the name of a file."""
    name = b"-" + flag.spec.spelling.encode()
    return (name, value) if len(flag.raw) > 1 else (name + value,)


def client_notes(text: bytes, is_here: Callable[[bytes], bool]) -> bytes:
    """Return what `/showIncludes` wrote without headers of the image that this machine lacks.

    Ninja takes these lines for dependencies, and one that is not there is always out of date.
    `text` has this machine's paths already (`guest_text`).
    """
    kept = []
    for line in text.splitlines(keepends=True):
        name = line[len(_NOTE) :].strip() if line.startswith(_NOTE) else b""
        if not name or is_here(name):
            kept.append(line)
    return b"".join(kept)


def with_slashes(found: Includes) -> Includes:
    """Add names in which each backslash is a slash, as which clang-cl reads it."""
    return Includes(
        found.quoted | {_slashed(n) for n in found.quoted},
        found.angled | {_slashed(n) for n in found.angled},
        found.questions | slashed_names(found.questions),
        found.computed,
        found.aliases,
        found.is_opaque,
    )


def definitions_with_slashes(found: Definitions) -> Definitions:
    """Do to names behind macros what `with_slashes` does to those of directives."""
    names = found.names | slashed_names(found.names)
    return Definitions(names, found.macros, found.defined, found.is_opaque)


def slashed_names(names: frozenset[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
    return frozenset((is_quoted, _slashed(name)) for is_quoted, name in names)


def _slashed(name: bytes) -> bytes:
    return name.replace(b"\\", b"/")
