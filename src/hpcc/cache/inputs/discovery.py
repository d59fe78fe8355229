"""How the files of a local compile become known, per compiler and per what the user asked for.

| user gives | compiler | way |
| --- | --- | --- |
| no depfile | both | `-MD` into a private file |
| no depfile | a Clang that records its command line | a second run with `-M` |
| `-MD` | both | the user's own file, which names every file |
| `-MMD` | GCC, no `-g` or the like | `-H`: headers on stderr, stripped again; and the user's file |
| `-MMD` | GCC, `-g` | a second run with `-M` (`-H` would be named in DW_AT_producer) |
| `-MMD` | Clang | a second run with `-M` (its `-H` changes the user's file) |
| nothing | clang-cl | `/clang:-MD` into a private file; with debug information a second run |
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import Final, NamedTuple

from hpcc.cache.base.tools import ask
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.host import msvc
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.compilers.invocation.invocation import DepMode, Invocation
from hpcc.compilers.spec.table import Effect, Operand
from hpcc.core import CallerError

_HEADER_LINE: Final = re.compile(rb"\.+ (.+)")
_PCH_LINE: Final = re.compile(rb"[!x] .+")
_SECOND_RUN_SECONDS: Final = 120.0


class Way(enum.Enum):
    """The rows of the table above."""

    PRIVATE_FILE = "private-file"
    USER_FILE = "user-file"
    HEADERS = "headers"
    SECOND_RUN = "second-run"


class Headers(NamedTuple):
    """What GCC's `-H` said, and stderr without it."""

    names: tuple[bytes, ...]
    stderr: bytes
    has_pch: bool


def way_for(prepared: Prepared) -> Way:
    match prepared.invocation.dep_mode:
        case DepMode.NONE:
            return Way.SECOND_RUN if prepared.is_recorded else Way.PRIVATE_FILE
        case DepMode.ALL:
            return Way.USER_FILE
        case DepMode.USER_HEADERS:
            recorders = ("-g", "-frecord-gcc-switches")
            is_debug = any(f.spec.spelling.startswith(recorders) for f in prepared.invocation.flags)
            # `-H` does not list forced headers, and so not what it says of their guards. A specs
            # file may bring in -g.
            invocation = prepared.invocation
            is_plain = not (is_debug or invocation.forced_includes or invocation.tool_arguments)
            return Way.HEADERS if is_plain and not prepared.identity.is_clang else Way.SECOND_RUN


def strip_headers(stderr: bytes) -> Headers:
    """Take GCC's `-H` lines and the list of missing include guards out of stderr.

    The line above that list is translated, so it is found by what follows it: names that `-H`
    has listed.
    """
    names: dict[bytes, None] = {}
    kept: list[bytes] = []
    has_pch = is_in_list = False
    for line in stderr.splitlines(keepends=True):
        bare = line.rstrip(b"\n")
        match = _HEADER_LINE.fullmatch(bare)
        if match is not None:
            names[match[1]] = None
        elif _PCH_LINE.fullmatch(bare):
            has_pch = True
        elif bare in names:
            if kept and not is_in_list:
                kept.pop()
            is_in_list = True
        else:
            kept.append(line)
            is_in_list = False
    return Headers(tuple(names), b"".join(kept), has_pch)


def without_outputs(invocation: Invocation) -> tuple[bytes, ...]:
    """Return the arguments without those that name outputs or concern depfiles, for `-M`."""
    if msvc.is_of(invocation):
        return msvc.without_outputs(invocation)
    kept: list[bytes] = []
    for part in invocation.parts:
        if isinstance(part, Operand):
            kept.append(part.name)
        elif part.spec.effect not in {
            Effect.MODE,
            Effect.OUTPUT,
            Effect.DEPENDENCY,
            Effect.SIDE_OUTPUT,
        } and not (
            invocation.deps_by_wp and part.spec.spelling == "-Wp," and b"-M" in part.value[:4]
        ):
            kept.extend(part.raw)
    return tuple(kept)


def parse_dependencies(data: bytes) -> tuple[bytes, ...]:
    """Return the files a depfile names.

    Raises:
        UncacheableError: it cannot be read.
    """
    try:
        names = prerequisites(parse_depfile(data))
    except CallerError as error:
        raise UncacheableError("depfile") from error
    if not names:
        raise UncacheableError("depfile")
    return names


def ask_dependencies(
    prepared: Prepared,
    is_cancelled: Callable[[], bool],
    seconds: float = _SECOND_RUN_SECONDS,
    injected: tuple[bytes, ...] = (),
) -> tuple[bytes, ...]:
    """Ask the compiler for the whole closure with `-M`.

    Raises:
        UncacheableError: it did not tell.
    """
    way = b"-clang:-M" if msvc.is_of(prepared.invocation) else b"-M"
    argv = [prepared.request.compiler, *without_outputs(prepared.invocation), *injected, way]
    try:
        answer = ask(
            argv,
            env=msvc.own_environment(prepared.request.env),
            cwd=prepared.cwd,
            is_cancelled=is_cancelled,
            timeout_seconds=seconds,
        )
    except OSError as error:
        raise UncacheableError("dependencies-failed") from error
    if answer.exit_code != 0:
        raise UncacheableError("dependencies-failed")
    return parse_dependencies(answer.stdout)
