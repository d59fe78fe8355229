"""The flag table against every installed compiler: accepted flags, how they are read, outputs.

Each compile runs in a directory that holds only its inputs, so that every output is seen.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcc.compilers.gnu.flags import GNU_FLAGS
from hpcc.compilers.gnu.invocation import read_invocation
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.invocation.side import Written, files_written
from hpcc.compilers.invocation.versions import check_versions
from hpcc.compilers.spec.table import (
    ASKED_CLANG,
    ASKED_GCC,
    CLANG_MAJORS,
    GCC_MAJORS,
    Effect,
    FlagSpec,
)
from hpcc_testkit.cache.compiles import run_bare
from hpcc_testkit.suite.newest_clang import NEWEST_MAJOR, newest

# A value that makes sense; the rest of the rows take none, or any name.
_VALUES = {
    "-o": "out.o",
    "-x": "c",
    "-I": "inc",
    "-iquote": "inc",
    "-isystem": "inc",
    "-idirafter": "inc",
    "-cxx-isystem": "inc",
    "-stdlib++-isystem": "inc",
    "-iprefix": "/usr/",
    "-iwithprefix": "inc",
    "-iwithprefixbefore": "inc",
    "-imultilib": "inc",
    "-B": "inc",
    "--embed-dir=": "inc",
    "-specs=": "/dev/null",
    "-specs": "/dev/null",
    "--specs": "/dev/null",
    "--specs=": "/dev/null",
    "-include": "h.h",
    "-imacros": "h.h",
    "-isysroot": "/",
    "--sysroot=": "/",
    "--sysroot": "/",
    "-stdlib=": "libstdc++",
    "--target=": "x86_64-linux-gnu",
    "-target": "x86_64-linux-gnu",
    "--gcc-toolchain=": "/usr",
    "-MF": "x.d",
    "-MT": "t",
    "-MQ": "t",
    "-D": "A=1",
    "-U": "A",
    "-std=": "c11",
    "--std=": "c11",
    "-Wp,": "-DA",
    "-Xpreprocessor": "-DA",
    "-Wa,": "--noexecstack",
    "-Xassembler": "--noexecstack",
    "-Xclang": "-disable-O0-optnone",
    "-mllvm": "-inline-threshold=9",
    "-fdebug-compilation-dir": "here",
    "-fnew-alignment": "8",
    "-mthread-model": "posix",
    "-mllvm=": "-inline-threshold=9",
    "-f": "PIC",
    "-W": "all",
    "-O": "1",
    "-g": "",
    "-m": "64",
    "--param": "max-inline-insns-auto=9",
    "--param=": "max-inline-insns-auto=9",
    "-fdiagnostics-color": "=never",
    "-l": "m",
    "-L": ".",
    "-z": "now",
    "-Wl,": "-O1",
    "-T": "script",
    "-u": "f",
    "-e": "f",
    "-rtlib=": "libgcc",
    "--rtlib=": "libgcc",
    "-unwindlib=": "libgcc",
    "--unwindlib=": "libgcc",
    "--ld-path=": "/usr/bin/ld",
    "-fprofile-function-groups=": "1",
    "-fprofile-selected-function-group=": "0",
    "--serialize-diagnostics": "dia",
    "-Xlinker": "-O1",
    "-fopt-info": "-vec",
    "-fcallgraph-info": "=su",
    "-fcrash-diagnostics": "-dir=inc",
    "-fprofile-filter-files=": "a",
    "-fprofile-exclude-files=": "a",
    "-fprofile-generate=": "inc",
    "-fprofile-instr-generate=": "raw",
    "-fcs-profile-generate=": "inc",
    "-fprofile-dir=": "inc",
    "-fprofile-prefix-path=": "/",
    "-fprofile-prefix-map=": "/a=b",
    "-fprofile-info-section=": ".x",
    "-fprofile-reproducible=": "serial",
}
# Alone they are an error, or have no effect.
_COMPANIONS = {
    "-fmodules-ts": (b"-xc++",),
    "-fmodule-mapper=": (b"-fmodules-ts", b"-xc++"),
    "-fdeps-format=p1689r5": (b"-fmodules-ts", b"-MD", b"-xc++"),
    **dict.fromkeys(("-MF", "-MT", "-MQ", "-MP"), (b"-MD",)),
    **dict.fromkeys(("-fprofile-filter-files=", "-fprofile-exclude-files="), (b"--coverage",)),
}
_TEXT = (b"-o", b"out.i")
_LIST_FILE = "list"
_PROFILES = re.compile(r"-fprofile-(?:instr-|sample-)?use|-fauto-profile|-fprofile-remapping|-fmem")
# Another processor; what tests in tests/integration/cache do with real modules and bitcode.
_NOT_HERE = {"-mmcu=", "-fmodule-file=", "-fmodule-output=", "-fthinlto-index="}


def _compilers() -> list[tuple[str, bool, int]]:
    found = [(f"gcc-{n}", False, n) for n in range(12, 17)]
    found += [(f"clang-{n}", True, n) for n in range(14, 24)]
    return [row for row in found if shutil.which(row[0])]


_COMPILERS = _compilers()


def _cases() -> list[Any]:
    """Return compilers and rows. Those of the newest Clang are for the nightly."""
    cases: list[Any] = []
    for name, is_clang, major in _COMPILERS:
        known = CLANG_MAJORS if is_clang else GCC_MAJORS
        for row in GNU_FLAGS.rows:
            is_told = (
                major in (row.clang if is_clang else row.gcc) if major in known else row.is_stable
            )
            # Profiles must be of the compiler's own making: test_grammar_inputs has them.
            is_profile = row.effect is Effect.INPUT and _PROFILES.match(row.spelling)
            is_asked = row.spelling not in _NOT_HERE and not is_profile
            if row.effect is not Effect.REFUSE and is_told and is_asked:
                is_newest = is_clang and major == NEWEST_MAJOR
                cases.append(newest(name, row) if is_newest else (name, row))
    return cases


@pytest.mark.parametrize(
    ("compiler", "row"), _cases(), ids=lambda v: v if isinstance(v, str) else v.spelling
)
def test_the_compiler_reads_and_writes_what_the_row_says(
    compiler: str, row: FlagSpec, tmp_path: Path
) -> None:
    is_clang, major = next((c, m) for name, c, m in _COMPILERS if name == compiler)
    is_list = row.effect is Effect.INPUT and row.spelling.endswith("=")
    value = (_LIST_FILE if is_list else _VALUES.get(row.spelling, "")).encode()
    for number, (argv, expected) in enumerate(row.spellings(value)):
        place = tmp_path / str(number)
        (place / "inc").mkdir(parents=True)
        inputs = {"a.c": "int f(int i) { return i; }\n", "h.h": "#define B 1\n", _LIST_FILE: ""}
        for name, text in inputs.items():
            (place / name).write_text(text)
        extra, mode = _COMPANIONS.get(row.spelling, ()), [b"-c"]
        if row.spelling == "-E" or row.effect is Effect.SHOWN:
            extra, mode = _TEXT, [b"-E"] if row.effect is Effect.SHOWN else []
        elif row.spelling == "-S":
            mode = []
        full = [compiler.encode(), *argv, *extra, *mode, b"a.c"]
        code, _, err = run_bare(full, cwd=place)
        assert code == 0, (full, err)
        found = read_invocation(full[0], full[1:])
        assert isinstance(found, Invocation), full
        assert any(f.spec is row and f.value == expected for f in found.flags)
        assert check_versions(found, is_clang=is_clang, major=major) is None
        written = files_written(found, is_clang=is_clang, major=major)
        names = {found.output, found.depfile}
        if isinstance(written, Written):
            names |= {s.name for s in written.side}
        left = {str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()} - {*inputs}
        if isinstance(written, Written):
            # -gsplit-dwarf says nothing without -g in some versions.
            assert {n.decode() for n in names if n} - left <= {"a.dwo"}
            assert left <= {n.decode() for n in names if n}


@pytest.mark.parametrize(
    ("compiler", "flags", "extra"),
    [
        ("gcc", "-fdump-tree-optimized", ".optimized"),
        ("gcc", "-O1 -fsave-optimization-record", ".gz"),
        ("gcc", "-fopt-info-all=log", "log"),
        ("clang", "-ftime-trace", ".json"),
        ("clang", "-MJ cdb", "cdb"),
    ],
)
def test_refused_flags_really_write_more_files(
    compiler: str, flags: str, extra: str, tmp_path: Path
) -> None:
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n")
    argv = [compiler, *flags.split(), "-O1", "-c", "a.c"]
    assert run_bare(argv, cwd=tmp_path)[0] == 0
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(extra)]
    found = read_invocation(argv[0].encode(), [a.encode() for a in argv[1:]])
    is_kept = isinstance(found, Invocation) and isinstance(
        files_written(found, is_clang=compiler == "clang", major=14), Written
    )
    assert not is_kept


def test_the_compilers_that_were_asked_are_named() -> None:
    """An installed compiler that passes the rows above must be in the lists."""
    for _, is_clang, major in _COMPILERS:
        if major in (CLANG_MAJORS if is_clang else GCC_MAJORS):
            assert major in (ASKED_CLANG if is_clang else ASKED_GCC)
