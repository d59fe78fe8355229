"""The grammar of a compiler's command line as data: one row per flag, one parser for all rows."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

_MAX_FOUND: Final = 4_096
_MAX_FOUND_BYTES: Final = 256
GCC_MAJORS: Final = range(12, 16)
CLANG_MAJORS: Final = range(14, 23)
NO_MAJORS: Final = range(0)
"""The versions that the rows describe; of others only what never changed is known."""

ASKED_GCC: Final = (12, 13, 14)
ASKED_CLANG: Final = (14, 17, 18, 19, 22)
"""Each row was asked of these, as far as they have the flag; for the rest it is from documentation,
not asked. `tests/integration/grammar` asks every compiler that is installed."""


class Arity(enum.Enum):
    """How a flag takes its value."""

    ALONE = "alone"  # -c
    SEPARATE = "separate"  # -x c, and nothing joined
    JOINED = "joined"  # -std=c17; the rest of the argument is the value
    EITHER = "either"  # -I dir, -Idir


class Effect(enum.Enum):
    """How a flag enters the key, and what the cache must do for it."""

    MODE = "mode"  # -c
    OUTPUT = "output"  # -o
    LANGUAGE = "language"  # -x
    INCLUDE_DIR = "include-dir"  # a directory on the search path
    FORCED_INCLUDE = "forced-include"  # a file read before the source
    SEARCH = "search"  # changes the compiler's own search path or target
    TOOLS = "tools"  # SEARCH, and changes which programs or files the driver uses
    PREPROCESS = "preprocess"  # macros and standards
    SHOWN = "shown"  # what preprocessed text shows; refused with `reason` without `-E`
    CODEGEN = "codegen"  # everything else that reaches the object or the diagnostics
    DEPENDENCY = "dependency"  # the depfile, its name and its targets
    COLOUR = "colour"  # the user's choice about colours
    SIDE_OUTPUT = "side-output"  # a further file is written
    INPUT = "input"  # a file besides sources and headers is read or looked for
    LINK = "link"  # no meaning for -c, but hashed
    LIST = "list"  # -Wp,... -Xclang and the like: passed on, with their own grammar
    REFUSE = "refuse"  # a bypass with `reason`

    # Each member exists once. Python's own hash of a member is Python code, which runs for each
    # flag of each compile several times.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class FlagSpec:
    """One row of a grammar; `source` is where a reviewer can check it.

    `reason` is why there is no caching: with REFUSE for every compiler, else for those without the
    flag. `gcc` and `clang` are the major versions that have it. `is_stable`: every version of
    either family gives the flag this meaning, including versions that are not tested.
    """

    spelling: str
    arity: Arity
    effect: Effect
    source: str = field(kw_only=True)
    reason: str = field(default="", kw_only=True)
    gcc: range = field(default=GCC_MAJORS, kw_only=True)
    clang: range = field(default=CLANG_MAJORS, kw_only=True)
    is_stable: bool = field(default=False, kw_only=True)

    def spellings(self, value: bytes) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
        """Yield each way to write the flag with `value`, and the value that parsing must give."""
        name = self.spelling.encode()
        if self.arity is Arity.ALONE:
            yield (name,), b""
        if self.arity in {Arity.SEPARATE, Arity.EITHER}:
            yield (name, value), value
        if self.arity is Arity.JOINED or (self.arity is Arity.EITHER and value):
            yield (name + value,), value


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag as the user wrote it; `raw` is one or two arguments."""

    spec: FlagSpec
    value: bytes
    raw: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Operand:
    """An argument that is not a flag: an input file."""

    name: bytes


@dataclass(frozen=True, slots=True)
class Bypass:
    """The command is not for the cache. `reason` is a stable word that is counted and shown."""

    reason: BypassReason


class FlagTable:
    """Rows, and the only parser that reads them: exact spelling first, then longest prefix."""

    def __init__(self, rows: Sequence[FlagSpec]) -> None:
        self.rows: Final = tuple(rows)
        self._exact: dict[bytes, FlagSpec] = {}
        prefixes: dict[bytes, FlagSpec] = {}
        for row in self.rows:
            name = row.spelling.encode()
            known = prefixes if row.arity is Arity.JOINED else self._exact
            assert name not in known, f"two rows for {row.spelling}"
            known[name] = row
            if row.arity is Arity.EITHER:
                prefixes[name] = row
        self._prefixes = prefixes
        # The flags of a build are the same in nearly all of its compiles.
        self._found: BoundedMemo[bytes, FlagSpec] = BoundedMemo(_MAX_FOUND)
        self._lengths = tuple(sorted({len(p) for p in prefixes}, reverse=True))

    def find(self, argument: bytes) -> FlagSpec | None:
        """Return the row for an argument that begins with '-'."""
        row = self._exact.get(argument)
        if row is not None:
            return row
        known = self._found.get(argument)
        if known is not None:
            return known
        row = self._by_prefix(argument)
        if row is not None and len(argument) <= _MAX_FOUND_BYTES:
            self._found[argument] = row
        return row

    def _by_prefix(self, argument: bytes) -> FlagSpec | None:
        for length in self._lengths:
            row = self._prefixes.get(argument[:length])
            if row is not None and length <= len(argument):
                return row
        return None

    def parse(self, arguments: Sequence[bytes]) -> tuple[Flag | Operand, ...] | Bypass:
        """Return the arguments (without argv[0] and response files) as flags, in order."""
        parts: list[Flag | Operand] = []
        index = 0
        while index < len(arguments):
            argument = arguments[index]
            index += 1
            if not argument.startswith(b"-"):
                parts.append(Operand(argument))
                continue
            row = self.find(argument)
            if row is None:
                return Bypass(BypassReason.STDIN if argument == b"-" else BypassReason.UNKNOWN_FLAG)
            name = row.spelling.encode()
            takes_next = row.arity is Arity.SEPARATE or (
                row.arity is Arity.EITHER and argument == name
            )
            if not takes_next:
                parts.append(Flag(row, argument[len(name) :], (argument,)))
            elif index < len(arguments):
                parts.append(Flag(row, arguments[index], (argument, arguments[index])))
                index += 1
            else:
                return Bypass(BypassReason.MISSING_VALUE)
        return tuple(parts)
