"""Files that were written a moment before the compile: kept, hit, and never served for another content."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base.api import RemoteClient
from hpcc.cache.base.stamps import StampClock
from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare

_ARGV = ("gcc", "-Iearly", "-Iinc", "-c", "src/main.c", "-o", "out.o")
_MANY, _FEW = 8, 2
Make = Callable[..., Cache]


@pytest.fixture
def make(paths: Paths) -> Iterator[Make]:
    """Open caches whose clock believes the tests' file system."""
    opened: list[Cache] = []

    def one(clock: StampClock, remote: RemoteClient | None = None) -> Cache:
        opened.append(open_cache(paths, Settings(), remote, clock=clock))
        return opened[-1]

    yield one
    for cache in opened:
        cache.close()


def _generate(path: Path, text: str) -> None:
    """Write a file as generators do: beside its name, then renamed to it."""
    aside = path.with_name(path.name + ".new")
    aside.write_text(text)
    aside.replace(path)


def _is_right(launcher: FakeLauncher, argv: tuple[str, ...] = _ARGV) -> bool:
    """Tell whether the object is what the bare compiler makes now."""
    found = (launcher.cwd / "out.o").read_bytes()
    run_bare((*argv[:-1], "bare.o"), cwd=launcher.cwd)
    return found == (launcher.cwd / "bare.o").read_bytes()


def _refused(cache: Cache) -> dict[str, int]:
    return {n: v for n, v in cache.counters().items() if n.startswith("uncacheable.") and v}


def test_a_header_that_is_compiled_at_once_is_kept_every_time(make: Make, project: Any) -> None:
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    for number in range(_MANY):
        _generate(launcher.cwd / "inc/conf.h", f"#define CONF {number}\n")
        assert launcher.compile(*_ARGV).answer == "run"
        assert launcher.compile(*_ARGV).answer == "done", number
        assert _is_right(launcher)
    assert _refused(cache) == {}


def test_a_source_that_is_compiled_at_once_is_kept_every_time(make: Make, project: Any) -> None:
    """As configure does: each source is new, and so is its directory's entry."""
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    for number in range(_MANY):
        project.write("conftest.c", f"int main(void) {{ return {number}; }}\n")
        argv = ("gcc", "-c", "conftest.c", "-o", "out.o")
        assert launcher.compile(*argv).answer == "run"
        assert launcher.compile(*argv).answer == "done", number
        assert _is_right(launcher, argv)
    assert _refused(cache) == {}


def test_two_writes_at_once_are_two_contents(make: Make, project: Any) -> None:
    """Both may get one stamp. The results are kept; look-ups hash young files anew."""
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    header = launcher.cwd / "inc/conf.h"
    for number in range(_MANY):
        header.write_text(f"#define CONF {number}\n")
        launcher.compile(*_ARGV)
        header.write_text(f"#define CONF {number + 50:d}\n"[: len(header.read_text())])
        launcher.compile(*_ARGV)
        assert _is_right(launcher), number
        header.write_text(f"#define CONF {number}\n")
        launcher.compile(*_ARGV)
        assert _is_right(launcher), number


@pytest.mark.parametrize("moment", ["before_run", "after_run"])
@pytest.mark.parametrize("name", ["inc/conf.h", "src/main.c", "src/util.h"])
def test_a_young_file_that_changes_during_the_compile_is_not_kept(
    make: Make, project: Any, moment: str, name: str
) -> None:
    """Exactly between the daemon's answer and the compiler's start, or after its end."""
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    path = launcher.cwd / name
    first = path.read_text()
    for number in range(_FEW):
        _generate(path, f"{first}/* {number} */\nstatic int a{number};\n")
        setattr(
            launcher, moment,
            lambda _run, number=number: _rewrite(path, f"a{number};", f"b{number};"),
        )  # fmt: skip
        assert launcher.compile(*_ARGV).answer == "run"
        assert _refused(cache) == {"uncacheable.modified-during-compile": number + 1}
        setattr(launcher, moment, lambda _run: None)
        # The content that came during the compile, then the one that it began with.
        for old, new in (("b", "b"), ("b", "a")):
            _rewrite(path, f"{old}{number};", f"{new}{number};")
            launcher.compile(*_ARGV)
            assert _is_right(launcher), number
    # Only results of contents that stayed were stored, and they are hit. Where stamps are ticks, the
    # last one may have been rewritten in the tick in which its compile began.
    launcher.compile(*_ARGV)
    assert launcher.compile(*_ARGV).answer == "done"
    assert _is_right(launcher)


def _rewrite(path: Path, old: str, new: str) -> None:
    """Change a file in place; its size stays."""
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("seconds", [-3600, 3600])
def test_a_clock_that_is_set_during_the_compile_makes_nothing_to_keep(
    make: Make, project: Any, seconds: int
) -> None:
    clock = TrustedClock()
    cache = make(clock)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)

    def set_clock(_run: object) -> None:
        clock.set_by_ns += seconds * 10**9

    launcher.after_run = set_clock
    assert launcher.compile(*_ARGV).answer == "run"
    assert _refused(cache) == {"uncacheable.clock-set": 1}
    launcher.after_run = lambda _run: None
    assert launcher.compile(*_ARGV).answer == "run"
    assert launcher.compile(*_ARGV).answer == "done"


def test_on_an_unknown_file_system_a_young_header_is_not_kept(make: Make, project: Any) -> None:
    cache = make(TrustedClock(knows_files=False))
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    # Ahead of the present, so that no slow machine makes it old enough.
    os.utime(launcher.cwd / "inc/conf.h", (2**31 - 10, 2**31 - 10))
    assert launcher.compile(*_ARGV).answer == "run"
    assert _refused(cache) == {"uncacheable.modified-during-compile": 1}
    assert launcher.compile(*_ARGV).answer == "run"


def test_a_modification_time_of_the_future_says_nothing(make: Make, project: Any) -> None:
    """A tool may set it to any value; ctime tells when it did."""
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    os.utime(launcher.cwd / "inc/conf.h", (2**31 - 10, 2**31 - 10))
    project.settle()
    assert launcher.compile(*_ARGV).answer == "run"
    assert launcher.compile(*_ARGV).answer == "done"
    (launcher.cwd / "inc/conf.h").write_text("#define CONF 9\n")
    os.utime(launcher.cwd / "inc/conf.h", (2**31 - 10, 2**31 - 10))
    assert launcher.compile(*_ARGV).answer == "run"
    assert _is_right(launcher)


def test_a_change_that_no_stamp_shows_is_seen_in_a_known_young_file(
    make: Make, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that was stopped between stamp and bytes: here no input's stamp counts at all."""
    for module in ("closure", "lookup"):
        monkeypatch.setattr(f"hpcc.cache.inputs.{module}.is_fresh", lambda *_: False)
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    header = launcher.cwd / "inc/conf.h"
    launcher.compile(*_ARGV)
    header.write_text("#define CONF 1\n")
    launcher.before_run = lambda _run: header.write_text("#define CONF 2\n") and None
    assert launcher.compile(*_ARGV).answer == "run"
    assert _refused(cache) == {"uncacheable.modified-during-compile": 1}


@pytest.mark.parametrize("changes", [False, True])
def test_a_compile_on_a_farm_keeps_young_files_by_the_same_rule(
    make: Make, project: Any, changes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the text is not enough, the compiler is asked, and a change may come in between."""
    remote = FakeRemote()
    cache = make(TrustedClock(), remote)
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    argv = ("gcc", "-Iinc", "-DH(x)=<x.h>", "-c", "src/asks.c", "-o", "out.o")
    project.write("src/asks.c", "#include H(conf)\nint value = CONF;\n")
    _generate(launcher.cwd / "inc/conf.h", "#define CONF 3\n")
    compile_there = remote.compile

    def compile_and_change(request: Any, is_cancelled: Any) -> Any:
        outcome = compile_there(request, is_cancelled)
        if changes:
            (launcher.cwd / "inc/conf.h").write_text("#define CONF 4\n")
        return outcome

    monkeypatch.setattr(remote, "compile", compile_and_change)
    assert launcher.compile(*argv).exit_code == 0
    counters = cache.counters()
    assert [n for n in counters if n.startswith("closure.asked.")], counters
    assert counters.get("uncacheable.modified-during-compile", 0) == int(changes)
    changes = False
    launcher.compile(*argv)
    assert len(remote.requests) == (2 if counters.get("uncacheable.modified-during-compile") else 1)
    assert _is_right(launcher, argv)


@pytest.mark.parametrize("moment", ["before_run", "after_run"])
@pytest.mark.parametrize("how", ["in-place", "replaced", "removed"])
def test_a_response_file_that_changes_during_the_compile_makes_nothing_to_keep(
    make: Make, project: Any, moment: str, how: str
) -> None:
    """Its arguments are in the key as they were before, and the compiler may read others."""
    cache = make(TrustedClock())
    launcher = FakeLauncher(handler=cache, cwd=project.directory)
    project.write("src/number.c", "#ifndef N\n#define N 0\n#endif\nint n = N;\n")
    argv = ("gcc", "@flags", "-c", "src/number.c", "-o", "out.o")
    flags = project.write("flags", "-DN=1 @more\n")
    more = project.write("more", "-DM=1\n")

    def change(_run: object) -> None:
        if how == "in-place":
            flags.write_text("-DN=2 @more\n")
        elif how == "replaced":
            _generate(more, "-DM=2\n")
        elif moment == "after_run":
            more.unlink()
        else:
            more.write_text("")

    setattr(launcher, moment, change)
    assert launcher.compile(*argv).answer == "run"
    is_gone = (how, moment) == ("removed", "after_run")
    reason = "input-vanished" if is_gone else "modified-during-compile"
    assert _refused(cache) == {f"uncacheable.{reason}": 1}
    setattr(launcher, moment, lambda _run: None)
    flags.write_text("-DN=1 @more\n")
    more.write_text("-DM=1\n")
    for answer in ("run", "done"):
        assert launcher.compile(*argv).answer == answer
        assert _is_right(launcher, argv)
    flags.write_text("-DN=2 @more\n")
    assert launcher.compile(*argv).answer == "run"
    assert _is_right(launcher, argv)
