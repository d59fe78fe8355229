"""Finds files that a compile reads as data, and effects that only macro expansion shows.

| assembler | how the files of `.incbin` and `.include` are found |
| --- | --- |
| GNU as, run by the driver | `-Wa,--MD`: it lists every file that it opened |
| Clang's integrated | from sources with only literal `asm`; else from the preprocessor's output |
| GNU as with `-flto` | in the same way, because LTO sections would store the `-Wa` option |

If a clock is mentioned, the preprocessor's output shows whether it is read (`inputs.clocks`).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.clocks import CLOCKS, refuse_clocks
from hpcc.cache.inputs.closure_types import Check
from hpcc.cache.inputs.discovery import answer_about, expand_passes
from hpcc.cache.inputs.listed_names import parse_dependencies
from hpcc.cache.inputs.pragmas import is_preprocessor_blind, refuse_parsed_clocks
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.interfaces import INTERFACE_FLAG
from hpcc.compilers.invocation.invocation import Language, Product
from hpcc.compilers.scan.assembler import (
    Directives,
    may_open_files,
    read_assembler,
    read_origins,
    read_statements,
)
from hpcc.compilers.scan.assembler_names import (
    may_name_for_assembler,
    may_name_in_arguments,
    strings_may_direct,
)
from hpcc.compilers.scan.scan import Hazard
from hpcc.core.reasons.uncacheable import UncacheableReason

_ASSEMBLY: Final = Hazard.ASSEMBLER_FILE | Hazard.OPAQUE_ASSEMBLY | Hazard.ASSEMBLER_STRINGS
_ASSEMBLER_SOURCES: Final = frozenset({Language.ASSEMBLER, Language.PLAIN_ASSEMBLER})
# Where the machine's zone counts leap seconds, `__TIME__` is half a minute from the kernel's time.
_NO_LEAP_SECONDS: Final = {b"TZ": b"UTC0"}
_MAX_INCLUDED: Final = 200
_MAX_INCLUDED_BYTES: Final = 8 << 20
# `-Wa,` splits at commas, and the driver's specs interpret white space and quotes.
_PLAIN_PATH: Final = re.compile(rb"[\w/.+@:=-]+")


def listing_flag(prepared: Prepared, path: bytes) -> tuple[bytes, ...]:
    """Return the flag that makes GNU as list its inputs in `path`; empty if it cannot be used."""
    arguments = prepared.invocation.arguments
    if (
        prepared.invocation.is_assembly_output
        or prepared.invocation.product is not Product.OBJECT
        or prepared.invocation.language.is_header
        # What imports a module may emit what this object does not.
        or prepared.declares
        or prepared.invocation.values(INTERFACE_FLAG)
        or not prepared.identity.lists_assembler_files
        or prepared.is_recorded
        or prepared.invocation.tool_arguments  # may bring another assembler
        or not prepared.family.runs_gnu_as(prepared.invocation)
        or any(a.startswith((b"-flto", b"-fembed-bitcode")) for a in arguments)
        or not _PLAIN_PATH.fullmatch(path)
    ):
        return ()
    return (b"-Wa,--MD," + path,)


def unopened_names(memo: FileMemo, prepared: Prepared, files: Iterable[bytes]) -> frozenset[bytes]:
    """Return the names of `.file` in an assembler source, which GNU as lists and does not open.

    `files` are its headers. Empty if a text may name a file that is opened: one that vanished
    during the compile would look alike.
    """
    names = frozenset[bytes]()
    is_assembler = prepared.invocation.language in _ASSEMBLER_SOURCES
    if not is_assembler or may_open_files(b"\n".join(prepared.invocation.arguments)):
        return names
    for path in dict.fromkeys((prepared.source, *(absolute(prepared.cwd, f) for f in files))):
        digest = memo.digest(path)
        found = None if digest is None else memo.derived(path, digest, "origins", _origins)
        if found is None or not found.is_sure:
            return frozenset()
        names |= found.names
    return names


class _Origins(NamedTuple):
    names: frozenset[bytes]
    is_sure: bool


def _origins(text: bytes) -> _Origins:
    return _Origins(read_origins(text), not may_open_files(text))


def read_listing(
    prepared: Prepared,
    data: bytes,
    named: Iterable[bytes] = (),
    unopened: Callable[[], frozenset[bytes]] = frozenset,
) -> tuple[bytes, ...]:
    """Return the names of the files in the assembler's list, without its own source.

    `named` are files that the source gives as its origin; they need not exist. Nor need those of
    `unopened`, which is asked if a file is missing.

    Raises:
        UncacheableError: the list cannot be read, or a file in it does not exist.
    """
    cwd, invocation = prepared.cwd, prepared.invocation
    listed = parse_dependencies(data)
    side = set(prepared.side_paths)
    paths = [path for path in listed if absolute(cwd, path) not in side]
    # The file opened first comes last: the driver's temporary file, or plain assembler itself.
    is_source = invocation.language is Language.PLAIN_ASSEMBLER
    if not is_source and len(paths) == len(listed) and b"-pipe" not in invocation.arguments:
        paths.pop()
    directories = tuple(absolute(cwd, d.rstrip(b"/") or b"/") for d in invocation.include_dirs)
    names: dict[bytes, None] = {}
    source = invocation.source.rpartition(b"/")[2]
    unread = {name.rpartition(b"/")[2] for name in named}
    for path in paths:
        full = absolute(cwd, path)
        # `.file "main.c"` adds the source's name without its directory.
        is_known = path == source or path.rpartition(b"/")[2] in unread
        if not is_known and not os.path.exists(full) and path not in unopened():
            raise UncacheableError(UncacheableReason.INPUT_VANISHED, full)
        names[path] = None
        for directory in directories:
            if full.startswith(directory + b"/"):
                names[full[len(directory) + 1 :]] = None
    return tuple(names)


def unlisted_doubts(prepared: Prepared, has_listing: bool) -> Hazard:  # noqa: FBT001 - one question
    """Return the doubts of a compile whose assembler does not list its files."""
    family, invocation = prepared.family, prepared.invocation
    copies = family.runs_gnu_as(invocation) and family.obeys_directives(invocation)
    if has_listing or not copies or invocation.language is Language.ASSEMBLER:
        return Hazard.NONE
    return Hazard.ASSEMBLER_STRINGS


def may_be_in_strings(
    memo: FileMemo, prepared: Prepared, files: Iterable[tuple[bytes, bytes]]
) -> bool:
    """Tell whether one of these texts may give GCC a string for its assembler output."""
    if may_name_in_arguments(b"\n".join(prepared.invocation.macros)):
        return True
    return any(
        memo.derived(path, digest, "names-for-assembler", may_name_for_assembler) is not False
        for path, digest in files
    )


def watched_names(prepared: Prepared, configs: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the paths where a configuration file for the driver could appear."""
    return tuple(absolute(prepared.cwd, n) for n in (*configs, *prepared.identity.relative_names))


def embed_directories(prepared: Prepared) -> tuple[bytes, ...]:
    """Return the directories of `#embed` besides the source's directory."""
    return prepared.invocation.values("--embed-dir=")


def look_again(
    memo: FileMemo,
    prepared: Prepared,
    directories: tuple[bytes, ...],
    is_cancelled: Callable[[], bool],
    doubts: Hazard,
    paths: tuple[bytes, ...],
    check: Check = lambda: None,
    *,
    has_listing: bool,
) -> tuple[bytes, ...]:
    """Run the preprocessor; return the names in assembler directives of its output.

    `paths` are the files that the compile read. `check` raises if the preprocessor reads others.

    Raises:
        UncacheableError: the output contains a clock or an unreadable directive, the run failed, or
            a pragma hides assembler from the preprocessor, or `check` does.
    """
    is_assembler = prepared.invocation.language is Language.ASSEMBLER
    doubts = _left(memo, prepared, doubts, paths, has_listing=has_listing)
    if not doubts & (_ASSEMBLY | CLOCKS):
        return ()
    check()
    if is_preprocessor_blind(memo, prepared, paths):
        if doubts & _ASSEMBLY:
            raise UncacheableError(UncacheableReason.INCBIN)
        refuse_parsed_clocks(prepared, doubts, is_cancelled)
        return ()
    started_ns = time.time_ns()
    if prepared.invocation.product is Product.CUDA:
        only_host = not doubts & CLOCKS
        every, text = expand_passes(prepared, is_cancelled, _NO_LEAP_SECONDS, only_host=only_host)
    else:
        every = text = _expand(prepared, is_cancelled, is_assembler=is_assembler)
    if doubts & CLOCKS:
        is_pinned = prepared.dates_are_pinned
        refuse_clocks(every, paths, started_ns=started_ns, is_pinned=is_pinned)
    if Hazard.ASSEMBLER_STRINGS in doubts and strings_may_direct(text):
        raise UncacheableError(UncacheableReason.INCBIN)
    if not doubts & (Hazard.ASSEMBLER_FILE | Hazard.OPAQUE_ASSEMBLY):
        return ()
    found = read_assembler(text) if is_assembler else read_statements(text)
    return follow(found, (prepared.cwd, *(absolute(prepared.cwd, d) for d in directories)))


def _left(
    memo: FileMemo,
    prepared: Prepared,
    doubts: Hazard,
    paths: tuple[bytes, ...],
    *,
    has_listing: bool,
) -> Hazard:
    """Return the doubts that nothing but the preprocessor's output settles."""
    if has_listing or not prepared.family.obeys_directives(prepared.invocation):
        doubts &= ~_ASSEMBLY
    if Hazard.ASSEMBLER_STRINGS in doubts:
        files = ((path, memo.digest(path) or b"") for path in paths)
        if not may_be_in_strings(memo, prepared, files):
            doubts &= ~Hazard.ASSEMBLER_STRINGS
    if prepared.dates_are_pinned:
        doubts &= ~Hazard.DATE_OR_TIME
    return doubts


def _expand(prepared: Prepared, is_cancelled: Callable[[], bool], *, is_assembler: bool) -> bytes:
    # Line markers would separate the strings of one asm; assembler sources need their lines.
    family, compiler = prepared.family, prepared.request.compiler
    argv = family.expansion_command(compiler, prepared.invocation, keeps_lines=is_assembler)
    reason = UncacheableReason.EXPANSION_FAILED
    return answer_about(prepared, argv, is_cancelled, reason, variables=_NO_LEAP_SECONDS)


def follow(found: Directives, directories: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the names, and those in files of `.include` in every directory where one exists.

    Raises:
        UncacheableError: one of these texts cannot be read literally.
    """
    names: dict[bytes, None] = {}
    pending = [found]
    followed: set[bytes] = set()
    while pending:
        found = pending.pop()
        if found.is_opaque or len(followed) > _MAX_INCLUDED:
            raise UncacheableError(UncacheableReason.INCBIN)
        names.update(dict.fromkeys(found.names))
        for name in found.included:
            for path in {absolute(directory, name) for directory in directories} - followed:
                followed.add(path)
                if os.path.isfile(path):
                    with open(path, "rb") as file:
                        text = file.read(_MAX_INCLUDED_BYTES + 1)
                    if len(text) > _MAX_INCLUDED_BYTES:
                        raise UncacheableError(UncacheableReason.INCBIN)
                    pending.append(read_assembler(text))
    return tuple(names)
