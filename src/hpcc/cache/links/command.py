"""Which link commands may get a word more: those whose outputs and messages do not show it.

Only known words pass. A word that prints the command (`-v`), that stores it somewhere
(`--reproduce`), that asks for a list itself, or that runs a program of the user's (`-wrapper`)
keeps the command as it is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_DRIVER: Final = re.compile(rb"(?:.*-)?(?:g?cc|[gc]\+\+|clang(?:\+\+)?)(?:-\d[\d.]*)?")
_OBJECT: Final = re.compile(rb"[^@-].*\.(?:o|lo|os|a|so(?:\.[0-9.]+)?)", re.DOTALL)
_ALONE: Final = re.compile(
    rb"-(?:[LlTIDUOgmfW].+|[Ogsrw]|std(?:lib)?=.+|pthread|pipe|pie|no-pie|shared|rdynamic"
    rb"|static(?:-pie|-lib.+)?|shared-lib.+|no(?:stdlib|stdlib\+\+|defaultlibs|startfiles|libc)"
    rb"|-?(?:rtlib|unwindlib)=.+|Qunused-arguments)",
    re.DOTALL,
)
# These decide which linker runs, so the question to the linker has them, too.
_CHOOSES: Final = re.compile(
    rb"-(?:fuse-ld=|m|B.|-sysroot=|-target=|-gcc-toolchain=|-ld-path=).*", re.DOTALL
)
_CHOOSES_SEPARATE: Final = frozenset((b"-B", b"-target"))
# The next argument is the value.
_WITH_VALUE: Final = _CHOOSES_SEPARATE | {
    b"-o", b"-Xlinker", b"-L", b"-l", b"-z", b"-T", b"-u", b"-e", b"-I", b"-D", b"-U", b"-isystem",
}  # fmt: skip
_NAMES_DIRECTORY: Final = re.compile(rb"-B|--sysroot|--gcc-toolchain|--ld-path", re.DOTALL)
# These load code that sees the words, or write or print them.
_SHOWS: Final = re.compile(
    rb"-f(?:plugin|record|dump|time|mem|opt-info|save|driver|verbose|ada"
    rb"|diagnostics-(?:add|format|set)).*",
    re.DOTALL,
)
# GNU ld accepts one dash or two, and the begin of a name. `-o` would name another output.
# The launcher shows stdout before stderr, so a linker with a list there gets no word.
_LINKER_SHOWS: Final = re.compile(
    rb"@.*|-[vVtM]|-[oy].*|--ou.*|(?:.*=)?-"
    rb"|--?(?:dep|repro|incr|verb|help|print|plugin|trace|stats|err|cmd|dump|cr|debug|time).*"
    rb"|--?version",
    re.DOTALL,
)


class LinkCommand(NamedTuple):
    """A link that may be recorded. `output` is as the user spelled it.

    `choosing` are the words that decide which linker runs; `is_relative` if they may mean another
    one in another directory. `objects` are the named inputs, `named` what else may name a file.
    """

    output: bytes
    choosing: tuple[bytes, ...]
    is_relative: bool
    objects: tuple[bytes, ...] = ()
    named: tuple[bytes, ...] = ()


def is_driver(compiler: bytes) -> bool:
    """Return whether a program has the name of a gcc or clang; only such a one is asked."""
    return _DRIVER.fullmatch(compiler.rpartition(b"/")[2]) is not None


def read_link(arguments: Sequence[bytes]) -> LinkCommand | None:
    """Return what a link of objects does; None for any other command.

    `arguments` are without the compiler; response files are expanded.
    """
    output = b"a.out"
    choosing: list[bytes] = []
    objects: list[bytes] = []
    words: list[bytes] = []
    for argument, value in _with_values(arguments):
        if argument == b"-o":
            output = value
        elif argument == b"-Xlinker":
            words.append(value)
        elif argument.startswith(b"-Wl,"):
            words += argument.split(b",")[1:]
        elif argument in _CHOOSES_SEPARATE or _CHOOSES.fullmatch(argument):
            choosing += (argument, value) if value else (argument,)
        elif _OBJECT.fullmatch(argument):
            objects.append(argument)
        elif not value and not _is_harmless(argument):
            return None
        elif argument.startswith(b"-T"):
            words.append(value or argument[len(b"-T") :])
    if not objects or output == b"-" or any(map(_LINKER_SHOWS.fullmatch, words)):
        return None
    is_relative = any(map(_NAMES_DIRECTORY.match, choosing))
    named = dict.fromkeys(
        part for word in words for part in (word, word.partition(b"=")[2]) if part
    )
    return LinkCommand(output, tuple(choosing), is_relative, tuple(objects), tuple(named))


def _with_values(arguments: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield each argument with its value, b"" for one without; twice b"" if a value lacks."""
    rest = iter(arguments)
    for argument in rest:
        if argument in _WITH_VALUE:
            value = next(rest, b"")
            yield (argument, value) if value else (b"", b"")
        else:
            yield argument, b""


def _is_harmless(argument: bytes) -> bool:
    return _ALONE.fullmatch(argument) is not None and _SHOWS.fullmatch(argument) is None
