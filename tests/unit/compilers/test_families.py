from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hpcc.compilers.clang.family import CLANG
from hpcc.compilers.families import family_of, family_that_answers
from hpcc.compilers.gnu.family import GNU

_LOADED = """
import json, sys
from hpcc.compilers.families import family_of
before = [m for m in sys.modules if m.startswith("hpcc.compilers.msvc")]
family_of(b"/usr/bin/gcc", (b"-c", b"a.c"))
family_of(b"/usr/bin/clang-19", (b"-c", b"a.c"))
plain = [m for m in sys.modules if m.startswith("hpcc.compilers.msvc")]
family_of(b"clang-cl", (b"/c", b"a.c"))
print(json.dumps([before, plain, "hpcc.compilers.msvc.family" in sys.modules]))
"""


def test_only_a_command_line_of_cl_loads_its_modules() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _LOADED], capture_output=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == [[], [], True]


@pytest.mark.parametrize(
    ("compiler", "arguments", "name", "is_cached"),
    [
        ("gcc", "-c a.c", "gnu", True),
        ("clang", "-c a.c", "gnu", True),
        ("nvcc", "-c a.cu", "nvcc", True),
        ("clang-cl", "/c a.c", "msvc", True),
        ("C:\\LLVM\\bin\\CLANG-CL.EXE", "/c a.c", "msvc", True),
        ("clang", "--driver-mode=cl /c a.c", "msvc", True),
        ("cl.exe", "/c a.c", "msvc", False),
    ],
)
def test_the_command_line_decides_whose_grammar_it_is(
    compiler: str, arguments: str, name: str, is_cached: bool
) -> None:
    words = tuple(word.encode() for word in arguments.split())
    family = family_of(compiler.encode(), words)
    assert family.name == name
    assert family.has_local_cache is is_cached


def test_the_answer_of_the_driver_decides_between_gcc_and_clang() -> None:
    gcc = b"Target: x86_64-linux-gnu\ngcc version 14.2.0 (Debian 14.2.0-19)\n"
    clang = b"Debian clang version 19.1.7 (3+b1)\nTarget: x86_64-pc-linux-gnu\n"
    assert family_that_answers(gcc) == (GNU, 14)
    assert family_that_answers(clang) == (CLANG, 19)
    assert family_that_answers(b"icc version 2021\n") is None


def test_a_compile_in_the_mode_of_cl_stays_of_that_family() -> None:
    assert family_of(b"cc", ()).settled(CLANG) is CLANG
    clang_cl = family_of(b"clang-cl", ())
    assert clang_cl.settled(CLANG) is clang_cl
