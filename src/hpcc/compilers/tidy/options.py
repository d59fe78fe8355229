"""Reads clang-tidy's own options, those in front of `--`.

This is an allow-list: each row only chooses or filters what is printed, or names something that is
read here. Options that change sources, print times or answer questions are refused, like unknown
ones. Source: `clang-tidy --help` and ClangTidyMain.cpp of LLVM 19, CommonOptionsParser.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

END: Final = b"--"
DATABASE_NAME: Final = b"compile_commands.json"
RESPONSE: Final = b"@"
"""Begins each word that may name a response file, wherever the word stands."""
_BEFORE, _BEHIND = b"extra-arg-before", b"extra-arg"
_CONFIG, _CONFIG_FILE, _DATABASE = b"config", b"config-file", b"p"
_EXPORTS: Final = b"export-fixes"
_VALUES: Final = frozenset(
    {
        _BEFORE, _BEHIND, _CONFIG, _CONFIG_FILE, _DATABASE, _EXPORTS, b"checks",
        b"warnings-as-errors", b"header-filter", b"exclude-header-filter", b"line-filter",
        # Only fixes are formatted, and `--fix` is refused.
        b"format-style",
    }
)  # fmt: skip
_SWITCHES: Final = frozenset(
    {b"quiet", b"system-headers", b"use-color", b"allow-no-checks",
     b"allow-enabling-analyzer-alpha-checkers"}
)  # fmt: skip
_EXPORTS_MARK: Final = b"\0exports"
# LLVM's parser takes one of these once. A second one is an error, which the tool reports.
_ONCE: Final = (_CONFIG, _CONFIG_FILE, _DATABASE, _EXPORTS)


@dataclass(frozen=True, slots=True)
class TidyOptions:
    """What stands in front of `--`, and the words behind it (None without `--`).

    `before` and `behind` are flags for the front and the end of the compile command. `config` is
    the text of `--config`. `config_file`, `database` and `exports` are a file, a directory and a
    file to write, by name. Each of the four is None if it is not given.
    """

    source: bytes
    before: tuple[bytes, ...]
    behind: tuple[bytes, ...]
    config: bytes | None
    config_file: bytes | None
    database: bytes | None
    exports: bytes | None
    words: tuple[bytes, ...] | None


def read_options(arguments: Sequence[bytes]) -> TidyOptions | Bypass:
    """Return what the arguments of a clang-tidy (without argv[0]) say. Pure."""
    end = arguments.index(END) if END in arguments else len(arguments)
    # LLVM puts the content of a response file in place of each such word, also of a value.
    if any(argument.startswith(RESPONSE) for argument in arguments[:end]):
        return Bypass(BypassReason.ANALYSER)
    words = None if end == len(arguments) else tuple(arguments[end + 1 :])
    values: dict[bytes, list[bytes]] = {}
    sources: list[bytes] = []
    rest = iter(arguments[:end])
    for argument in rest:
        if not argument.startswith(b"-"):
            sources.append(argument)
            continue
        name, equals, value = _named(argument)
        if name in _SWITCHES and not equals:
            continue
        if name not in _VALUES:
            return Bypass(BypassReason.ANALYSER)
        found = value if equals else next(rest, None)
        if found is None:
            return Bypass(BypassReason.MISSING_VALUE)
        values.setdefault(name, []).append(found)
    is_odd = len(sources) != 1 or not sources[0]
    if is_odd or any(len(values.get(name, ())) > 1 for name in _ONCE):
        return Bypass(BypassReason.ANALYSER)
    return TidyOptions(
        source=sources[0],
        before=tuple(values.get(_BEFORE, ())),
        behind=tuple(values.get(_BEHIND, ())),
        config=_first(values.get(_CONFIG, ())),
        config_file=_first(values.get(_CONFIG_FILE, ())),
        database=_first(values.get(_DATABASE, ())),
        exports=_first(values.get(_EXPORTS, ())),
        words=words,
    )


def without_exports(arguments: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return arguments that `read_options` accepts, with a mark for the name of that file.

    No finding and no byte of the file depends on its name, which run-clang-tidy makes up.
    """
    found: list[bytes] = []
    rest = iter(arguments)
    for argument in rest:
        found.append(argument)
        if argument == END or argument.startswith(b"\0"):  # the entry of a database
            break
        if not argument.startswith(b"-"):
            continue
        name, equals, _ = _named(argument)
        if name == _EXPORTS:
            found[-1:] = [_EXPORTS_MARK]
        if name in _VALUES and not equals:
            value = next(rest, b"")
            found += () if name == _EXPORTS else (value,)
    return (*found, *rest)


def read_words(arguments: Sequence[bytes]) -> Iterator[tuple[bytes, bytes | None]]:
    """Yield name and value of each option that `read_options` accepts; b"" with the source.

    The value of a switch is None.
    """
    rest = iter(arguments)
    for argument in rest:
        if argument == END or argument.startswith(b"\0"):  # the entry of a database
            return
        if not argument.startswith(b"-"):
            yield b"", argument
            continue
        name, equals, value = _named(argument)
        if name in _SWITCHES:
            yield name, None
        else:
            yield name, value if equals else next(rest, b"")


def _named(argument: bytes) -> tuple[bytes, bytes, bytes]:
    """Return name, equals sign and value: LLVM takes one dash for two."""
    name = argument[2:] if argument.startswith(b"--") else argument[1:]
    return name.partition(b"=")


def _first(values: Iterable[bytes]) -> bytes | None:
    return next(iter(values), None)
