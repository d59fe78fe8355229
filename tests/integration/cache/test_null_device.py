"""The null device as a source: build systems ask compilers for flags with it, and those hit."""

from __future__ import annotations

import os
import shutil

import pytest

from hpcc.cache.base.files import has_content
from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

_CLANG = "clang-19" if shutil.which("clang-19") else "clang"


@pytest.fixture(params=["gcc", _CLANG])
def cc(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _compile(launcher: FakeLauncher, *argv: str) -> str:
    """Compile through hpcc and bare, and compare the objects; return how hpcc answered."""
    output = launcher.cwd / argv[-1]
    output.parent.mkdir(exist_ok=True)
    done = launcher.compile(*argv)
    assert done.exit_code == 0, done.stderr
    found = output.read_bytes()
    output.unlink()
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    assert output.read_bytes() == found
    output.unlink()
    return "hit" if done.answer == "done" else "miss"


def test_a_trial_of_a_flag_hits_in_another_temporary_directory(
    cc: str, launcher: FakeLauncher, cache: Cache
) -> None:
    """As the kernel's `cc-option` does: the directory has the number of a process."""
    words = (cc, "-Werror", "-fno-strict-aliasing", "-c", "-x", "c", "/dev/null", "-o")
    assert _compile(launcher, *words, ".tmp_1/tmp.o") == "miss"
    assert _compile(launcher, *words, ".tmp_1/tmp.o") == "hit"
    assert _compile(launcher, *words, ".tmp_2/tmp.o") == "hit"
    assert "uncacheable.special-input" not in cache.counters()


def test_a_file_in_place_of_a_link_to_the_null_device_is_a_miss(
    cc: str, launcher: FakeLauncher
) -> None:
    (launcher.cwd / "unit.c").write_text("int x = 1 + 0\n#ifdef N\n+ N\n#endif\n;\n")
    header = launcher.cwd / "config.h"
    header.symlink_to("/dev/null")
    words = (cc, "-include", "config.h", "-c", "unit.c", "-o", "unit.o")
    assert _compile(launcher, *words) == "miss"
    assert _compile(launcher, *words) == "hit"
    header.unlink()
    header.write_text("#define N 5\n")
    assert _compile(launcher, *words) == "miss"
    header.unlink()
    header.symlink_to("/dev/null")
    assert _compile(launcher, *words) == "hit"


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/full", "/dev/random", "/"])
def test_another_device_has_no_content(name: str) -> None:
    assert not has_content(os.stat(name))
    assert has_content(os.stat("/dev/null"))
