"""Clang names OpenMP target regions by device and inode of their file: a new file is a miss."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

from .conftest import Project

_REGION = "#pragma omp target\n  for (int i = 0; i < n; i++) a[i]++;\n"
_TEXT = "static void work(int *a, int n) {\n" + _REGION + "}\nvoid f(int *a) { work(a, 9); }\n"
_ARGV = ("clang", "-fopenmp", "-Iinc", "-c", "src/region.c", "-o", "build/region.o")


def _bare(launcher: FakeLauncher) -> bytes:
    assert run_bare(_ARGV, cwd=launcher.cwd)[0] == 0
    return (launcher.cwd / "build/region.o").read_bytes()


def _cached(launcher: FakeLauncher) -> tuple[str, bytes]:
    answer = launcher.compile(*_ARGV).answer
    return answer, (launcher.cwd / "build/region.o").read_bytes()


@pytest.mark.parametrize("place", ["src/region.c", "inc/region.h"])
def test_a_source_that_was_made_anew_is_a_miss(
    place: str, launcher: FakeLauncher, project: Project
) -> None:
    project.write("src/region.c", "#include <region.h>\n" if place.endswith("h") else _TEXT)
    path = project.write(place, _TEXT)
    project.settle()
    first = _bare(launcher)
    assert [_cached(launcher), _cached(launcher)] == [("run", first), ("done", first)]
    copy = project.write(f"{place}.new", _TEXT)
    os.utime(copy, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    path.rename(path.with_suffix(".old"))
    copy.rename(path)
    project.settle()
    second = _bare(launcher)
    assert second != first
    assert [_cached(launcher), _cached(launcher)] == [("run", second), ("done", second)]
    path.rename(copy)
    path.with_suffix(".old").rename(path)
    project.settle()
    assert _cached(launcher) == ("done", first)


def test_a_region_whose_file_is_no_input_is_not_kept(
    launcher: FakeLauncher, project: Project, cache: Cache
) -> None:
    project.write("other.y", "")
    project.write("src/region.c", '#line 1 "other.y"\n' + _TEXT)
    project.settle()
    expected = _bare(launcher)
    assert [_cached(launcher), _cached(launcher)] == [("run", expected)] * 2
    assert cache.counters()["uncacheable.openmp-target"] == 2


def test_a_guests_object_with_a_place_is_not_taken(
    make_cache: Callable[..., Cache], project: Project
) -> None:
    remote = FakeRemote()
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    project.write("src/region.c", _TEXT)
    project.settle()
    expected = _bare(launcher)
    assert _cached(launcher) == ("run", expected)
    assert len(remote.requests) == 1
    assert cache.counters()["fallback.openmp-target"] == 1
