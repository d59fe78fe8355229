"""Reads the options of cppcheck.

This is an allow-list: each row only chooses what is checked or printed, or names files that are
read here. Refused are options that write files, run other programs, measure time, read lists of
sources, or answer questions, like unknown ones. Source: cmdlineparser.cpp of cppcheck 2.17.1.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcc.compilers.cppcheck.pieces import ANY_PIECE
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

_SWITCHES: Final = frozenset(
    {
        b"-q", b"--quiet", b"-v", b"--verbose", b"-f", b"--force", b"--inconclusive",
        b"--inline-suppr", b"--xml", b"--emit-duplicates", b"--check-library",
        b"--fsigned-char", b"--funsigned-char",
    }
)  # fmt: skip
_VALUES: Final = frozenset(
    {
        b"--enable", b"--disable", b"--std", b"--language", b"--suppress", b"--error-exitcode",
        b"--template", b"--template-location", b"--check-level", b"--max-configs",
        b"--max-ctu-depth", b"--max-template-recursion", b"--valueflow-max-iterations",
        b"--performance-valueflow-max-if-count", b"--performance-valueflow-max-iterations",
        b"--xml-version", b"--output-format", b"--report-type",
    }
)  # fmt: skip
_LISTS: Final = frozenset({b"--suppressions-list", b"--exitcode-suppressions", b"--suppress-xml"})
_LIBRARY, _INCLUDE, _PLATFORM = b"--library", b"--include", b"--platform"
# All others are files, which it looks for in several places.
_PLATFORMS: Final = frozenset(
    {b"unspecified", b"native", b"unix32", b"unix64", b"win32A", b"win32W", b"win64"}
)
_SOURCES: Final = (b".c", b".C", b".cc", b".cpp", b".cxx", b".c++")
# It removes quotes and takes a backslash for a slash.
_CHANGED: Final = re.compile(rb'["\\]')
# A macro that could become a clock, or a name of a file.
_MACRO: Final = re.compile(rb"__DATE|__TIME|##|include")


@dataclass(slots=True)
class CppcheckOptions:
    """What the command line says. Names are as spelled, and relative to the working directory.

    `directories` are those of `-I`, `includes` the files of `--include`, `lists` files with
    suppressions, `libraries` the names of `--library`.
    """

    source: bytes = b""
    directories: list[bytes] = field(default_factory=list)
    includes: list[bytes] = field(default_factory=list)
    lists: list[bytes] = field(default_factory=list)
    libraries: list[bytes] = field(default_factory=list)


def read_options(arguments: Sequence[bytes]) -> CppcheckOptions | Bypass:
    """Return what the arguments of a cppcheck (without argv[0]) say. Pure."""
    found, sources = CppcheckOptions(), list[bytes]()
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith(b"-"):
            sources.append(argument)
        elif argument[:2] in {b"-D", b"-U", b"-I"}:
            value = argument[2:] or _separate(rest)
            if value is None:
                return Bypass(BypassReason.MISSING_VALUE)
            if _is_odd(argument[:2], value):
                return Bypass(BypassReason.ANALYSER)
            if argument.startswith(b"-I"):
                found.directories.append(value)
        elif argument not in _SWITCHES and not _takes(argument, found):
            return Bypass(BypassReason.ANALYSER)
    if len(sources) != 1 or not _is_plain_source(sources[0]):
        return Bypass(BypassReason.ANALYSER)
    found.source = sources[0]
    return found


def _separate(rest: Iterator[bytes]) -> bytes | None:
    value = next(rest, b"")
    return None if not value or value.startswith(b"-") else value


def _is_odd(flag: bytes, value: bytes) -> bool:
    if flag == b"-I":
        return _CHANGED.search(value) is not None
    text = value.partition(b"=")[2]
    return _MACRO.search(value) is not None or ANY_PIECE.search(text) is not None


def _takes(argument: bytes, found: CppcheckOptions) -> bool:
    """Add a `--name=value`; return whether it is known."""
    name, equals, value = argument.partition(b"=")
    if not equals or not value:
        return False
    if name == _LIBRARY:
        found.libraries += value.split(b",")
        return all(value.split(b","))
    if name in _LISTS:
        found.lists.append(value)
        return True
    if name == _INCLUDE:
        found.includes.append(value)
        return _CHANGED.search(value) is None
    return name in _VALUES or (name == _PLATFORM and value in _PLATFORMS)


def _is_plain_source(name: bytes) -> bool:
    """Return whether a name is that of one source, and cppcheck uses it as it is."""
    is_normal = posixpath.normpath(name) == name.removeprefix(b"./")
    return is_normal and name.endswith(_SOURCES) and _CHANGED.search(name) is None
