"""Files that flags name: other content gives another object, and equal content gives a hit.

Each case has two contents that give two objects, so the test catches a cache that compares only
names. `bench.compile` compares every step with a bare compile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcc_testkit.cache.compiles import run_bare

_SOURCE = """int g(int);
int f(int x) { if (x > 3) return g(x) + 1; return x * 2; }
int h(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += p[i] > 3 ? f(p[i]) : 1; return s; }
"""
_MAIN = """int g(int x) { return x - 1; }
int h(int *, int);
int main(int argc, char **argv) {
  int a[64]; for (int i = 0; i < 64; i++) a[i] = argc > 1 ? 0 : i; return h(a, 64) & 0;
}
"""


@dataclass(frozen=True)
class Case:
    """`contents` makes the two; `is_needed`: the compiler fails without the file."""

    compiler: str
    flags: tuple[str, ...]
    file: str
    contents: Callable[[Any, Case], tuple[bytes, bytes]]
    is_needed: bool = True


def _texts(first: str, second: str) -> Callable[[Any, Case], tuple[bytes, bytes]]:
    return lambda _bench, _case: (first.encode(), second.encode())


def _gcc_counts(bench: Any, case: Case) -> tuple[bytes, bytes]:
    """Run the program twice, so that the runs take different branches."""
    found: list[bytes] = []
    for argument in ((), ("x",)):
        place = bench.cwd.parent / f"train{len(found)}"
        (place / "out").mkdir(parents=True)
        for name in ("a.c", "main.c"):
            shutil.copy(bench.cwd / name, place / name)
        train = [case.compiler, "-O2", "-fprofile-generate"]
        assert run_bare([*train, "-c", "a.c", "-o", "out/x.o"], cwd=place)[0] == 0
        assert run_bare([*train, "main.c", "out/x.o", "-o", "prog"], cwd=place)[0] == 0
        assert run_bare(["./prog", *argument], cwd=place)[0] == 0
        found.append((place / "out/x.gcda").read_bytes())
    return found[0], found[1]


def _clang_counts(bench: Any, case: Case) -> tuple[bytes, bytes]:
    merge = shutil.which(case.compiler.replace("clang", "llvm-profdata"))
    if merge is None:
        pytest.skip(f"{case.compiler} has no -profdata tool beside it")
    found: list[bytes] = []
    for argument in ((), ("x",)):
        place = bench.cwd.parent / f"train{len(found)}"
        place.mkdir()
        for name in ("a.c", "main.c"):
            shutil.copy(bench.cwd / name, place / name)
        train = [case.compiler, "-O2", "-fprofile-instr-generate=raw", "a.c", "main.c"]
        if run_bare([*train, "-o", "prog"], cwd=place)[0]:
            pytest.skip(f"{case.compiler} has no -fprofile-instr-generate library here")
        assert run_bare(["./prog", *argument], cwd=place)[0] == 0
        assert run_bare([merge, "merge", "raw", "-o", "data"], cwd=place)[0] == 0
        found.append((place / "data").read_bytes())
    return found[0], found[1]


def _mangled(bench: Any) -> str:
    return "prof/" + "#".join(str(bench.cwd / "out/x").split("/")) + ".gcda"


_LIST = _texts("fun:nothing\n", "fun:f\nfun:h\n")
_CASES = [
    Case("gcc", ("-O2", "-fprofile-use"), "out/x.gcda", _gcc_counts, is_needed=False),
    Case("gcc-14", ("-O2", "-fprofile-use=prof"), "MANGLED", _gcc_counts, is_needed=False),
    Case("gcc", ("-O2", "-fbranch-probabilities"), "out/x.gcda", _gcc_counts, is_needed=False),
    Case(
        "gcc",
        ("-O2", "-fprofile-use", "-fprofile-dir=prof"),
        "MANGLED",
        _gcc_counts,
        is_needed=False,
    ),
    Case("clang-14", ("-O2", "-fprofile-use=p.dat"), "p.dat", _clang_counts),
    Case("clang-14", ("-O2", "-fprofile-use=prof"), "prof/default.profdata", _clang_counts),
    Case("clang-14", ("-O2", "-fprofile-use"), "default.profdata", _clang_counts),
    Case("clang-14", ("-O2", "-fprofile-instr-use=p.dat"), "p.dat", _clang_counts),
    Case("clang-14", ("-fsanitize=address", "-fsanitize-ignorelist=l"), "l", _LIST),
    Case("clang-19", ("-fsanitize=undefined", "-fsanitize-blacklist=l"), "l", _LIST),
    Case(
        "clang-14",
        ("-fsanitize-coverage=trace-pc", "-fsanitize-coverage-ignorelist=l"),
        "l",
        _LIST,
    ),
    Case(
        "clang-19",
        ("-fsanitize-coverage=trace-pc", "-fsanitize-coverage-allowlist=l"),
        "l",
        _texts("fun:nothing\n", "src:*\nfun:*\n"),
    ),
    Case(
        "clang-14",
        ("-fxray-instrument", "-fxray-always-instrument=l"),
        "l",
        _LIST,
    ),
    Case(
        "clang-14",
        ("-fprofile-instr-generate", "-fprofile-list=l"),
        "l",
        _texts("fun:f\n", "fun:h\n"),
    ),
    Case(
        "clang-14",
        ("-O2", "-fbasic-block-sections=list=l"),
        "l",
        _texts("!nothing\n", "!f\n"),
    ),
    Case(
        "gcc",
        ("-specs=SPECS",),
        "SPECS",
        _texts("*self_spec:\n+ %{!fno-pic:-fPIE}\n", "*self_spec:\n+ %{!fno-pic:-O2}\n"),
    ),
]


@pytest.mark.parametrize("case", _CASES, ids=lambda c: " ".join((c.compiler, *c.flags)))
def test_a_file_that_a_flag_names_counts_by_its_content(case: Case, bench: Any) -> None:
    if shutil.which(case.compiler) is None:
        pytest.skip(f"no {case.compiler} here")
    bench.write("a.c", _SOURCE)
    bench.write("main.c", _MAIN)
    first, second = case.contents(bench, case)
    name = _mangled(bench) if case.file == "MANGLED" else case.file
    flags = [f"-specs={bench.cwd}/SPECS" if f == "-specs=SPECS" else f for f in case.flags]
    argv = (case.compiler, *flags, "-c", "a.c", "-o", "out/x.o")
    path: Path = bench.write(name, first)
    cold, one = bench.compile(*argv)
    assert cold.answer == "run"
    assert bench.compile(*argv) == ((cold.__class__)("done", *_said(cold)), one)
    bench.write(name, second)
    changed, two = bench.compile(*argv)
    assert changed.answer == "run"
    assert one != two
    bench.write(name, first)
    assert bench.compile(*argv)[0].answer == "done"
    path.unlink()
    gone, three = bench.compile(*argv)
    assert gone.answer == "run"
    assert (gone.exit_code != 0) is case.is_needed
    if not case.is_needed:
        assert bench.compile(*argv) == ((gone.__class__)("done", *_said(gone)), three)
    bench.write(name, second)
    again, four = bench.compile(*argv)
    assert four == two
    assert again.answer == "done"


def _said(compiled: Any) -> tuple[int, bytes, bytes]:
    return compiled.exit_code, compiled.stdout, compiled.stderr
