"""A configure script compiles many texts with one command; a second run of it hits."""

from __future__ import annotations

import time

from hpcc.cache.base.manifest import MAX_SETS
from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

_ARGV = ("gcc", "-c", "-g", "-O2", "conftest.c")


def _configure(launcher: FakeLauncher, *, count: int, header: str = "int h;\n") -> list[str]:
    """Compile so many texts as conftest.c; return how hpcc answered each."""
    answers = []
    (launcher.cwd / "conftest.h").write_text(header)
    for number in range(count):
        text = f'#include "conftest.h"\nint answer = {number};\n'
        (launcher.cwd / "conftest.c").write_text(text)
        time.sleep(0.08)  # what a test wrote is older than the compile
        answer = launcher.compile(*_ARGV)
        assert answer.exit_code == 0
        found = (launcher.cwd / "conftest.o").read_bytes()
        assert run_bare(_ARGV, cwd=launcher.cwd)[0] == 0
        assert (launcher.cwd / "conftest.o").read_bytes() == found
        answers.append(answer.answer)
    return answers


def test_more_texts_than_a_manifest_holds_hit(launcher: FakeLauncher, cache: Cache) -> None:
    count = 2 * MAX_SETS + 3
    assert set(_configure(launcher, count=count)) == {"run"}
    assert set(_configure(launcher, count=count)) == {"done"}
    assert cache.counters()["hit.local"] == count


def test_an_older_text_with_another_header_is_a_miss(launcher: FakeLauncher) -> None:
    count = MAX_SETS + 3
    _configure(launcher, count=count)
    assert set(_configure(launcher, count=count, header="long h;\n")) == {"run"}
    assert set(_configure(launcher, count=count)) == {"done"}
