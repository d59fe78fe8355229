"""Damage, full disks and races each end in a correct object and a counted reason."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base.api import Done, Exec, Run, RunReport
from hpcc.cache.cache import Cache
from hpcc.cache.results import scratch
from hpcc.cache.results.inflight import Inflight
from hpcc.config.paths import Paths
from hpcc.config.settings import CacheSettings, Settings
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

_ARGV = ("gcc", "-Iinc", "-MD", "-c", "src/main.c", "-o", "out.o")


def _entries(paths: Paths) -> list[Path]:
    return [p for p in (paths.cache / "private").rglob("*") if p.is_file() and len(p.name) > 60]


def _wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        time.sleep(0.01)
    pytest.fail("it never held")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "appended", "swapped"])
def test_a_damaged_entry_is_a_miss_and_is_replaced(
    damage: str,
    make_cache: Callable[..., Cache],
    launcher: FakeLauncher,
    cache: Cache,
    paths: Paths,
) -> None:
    launcher.compile(*_ARGV)
    good = (launcher.cwd / "out.o").read_bytes()
    files = _entries(paths)
    # A manifest and a result in one file, an entry by content, the definitions of two headers.
    assert len(files) == 5
    assert len({f.stat().st_ino for f in files}) == 3
    contents = [f.read_bytes() for f in files]
    for index, file in enumerate(files):
        data = contents[index]
        match damage:
            case "flipped":
                data = data[:-10] + bytes([data[-10] ^ 1]) + data[-9:]
            case "truncated":
                data = data[: len(data) // 2]
            case "empty":
                data = b""
            case "appended":
                data += b"x"
            case _:
                data = next(c for c in contents if c != data)
        file.write_bytes(data)
    launcher.handler = fresh = make_cache()  # nothing in memory
    assert launcher.compile(*_ARGV).answer == "run"
    assert (launcher.cwd / "out.o").read_bytes() == good
    assert fresh.counters()["store.corrupt"] >= 1
    launcher.handler = make_cache()
    assert launcher.compile(*_ARGV).answer == "done"


def test_a_store_that_cannot_be_written_costs_only_the_hit(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, paths: Paths
) -> None:
    paths.cache.mkdir(parents=True)
    (paths.cache / "private").write_text("not a directory")
    launcher.handler = cache = make_cache()
    for _ in range(2):
        ended = launcher.compile(*_ARGV)
        assert (ended.answer, ended.exit_code) == ("run", 0)
    assert cache.counters()["store.write-error"] == 2
    assert cache.counters()["uncacheable.store"] == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_lets_the_compile_go_on(
    make_cache: Callable[..., Cache], launcher: FakeLauncher, paths: Paths
) -> None:
    private = paths.cache / "private"
    private.mkdir(parents=True)
    code, _, _ = run_bare(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "hpcc-test", str(private)], cwd=paths.cache
    )
    if code:
        pytest.skip("this container may not mount")
    try:
        launcher.handler = cache = make_cache()
        for index in range(6):
            ended = launcher.compile(*_ARGV, f"-DN={index}")
            assert (ended.answer, ended.exit_code) == ("run", 0)
        assert cache.counters()["store.disk-full"] >= 1
        assert not [p for p in private.iterdir() if p.name.startswith(".tmp-")]
    finally:
        run_bare(["umount", str(private)], cwd=paths.cache)


def test_results_larger_than_allowed_are_not_kept(
    make_cache: Callable[..., Cache], launcher: FakeLauncher
) -> None:
    launcher.handler = cache = make_cache(
        settings=Settings(cache=CacheSettings(max_entry_bytes=100))
    )
    for _ in range(2):
        assert launcher.compile(*_ARGV).answer == "run"
    assert cache.counters()["uncacheable.output-unreadable"] == 2


def test_a_cleaned_store_is_noticed(launcher: FakeLauncher, cache: Cache, paths: Paths) -> None:
    from hpcc.store.private import PrivateStore

    launcher.compile(*_ARGV)
    assert launcher.compile(*_ARGV).answer == "done"
    other = PrivateStore(
        str(paths.cache / "private"),
        max_size_bytes=1 << 30,
        max_entry_bytes=1 << 30,
        now=lambda: 0.0,
    )
    other.trim(0)
    other.bump_epoch()
    assert cache.counters()["store.entries"] == 0
    assert launcher.compile(*_ARGV).answer == "run"
    assert cache.counters()["store.entries"] == 5


def test_a_run_that_never_reports_leaves_nothing(
    launcher: FakeLauncher, cache: Cache, paths: Paths
) -> None:
    argv = ("gcc", "-Iinc", "-c", "src/main.c", "-o", "out.o")
    request = launcher.request(argv)
    run = cache.begin(request, lambda: False)
    assert isinstance(run, Run)
    run_bare(run.argv, cwd=launcher.cwd)
    assert list((paths.run / "deps").iterdir())
    cache.abandon(request, run)
    assert not list((paths.run / "deps").iterdir())
    assert launcher.compile(*argv).answer == "run"


def test_private_depfiles_of_a_dead_daemon_are_removed(
    make_cache: Callable[..., Cache], paths: Paths
) -> None:
    deps = paths.run / "deps"
    deps.mkdir(parents=True)
    (deps / "4194999-0.d").write_text("x")
    (deps / f"{os.getpid()}-0.d").write_text("x")
    make_cache()
    assert [p.name for p in deps.iterdir()] == [f"{os.getpid()}-0.d"]


def test_equal_compiles_at_once_run_the_compiler_once(launcher: FakeLauncher, cache: Cache) -> None:
    request = launcher.request(_ARGV)
    leader = cache.begin(request, lambda: False)
    assert isinstance(leader, Run)
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.append(cache.begin(request, lambda: False)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    code, out, err = run_bare(leader.argv, cwd=launcher.cwd)
    cache.finish(request, leader, RunReport(code, 0, out, err, is_truncated=False))
    for thread in threads:
        thread.join(20)
    assert [type(a) for a in answers] == [Done] * 4
    counters = cache.counters()
    assert (counters["miss.local"], counters["hit.local"]) == (1, 4)
    assert counters["dedup.waited"] >= 1


def test_one_source_of_two_targets_at_once_is_compiled_once(
    launcher: FakeLauncher, cache: Cache
) -> None:
    first = launcher.request(_ARGV)
    leader = cache.begin(first, lambda: False)
    assert isinstance(leader, Run)
    other = launcher.request(tuple("other.o" if word.endswith(".o") else word for word in _ARGV))
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(cache.begin(other, lambda: False)))
    thread.start()
    _wait_until(lambda: cache.counters().get("dedup.waited") == 1)
    code, out, err = run_bare(leader.argv, cwd=launcher.cwd)
    cache.finish(first, leader, RunReport(code, 0, out, err, is_truncated=False))
    thread.join(20)
    assert [type(a) for a in answers] == [Done]
    counters = cache.counters()
    assert (counters["miss.local"], counters["hit.content"]) == (1, 1)
    assert (launcher.cwd / "other.o").read_bytes() == (launcher.cwd / "out.o").read_bytes()


def test_one_source_of_two_targets_is_compiled_for_each_if_the_first_leaves_no_result(
    launcher: FakeLauncher, cache: Cache
) -> None:
    first = launcher.request(_ARGV)
    leader = cache.begin(first, lambda: False)
    assert isinstance(leader, Run)
    answers: list[Done | Exec | Run] = []
    others = [
        launcher.request(tuple(name if word.endswith(".o") else word for word in _ARGV))
        for name in ("a.o", "b.o")
    ]
    threads = [
        threading.Thread(target=lambda r=other: answers.append(cache.begin(r, lambda: False)))
        for other in others
    ]
    for thread in threads:
        thread.start()
    _wait_until(lambda: cache.counters().get("dedup.waited") == 2)
    cache.abandon(first, leader)
    for thread in threads:
        thread.join(20)
    # Each waited once, so both compile now.
    assert [type(a) for a in answers] == [Run, Run]


def test_the_second_target_is_compiled_if_a_header_was_edited_meanwhile(
    launcher: FakeLauncher, cache: Cache
) -> None:
    (launcher.cwd / "first.h").write_text("#define V 1\n")
    (launcher.cwd / "uses.c").write_text('#include "first.h"\nint value = V;\n')
    words = ("gcc", "-c", "uses.c", "-o")
    first = launcher.request((*words, "one.o"))
    leader = cache.begin(first, lambda: False)
    assert isinstance(leader, Run)
    other = launcher.request((*words, "two.o"))
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(cache.begin(other, lambda: False)))
    thread.start()
    _wait_until(lambda: cache.counters().get("dedup.waited") == 1)
    code, out, err = run_bare(leader.argv, cwd=launcher.cwd)
    (launcher.cwd / "first.h").write_text("#define V 22\n")
    cache.finish(first, leader, RunReport(code, 0, out, err, is_truncated=False))
    thread.join(20)
    assert [type(a) for a in answers] == [Run]


def test_when_the_leader_dies_exactly_one_waiter_takes_over(
    launcher: FakeLauncher, cache: Cache
) -> None:
    request = launcher.request(_ARGV)
    leader = cache.begin(request, lambda: False)
    assert isinstance(leader, Run)
    answers: list[Done | Exec | Run] = []
    woken = threading.Event()

    def wait() -> None:
        answers.append(cache.begin(request, lambda: False))
        woken.set()

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    cache.abandon(request, leader)
    assert woken.wait(20)
    heir = answers[0]
    assert isinstance(heir, Run)
    threads[0].join(0.3)
    assert len(answers) == 1
    code, out, err = run_bare(heir.argv, cwd=launcher.cwd)
    cache.finish(request, heir, RunReport(code, 0, out, err, is_truncated=False))
    for thread in threads:
        thread.join(20)
    assert sorted(type(a).__name__ for a in answers) == ["Done", "Done", "Run"]


def test_a_waiter_whose_launcher_vanished_stops_waiting() -> None:
    inflight = Inflight(wait_seconds=60)
    flight = inflight.lead(b"k")
    assert inflight.lead(b"k") is None
    assert not inflight.wait(b"k", lambda: True)
    inflight.release(flight)
    inflight.release(flight)
    assert inflight.wait(b"k", lambda: True)


def test_waiting_is_bounded() -> None:
    inflight = Inflight(wait_seconds=0.2)
    inflight.lead(b"k")
    assert not inflight.wait(b"k", lambda: False)


def test_a_fault_of_ours_is_a_bypass(
    launcher: FakeLauncher, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cache._local, "begin", broken)
    ended = launcher.compile(*_ARGV)
    assert (ended.answer, ended.reason, ended.exit_code) == ("exec", "internal-error", 0)
    monkeypatch.undo()
    monkeypatch.setattr(cache._local, "_store", broken)
    assert launcher.compile(*_ARGV).exit_code == 0
    assert cache.counters()["uncacheable.internal-error"] == 1


def test_a_list_of_headers_is_never_an_earlier_compiles(
    launcher: FakeLauncher, cache: Cache, paths: Paths
) -> None:
    """If a compiler writes no list, the file is empty, and hpcc stores no result."""
    for number in range(12):  # until files are used again
        words = ("gcc", "-Iinc", f"-DN={number}", "-c", "src/main.c", "-o", "out.o")
        assert launcher.compile(*words).answer == "run"
    left = {path.name for path in (paths.run / "deps").iterdir()}
    assert 0 < len(left) < 12
    before = cache.counters()["store.entries"]
    request = launcher.request(("gcc", "-Iinc", "-DX", "-c", "src/main.c", "-o", "out.o"))
    run = cache.begin(request, lambda: False)
    assert isinstance(run, Run)
    lists = [Path(os.fsdecode(a).rpartition(",")[2]) for a in run.argv if b"/deps/" in a]
    assert lists
    assert {(path.name in left, path.read_bytes()) for path in lists} == {(True, b"")}
    # The user's own command: an object, and no private files.
    code, out, err = run_bare(
        ("gcc", "-Iinc", "-DX", "-c", "src/main.c", "-o", "out.o"), cwd=launcher.cwd
    )
    cache.finish(request, run, RunReport(code, 0, out, err, is_truncated=False))
    counters = cache.counters()
    # Where stamps are exact, the file is known to be from before this compile.
    refused = (
        counters.get("uncacheable.depfile", 0),
        counters.get("uncacheable.depfile-unreadable", 0),
    )
    assert (sum(refused), counters["store.entries"]) == (1, before)


@pytest.mark.parametrize(
    ("stdout", "stderr", "is_kept"),
    [
        (b"", b"", True),
        (b"dump\n", b"", True),
        (b"", b"seen\n", True),
        (b"dump\n", b"seen\n", False),
    ],
)
def test_a_compile_that_wrote_to_both_streams_is_not_kept(
    launcher: FakeLauncher, cache: Cache, stdout: bytes, stderr: bytes, is_kept: bool
) -> None:
    request = launcher.request(("gcc", "-Iinc", "-MD", "-c", "src/main.c", "-o", "out.o"))
    run = cache.begin(request, lambda: False)
    assert isinstance(run, Run)
    run_bare(run.argv, cwd=launcher.cwd)
    cache.finish(request, run, RunReport(0, 0, stdout, stderr, is_truncated=False))
    again = cache.begin(request, lambda: False)
    if is_kept:
        assert isinstance(again, Done)
        assert (again.stdout, again.stderr) == (stdout, stderr)
    else:
        assert isinstance(again, Run)
        assert cache.counters()["uncacheable.both-streams"] == 1


@pytest.fixture
def small_disk(paths: Paths) -> Iterator[Path]:
    """A file system of 64 KiB for the files that compilers write for hpcc."""
    private = paths.run / "deps"
    private.mkdir(parents=True, exist_ok=True)
    code, _, _ = run_bare(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "hpcc-test", str(private)], cwd=paths.run
    )
    if code:
        pytest.skip("this container may not mount")
    yield private
    run_bare(["umount", str(private)], cwd=paths.run)


def _fill(directory: Path) -> None:
    with contextlib.suppress(OSError), (directory / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


_STRICT = ("-Wa,--fatal-warnings", "-c", "-o", "out.o")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("compiler", ["gcc", "gcc-14", "clang", "clang-19"])
def test_no_compiler_complains_about_our_files_on_a_full_disk(
    compiler: str,
    make_cache: Callable[..., Cache],
    launcher: FakeLauncher,
    small_disk: Path,
) -> None:
    launcher.handler = make_cache()
    _fill(small_disk)
    argv = (compiler, "-Iinc", "src/main.c", *_STRICT)
    ended = launcher.compile(*argv)
    assert (ended.answer, ended.exit_code, ended.stderr) == ("run", 0, b"")
    assert launcher.compile(*argv).answer == "done"  # asked for its files over a pipe


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("compiler", ["gcc", "gcc-14", "clang-19"])
@pytest.mark.parametrize("source", ["src/main.c", "low.s"])
def test_a_disk_that_becomes_full_during_a_compile_is_not_seen_either(
    compiler: str,
    source: str,
    make_cache: Callable[..., Cache],
    launcher: FakeLauncher,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scratch, "_FULL_BYTES", 0)
    monkeypatch.setattr(scratch, "_FULL_FILES", 0)
    launcher.handler = cache = make_cache()
    _fill(small_disk)
    (launcher.cwd / "low.s").write_text(".byte 1\n")
    argv = (compiler, "-Iinc", source, *_STRICT)
    ended = launcher.compile(*argv)
    assert (ended.exit_code, ended.stderr) == (0, b"")
    if source == "low.s":
        ended = launcher.compile(*argv[:3], "-c", "-o", "out.o")
        assert (ended.exit_code, ended.stderr) == (0, b"")
        assert "clang" in compiler or cache.counters()["uncacheable.depfile-unreadable"]
