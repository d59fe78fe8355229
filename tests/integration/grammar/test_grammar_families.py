"""Each flag of the families -f, -g, -m, -W and -O that may name a file has a separate row.

The compilers list their flags. A flag whose description names a file or directory, or that takes a
path, needs a row, or an entry below with the reason why hashing the flag is enough.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.invocation import Invocation
from hpcc_testkit.cache.compiles import run_bare
from hpcc_testkit.suite.newest_clang import with_newest

_FAMILIES = {"-f", "-g", "-m", "-W", "-O"}
_FILES = re.compile(
    r"\b(?:files?|filename|paths?|pathname|director(?:y|ies)|dsopath)\b", re.IGNORECASE
)
_NO_FILE = {
    # Text that goes into the output, or changes text there.
    "-fcoverage-compilation-dir",
    "-fdebug-compilation-dir",
    "-ffile-compilation-dir",
    "-fcoverage-prefix-map",
    "-fdebug-prefix-map",
    "-ffile-prefix-map",
    "-fmacro-prefix-map",
    "-fsanitize-undefined-strip-path-components",
    "-funique-source-file-identifier",
    # Names in the program, not on the disk.
    "-finstrument-functions-exclude-file-list",
    # Paths through the program.
    "-fanalyzer-verbosity",
    "-fdiagnostics-path-format",
    "-fhardcfr-check-noreturn-calls",
    # Of its values those with a file have rows.
    "-fbasic-block-sections",
    "-fdiagnostics-format",
    # Object files in general, and languages and systems that are refused or not known here.
    "-fbinutils-version",
    "-fno-modules-check-relocated",
    "-fuse-cuid",
    "-mzos-sys-include",
    # Of the linker.
    "-fthinlto-distributor",
    # Where the program, not the compiler, writes.
    "-fmemory-profile",
    "-forder-file-instrumentation",
    "-fprofile-instr-generate",
}
_ASKS = {
    "gcc": (
        ("--help=common",),
        ("--help=c",),
        ("--help=c++",),
        ("--help=target",),
        ("--help=undocumented",),
    ),
    "clang": (("--help-hidden",),),
}
_FLAG = re.compile(r"^\s+(-[fgmWO][\w+-]+)([=<\[ ]?[^\s]*)\s*(.*)$")


def _flags(compiler: str) -> dict[str, str]:
    """Return each flag of the families with the compiler's description of it."""
    found: dict[str, str] = {}
    name = ""
    for arguments in _ASKS[compiler.partition("-")[0]]:
        text = subprocess.run(
            [compiler, *arguments],
            capture_output=True,
            check=True,
            text=True,
            env={"LC_ALL": "C", "PATH": with_newest("/usr/bin:/bin")},
        ).stdout
        for line in text.splitlines():
            match = _FLAG.match(line)
            if match is not None:
                name = match[1]
                found[name] = found.get(name, "") + f" {match[2]} {match[3]}"
            elif name and line.startswith(" " * 20):
                found[name] += " " + line.strip()
            else:
                name = ""
    return found


@pytest.mark.parametrize(
    "compiler",
    [
        n
        for n in (*(f"gcc-{m}" for m in range(12, 16)), *(f"clang-{m}" for m in range(14, 23)))
        if shutil.which(n)
    ],
)
def test_a_family_flag_that_speaks_of_files_has_a_row(compiler: str) -> None:
    flags = _flags(compiler)
    assert len(flags) > 300
    missing = {}
    for name, text in flags.items():
        row = GNU_FLAGS.find(name.encode() + b"=x")
        takes_value = text.startswith((" =", " <"))
        if takes_value and _FILES.search(text) and row is not None and row.spelling in _FAMILIES:
            missing[name] = text
    assert set(missing) <= _NO_FILE, {k: v for k, v in missing.items() if k not in _NO_FILE}


_BARE_TRIES = 12
# What hpcc adds to a command line to learn what was read.
_OURS = ("-MD", "-MF", "private.d")
_SOURCE = '#include "h.h"\nint g(int);\nint f(int x) { if (x > 3) return g(x); return x; }\n'


def _leaves(place: Path, argv: list[str]) -> tuple[set[str], bytes]:
    shutil.rmtree(place, ignore_errors=True)  # the same each time: it is in debug information
    place.mkdir()
    (place / "a.c").write_text(_SOURCE)
    (place / "h.h").write_text("int h;\n")
    code, _, _ = run_bare([*argv, "-g", "-O2", "-c", "a.c"], cwd=place)
    if code:
        return set(), b""
    return {p.name for p in place.iterdir()} - {"a.c", "h.h"}, (place / "a.o").read_bytes()


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("compiler", [n for n in ("gcc-14", "clang-19") if shutil.which(n)])
def test_no_member_of_a_family_leaves_files_or_records_our_flags(
    compiler: str, tmp_path: Path
) -> None:
    """Test each flag of both compilers' lists by itself: Clang has GCC's names as aliases."""
    names = {n for c in ("gcc-14", "clang-19") if shutil.which(c) for n in _flags(c)}
    members = [n for n in sorted(names) if _is_member(compiler, n)]
    # All of them take minutes; HPCC_ALL_FLAGS=1 asks for that.
    members = members[:: 1 if os.environ.get("HPCC_ALL_FLAGS") else 8]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        taken = threads.map(lambda n: _check_member(compiler, n, tmp_path / n), members)
    assert sum(taken) > len(members) // 4


def _is_member(compiler: str, name: str) -> bool:
    found = read_invocation(compiler.encode(), [name.encode(), b"-c", b"a.c"])
    return isinstance(found, Invocation) and next(iter(found.flags)).spec.spelling in _FAMILIES


def _check_member(compiler: str, name: str, place: Path) -> bool:
    left, data = _leaves(place, [compiler, name])
    assert left <= {"a.o"}, name
    if left:
        names, ours = _leaves(place, [compiler, name, *_OURS])
        assert names == {"a.o", "private.d"}, name
        # GCC draws a seed for -flto and the like, and -gctf has one of two orders: then bare
        # objects differ among themselves, too.
        bare = (_leaves(place, [compiler, name])[1] for _ in range(_BARE_TRIES))
        is_same = ours == data or any(other != data for other in bare)
        assert is_same, name
    return bool(left)
