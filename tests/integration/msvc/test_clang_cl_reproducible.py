"""Each row of clang-cl in two directories gives the same object, without any warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.msvc.invocation import read_msvc_invocation
from hpcc.compilers.msvc.repro import reproducible_flags

pytestmark = pytest.mark.timeout(200)


def compile_in(cwd: Path, program: Path, *flags: bytes) -> bytes:
    done = subprocess.run(
        [program, b"/c", b"/Z7", b"/O1", *flags, str(cwd / "x.c").encode(), b"-Fox.obj"],
        cwd=cwd, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == b""
    return (cwd / "x.obj").read_bytes()


def test_an_object_is_the_same_in_two_directories(programs: Path, tmp_path: Path) -> None:
    found = {}
    for name in ("a", "other-and-longer"):
        cwd = tmp_path / name
        (cwd / "inc").mkdir(parents=True)
        (cwd / "x.c").write_text('#include "inc/h.h"\nconst char *f(void) { return __FILE__ X; }\n')
        (cwd / "inc/h.h").write_text("#define X __FILE__\n")
        read = read_msvc_invocation([b"/c", b"/Z7", b"x.c"], is_clang=True)
        assert isinstance(read, Invocation)
        program = programs / "clang-cl"

        def accepts(flags: tuple[bytes, ...], cwd: Path = cwd, program: Path = program) -> bool:
            (cwd / "empty.c").touch()
            done = subprocess.run(
                [program, b"/c", b"-Z7", b"-Foempty.obj", *flags, b"empty.c"],
                cwd=cwd, check=False, capture_output=True, timeout=120,
            )  # fmt: skip
            return done.returncode == 0 and not done.stderr

        flags = reproducible_flags(read, (19,), str(cwd).encode(), is_clang=True, accepts=accepts)
        assert len(flags) == 5
        found[name] = compile_in(cwd, program, *flags)
        assert str(tmp_path).encode() not in found[name]
        assert str(tmp_path).encode() in compile_in(cwd, program, b"-Brepro")
    assert len(set(found.values())) == 1
