"""Words of a clock in a unit that the preprocessor cannot judge: what reads no clock travels."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

ENV = {"LC_ALL": "C.UTF-8"}  # as in a guest
# With it, only the compiler knows which branches are taken.
PRAGMA = '#pragma GCC target("avx2")\n'
PASTED = "#define IS_IT(a) a ## ME\n"
CASES = {
    "pasted-and-unused": (PASTED + "int x;\n", True),
    "pasted-to-another-word": (PASTED + "int IS_IT(na) = 1;\n", True),
    "a-date-that-is-not-used": ("#define WHEN __DATE__\nint x;\n", True),
    "a-date": ("const char *x = __DATE__;\n", False),
    "a-time-behind-the-pragma": ("#ifdef __AVX2__\nconst char *x = __TIME__;\n#endif\n", False),
    "a-file-time": ("#define WHEN __TIMESTAMP__\nint x;\n", False),
}


@pytest.mark.parametrize("case", CASES)
def test_only_what_reads_no_clock_travels(
    case: str, make_cache: Callable[..., Cache], tmp_path: Path
) -> None:
    text, travels = CASES[case]
    (tmp_path / "a.h").write_text("#pragma once\n" + PASTED)
    (tmp_path / "a.c").write_text(PRAGMA + text)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    time.sleep(0.08)
    remote = FakeRemote()
    launcher = FakeLauncher(handler=make_cache(remote), cwd=tmp_path, env=ENV)
    argv = ["gcc", "-c", "a.c", "-o", "a.o"]
    assert run_bare(argv, cwd=tmp_path, env=ENV)[0] == 0
    wanted = (tmp_path / "a.o").read_bytes()
    (tmp_path / "a.o").unlink()
    assert (launcher.compile(*argv).answer == "done") == travels
    assert len(remote.requests) == travels
    if travels:
        assert (tmp_path / "a.o").read_bytes() == wanted
