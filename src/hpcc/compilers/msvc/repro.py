"""Flags that make objects of cl and clang-cl equal in two directories, by compiler and version.

No flag is certain to be accepted: cl warns about an unknown option (D9002), and `/options:strict`
turns that into an error. `REPRO_ROWS` lists the candidates. A compile of an empty file with `-Z7`
shows which of them the compiler accepts silently, and only those are added. All begin with `-`,
because an unknown `/x` is a file name to clang-cl. `/PDBSourcePath` is not in the list: only
lld-link has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hpcc.compilers.invocation.invocation import Invocation

Version = tuple[int, ...]
_FIELD: Final = b"{root}"
_DEBUG: Final = (b"Z7", b"Zi")
_OWN_MAPS: Final = tuple(
    b"clang:-f" + kind + b"-prefix-map" for kind in (b"file", b"debug", b"macro")
)


@dataclass(frozen=True, slots=True)
class ReproRow:
    """Flags that belong together, for a compiler from `since` to before `until`.

    `is_debug`: only for compiles with debug information; others would warn: unused argument.
    `own`: if an argument, from its second character, begins with one, the user has decided.
    """

    flags: tuple[bytes, ...]
    source: str
    own: tuple[bytes, ...]
    is_clang: bool
    is_debug: bool = False
    since: Version = ()
    until: Version | None = None

    def covers(self, version: Version, *, is_clang: bool) -> bool:
        is_early = self.until is None or version < self.until
        return self.is_clang == is_clang and self.since <= version and is_early


# Versions are those of the compiler (cl 19.28 is Visual Studio 2019 16.8). Rows for cl are not yet
# run on Windows. Rows for clang-cl were run with version 19.
REPRO_ROWS: Final = (
    ReproRow(
        (b"-Brepro",),
        "LLVM Options.td, _SLASH_Brepro: no time in the object",
        (b"Brepro",),
        is_clang=True,
    ),
    ReproRow(
        (b"-clang:-ffile-prefix-map={root}=.",),
        "Clang manual, -ffile-prefix-map; bare it is ignored",
        _OWN_MAPS,
        is_clang=True,
        since=(10,),
    ),
    # A macro map turns each `/` of __FILE__ into the target's `\\`, which changes the object.
    ReproRow(
        (b"-clang:-fno-file-reproducible",),
        "Clang manual, -ffile-reproducible; CompilerInvocation.cpp, UseTargetPathSeparator",
        (*_OWN_MAPS, b"clang:-ffile-reproducible", b"clang:-fno-file-reproducible"),
        is_clang=True,
        since=(15,),
    ),
    ReproRow(
        (b"-clang:-ffile-compilation-dir=.",),
        "Clang manual, -ffile-compilation-dir",
        (b"clang:-ffile-compilation-dir", b"clang:-fdebug-compilation-dir"),
        is_clang=True,
        since=(13,),
    ),
    ReproRow(
        (b"-clang:-gno-codeview-command-line",),
        "LLVM Options.td: LF_BUILDINFO without the command",
        (b"clang:-gcodeview-command", b"gcodeview-command"),
        is_clang=True,
        is_debug=True,
        since=(13,),
    ),
    ReproRow(
        (b"-Brepro",),
        "undocumented in cl; reported by Bazel #9466",
        (b"Brepro",),
        is_clang=False,
        since=(19,),
    ),
    # Without the first flag, pathmap is ignored. C5049 warns about it and is an error under /WX.
    ReproRow(
        (b"-experimental:deterministic", b"-pathmap:{root}=.", b"-wd5049"),
        "Visual Studio's MSBuild files (PathMap); Microsoft's developer community on C5049",
        (b"experimental:deterministic", b"pathmap:", b"d1trimfile:"),
        is_clang=False,
        since=(19, 20),
    ),
    ReproRow(
        (b"-d1trimfile:{root}\\",),
        "undocumented, __FILE__ alone; Bazel #9466",
        (b"d1trimfile:", b"pathmap:"),
        is_clang=False,
        since=(19,),
        until=(19, 20),
    ),
)


def reproducible_flags(
    invocation: Invocation,
    version: Version,
    root: bytes,
    *,
    is_clang: bool,
    accepts: Callable[[tuple[bytes, ...]], bool],
) -> tuple[bytes, ...]:
    """Return the flags to add to this compile, whose sources are below `root`.

    Nothing that the user's flags decide is added, and nothing under `/options:strict`.
    """
    own = [raw[1:] for flag in invocation.flags for raw in flag.raw]
    is_debug = any(argument in _DEBUG for argument in own)
    if b"options:strict" in own:
        return ()
    added: list[bytes] = []
    for row in REPRO_ROWS:
        is_wanted = row.covers(version, is_clang=is_clang) and (is_debug or not row.is_debug)
        if not is_wanted or any(argument.startswith(row.own) for argument in own):
            continue
        flags = tuple(flag.replace(_FIELD, root) for flag in row.flags)
        if accepts(flags):
            added.extend(flags)
    return tuple(added)
