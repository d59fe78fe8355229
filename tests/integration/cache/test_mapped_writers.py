"""Attack: bytes that change without a change of the stat, through a writable shared mapping."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base.files import FileMemo, signature_of
from hpcc.cache.base.writers import has_writer
from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

_ARGV = ("gcc", "-Iearly", "-Iinc", "-c", "src/main.c", "-o", "out.o")
_VALUE_AT = len("#define CONF ")


@pytest.fixture
def cache(paths: Paths) -> Iterator[Cache]:
    opened = open_cache(paths, Settings(), None, clock=TrustedClock())
    yield opened
    opened.close()


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    """Map a file so that later writes leave no stamp: its one page is dirty already."""
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    with mapping:
        mapping[0:1] = mapping[0:1]
        yield mapping


def _age(path: Path) -> None:
    """Let the stat of a file be old enough that hpcc would remember it."""
    deadline = path.stat().st_ctime + 2.1
    while time.time() < deadline:
        time.sleep(0.05)


def _is_right(launcher: FakeLauncher) -> bool:
    found = (launcher.cwd / "out.o").read_bytes()
    run_bare((*_ARGV[:-1], "bare.o"), cwd=launcher.cwd)
    return found == (launcher.cwd / "bare.o").read_bytes()


def test_a_header_that_changes_under_an_equal_stat_gives_no_old_object(
    cache: Cache, project: Any
) -> None:
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    header = launcher.cwd / "inc/conf.h"
    header.write_text("#define CONF 1\n")
    with _mapped(header) as mapping:
        _age(header)
        before = signature_of(header.stat())
        for number in range(1, 5):
            mapping[_VALUE_AT : _VALUE_AT + 1] = b"%d" % number
            assert signature_of(header.stat()) == before, (
                "the attack needs a stat that does not change"
            )
            launcher.compile(*_ARGV)
            assert _is_right(launcher), number
        assert cache.counters().get("uncacheable.modified-during-compile") == 4
    _age(header)
    assert launcher.compile(*_ARGV).answer == "run"
    for _ in range(2):
        assert launcher.compile(*_ARGV).answer == "done"
        assert _is_right(launcher)


def test_a_remembered_header_that_is_mapped_later_gives_no_old_object(
    cache: Cache, project: Any
) -> None:
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    header = launcher.cwd / "inc/conf.h"
    header.write_text("#define CONF 1\n")
    _age(header)
    for _ in range(3):
        launcher.compile(*_ARGV)
    with _mapped(header) as mapping:
        for number in range(2, 4):
            mapping[_VALUE_AT : _VALUE_AT + 1] = b"%d" % number
            launcher.compile(*_ARGV)
            assert _is_right(launcher), number
            _age(header)


@pytest.mark.parametrize("digest", [lambda m, p: m.digest(p), lambda m, p: m.examine(p)])
def test_a_file_that_is_open_for_writing_has_no_digest(
    tmp_path: Path, digest: Callable[[FileMemo, bytes], object]
) -> None:
    path = tmp_path / "a.h"
    path.write_text("int a;\n")
    memo = FileMemo(time.time_ns)
    with path.open("ab"):
        assert digest(memo, os.fsencode(path)) is None
    assert digest(memo, os.fsencode(path)) is not None


def test_asking_for_writers_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.h"
    path.write_text("int a;\n")
    with path.open("rb") as file:
        assert not has_writer(file.fileno())
        # A lease that stayed would answer this with BlockingIOError.
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
