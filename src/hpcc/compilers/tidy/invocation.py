"""From the command line of a clang-tidy to an `Invocation`.

Problem: which headers are read, and which names must stay absent, depends on a compile command that
stands behind `--` or in a compilation database. clang-tidy changes it before it uses it.

Rule: the command is read with the flag table of clang, as clang-tidy leaves it: a check of one
source without `-c`, `-o` and the flags for a depfile, with the flags of `--extra-arg` around it.
What is refused for `clang -fsyntax-only` is refused here, too.

| command | driver | operands |
| --- | --- | --- |
| behind `--` | `clang-tool` beside clang-tidy | dropped; its own source stands last |
| in a database | the compiler of that name | the one source |

What must never happen: clang-tidy drops an argument that is read here as another flag's value, or
keeps one that is dropped here. A command in which the two could differ is refused.

Source: ArgumentsAdjusters.cpp, CompilationDatabase.cpp and JSONCompilationDatabase.cpp of LLVM 19.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final, NamedTuple

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.database import DatabaseEntry, split_entry
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.drivers import is_cxx_driver
from hpcc.compilers.spec.table import Bypass, Effect, Flag, Operand
from hpcc.compilers.spec.values import wp_depfile
from hpcc.compilers.tidy.config import names_more
from hpcc.compilers.tidy.options import RESPONSE, TidyOptions, read_options, without_exports
from hpcc.core.reasons.bypass import BypassReason

_MODE: Final = b"--driver-mode="
_MODES: Final = {b"--driver-mode=gcc": False, b"--driver-mode=g++": True}
_DROPPED: Final = frozenset({Effect.OUTPUT, Effect.DEPENDENCY})
# LLVM 19 also removes sccache, and older versions do not.
_WRAPPERS: Final = frozenset({b"ccache", b"distcc"})
_NO_FILE: Final = (b"/", b"-", b"\n")
_SEARCHES: Final = frozenset({Effect.SEARCH, Effect.TOOLS})
_DROPPED_MODES: Final = frozenset({b"-c", b"-fsyntax-only"})
# Words that clang-tidy drops wherever they stand.
_LOOKS_DROPPED: Final = (
    b"-M", b"-o", b"-c", b"-S", b"-fsyntax-only", b"--save-temps", b"-fplugin", RESPONSE,
)  # fmt: skip
_REASONS: Final = {
    BypassReason.SYNTAX_ONLY: BypassReason.ANALYSER,
    BypassReason.PCH: BypassReason.ANALYSER,
}


@dataclass(frozen=True, kw_only=True)
class TidyInvocation(Invocation):
    """A run of clang-tidy over one source; the base class describes the compile command.

    `line` is the whole command line, with the entry of a database. `driver` are the arguments that
    choose the driver: with a database its path comes first. `directory` is where the names of the
    compile command are relative to, b"" for the working directory. `options` are clang-tidy's own;
    `place` is the working directory if a database was read, else b"".
    """

    line: tuple[bytes, ...]
    driver: tuple[bytes, ...]
    options: TidyOptions
    place: bytes

    @cached_property
    def arguments(self) -> tuple[bytes, ...]:
        return self.line

    @cached_property
    def key_arguments(self) -> tuple[bytes, ...]:
        return without_exports(self.line)

    @cached_property
    def search_arguments(self) -> tuple[bytes, ...]:
        """The flags that determine the search path, behind the driver."""
        # Not `super()`: its property would store its own value here for a moment.
        chosen = (f.raw for f in self.flags if f.spec.effect in _SEARCHES)
        return (*self.driver, *(word for raw in chosen for word in raw))


def read_tidy(arguments: Sequence[bytes]) -> Invocation | Bypass:
    """Return what the arguments of a clang-tidy mean; with a database, its entry is among them."""
    own, entry = split_entry(arguments)
    options = read_options(own)
    if isinstance(options, Bypass):
        return options
    command = _refusal_of(options) or _command_of(options, entry)
    if isinstance(command, Bypass):
        return command
    base = read_invocation(b"clang++" if command.is_cxx else b"clang", command.check)
    if isinstance(base, Bypass):
        return Bypass(_REASONS.get(base.reason, base.reason))
    if base.is_native:
        return Bypass(BypassReason.NATIVE)
    described = {field.name: getattr(base, field.name) for field in fields(Invocation)}
    # `-fsyntax-only` is not the user's: it says nothing about this version of clang-tidy.
    described["parts"] = tuple(p for p in base.parts if isinstance(p, Operand) or not _is_mode(p))
    # Versions differ in whether they read response files. CMake names one, mostly an empty one.
    described["blank_files"] = tuple(name[1:] for name in command.blanks)
    described["directory"] = b"" if entry is None else entry.directory
    return TidyInvocation(
        **described,
        line=tuple(arguments),
        driver=command.driver,
        options=options,
        place=b"" if entry is None else entry.cwd,
    )


def _refusal_of(options: TidyOptions) -> Bypass | None:
    """Return why clang-tidy's own options are not for the cache; None if they are."""
    if any(word.startswith(RESPONSE) for word in (*options.before, *options.behind)):
        return Bypass(BypassReason.ANALYSER)
    if options.config is not None and names_more(options.config):
        return Bypass(BypassReason.ANALYSER)
    if options.exports is not None and options.exports.endswith(_NO_FILE):
        return Bypass(BypassReason.ODD_OUTPUT)
    return None


@dataclass(frozen=True, slots=True)
class _Command:
    """A compile command: `check` are arguments of `clang -fsyntax-only` with the same meaning."""

    check: tuple[bytes, ...]
    driver: tuple[bytes, ...]
    blanks: tuple[bytes, ...]
    is_cxx: bool


def _command_of(options: TidyOptions, entry: DatabaseEntry | None) -> _Command | Bypass:
    if options.words is not None:
        return _behind_dashes(options, options.words)
    if entry is not None:
        return _of_entry(options, entry)
    return Bypass(BypassReason.ANALYSER_DATABASE)


def _behind_dashes(options: TidyOptions, words: tuple[bytes, ...]) -> _Command | Bypass:
    dropped = {options.source}
    if words and not words[0].startswith(b"-"):
        if is_cxx_driver(words[0]) is None or words[0].startswith(RESPONSE):
            return Bypass(BypassReason.ANALYSER)
        dropped.add(words[0])
        words = words[1:]
    front = _kept((*options.before, *words), dropped)
    behind = _kept(options.behind, dropped)
    if isinstance(front, Bypass):
        return front
    if isinstance(behind, Bypass):
        return behind
    if front.sources > 1 or behind.sources:
        return Bypass(BypassReason.ANALYSER)
    flags = (*front.flags, options.source, *behind.flags)
    return _command(flags, (*front.modes, *behind.modes), front.blanks)


def _of_entry(options: TidyOptions, entry: DatabaseEntry) -> _Command | Bypass:
    is_odd = not entry.words or entry.words[0].startswith(RESPONSE)
    if is_odd or not entry.directory.startswith(b"/"):
        return Bypass(BypassReason.ANALYSER_DATABASE)
    driver, *words = _without_wrappers(entry.words)
    is_cxx = is_cxx_driver(driver)
    # LLVM looks for no program: a bare name is a driver without a directory, and `./c++` relative.
    if is_cxx is None or driver.find(b"/") > 0:
        return Bypass(BypassReason.ANALYSER_DATABASE)
    kept = _kept((*options.before, *words, *options.behind), None)
    if isinstance(kept, Bypass):
        return kept
    named = _plain(entry.directory, kept.source)
    if kept.sources != 1 or named != _plain(entry.cwd, options.source):
        return Bypass(BypassReason.ANALYSER_DATABASE)
    return _command(kept.flags, kept.modes, kept.blanks, (driver,), is_cxx=is_cxx)


def _without_wrappers(words: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return a command without the caches in front of its compiler, which LLVM removes, too.

    They take no flag, and a source has a suffix, so the word behind one is a compiler.
    """
    while len(words) > 1 and posixpath.basename(words[0]) in _WRAPPERS:
        if words[1].startswith(b"-") or b"." in posixpath.basename(words[1]):
            break
        words = words[1:]
    return words


def _plain(directory: bytes, name: bytes) -> bytes:
    return posixpath.normpath(posixpath.join(directory, name))


def _command(
    flags: tuple[bytes, ...],
    modes: tuple[bytes, ...],
    blanks: tuple[bytes, ...],
    driver: tuple[bytes, ...] = (),
    *,
    is_cxx: bool = False,
) -> _Command | Bypass:
    if any(mode not in _MODES for mode in modes):
        return Bypass(BypassReason.ANALYSER)
    is_cxx = _MODES[modes[-1]] if modes else is_cxx
    return _Command((*flags, b"-fsyntax-only"), (*driver, *modes[-1:]), blanks, is_cxx)


class _Kept(NamedTuple):
    """What clang-tidy keeps of some words; `sources` counts their operands, `source` is the last.

    `flags` hold the operands, except those that are dropped. `blanks` are response files.
    """

    flags: tuple[bytes, ...]
    modes: tuple[bytes, ...]
    blanks: tuple[bytes, ...]
    sources: int
    source: bytes


def _kept(words: tuple[bytes, ...], dropped: Collection[bytes] | None) -> _Kept | Bypass:
    """Return what remains of words. `dropped` are the only operands, and none remains; or None.

    With None each operand is one that is compiled.
    """
    modes = tuple(word for word in words if word.startswith(_MODE))
    # A driver searches all words for its mode. In place of one stands a flag that is dropped.
    parts = GNU_FLAGS.parse([b"-fsyntax-only" if w.startswith(_MODE) else w for w in words])
    if isinstance(parts, Bypass):
        return parts
    blanks = tuple(p.name for p in parts if isinstance(p, Operand) and p.name.startswith(RESPONSE))
    parts = tuple(p for p in parts if not isinstance(p, Operand) or p.name not in blanks)
    operands = [part.name for part in parts if isinstance(part, Operand)]
    if dropped is not None and not set(operands) <= set(dropped):
        return Bypass(BypassReason.ANALYSER)
    flags: list[bytes] = []
    for part in parts:
        if isinstance(part, Operand):
            flags += (part.name,) if dropped is None else ()
        elif _is_ambiguous(part, dropped or operands):
            return Bypass(BypassReason.ANALYSER)
        elif part.spec.effect not in _DROPPED and not _is_mode(part):
            flags += part.raw
    source = operands[-1] if operands else b""
    return _Kept(tuple(flags), modes, blanks, len(operands), source)


def _is_mode(flag: Flag) -> bool:
    return flag.raw[0] in _DROPPED_MODES


def _is_ambiguous(flag: Flag, operands: Collection[bytes]) -> bool:
    """Return whether clang-tidy may drop another part of a flag than is dropped here."""
    # `-Wp,-MD,FILE` is kept, and clang-tidy then writes the user's depfile.
    if flag.spec.spelling == "-Wp," and wp_depfile(flag.value) is not None:
        return True
    values = flag.raw[1:]
    return any(value in operands or value.startswith(_LOOKS_DROPPED) for value in values)
